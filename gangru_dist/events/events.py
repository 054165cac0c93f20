"""What a job computes, as events: published once, by the driver, to every subscribed sink.

`log.publish` sends an event, `log.subscribe` adds a sink: any function of one event, which picks
those it knows by their type, answers at once and raises nothing. A `log.Progress` is an event too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gangru_dist.runs.model import ModelRecord, TimedEpoch
from gangru_dist.runs.search import TrialRecord
from gangru_dist.runs.summaries import WindowResult


@dataclass(frozen=True)
class ModelsPlanned:
    """The models that will be trained, each `<refit day>/seed-<s>`."""

    names: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class EpochTrained:
    """A model has trained an epoch."""

    name: str
    identity: str
    epoch: TimedEpoch
    done: int = 0
    """Epochs of the model, of both stages, that are done."""
    total: int = 1
    """Epochs of both stages, if the model does not stop early; as many as `done` in its last."""
    seconds_left: float = 0.0
    """Of the whole job, if no model stops early."""

    @property
    def share(self) -> float:
        """Share of the model's epochs that are done."""
        return self.done / self.total


@dataclass(frozen=True, kw_only=True)
class WindowDone:
    """A window and seed has a model, or cannot have one."""

    result: WindowResult
    identity: str = ""
    """Of the model that it should have."""
    model: ModelRecord | None = None
    """None = the window has none, or it cannot be read."""

    @property
    def name(self) -> str:
        """`<refit day>/seed-<s>`; the refit day alone if the window has no history."""
        seed = self.result.seed
        return self.result.window if seed is None else f"{self.result.window}/seed-{seed}"


@dataclass(frozen=True)
class TrialChanged:
    """A trial of a search has begun, reported or ended."""

    trial: TrialRecord
    identity: str
    """Of the search."""


@dataclass(frozen=True)
class RowsScored:
    """Rows of the factor table are scored."""

    rows: int


@dataclass(frozen=True)
class ReportWritten:
    """A report is written."""

    metrics: Mapping[str, Any]
    """As in `metrics.json`."""
    page: str
