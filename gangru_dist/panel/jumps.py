"""Find price jumps: a stock's days held against each other, by prices, `adj_factor` and volume.

    known limits     |close / (previous close / factor step) - 1| <= limit, of open as well
    no known limits  an overnight gap near 2:1, 10:3 ... without a step of adj_factor is suspicious
    any market       a step of adj_factor shows in the price; nothing moves eightfold in a day

Four years of the real market (3.4 million moves) break none between neighbouring days. A row that
leaves its neighbours is set aside, judged by earlier rows alone, so that appended days change
nothing. What stays different for good (a split without a factor) is counted, and stops the build
where it is no single stock's: `panel.checks`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gangru_dist.bars.quality import PRICES

SLACK = 0.03
"""Beyond a price limit, beside a tick: rounding of references, and of prices adjusted already,
whose tick is not known."""
NEIGHBORS = 3
"""Trading days between two rows up to which limits are multiplied; a longer suspension may end
with a move that none bounds."""
LIMITS_SINCE = np.datetime64("1996-12-16")
"""Before that day China's prices had no limits."""
LEAST_LIMIT = 0.10
"""Special treatment's 5 % is not relied on: many exports do not mark it, and it became 10 %."""
EIGHTFOLD = np.log(8)
RATIOS = (1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 50, 100)
"""Shares after a split or bonus issue for each share before; 10:3 is 1.3."""
NEAR = 0.025
"""Distance of an overnight gap's logarithm to a ratio's: what a night may add to it."""
FLAT_DAYS = 20
"""Traded days with one and the same open, high, low, close; the real market's most is 5."""
_HALVED = np.log(1.9)  # overnight, where no limits are known
_NO_STEP, _STEP, _LARGE_STEP = 1e-6, 0.1, np.log(1.2)  # of log adj_factor
_EXPLAINED = 0.5  # share of a large step that the price must show
_DAY = np.log(1.12)  # of an ex-date's own move: a price limit
_UNIT_JUMP = np.log(20)  # no split is so large: another unit
_CLOSURE = np.timedelta64(15, "D")  # the market's longest holidays
_SILENT = np.timedelta64(366, "D")
_RESTLESS, _RESTLESS_LEAST = 0.1, 10  # share and number of a stock's rows where the factor changes

LEAVES = "price moves further than the market allows"
SPIKE = "adj_factor changes and the price does not"
FLAT = "price has not moved for 20 traded days"
REPEATED = "prices, volume and amount are those of the day before"
JUMP = "lasting move that the market does not allow, adj_factor unchanged"
TYPICAL = "lasting move near a split's ratio (2:1, 10:3 ...), adj_factor unchanged"
STEP = "lasting step of adj_factor that the price does not show"
VOLUME_JUMP = "amount / volume jumps twentyfold against the price"
TURNOVER_JUMP = "turnover_rate jumps twentyfold against the volume"
RESTLESS = "adj_factor changes on more than a tenth of a stock's days"
STALE_CAP = "market_cap stays the same although the price moves"
REUSED = "stock traded again after more than a year: a code used twice?"
SHOWN = {VOLUME_JUMP: ("close", "volume", "amount"), TURNOVER_JUMP: ("volume", "turnover_rate")}
"""Note -> columns that its example shows, other than close and adj_factor."""


@dataclass(frozen=True, kw_only=True)
class JumpSums:
    """What only the whole market can judge; adds up over buckets."""

    pairs: int = 0
    """Pairs of neighbouring rows of one stock."""
    steps: int = 0
    """Small steps of adj_factor among them."""
    explained: float = 0.0
    """Sum of -(log overnight gap) x (log step) over these."""
    squared: float = 0.0
    """Sum of (log step)^2; `explained` / `squared` is 1 for a right factor, -1 for an inverse."""
    assets: int = 0
    """Stocks."""
    restless: int = 0
    """Stocks whose factor changes all the time."""
    on_day: Counter[dt.date] = field(default_factory=Counter)
    """Day -> pairs that end on it, no long time apart."""
    steps_on_day: Counter[dt.date] = field(default_factory=Counter)
    """Day -> those of them over which adj_factor changes."""


def add_sums(parts: Iterable[JumpSums]) -> JumpSums:
    """The sums of all buckets."""
    total = JumpSums()
    for part in parts:
        names = vars(total)
        total = JumpSums(**{name: getattr(total, name) + getattr(part, name) for name in names})
    return total


@dataclass(frozen=True, kw_only=True)
class Jumps:
    """What was found in one bucket."""

    reasons: Mapping[str, np.ndarray]
    """Reason -> (n,) bool: rows to set aside, each of which leaves the row before it."""
    notes: Mapping[str, np.ndarray]
    """What is only counted -> (n,) bool, in the same way."""
    sums: JumpSums


@dataclass(frozen=True, kw_only=True)
class History:
    """Traded rows of whole stocks, sorted by (stock, date); all (n,).

    Properties are (n - 1,): what is said of each row and the one before it.
    """

    columns: Mapping[str, np.ndarray]
    """open, high, low, close, volume, amount, adj_factor, turnover_rate, market_cap."""
    asset: np.ndarray
    """Number of the stock, ascending."""
    date: np.ndarray
    """datetime64[D]."""
    position: np.ndarray
    """Index of the date in the calendar."""
    limit: np.ndarray
    """Largest move of the day, a fraction; infinite = none, NaN = not known."""

    def select(self, rows: np.ndarray) -> History:
        """Some of the rows."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        own = ("asset", "date", "position", "limit")
        return History(columns=columns, **{name: getattr(self, name)[rows] for name in own})

    @cached_property
    def level(self) -> np.ndarray:
        """(n,) log of the adjusted close."""
        return np.asarray(np.log(self.columns["close"]) + np.log(self.columns["adj_factor"]))

    @cached_property
    def same(self) -> np.ndarray:
        """Whether both rows are of one stock."""
        return np.asarray(self.asset[1:] == self.asset[:-1])

    @cached_property
    def step(self) -> np.ndarray:
        """Log step of the factor."""
        return np.diff(np.log(self.columns["adj_factor"]))

    @cached_property
    def gap(self) -> np.ndarray:
        """Log overnight gap, from close to open."""
        return np.asarray(np.log(self.columns["open"][1:] / self.columns["close"][:-1]))

    @cached_property
    def close_by(self) -> np.ndarray:
        """Whether so few days lie between that limits of a day bound the move."""
        near = np.diff(self.position) <= NEIGHBORS
        return np.asarray(near & (np.diff(self.date) <= _CLOSURE))

    @cached_property
    def far(self) -> np.ndarray:
        """Whether open or close is further from the reference price than the market allows."""
        columns, days = self.columns, np.maximum(np.diff(self.position), 1)
        reference = columns["close"][:-1] * columns["adj_factor"][:-1] / columns["adj_factor"][1:]
        with np.errstate(invalid="ignore"):  # NaN compares as False: not known
            limit = np.maximum(self.limit[1:], LEAST_LIMIT)
            most = (1 + limit) ** days - 1 + SLACK + 0.01 / reference
            far = np.abs(columns["close"][1:] / reference - 1) > most
            far |= np.abs(columns["open"][1:] / reference - 1) > most
        far &= self.close_by & (self.date[1:] >= LIMITS_SINCE)
        return np.asarray(far | (np.abs(np.diff(self.level)) > EIGHTFOLD))

    @cached_property
    def unexplained(self) -> np.ndarray:
        """Whether the factor makes a large step of which the price shows less than half."""
        close, step = np.diff(np.log(self.columns["close"])), self.step
        most = _EXPLAINED * np.abs(step) + _DAY
        off = (np.abs(self.gap + step) > most) & (np.abs(close + step) > most)
        return np.asarray((np.abs(step) > _LARGE_STEP) & off)


def find_jumps(history: History) -> Jumps:
    """Find rows that leave their neighbours, and what stays odd without them."""
    if not len(history.asset):
        return Jumps(reasons={}, notes={}, sums=JumpSums())
    wrong = _find_wrong(history)
    keep = ~np.any(list(wrong.values()), axis=0)
    lasting, sums = _find_lasting(history if keep.all() else history.select(keep))
    notes = {name: np.zeros(len(keep), dtype=bool) for name in lasting}
    for name, mask in lasting.items():
        notes[name][keep] = mask
    stays = _stays(history)
    for reason, note in ((LEAVES, JUMP), (SPIKE, STEP)):
        # over a removed row two days look like one; whether it was right, the row after it tells
        notes[note] &= np.append(True, keep[:-1])
        notes[note] |= wrong[reason] & stays
    notes[TYPICAL] = notes[JUMP] & _later(_is_near_ratio(history.gap))
    return Jumps(reasons=wrong, notes=notes, sums=sums)


def _find_wrong(history: History) -> dict[str, np.ndarray]:
    """Reason -> (n,) bool: rows that leave the row before, but for those that come back to it."""
    same, level = history.same, history.level
    far, contradicts = same & history.far, same & history.unexplained
    bad = far | contradicts
    if bad.any():  # a row that returns to the level of two rows before is right, that one was not
        move = np.diff(level)
        twice = np.abs(level[2:] - level[:-2]) < _EXPLAINED * np.abs(move[:-1])
        back = np.zeros(len(bad), dtype=bool)
        back[1:] = bad[:-1] & twice & same[:-1]
        far, contradicts = far & ~back, contradicts & ~back
    by_factor = contradicts | (far & (np.abs(history.step) > _NO_STEP))
    names = (*PRICES, "volume", "amount")  # no two traded days agree in all of these
    again = np.all([np.diff(history.columns[name]) == 0 for name in names], axis=0)
    wrong = {LEAVES: _later(far & ~by_factor), SPIKE: _later(by_factor)}
    wrong[REPEATED] = _later(same & again) & ~wrong[LEAVES] & ~wrong[SPIKE]
    return {**wrong, FLAT: _is_flat(history) & ~np.any(list(wrong.values()), axis=0)}


def _find_lasting(history: History) -> tuple[dict[str, np.ndarray], JumpSums]:
    """Kind -> (n,) bool, rows that differ for good from the one before; and the sums."""
    if not len(history.asset):
        return {JUMP: np.zeros(0, dtype=bool), STEP: np.zeros(0, dtype=bool)}, JumpSums()
    same, step, gap, columns = history.same, history.step, history.gap, history.columns
    asset = history.asset[1:]
    unknown = np.isnan(history.limit[1:])
    split = unknown & (_is_near_ratio(gap) | (np.abs(gap) > _HALVED))
    changed = same & (np.abs(step) > _NO_STEP)
    count = int(history.asset.max()) + 1
    rows = np.bincount(history.asset, minlength=count)
    changes = np.bincount(asset[changed], minlength=count)
    restless = changes > np.maximum(_RESTLESS_LEAST, _RESTLESS * rows)
    of_restless = changed & restless[asset]
    first = np.zeros(len(same), dtype=bool)
    first[np.unique(np.where(of_restless, asset, -1), return_index=True)[1]] = True
    small = changed & (np.abs(step) < _STEP) & ~restless[asset] & history.close_by
    stale = (np.diff(columns["market_cap"]) == 0) & (np.diff(columns["close"]) != 0)
    pairs = {
        JUMP: same & ~changed & (history.far | split),
        STEP: changed & (history.far | history.unexplained),
        VOLUME_JUMP: same & _changes_unit(history, "amount", "volume", columns["close"]),
        TURNOVER_JUMP: same & _changes_unit(history, "turnover_rate", "volume"),
        STALE_CAP: same & stale,
        REUSED: same & (np.diff(history.date) > _SILENT),
        RESTLESS: first & of_restless,
    }
    sums = JumpSums(
        pairs=int(same.sum()),
        steps=int(small.sum()),
        explained=float(-(gap[small] * step[small]).sum()),
        squared=float(np.square(step[small]).sum()),
        assets=int((rows > 0).sum()),
        restless=int(restless.sum()),
        on_day=_count_days(history.date[1:][same & history.close_by]),
        steps_on_day=_count_days(history.date[1:][changed & history.close_by]),
    )
    return {name: _later(mask) for name, mask in pairs.items()}, sums


def _stays(history: History) -> np.ndarray:
    """(n,) bool: the next row's price is nearer to this row's than to that of the row before."""
    level = history.level
    result = np.zeros(len(level), dtype=bool)
    later, before = np.abs(level[2:] - level[1:-1]), np.abs(level[2:] - level[:-2])
    result[1:-1] = (later < before) & history.same[1:]
    return result


def _is_near_ratio(gap: np.ndarray) -> np.ndarray:
    """(n,) bool: a log gap down to, or up from, one share of a split."""
    ratios = np.log(RATIOS)
    result = np.zeros(len(gap), dtype=bool)
    rows = np.flatnonzero(np.abs(gap) > ratios[0] - NEAR)
    distance = np.abs(np.abs(gap[rows])[:, None] - ratios)
    result[rows] = distance.min(axis=1) < NEAR
    return result


def _changes_unit(
    history: History, above: str, below: str, price: np.ndarray | None = None
) -> np.ndarray:
    """(n - 1,) bool: above / below (/ price) changes more than twentyfold; unknown ones do not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(history.columns[above] / history.columns[below])
        change = np.diff(ratio if price is None else ratio - np.log(price))
        return np.asarray(np.isfinite(change) & (np.abs(change) > _UNIT_JUMP))


def _count_days(dates: np.ndarray) -> Counter[dt.date]:
    days, count = np.unique(dates.astype("datetime64[D]"), return_counts=True)
    return Counter(dict(zip(days.tolist(), count.tolist(), strict=True)))


def _is_flat(history: History) -> np.ndarray:
    """(n,) bool: rows after `FLAT_DAYS` with the same four prices."""
    still = np.all([np.diff(history.columns[name]) == 0 for name in PRICES], axis=0) & history.same
    rows = np.arange(len(history.asset))
    since = np.maximum.accumulate(np.where(_later(still), 0, rows))
    return np.asarray(rows - since >= FLAT_DAYS)


def _later(pairs: np.ndarray) -> np.ndarray:
    """(n,) from (n - 1,): what is said of a pair, said of its later row."""
    return np.concatenate([np.zeros(1, dtype=bool), pairs])
