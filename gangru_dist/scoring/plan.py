"""Which days to score: those without up-to-date scores, in pieces of one window and month.

Planned from the panel's manifest, the models' `model.json` and the footers of the table's files;
neither bars nor weights are read.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from gangru_dist.base.errors import FactorError, WindowError
from gangru_dist.config.identity import deciding, model_identity
from gangru_dist.config.settings import Decides, RunConfig
from gangru_dist.maths.calendar import Window, make_windows
from gangru_dist.panel.manifest import Manifest
from gangru_dist.runs.model import ModelRecord
from gangru_dist.runs.summaries import DayCoverage, Unscored

Models = Mapping[tuple[str, int], ModelRecord]
"""Finished models by (window, seed)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Days of one month, scored by one window's models in one call of an actor."""

    window: str
    """Refit day, ISO."""
    model: str
    """Hash of the weights; see `ensemble_model`."""
    month: str
    """"2019-07"."""
    days: tuple[str, ...]
    """ISO, ascending."""
    basis: str = ""
    """See `DayCoverage`, also for the next two; all of it is empty until `based`."""
    month_end: str = ""
    month_rows: str = ""
    block_start: str = ""
    """First day of the panel block, including the lookback; the same for a window's pieces."""
    block_end: str = ""
    """Last day of the panel block."""

    def coverage(self, date: str) -> DayCoverage:
        """Coverage of one of the days, without its counts."""
        return DayCoverage(
            date=date,
            window=self.window,
            model=self.model,
            basis=self.basis,
            month_end=self.month_end,
            month_rows=self.month_rows,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Work of a scoring job."""

    pieces: tuple[Piece, ...]
    """By window and month."""
    unscored: tuple[Unscored, ...]
    up_to_date: int
    """Days that need no scoring: the table has them already."""
    gone: tuple[str, ...] = ()
    """Days of the table that the panel no longer has, ISO, ascending; their rows are dropped."""

    @property
    def days(self) -> int:
        """Days to be scored."""
        return sum(len(piece.days) for piece in self.pieces)


def ensemble_model(models: Iterable[ModelRecord]) -> str:
    """Hash of the weights of all seeds of a window, twelve hex digits.

    For one seed it is the model's own hash, as in `model.json`.
    """
    hashes = [model.sha256 for model in sorted(models, key=lambda model: model.seed)]
    if len(hashes) == 1:
        return hashes[0][:12]
    return hashlib.sha256("/".join(hashes).encode()).hexdigest()[:12]


def _why_not(window: Window, models: Models, cfg: RunConfig, manifest: Manifest) -> str | None:
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


def _basis(cfg: RunConfig, manifest: Manifest, month: str) -> str:
    """Hash of what decides a day's rows beside the weights, up to the end of the month before."""
    before = np.datetime64(month, "M").astype("datetime64[D]") - 1
    values = deciding(cfg, Decides.MODEL | Decides.RUN)
    facts = [values["factor"], values["universe"], values["samples"]]
    facts.append(manifest.fingerprint_to(before.astype(dt.date)))
    marks = [[at, mark] for at, mark in sorted(manifest.rewritten.items()) if at <= month]
    facts += marks  # rewritten rows of this month; its hash does not tell them from added rows
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def based(piece: Piece, cfg: RunConfig, manifest: Manifest) -> Piece:
    """The same, with what of this panel decides its rows; see `DayCoverage`."""
    end = (np.datetime64(piece.month, "M") + 1).astype("datetime64[D]")
    last = manifest.calendar[np.searchsorted(manifest.calendar, end) - 1]
    return replace(
        piece,
        basis=_basis(cfg, manifest, piece.month),
        month_end=str(last),
        month_rows=manifest.months.get(piece.month, "")[:12],
    )


def _is_current(done: DayCoverage | None, piece: Piece) -> bool:
    """Whether scoring a day again would give the rows that the table has.

    Rows may have been added to the day's month since, but not changed: `gangru panel` refuses that
    or marks the month, and marks are part of the basis. If the panel's month still ends on the
    same day, its rows must be the same.
    """
    if done is None or (done.model, done.basis) != (piece.model, piece.basis):
        return False
    return done.month_end != piece.month_end or done.month_rows == piece.month_rows


def _month_pieces(
    window: Window, days: np.ndarray, models: Models, cfg: RunConfig, manifest: Manifest
) -> Iterable[Piece]:
    months = days.astype("datetime64[M]")
    for month in np.unique(months):
        piece = Piece(
            window=window.name,
            model=ensemble_model(models[window.name, seed] for seed in cfg.training.seeds),
            month=str(month),
            days=tuple(str(day) for day in days[months == month]),
        )
        yield based(piece, cfg, manifest)


def _with_block(pieces: list[Piece], cfg: RunConfig, manifest: Manifest) -> list[Piece]:
    """Give all pieces of a window the same panel block, so that an actor reads it once."""
    if not pieces:
        return []
    first = np.datetime64(pieces[0].days[0])
    index = int(np.searchsorted(manifest.calendar, first)) - cfg.samples.lookback + 1
    start = str(manifest.calendar[max(index, 0)])
    end = pieces[-1].days[-1]
    return [replace(piece, block_start=start, block_end=end) for piece in pieces]


def current_pieces(manifest: Manifest, cfg: RunConfig, models: Models) -> Iterator[Piece]:
    """All days that the current models, settings and panel would score; without blocks."""
    windows, _ = make_windows(
        manifest.calendar, cfg.windows, cfg.label, lookback=cfg.samples.lookback
    )
    for window in windows:
        if _why_not(window, models, cfg, manifest) is None:
            days = manifest.calendar[window.score_first : window.score_last + 1]
            yield from _month_pieces(window, days, models, cfg, manifest)


def outdated_days(
    manifest: Manifest,
    cfg: RunConfig,
    models: Models,
    covered: Mapping[dt.date, DayCoverage],
) -> list[dt.date]:
    """Days of the table that are not from the current models, settings and panel, ascending.

    A scoring job scores them again if their window has a model.
    """
    current: set[str] = set()
    for piece in current_pieces(manifest, cfg, models):
        current |= set(piece.days) - set(_stale_part(piece, covered).days)
    return sorted(day for day in covered if str(day) not in current)


def _span(manifest: Manifest, start: dt.date | None, end: dt.date | None) -> tuple[str, str]:
    calendar = manifest.calendar
    low = str(start or calendar[0])
    high = str(end or calendar[-1])
    chosen = (calendar >= np.datetime64(low)) & (calendar <= np.datetime64(high))
    if not chosen.any():
        raise FactorError(
            f"no trading day from {low} to {high}; the panel has {calendar[0]} to {calendar[-1]}."
        )
    return low, high


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
    """Pieces to score between `start` and `end`.

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
    low, high = _span(manifest, start, end)
    windows, _ = make_windows(
        manifest.calendar, cfg.windows, cfg.label, lookback=cfg.samples.lookback
    )
    pieces: list[Piece] = []
    unscored: list[Unscored] = []
    wanted = 0
    for window in windows:
        days = manifest.calendar[window.score_first : window.score_last + 1]
        days = days[(days >= np.datetime64(low)) & (days <= np.datetime64(high))]
        if not len(days):
            continue
        wanted += len(days)
        reason = _why_not(window, models, cfg, manifest)
        if reason:
            unscored.append(_unscored(window, days, reason))
            continue
        found = _month_pieces(window, days, models, cfg, manifest)
        fresh = [piece if again else _stale_part(piece, covered) for piece in found]
        pieces += _with_block([piece for piece in fresh if piece.days], cfg, manifest)
    _check(windows, wanted, unscored, (low, high))
    stopped = sum(part.days for part in unscored)
    done = wanted - stopped - sum(len(piece.days) for piece in pieces)
    gone = sorted({str(day) for day in covered} - set(manifest.calendar.astype(str)))
    return Plan(pieces=tuple(pieces), unscored=tuple(unscored), up_to_date=done, gone=tuple(gone))


def _stale_part(piece: Piece, covered: Mapping[dt.date, DayCoverage]) -> Piece:
    stale = (d for d in piece.days if not _is_current(covered.get(dt.date.fromisoformat(d)), piece))
    return replace(piece, days=tuple(stale))


def _unscored(window: Window, days: np.ndarray, reason: str) -> Unscored:
    return Unscored(
        window=window.name, first=str(days[0]), last=str(days[-1]), days=len(days), reason=reason
    )


def _check(
    windows: list[Window], wanted: int, unscored: list[Unscored], span: tuple[str, str]
) -> None:
    if not wanted:
        names = ", ".join(window.name for window in windows) or "none"
        raise WindowError(
            f"no window scores a day from {span[0]} to {span[1]}. The refit days of this panel and "
            f"configuration are {names}; each window scores the days after its refit day up to the "
            "next."
        )
    if sum(part.days for part in unscored) == wanted:
        first = unscored[0]
        raise WindowError(
            f"no day from {span[0]} to {span[1]} can be scored. Window {first.window}: "
            f"{first.reason}."
        )
