"""Plan which days to score: those without up-to-date scores, in tasks of one window and month.

The plan is made from the panel's manifest, the models' `model.json` and the footers of the table's
files; neither bars nor weights are read.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gangru_dist.base.errors import FactorError, WindowError
from gangru_dist.base.records import hash_json
from gangru_dist.config.identity import model_identity, select_settings
from gangru_dist.config.schema import Affects
from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import SkippedWindow, Window, make_windows
from gangru_dist.panel.manifest import Manifest
from gangru_dist.runs.model import ModelRecord
from gangru_dist.runs.summaries import DayCoverage, Unscored

_logger = logging.getLogger(__name__)

Models = Mapping[tuple[str, int], ModelRecord]
"""Finished models by (window, seed)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringTask:
    """Days of one month, scored by one window's models in one call of an actor."""

    window: str
    """Refit day, ISO."""
    model: str
    """Hash of the weights; see `hash_models`."""
    month: str
    """"2019-07"."""
    days: tuple[str, ...]
    """ISO, ascending."""
    block_start: str
    """First day of the panel block, including the lookback; the same for a window's tasks, so that
    an actor reads it once."""
    block_end: str
    """Last day of the panel block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Work of a scoring job."""

    tasks: tuple[ScoringTask, ...]
    """By window and month."""
    unscored: tuple[Unscored, ...]
    up_to_date: int
    """Days that need no scoring: the table has them already."""
    gone: tuple[str, ...] = ()
    """Days of the table that the panel no longer has, ISO, ascending; their rows are dropped."""

    @property
    def days(self) -> int:
        """Days to be scored."""
        return sum(len(task.days) for task in self.tasks)


def hash_models(models: Iterable[ModelRecord]) -> str:
    """Hash of the weights of all seeds of a window, twelve hex digits.

    For one seed it is the model's own hash, as in `model.json`.
    """
    hashes = [model.sha256 for model in sorted(models, key=lambda model: model.seed)]
    if len(hashes) == 1:
        return hashes[0][:12]
    return hashlib.sha256("/".join(hashes).encode()).hexdigest()[:12]


def _explain_unscored(
    window: Window, models: Models, cfg: RunConfig, manifest: Manifest
) -> str | None:
    """Why a window cannot score; None if it can."""
    seeds = cfg.training.seeds
    missing = [seed for seed in seeds if (window.name, seed) not in models]
    if missing:
        return f"no finished model of seed {', '.join(map(str, missing))}: run `gangru train`"
    panel = manifest.fingerprint_to(manifest.calendar[window.refit].astype(dt.date))
    for seed in seeds:
        identity = model_identity(cfg, window.name, seed, panel)
        if models[window.name, seed].identity != identity:
            return (
                f"the model of seed {seed} was trained with other settings or on another panel: "
                "run `gangru train`"
            )
    return None


def expect_coverage(
    window: str, model: str, month: str, cfg: RunConfig, manifest: Manifest
) -> DayCoverage:
    """Coverage that the month's days get if they are scored now, without date and counts.

    `basis` hashes what decides a day's rows beside the weights, up to the end of the month before.
    """
    first = np.datetime64(month, "M").astype("datetime64[D]")
    values = select_settings(cfg, Affects.MODEL | Affects.RUN)
    facts = [values["factor"], values["universe"], values["samples"]]
    facts.append(manifest.fingerprint_to((first - 1).astype(dt.date)))
    marks = [[at, mark] for at, mark in sorted(manifest.rewritten.items()) if at <= month]
    facts += marks  # rewritten rows of this month; its hash does not tell them from added rows
    end = (np.datetime64(month, "M") + 1).astype("datetime64[D]")
    return DayCoverage(
        date="",
        window=window,
        model=model,
        basis=hash_json(facts),
        month_end=str(manifest.calendar[np.searchsorted(manifest.calendar, end) - 1]),
        month_rows=manifest.months.get(month, "")[:12],
    )


def _is_current(done: DayCoverage | None, expected: DayCoverage) -> bool:
    """Whether scoring a day again would give the rows that the table has.

    Rows may have been added to the day's month since, but not changed: `gangru panel` refuses that
    or marks the month, and marks are part of the basis. If the panel's month still ends on the
    same day, its rows must be the same.
    """
    if done is None or (done.model, done.basis) != (expected.model, expected.basis):
        return False
    return done.month_end != expected.month_end or done.month_rows == expected.month_rows


def expect_table(
    manifest: Manifest,
    cfg: RunConfig,
    models: Models,
    low: dt.date = dt.date.min,
    high: dt.date = dt.date.max,
) -> tuple[dict[dt.date, DayCoverage], list[Unscored]]:
    """Coverage of all days from `low` to `high` if they are scored now; what cannot be scored."""
    expected: dict[dt.date, DayCoverage] = {}
    unscored: list[Unscored] = []
    for window in _make_windows(manifest, cfg)[0]:
        calendar = manifest.calendar[window.score_first : window.score_last + 1].astype(dt.date)
        days = [day for day in calendar if low <= day <= high]
        if not days:
            continue
        if reason := _explain_unscored(window, models, cfg, manifest):
            first, last = str(days[0]), str(days[-1])
            unscored.append(
                Unscored(window=window.name, first=first, last=last, days=len(days), reason=reason)
            )
            continue
        model = hash_models(models[window.name, seed] for seed in cfg.training.seeds)
        for month, group in itertools.groupby(days, key="{:%Y-%m}".format):
            one = expect_coverage(window.name, model, month, cfg, manifest)
            expected |= {day: replace(one, date=str(day)) for day in group}
    return expected, unscored


def find_outdated(
    manifest: Manifest,
    cfg: RunConfig,
    models: Models,
    covered: Mapping[dt.date, DayCoverage],
) -> list[dt.date]:
    """Days of the table that are not from the current models, settings and panel, ascending.

    A scoring job scores them again if their window has a model.
    """
    expected, _ = expect_table(manifest, cfg, models)
    return sorted(
        day
        for day, done in covered.items()
        if day not in expected or not _is_current(done, expected[day])
    )


def warn_of_outdated(run: str, days: Sequence[dt.date]) -> None:
    """Warn of a run's days, ascending, that are not what scoring them now would give."""
    if days:
        _logger.warning(
            "factor_outdated run=%s days=%d first=%s last=%s models_settings_or_panel=changed "
            "mend_with=gangru_train,gangru_score",
            run,
            len(days),
            days[0],
            days[-1],
        )


def _make_windows(manifest: Manifest, cfg: RunConfig) -> tuple[list[Window], list[SkippedWindow]]:
    return make_windows(manifest.calendar, cfg.windows, cfg.label, lookback=cfg.samples.lookback)


def _explain_nothing(
    manifest: Manifest, cfg: RunConfig, unscored: Sequence[Unscored], span: str
) -> str:
    """Why no day of the span can be scored."""
    if unscored:
        first = unscored[0]
        return f"no day {span} can be scored. Window {first.window}: {first.reason}."
    windows, short = _make_windows(manifest, cfg)
    if short and not windows:
        return (
            "there is no model to score with, for no refit day of this panel has enough history: "
            f"{short[-1].reason}. Add bars, or change these settings."
        )
    names = ", ".join(window.name for window in windows) or "none"
    last = f" (windows.last={cfg.windows.last} ends them)" if cfg.windows.last else ""
    return (
        f"no window scores a day {span}. The refit days of this panel and configuration are "
        f"{names}{last}; each window scores the days after its refit day up to the next."
    )


def make_plan(
    manifest: Manifest,
    cfg: RunConfig,
    models: Models,
    covered: Mapping[dt.date, DayCoverage],
    *,
    start: dt.date | None = None,
    end: dt.date | None = None,
    again: bool = False,
) -> Plan:
    """Plan what to score between `start` and `end`.

    Args:
        manifest: The panel's.
        cfg: The run's configuration.
        models: All finished models.
        covered: Days in the table.
        start: First day; None = from the beginning.
        end: Last day, inclusive; None = the newest.
        again: Also score days that are up to date.

    Raises:
        FactorError: There is no trading day between `start` and `end`.
        WindowError: No window covers these days, or none of these has usable models.
    """
    calendar = manifest.calendar.astype(dt.date)
    low, high = start or calendar[0], end or calendar[-1]
    if not ((calendar >= low) & (calendar <= high)).any():
        raise FactorError(
            f"no trading day from {low} to {high}; the panel has {calendar[0]} to {calendar[-1]}."
        )
    expected, unscored = expect_table(manifest, cfg, models, low, high)
    if not expected:
        raise WindowError(_explain_nothing(manifest, cfg, unscored, f"from {low} to {high}"))
    newest = dt.date.fromisoformat(manifest.incomplete) if manifest.incomplete else None
    if newest in expected and not (start or end):
        left_out = expected.pop(newest)
        reason = describe_incomplete(manifest)
        unscored.append(
            Unscored(
                window=left_out.window,
                first=left_out.date,
                last=left_out.date,
                days=1,
                reason=reason,
            )
        )
    stale = [
        one for day, one in expected.items() if again or not _is_current(covered.get(day), one)
    ]
    return Plan(
        tasks=tuple(
            task
            for _, days in itertools.groupby(stale, key=lambda day: day.window)
            for task in _make_tasks(list(days), cfg, manifest)
        ),
        unscored=tuple(unscored),
        up_to_date=len(expected) - len(stale),
        gone=tuple(str(day) for day in sorted(covered.keys() - set(calendar))),
    )


def describe_incomplete(manifest: Manifest) -> str:
    """Say why the panel's newest day is not scored unless it is asked for."""
    day = manifest.incomplete
    return (
        f"{day}, the newest day of the panel, has clearly fewer stocks than the days before "
        "(panel/quality.json counts them), so its ranks would not be the market's. Export the rest "
        f"of that day and run gangru panel; or, if no more stocks traded: --from {day}"
    )


def _make_tasks(days: list[DayCoverage], cfg: RunConfig, manifest: Manifest) -> list[ScoringTask]:
    """Tasks of a window's days, ascending, a month each."""
    first = int(np.searchsorted(manifest.calendar, np.datetime64(days[0].date)))
    start = manifest.calendar[max(first - cfg.samples.lookback + 1, 0)]
    return [
        ScoringTask(
            window=days[0].window,
            model=days[0].model,
            month=month,
            days=tuple(day.date for day in group),
            block_start=str(start),
            block_end=days[-1].date,
        )
        for month, group in itertools.groupby(days, key=lambda day: day.date[:7])
    ]
