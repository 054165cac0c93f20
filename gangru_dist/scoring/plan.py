"""What is to be scored: days without up-to-date scores, cut into pieces of (window, month).

Decided from three small things, the panel's manifest, the models' `model.json` and the table's
footers; no bar and no weight is read.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from gangru_dist.config import RunConfig, deciding, model_identity
from gangru_dist.decides import Decides
from gangru_dist.errors import FactorError, WindowError
from gangru_dist.panel.manifest import Manifest
from gangru_dist.runs.model import ModelRecord
from gangru_dist.runs.score_summary import DayCoverage, Unscored
from gangru_dist.splits import Window, make_windows

Models = Mapping[tuple[str, int], ModelRecord]
"""Finished models by (window, seed)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Days of one month that one window's models score: the work of one actor's call."""

    window: str
    """Refit day, ISO."""
    model: str
    """Hash of the weights, see `ensemble_model`."""
    month: str
    """"2019-07"."""
    days: tuple[str, ...]
    """ISO, ascending."""
    basis: str = ""
    """See `DayCoverage`; as the next two."""
    month_end: str = ""
    month_rows: str = ""
    block_start: str = ""
    """First day of the panel block, the same for all pieces of a window: lookback included."""
    block_end: str = ""
    """Last day of the panel block."""

    def coverage(self, date: str) -> DayCoverage:
        """What the table is to say of one of the days, but for its counts."""
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
    """Days left out because the table has them already."""

    @property
    def days(self) -> int:
        """Days to be scored."""
        return sum(len(piece.days) for piece in self.pieces)


def ensemble_model(models: Iterable[ModelRecord]) -> str:
    """Twelve hex digits that identify exactly the weights of all seeds of a window together.

    One seed: the model's own hash, as in `model.json`.
    """
    hashes = [model.sha256 for model in sorted(models, key=lambda model: model.seed)]
    if len(hashes) == 1:
        return hashes[0][:12]
    return hashlib.sha256("/".join(hashes).encode()).hexdigest()[:12]


def _why_not(window: Window, models: Models, cfg: RunConfig, manifest: Manifest) -> str | None:
    """Why a window cannot score, or None."""
    seeds = cfg.training.seeds
    missing = [seed for seed in seeds if (window.name, seed) not in models]
    if missing:
        return f"no finished model of seed {', '.join(map(str, missing))}: run jobs/train.py"
    panel = manifest.fingerprint_to(manifest.calendar[window.refit].astype(dt.date))
    for seed in seeds:
        identity = model_identity(cfg, window.name, seed, panel)
        if models[window.name, seed].identity != identity:
            return (
                f"the model of seed {seed} was trained with other settings or another panel: "
                "run jobs/train.py"
            )
    return None


def _basis(cfg: RunConfig, manifest: Manifest, month: str) -> str:
    """Hash of what decides a day's row beside the weights, up to the end of the month before."""
    before = np.datetime64(month, "M").astype("datetime64[D]") - 1
    values = deciding(cfg, Decides.MODEL | Decides.RUN)
    facts = [values["factor"], values["universe"], values["samples"]]
    facts.append(manifest.fingerprint_to(before.astype(dt.date)))
    marks = [[at, mark] for at, mark in sorted(manifest.rewritten.items()) if at <= month]
    facts += marks  # rows of this month that were rewritten: its hash alone says only "more rows"
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
    """Whether the table's row of a day is what scoring it now would give.

    Rows of the day's own month may have been added since, but not changed: jobs/panel.py refuses
    that or marks the month, which is in the basis. And where the panel has the same last day as
    then, it must have the same rows.
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
    """Give all pieces of a window the same span of the panel, so that an actor reads it once."""
    if not pieces:
        return []
    first = np.datetime64(pieces[0].days[0])
    index = int(np.searchsorted(manifest.calendar, first)) - cfg.samples.lookback + 1
    start = str(manifest.calendar[max(index, 0)])
    end = pieces[-1].days[-1]
    return [replace(piece, block_start=start, block_end=end) for piece in pieces]


def current_pieces(manifest: Manifest, cfg: RunConfig, models: Models) -> Iterator[Piece]:
    """What today's models, settings and panel would score, all days of it; without blocks."""
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
    """Days of the table that are not of today's models, settings and panel, ascending.

    A scoring job scores them again, or has no model to do so.
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
    """Units to score between `start` and `end`.

    Args:
        manifest: Of the panel.
        cfg: The run.
        models: All that are finished.
        covered: Days in the table.
        start: First day; None = from the beginning.
        end: Last day, included; None = the newest.
        again: Also days whose scores are up to date.

    Raises:
        FactorError: No trading day lies between `start` and `end`.
        WindowError: No window has a model, or none may score those days.
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
    return Plan(pieces=tuple(pieces), unscored=tuple(unscored), up_to_date=done)


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
            f"no window scores a day from {span[0]} to {span[1]}; this panel and configuration "
            f"have the refit days {names}, and each scores the days after it up to the next."
        )
    if sum(part.days for part in unscored) == wanted:
        first = unscored[0]
        raise WindowError(
            f"no day from {span[0]} to {span[1]} can be scored. Window {first.window}: "
            f"{first.reason}."
        )
