"""Dry run of a panel build: bars are read and checked, nothing is written to storage.

Both stages run in this process, one unit after the other, staged in a temporary folder; features
are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gangru_dist.bars.quality import Finding, Quality, describe, merge
from gangru_dist.cluster_map import as_value, here
from gangru_dist.config import RunConfig
from gangru_dist.errors import GangruError
from gangru_dist.panel.bucket import BucketTask, traded_rows
from gangru_dist.panel.headers import check_names
from gangru_dist.panel.intake import bucket_task, do_all, open_bars, stage_bars
from gangru_dist.panel.moves import Moves
from gangru_dist.panel.stages import bucket_rows
from gangru_dist.panel.verdict import check_built, check_staged, days_of, newest_set_aside
from gangru_dist.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found."""

    lines: tuple[str, ...]
    """The quality table."""
    problems: tuple[str, ...]
    """What would stop the build."""


def check_panel(bars_uri: str, cfg: RunConfig) -> Verdict:
    """Read and check bars as a build would.

    Raises:
        BarsError: Files cannot be read, so that there is nothing to count.
        PanelError: A feature cannot be computed from these bars.
    """
    check_names(cfg.panel)
    bars = open_bars(bars_uri, cfg)
    with tempfile.TemporaryDirectory(prefix="gangru-check-") as folder:
        panel = Storage(folder)
        intake = stage_bars(bars, panel, cfg, here)
        read = intake.quality
        problem = as_value(partial(check_staged, intake, bars.form, cfg.bars))
        if isinstance(problem, GangruError):
            return Verdict(lines=_table(read, {}), problems=(str(problem),))
        market = days_of(intake, bars.rule)
        task = bucket_task(bars, intake, market, panel=panel, cfg=cfg, runner=here)
        work = partial(_check_bucket, panel, intake.names, task)
        built = do_all("check_stocks", here, cfg, work, range(cfg.panel.buckets))
    quality = merge([read, market.quality, *(found for found, _ in built)])
    moves = [sums for _, sums in built]
    facts = {
        "stocks": sum(sums.assets for sums in moves),
        "trading days": len(market.calendar),
        "first day": market.calendar[0] if len(market.calendar) else None,
        "last day": market.calendar[-1] if len(market.calendar) else None,
        "newest day set aside": newest_set_aside(intake, market.calendar),
    }
    problem = as_value(partial(check_built, moves, quality, bars.form, cfg.bars))
    problems = (str(problem),) if isinstance(problem, GangruError) else ()
    return Verdict(lines=_table(quality, facts), problems=problems)


def _check_bucket(
    panel: Storage, names: Sequence[str], task: BucketTask, number: int
) -> tuple[Quality, Moves]:
    rows, beside = bucket_rows(panel, names, number, task)
    _, quality, moves = traded_rows(rows, task)
    return merge([beside, quality]), moves


def _table(quality: Quality, facts: dict[str, Any]) -> tuple[str, ...]:
    """Counts, then reasons and notes with an example each."""
    counts = {
        "rows read": quality.rows,
        "rows suspended": quality.suspended,
        "rows set aside": quality.set_aside,
        **{name: value for name, value in facts.items() if value is not None},
    }
    suspected = {
        f"{suspect.file}: {suspect.reason}": suspect.finding for suspect in quality.suspects
    }
    return (
        *(f"{name:<24}{value}" for name, value in counts.items()),
        *_section("rows set aside, by reason", quality.quarantined),
        *_section("files in another unit", suspected),
        *_section("odd, but kept", quality.notes),
    )


def _section(title: str, findings: Any) -> list[str]:
    if not findings:
        return []

    def line(name: str, finding: Finding) -> str:
        return f"{finding.count:>10}  {name}, e.g. {describe(finding.example)}"

    return ["", title, *(line(name, finding) for name, finding in findings.items())]
