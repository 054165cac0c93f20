"""The base class of callbacks, one's own and ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gangru_dist.runs.run import Run


@dataclass(frozen=True)
class Series:
    """What figures belong to: one model, one trial, or a run's report."""

    job: Literal["train", "tune", "report"]
    name: str
    """`<refit day>/seed-<s>`, `tune/trial-<number>` or `report`; unique in a run."""
    identity: str
    """Changes with what decides the figures, such as settings or panel: then they start anew."""


class Callback:
    """Receives what a job computes; override what you need.

    `--set 'callbacks=["my_package.module:Class"]'` asks for it. A job makes one object, in the
    driver, and calls it from one thread beside the work, so it may take its time. What it raises
    becomes a line of the log. Nothing is sent twice, not even after an interrupted job.
    """

    def __init__(self, run: Run) -> None:
        """Raise ConfigError for what the user should mend before the job starts."""
        self.run = run

    def on_figures(self, series: Series, step: int, figures: Mapping[str, float]) -> None:
        """Figures at a step of a series.

        Args:
            series: Of job `train`, `tune` or `report`.
            step: Epoch of the stage, from 1; of a trial the predictor epoch over all windows; of a
                report its number of months.
            figures: `gan/…` and `predictor/…`: losses, IC, speed; of a trial `mean_ic`, the running
                mean of validation IC; of a report the numbers of `metrics.json`, such as `ic/mean`.
        """

    def on_done(
        self, series: Series, status: str, figures: Mapping[str, float], facts: Mapping[str, Any]
    ) -> None:
        """A model, trial or report is finished.

        Args:
            series: Which one.
            status: Of a model `trained`, `resumed`, `finished before` or `failed`; of a trial
                `complete`, `pruned`, `diverged` or `failed`; of a report `written`.
            figures: Of the whole: `best_valid_ic`, `objective`, `epochs`, `seconds`, …
            facts: A trial's settings, the page of a report, the reason of a failure, …
        """

    def close(self) -> None:
        """Free what was opened; called once, at the end of the job."""
