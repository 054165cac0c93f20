"""What shows a job's progress: fed by `Callbacks` as callbacks are, but from this job alone."""

from __future__ import annotations

from collections.abc import Sequence

from gangru_dist.runs.model import EpochResult
from gangru_dist.runs.search import TrialRecord
from gangru_dist.runs.train_summary import WindowResult


class Watcher:
    """Does nothing; override what you need. Answers at once and raises nothing.

    A callback hears each thing once, whatever jobs it takes; a watcher hears what was finished
    before too.
    """

    def planned(self, names: Sequence[str]) -> None:
        """Models that will be trained, each `<refit day>/seed-<s>`."""

    def epoch(self, name: str, result: EpochResult, *, share: float, seconds_left: float) -> None:
        """A model has trained an epoch.

        Args:
            name: Which one.
            result: Of the epoch.
            share: Of all its epochs, of both stages, that are done.
            seconds_left: Of the whole job, if no model stops early.
        """

    def window(self, name: str, result: WindowResult) -> None:
        """A model is there, or cannot be; a window without history has its refit day as name."""

    def trial(self, trial: TrialRecord) -> None:
        """How far a trial of a search is."""
