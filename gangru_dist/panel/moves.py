"""A stock's days held against each other: prices, `adj_factor`, volume, turnover, lives.

    known limits     |close / (previous close / factor step) - 1| <= limit, of open as well
    no known limits  an overnight gap near 2:1, 10:3 ... without a step of adj_factor is suspicious
    any market       a step of adj_factor shows in the price; nothing moves eightfold in a day

Four years of the real market (3.4 million moves) break none between neighbouring days. A row that
leaves its neighbours is set aside, judged by earlier rows alone, so that appended days change
nothing. What stays different for good (a split without a factor) is counted, and stops the build
where it is no single stock's.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gangru_dist.bars.quality import Example

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
UNSOLD = "price moves on a day without volume"
STALE_CAP = "market_cap stays the same although the price moves"
REUSED = "stock traded again after more than a year: a code used twice?"
RENAMED = "industry of a stock changes"
LATE_LISTING = "list_date after the stock's first row"
_SHOWN = {VOLUME_JUMP: ("close", "volume", "amount"), TURNOVER_JUMP: ("volume", "turnover_rate")}


@dataclass(frozen=True, kw_only=True)
class Moves:
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


@dataclass(frozen=True, kw_only=True)
class History:
    """Traded rows of whole stocks, sorted by (stock, date); all (n,)."""

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
        return History(
            columns=columns,
            asset=self.asset[rows],
            date=self.date[rows],
            position=self.position[rows],
            limit=self.limit[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Outcome for one bucket."""

    keep: np.ndarray
    """(n,) bool."""
    reasons: Mapping[str, np.ndarray]
    """Reason -> (rows, 2) indices: a row that is set aside, after the row that it leaves."""
    notes: Mapping[str, np.ndarray]
    """What is only counted -> (rows, 2) indices, in the same way."""
    moves: Moves


def judge(history: History) -> Judged:
    """Which rows leave their neighbours, and what stays odd without them."""
    if not len(history.asset):
        return Judged(keep=np.ones(0, dtype=bool), reasons={}, notes={}, moves=Moves())
    wrong = _wrong(history)
    keep = ~np.any(list(wrong.values()), axis=0)
    index = np.flatnonzero(keep)
    rest = history if keep.all() else history.select(keep)
    notes, moves = _odd(rest) if len(index) else ({}, Moves())
    found = {name: index[rows] for name, rows in notes.items()}
    stays = _stays(history)
    near = _later(_near_ratio(_changes(history)[2]))
    for reason, note in ((LEAVES, JUMP), (SPIKE, STEP)):
        # over a removed row two days look like one; whether it was right, the row after it tells
        neighbors = found.get(note, index[:0])
        neighbors = neighbors[keep[neighbors - 1]]
        found[note] = np.union1d(neighbors, np.flatnonzero(wrong[reason] & stays))
    found[TYPICAL] = found[JUMP][near[found[JUMP]]]
    return Judged(
        keep=keep,
        reasons={name: _pairs(np.flatnonzero(rows)) for name, rows in wrong.items() if rows.any()},
        notes={name: _pairs(rows) for name, rows in found.items() if len(rows)},
        moves=moves,
    )


def _pairs(rows: np.ndarray) -> np.ndarray:
    """(k, 2): the rows before, and the rows themselves."""
    return np.stack([np.maximum(rows - 1, 0), rows], axis=1)


def _stays(history: History) -> np.ndarray:
    """(n,) bool: the next row's price is nearer to this row's than to that of the row before."""
    level = _adjusted(history)
    result = np.zeros(len(level), dtype=bool)
    later, before = np.abs(level[2:] - level[1:-1]), np.abs(level[2:] - level[:-2])
    result[1:-1] = (later < before) & (history.asset[2:] == history.asset[1:-1])
    return result


def example(kind: str, history: History, before: int, row: int, *, code: str, file: str) -> Example:
    """A row and the one before it, for a message of this reason or note."""
    shown: dict[str, object] = {"file": file, "date": str(history.date[row]), "code": code}
    shown["previous_date"] = str(history.date[before])
    for name in _SHOWN.get(kind, ("close", "adj_factor")):
        shown[f"previous_{name}"] = float(history.columns[name][before])
    for name in _SHOWN.get(kind, ("open", "close", "adj_factor")):
        shown[name] = float(history.columns[name][row])
    return shown


def _wrong(history: History) -> dict[str, np.ndarray]:
    """Reason -> (n,) bool: rows that leave the row before, but for those that come back to it."""
    same = history.asset[1:] == history.asset[:-1]
    move, step, _ = _changes(history)
    far = same & ((np.abs(move) > EIGHTFOLD) | _beyond_limit(history))
    contradicts = same & _unexplained(history)
    level = _adjusted(history)
    bad = far | contradicts
    if bad.any():  # a row that returns to the level of two rows before is right, that one was not
        twice = np.abs(level[2:] - level[:-2]) < _EXPLAINED * np.abs(move[:-1])
        back = np.zeros(len(bad), dtype=bool)
        back[1:] = bad[:-1] & twice & same[:-1]
        far, contradicts = far & ~back, contradicts & ~back
    by_factor = contradicts | (far & (np.abs(step) > _NO_STEP))
    wrong = {LEAVES: _later(far & ~by_factor), SPIKE: _later(by_factor)}
    wrong[REPEATED] = _later(same & _repeated(history)) & ~wrong[LEAVES] & ~wrong[SPIKE]
    return {**wrong, FLAT: _flat(history) & ~np.any(list(wrong.values()), axis=0)}


def _odd(history: History) -> tuple[dict[str, np.ndarray], Moves]:
    """Kind -> (n,) bool rows that differ for good from the one before; and the sums."""
    same = history.asset[1:] == history.asset[:-1]
    move, step, gap = _changes(history)
    unchanged = np.abs(step) <= _NO_STEP
    far = (np.abs(move) > EIGHTFOLD) | _beyond_limit(history)
    near = _near_ratio(gap)
    unknown = np.isnan(history.limit[1:])
    jump = same & unchanged & (far | (unknown & (near | (np.abs(gap) > _HALVED))))
    changed = same & ~unchanged
    count = int(history.asset.max(initial=-1)) + 1
    changes = np.bincount(history.asset[1:][changed], minlength=count)
    rows = np.bincount(history.asset, minlength=count)
    restless = changes > np.maximum(_RESTLESS_LEAST, _RESTLESS * rows)
    small = changed & (np.abs(step) < _STEP) & ~restless[history.asset[1:]] & _close_by(history)
    _, first = np.unique(np.where(changed & restless[history.asset[1:]], history.asset[1:], -1),
                         return_index=True)  # fmt: skip
    notes = {
        JUMP: _later(jump),
        STEP: _later(same & ~unchanged & (far | _unexplained(history))),
        VOLUME_JUMP: _later(
            same & _unit_jump(history, "amount", "volume", history.columns["close"])
        ),
        TURNOVER_JUMP: _later(same & _unit_jump(history, "turnover_rate", "volume")),
        STALE_CAP: _later(same & _stale_cap(history)),
        REUSED: _later(same & (np.diff(history.date) > _SILENT)),
        RESTLESS: _later(_at(first, len(same)) & changed & restless[history.asset[1:]]),
    }
    moves = Moves(
        pairs=int(same.sum()),
        steps=int(small.sum()),
        explained=float(-(gap[small] * step[small]).sum()),
        squared=float(np.square(step[small]).sum()),
        assets=int((rows > 0).sum()),
        restless=int(restless.sum()),
        on_day=_by_day(history.date[1:][same & _close_by(history)]),
        steps_on_day=_by_day(history.date[1:][changed & _close_by(history)]),
    )
    return notes, moves


def _adjusted(history: History) -> np.ndarray:
    """(n,) log of the adjusted close."""
    return np.asarray(np.log(history.columns["close"]) + np.log(history.columns["adj_factor"]))


def _changes(history: History) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n - 1,) each: log move of the adjusted close, log step of the factor, log overnight gap."""
    columns = history.columns
    gap = np.log(columns["open"][1:] / columns["close"][:-1])
    return np.diff(_adjusted(history)), np.diff(np.log(columns["adj_factor"])), gap


def _close_by(history: History) -> np.ndarray:
    near = np.diff(history.position) <= NEIGHBORS
    return np.asarray(near & (np.diff(history.date) <= _CLOSURE))


def _beyond_limit(history: History) -> np.ndarray:
    """(n - 1,) bool: open or close further from the reference price than the limits allow."""
    columns, days = history.columns, np.maximum(np.diff(history.position), 1)
    reference = columns["close"][:-1] * columns["adj_factor"][:-1] / columns["adj_factor"][1:]
    with np.errstate(invalid="ignore"):  # NaN compares as False: not known
        limit = np.maximum(history.limit[1:], LEAST_LIMIT)
        most = (1 + limit) ** days - 1 + SLACK + 0.01 / reference
        far = np.abs(columns["close"][1:] / reference - 1) > most
        far |= np.abs(columns["open"][1:] / reference - 1) > most
    return np.asarray(far & _close_by(history) & (history.date[1:] >= LIMITS_SINCE))


def _unexplained(history: History) -> np.ndarray:
    """(n - 1,) bool: the factor makes a large step of which the price shows less than half."""
    _, step, gap = _changes(history)
    close = np.diff(np.log(history.columns["close"]))
    most = _EXPLAINED * np.abs(step) + _DAY
    off = (np.abs(gap + step) > most) & (np.abs(close + step) > most)
    return np.asarray((np.abs(step) > _LARGE_STEP) & off)


def _near_ratio(gap: np.ndarray) -> np.ndarray:
    """(n,) bool: a log gap down to, or up from, one share of a split."""
    ratios = np.log(RATIOS)
    result = np.zeros(len(gap), dtype=bool)
    rows = np.flatnonzero(np.abs(gap) > ratios[0] - NEAR)
    if len(rows):
        distance = np.abs(np.abs(gap[rows])[:, None] - ratios)
        result[rows] = distance.min(axis=1) < NEAR
    return result


def _unit_jump(
    history: History, above: str, below: str, price: np.ndarray | None = None
) -> np.ndarray:
    """(n - 1,) bool: above / below (/ price) changes more than twentyfold; unknown ones do not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(history.columns[above] / history.columns[below])
        change = np.diff(ratio if price is None else ratio - np.log(price))
        return np.asarray(np.isfinite(change) & (np.abs(change) > _UNIT_JUMP))


def _repeated(history: History) -> np.ndarray:
    """(n - 1,) bool: a copy of the row before; no two traded days agree in all of these."""
    names = ("open", "high", "low", "close", "volume", "amount")
    return np.asarray(np.all([np.diff(history.columns[name]) == 0 for name in names], axis=0))


def _stale_cap(history: History) -> np.ndarray:
    """(n - 1,) bool: another close, the same market cap; False where there is none."""
    columns = history.columns
    return np.asarray((np.diff(columns["market_cap"]) == 0) & (np.diff(columns["close"]) != 0))


def _by_day(dates: np.ndarray) -> Counter[dt.date]:
    days, count = np.unique(dates.astype("datetime64[D]"), return_counts=True)
    return Counter(dict(zip(days.tolist(), count.tolist(), strict=True)))


def _flat(history: History) -> np.ndarray:
    """(n,) bool: rows after `FLAT_DAYS` with the same four prices."""
    still = history.asset[1:] == history.asset[:-1]
    for name in ("open", "high", "low", "close"):
        still &= history.columns[name][1:] == history.columns[name][:-1]
    rows = np.arange(len(history.asset))
    since = np.maximum.accumulate(np.where(_later(still), 0, rows)) if len(rows) else rows
    return np.asarray(rows - since >= FLAT_DAYS)


def _later(pairs: np.ndarray) -> np.ndarray:
    """(n,) from (n - 1,): what is said of a pair, said of its later row."""
    return np.concatenate([np.zeros(1, dtype=bool), pairs])


def _at(rows: np.ndarray, count: int) -> np.ndarray:
    result = np.zeros(count, dtype=bool)
    result[rows] = True
    return result
