"""A trial as it is kept: one JSON file, written when it starts and again when it ends."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gangru_dist.storage import Storage

Status = Literal["running", "complete", "pruned", "diverged", "failed"]
FOLDER = "trials"


@dataclass(kw_only=True)
class TrialRecord:
    """Everything known of one trial; plain JSON types."""

    number: int
    """From 0; trial 0 is the configuration as it stands."""
    settings: dict[str, Any]
    """Dotted key -> value of the searched settings."""
    status: Status = "running"
    """`running` is also what a killed search leaves behind: that trial starts again."""
    starts: int = 1
    """How often it was begun."""
    reports: list[list[float]] = field(default_factory=list)
    """[step, running mean of validation IC] after each predictor epoch."""
    objective: float | None = None
    """Of a complete trial alone."""
    mean_ic: float | None = None
    """Of the windows begun, as last reported."""
    window_ics: list[float] = field(default_factory=list)
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


def _name(number: int) -> str:
    return f"{FOLDER}/{number:04d}.json"


def write_record(folder: Storage, record: TrialRecord) -> None:
    """Write a trial's file, whole or not at all."""
    folder.write_json(_name(record.number), asdict(record))


def read_records(folder: Storage) -> list[TrialRecord]:
    """Every trial there is, by number."""
    names = [name for name in folder.list_files(FOLDER) if name.endswith(".json")]
    return [TrialRecord(**folder.read_json(name)) for name in sorted(names)]


def best_of(records: list[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the highest objective; the earlier of two equals."""
    complete = [record for record in records if record.objective is not None]
    return max(complete, key=lambda r: (r.objective or 0.0, -r.number), default=None)
