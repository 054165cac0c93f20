"""Summaries of jobs.

`factor-summary.json` is about a scoring job and the factor table after it. `summary.json` has the
results of a training job by window and seed; they are also a table for the log.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from gangru_dist.base.records import to_jsonable
from gangru_dist.runs.model import ModelRecord
from gangru_dist.runs.run import Run

_logger = logging.getLogger(__name__)
TRAIN_SUMMARY = "summary.json"
Status = Literal["trained", "resumed", "finished before", "no history", "failed"]


@dataclass(frozen=True, kw_only=True)
class WindowResult:
    """Result of one window and seed."""

    window: str
    seed: int | None = None
    status: Status
    epochs: int = 0
    """Predictor epochs over all attempts."""
    best_valid_ic: float | None = None
    seconds: float = 0.0
    """Duration of the successful attempt."""
    model: str | None = None
    """First twelve digits of the weights' hash."""
    reason: str = ""
    """Why it was skipped or failed."""

    @classmethod
    def from_model(cls, model: ModelRecord, status: Status) -> Self:
        """Result of a finished model."""
        return cls(
            window=model.window,
            seed=model.seed,
            status=status,
            epochs=len(model.predictor_epochs),
            best_valid_ic=model.best_valid_ic,
            seconds=0.0 if status == "finished before" else model.seconds,
            model=model.model,
        )


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """Results of one job, by window and seed."""

    windows: tuple[WindowResult, ...]

    @property
    def failures(self) -> int:
        """Number of windows and seeds that failed."""
        return sum(result.status == "failed" for result in self.windows)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return self.failures == 0

    def format_lines(self) -> list[str]:
        """A table for the log: header, then one line per window and seed."""
        head = ("window", "seed", "status", "epochs", "valid_ic", "seconds", "model", "reason")
        rows = [head, *(_cells(result) for result in self.windows)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
        return [
            "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
            for row in rows
        ]


def _cells(result: WindowResult) -> tuple[str, ...]:
    ic = "" if result.best_valid_ic is None else f"{result.best_valid_ic:+.4f}"
    return (
        result.window,
        "" if result.seed is None else str(result.seed),
        result.status,
        str(result.epochs or ""),
        ic,
        f"{result.seconds:.0f}" if result.seconds else "",
        result.model or "",
        result.reason,
    )


def write_train_summary(run: Run, summary: TrainSummary) -> None:
    """Write `summary.json` and log the table."""
    run.folder.write_json(TRAIN_SUMMARY, {"failed": summary.failures, **to_jsonable(summary)})
    for line in summary.format_lines():
        _logger.info("%s", line)


def summarize_windows(results: Sequence[WindowResult]) -> TrainSummary:
    """Summary of these results, sorted by window and seed."""
    ordered = sorted(results, key=lambda r: (r.window, -1 if r.seed is None else r.seed))
    return TrainSummary(windows=tuple(ordered))


SCORE_SUMMARY = "factor-summary.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class DayCoverage:
    """One day of the factor table."""

    date: str
    """ISO."""
    window: str
    """Refit day of the model."""
    model: str
    """Hash of the weights that made the scores."""
    basis: str
    """Hash of the settings and of the panel up to the month before; "" = unknown, hence stale."""
    month_end: str = ""
    """Last day of the month that the panel had when the day was scored, ISO."""
    month_rows: str = ""
    """Hash of the panel's rows of the month at that time."""
    traded: int = 0
    """Assets with a bar that day."""
    universe: int = 0
    """Members of the universe; all of them are scored."""
    ranked: int = 0
    """Assets with a factor: `universe`, or 0 if there are fewer than `factor.min_assets`."""
    missing_industry: int = 0
    """Scored assets without an industry."""
    missing_market_cap: int = 0
    """Scored assets without a market cap."""
    neutralized: str = ""
    """Exposures removed: `industry+size`, `industry`, `size`, or nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unscored:
    """Days that a window should have scored but could not."""

    window: str
    first: str
    last: str
    days: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """One scoring job, and the table after it."""

    scored: int
    """Days scored by this job."""
    rows: int
    """Rows written by this job."""
    up_to_date: int
    """Days that were in the table already."""
    unscored: tuple[Unscored, ...]
    """Days that could not be scored, and why."""
    version: int
    """Version of the table after the job."""
    seconds: float
    """Wall time of the job."""
    days: Mapping[dt.date, DayCoverage] = field(repr=False)  # hundreds, in a notebook's cell
    """All days of the table, ascending."""

    @property
    def ok(self) -> bool:
        """Whether every day that belongs to a window has its scores."""
        return not self.unscored

    def to_json(self) -> dict[str, Any]:
        """Content of `factor-summary.json`: totals, unusual days, then every day."""
        return {
            "version": self.version,
            "days": len(self.days),
            "first_day": str(min(self.days, default="")),
            "last_day": str(max(self.days, default="")),
            "rows": sum(day.universe for day in self.days.values()),
            "odd_days": self.count_odd_days(),
            "unscored": [asdict(part) for part in self.unscored],
            "coverage": [asdict(day) for day in self.days.values()],
        }

    def count_odd_days(self) -> dict[str, int]:
        """Number of unusual days of the table, by kind."""
        days = list(self.days.values())
        return {
            "empty_universe": sum(day.universe == 0 for day in days),
            "too_few_assets_for_a_factor": sum(0 == day.ranked < day.universe for day in days),
            "not_neutralized_by_industry": sum("industry" not in day.neutralized for day in days),
            "not_neutralized_by_size": sum("size" not in day.neutralized for day in days),
            "some_without_industry": sum(day.missing_industry > 0 for day in days),
            "some_without_market_cap": sum(day.missing_market_cap > 0 for day in days),
        }

    def format_lines(self) -> list[str]:
        """The summary as log events."""
        odd = " ".join(f"{name}={count}" for name, count in self.count_odd_days().items() if count)
        first, last = min(self.days, default=None), max(self.days, default=None)
        return [
            f"score_done days={self.scored} rows={self.rows} up_to_date_days={self.up_to_date} "
            f"rows_per_s={self.rows / max(self.seconds, 1e-9):.0f} seconds={self.seconds:.1f}",
            f"factor_table version={self.version} days={len(self.days)} first={first} last={last}"
            + (f" days_with: {odd}" if odd else ""),
            *(
                f"unscored window={part.window} days={part.days} first={part.first} "
                f"last={part.last} reason={part.reason}"
                for part in self.unscored
            ),
        ]


def write_score_summary(run: Run, summary: ScoreSummary) -> None:
    """Write `factor-summary.json` and log the summary.

    The file repeats the coverage in the table itself; after a kill, the next job corrects it.
    """
    run.folder.write_json(SCORE_SUMMARY, summary.to_json())
    for line in summary.format_lines():
        (_logger.warning if line.startswith("unscored") else _logger.info)("%s", line)
