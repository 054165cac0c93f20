"""What is kept of a hyperparameter search: `search.json`, and a file a trial."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from gangru_dist.runs.records import find_record, write_record
from gangru_dist.storage import Storage

SEARCH, TRIALS = "search.json", "trials"
Status = Literal["running", "complete", "pruned", "diverged", "failed"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """Everything known of one trial: one file, written when it starts and again when it ends."""

    number: int
    """From 0; trial 0 is the configuration as it stands."""
    settings: dict[str, Any]
    """Dotted key -> value of the searched settings."""
    status: Status = "running"
    """`running` is also what a killed search leaves behind: that trial starts again."""
    starts: int = 1
    """How often it was begun."""
    reports: tuple[tuple[int, float], ...] = ()
    """Step, and running mean of validation IC, after each predictor epoch."""
    objective: float | None = None
    """Of a complete trial alone."""
    mean_ic: float | None = None
    """Of the windows begun, as last reported."""
    window_ics: tuple[float, ...] = ()
    windows_done: int = 0
    epochs: int = 0
    """Predictor epochs, over all windows."""
    gan_epochs: int = 0
    seconds: float = 0.0
    reason: str = ""
    """Why it diverged or failed."""

    @property
    def is_over(self) -> bool:
        """Whether it never runs again."""
        return self.status != "running"

    @property
    def reached(self) -> float | None:
        """The objective of a complete trial, else the running mean it stands at."""
        return self.mean_ic if self.objective is None else self.objective


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A searched setting's range."""

    kind: Literal["float", "int"]
    low: int | float
    high: int | float
    log: bool
    step: float | None


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A searched setting's values."""

    kind: Literal["choice"] = "choice"
    choices: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """Everything of a search but the trials themselves."""

    identity: dict[str, Any]
    """What decides its trials; see `tuning.trial_queue.identity`."""
    windows: tuple[str, ...]
    """Refit days of every trial."""
    reported_first: str | None
    """First refit day that was not looked at; None if `windows.last` is before it."""
    overlap: tuple[str, ...]
    """Refit days that are looked at and reported too."""
    incomparable: tuple[str, ...]
    """Searched settings under which validation ICs do not compare."""
    space: dict[str, Annotated[Numbers | Choices, Field(discriminator="kind")]]
    """Dotted key -> values, of every searched setting."""
    asked_trials: int
    spread_penalty: float
    best_trial: int | None
    importances: dict[str, float]
    """Dotted key -> share, largest first."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search and its trials, by number."""

    record: SearchRecord
    trials: tuple[TrialRecord, ...]


def read_search(folder: Storage) -> Search | None:
    """The search in a run's `tune` folder; None if there is none.

    Raises:
        StorageError: One of its files is damaged.
    """
    record = find_record(SearchRecord, folder, SEARCH)
    return None if record is None else Search(record=record, trials=read_trials(folder))


def read_trials(folder: Storage) -> tuple[TrialRecord, ...]:
    """Every trial there is, by number; StorageError if one is damaged."""
    names = [name for name in folder.list_files(TRIALS) if name.endswith(".json")]
    found = (find_record(TrialRecord, folder, name) for name in sorted(names))
    return tuple(trial for trial in found if trial is not None)


def write_trial(folder: Storage, trial: TrialRecord) -> None:
    """Write a trial's file, whole or not at all."""
    write_record(folder, f"{TRIALS}/{trial.number:04d}.json", trial)


def best_of(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the highest objective; the earlier of two equals."""
    complete = [trial for trial in trials if trial.objective is not None]
    return max(complete, key=lambda trial: (trial.objective or 0.0, -trial.number), default=None)
