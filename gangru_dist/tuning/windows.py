"""Refit days used for tuning, and the first refit day to report."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gangru_dist.config import RunConfig
from gangru_dist.errors import WindowError
from gangru_dist.splits import Window, make_windows
from gangru_dist.training.data import first_day


@dataclass(frozen=True, kw_only=True)
class TuningWindows:
    """The windows of every trial."""

    names: tuple[str, ...]
    """Refit days, ascending."""
    reported_first: dt.date
    """Windows from this refit day on are not used for tuning, except those in `overlap`."""
    overlap: tuple[str, ...]
    """Tuning windows that are also reported, by `windows.first`."""


def all_windows(calendar: np.ndarray, cfg: RunConfig) -> dict[str, Window]:
    """All windows with enough history, by name, ignoring `windows.first` and `windows.last`."""
    everywhere = dataclasses.replace(cfg.windows, first=None, last=None)
    made, _ = make_windows(
        calendar,
        everywhere,
        cfg.label,
        lookback=cfg.samples.lookback,
        gan_history=cfg.gan_history,
    )
    return {window.name: window for window in made}


def choose(
    calendar: np.ndarray, cfg: RunConfig, variants: Sequence[RunConfig], only: Sequence[str] | None
) -> TuningWindows:
    """Tuning windows: the named ones, else the last before `windows.first`, else the first.

    Args:
        calendar: (D,) datetime64[D] of the panel.
        cfg: The search's configuration.
        variants: See `space.extremes`; a window must have enough history for all of them.
        only: Names of refit days; None = `tune.windows`, or by the rule above.

    Raises:
        WindowError: A named window does not exist, or none is left.
    """
    per_variant = [all_windows(calendar, variant) for variant in variants]
    common = [name for name in per_variant[0] if all(name in made for made in per_variant)]
    first = cfg.windows.first
    wanted = list(only) if only is not None else [str(day) for day in cfg.tune.windows]
    if wanted:
        names = _named(wanted, common)
    elif first:
        names = [name for name in common if name < str(first)][-cfg.tune.max_windows :]
    else:
        names = common[: cfg.tune.max_windows]
    if not names:
        before = f" before windows.first={first}" if first else ""
        raise WindowError(
            f"no refit day with enough history for every trial{before}; there are "
            f"{', '.join(common) or 'none'}. Name some with --windows, or search a shorter "
            "samples.lookback."
        )
    after = [name for name in per_variant[0] if name > names[-1]]
    next_day = dt.date.fromisoformat(names[-1]) + dt.timedelta(days=1)
    following = dt.date.fromisoformat(after[0]) if after else next_day
    return TuningWindows(
        names=tuple(names),
        reported_first=first or following,
        overlap=tuple(name for name in names if first and name >= str(first)),
    )


def _named(wanted: Sequence[str], common: Sequence[str]) -> list[str]:
    for name in wanted:
        if name not in common:
            raise WindowError(
                f"{name!r} is not a refit day with enough history for every trial; there are "
                f"{', '.join(common) or 'none'}."
            )
    return [name for name in common if name in set(wanted)]


def span(calendar: np.ndarray, name: str, variants: Sequence[RunConfig]) -> tuple[dt.date, dt.date]:
    """First and last panel day that any trial reads for a window.

    Values between the variants' may reach a step further back than these: sampled days are counted
    from the newest.
    """
    made = [(all_windows(calendar, variant)[name], variant) for variant in variants]
    first = min(first_day(window, variant.samples.lookback) for window, variant in made)
    step = max(variant.windows.sample_every for _, variant in made) - 1
    days = calendar[max(first - step, 0)], calendar[made[0][0].refit]
    return days[0].astype(dt.date), days[1].astype(dt.date)
