"""Records of a hyperparameter search: `search.json`, one file per trial, and their table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from gangru_dist.base.records import find_record, write_record
from gangru_dist.base.storage import Storage

SEARCH, TRIALS = "search.json", "trials"
Status = Literal["running", "complete", "pruned", "diverged", "failed"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial; its file is written when it starts and again when it ends."""

    number: int
    """From 0; trial 0 is the unchanged configuration."""
    settings: dict[str, Any]
    """Dotted key -> value of the searched settings."""
    status: Status = "running"
    """A killed search leaves `running` trials behind; they start again."""
    starts: int = 1
    """How often the trial was started."""
    reports: tuple[tuple[int, float], ...] = ()
    """Step and running mean of validation IC after each predictor epoch."""
    objective: float | None = None
    """None unless the trial is complete."""
    mean_ic: float | None = None
    """Mean validation IC of the windows started so far, as last reported."""
    window_ics: tuple[float, ...] = ()
    windows_done: int = 0
    epochs: int = 0
    """Predictor epochs over all windows."""
    gan_epochs: int = 0
    seconds: float = 0.0
    reason: str = ""
    """Why it diverged or failed."""

    @property
    def is_over(self) -> bool:
        """Whether the trial has ended."""
        return self.status != "running"

    @property
    def current_objective(self) -> float | None:
        """The objective of a complete trial, else its running mean."""
        return self.mean_ic if self.objective is None else self.objective


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Range of a searched setting."""

    kind: Literal["float", "int"]
    low: int | float
    high: int | float
    log: bool
    step: float | None


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Values of a searched setting."""

    kind: Literal["choice"] = "choice"
    choices: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """A search without its trials."""

    identity: dict[str, Any]
    """What decides its trials; see `tuning.queue.describe_search`."""
    windows: tuple[str, ...]
    """Refit days of every trial."""
    reported_first: str | None
    """First refit day not used for tuning; None if `windows.last` is before it."""
    overlap: tuple[str, ...]
    """Refit days used for tuning that are also reported."""
    incomparable: tuple[str, ...]
    """Searched settings that make validation ICs incomparable."""
    space: dict[str, Annotated[Numbers | Choices, Field(discriminator="kind")]]
    """Dotted key -> values, for every searched setting."""
    asked_trials: int
    spread_penalty: float
    best_trial: int | None
    importances: dict[str, float]
    """Dotted key -> share, largest first."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search and its trials, in order of their numbers."""

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
    """All trials in a folder, by number; StorageError if a file is damaged."""
    names = [name for name in folder.list_files(TRIALS) if name.endswith(".json")]
    found = (find_record(TrialRecord, folder, name) for name in sorted(names))
    return tuple(trial for trial in found if trial is not None)


def write_trial(folder: Storage, trial: TrialRecord) -> None:
    """Write a trial's file, atomically."""
    write_record(folder, f"{TRIALS}/{trial.number:04d}.json", trial)


def find_best_trial(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the highest objective; ties go to the earlier trial."""
    complete = [trial for trial in trials if trial.objective is not None]
    return max(complete, key=lambda trial: (trial.objective or 0.0, -trial.number), default=None)


def make_trial_table(search: Search) -> pd.DataFrame:
    """One row per trial, with the IC of each window and each searched setting.

    `reached` is the objective of a complete trial, else the mean at which it was stopped; `best`
    is the highest objective so far. Lists are JSON text, what is unknown is NaN.
    """
    windows = [f"valid_ic {name}" for name in search.record.windows]
    rows = [
        {
            "trial": trial.number,
            "status": trial.status,
            "objective": trial.objective,
            "mean_valid_ic": trial.mean_ic,
            "std_valid_ic": np.std(trial.window_ics) if trial.window_ics else None,
            "reached": trial.current_objective,
            "windows_done": trial.windows_done,
            "epochs": trial.epochs,
            "gan_epochs": trial.gan_epochs,
            "seconds": round(trial.seconds, 1),
            "starts": trial.starts,
            **dict(zip(windows, trial.window_ics, strict=False)),
            **{
                key: json.dumps(value) if isinstance(value, list) else value
                for key, value in trial.settings.items()
            },
            "reason": trial.reason,
        }
        for trial in search.trials
    ]
    figures = ["objective", "mean_valid_ic", "std_valid_ic", "reached"]
    counts = ["windows_done", "epochs", "gan_epochs", "seconds", "starts"]
    columns = ["trial", "status", *figures, *counts, *windows, *search.record.space, "reason"]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(figures, float))
    table.insert(6, "best", table["objective"].cummax().ffill())
    return table
