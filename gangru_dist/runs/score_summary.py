"""Summary of a scoring job and of the factor table after it: `factor-summary.json`."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gangru_dist.runs.run import Run

_logger = logging.getLogger(__name__)
SUMMARY = "factor-summary.json"


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
            "odd_days": self.odd_days(),
            "unscored": [asdict(part) for part in self.unscored],
            "coverage": [asdict(day) for day in self.days.values()],
        }

    def odd_days(self) -> dict[str, int]:
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

    def lines(self) -> list[str]:
        """The summary as log events."""
        odd = " ".join(f"{name}={count}" for name, count in self.odd_days().items() if count)
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


def write_summary(run: Run, summary: ScoreSummary) -> None:
    """Write `factor-summary.json` and log the summary.

    The file repeats the coverage in the table itself; after a kill, the next job corrects it.
    """
    run.folder.write_json(SUMMARY, summary.to_json())
    for line in summary.lines():
        (_logger.warning if line.startswith("unscored") else _logger.info)("%s", line)
