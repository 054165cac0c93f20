"""Find price jumps: compare a stock's days with each other by prices, `adj_factor` and volume.

    known limits     |close / (previous close / factor step) - 1| <= limit; likewise for open
    no known limits  an overnight gap near 2:1, 10:3 ... without a step of adj_factor is suspicious
    any market       a step of adj_factor shows in the price; nothing moves eightfold in a day

Four years of the real market (3.4 million moves) break no rule between neighbouring days. A row
that leaves its neighbours is set aside, and so are all rows after it until a later move takes the
stock back to its level: no return spans two levels. Rows are judged by earlier ones alone, so
appended days change nothing. A lasting change of level (a split without a factor) is counted, and
stops the build if it affects more than a single stock: `panel.jump_checks`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

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
_BACK = 2 * np.log(1 + LEAST_LIMIT) + SLACK  # two days' own moves, as the stock leaves and returns
_HALVED = np.log(1.9)  # overnight, where no limits are known
_NO_STEP, _STEP, _LARGE_STEP = 1e-6, 0.1, np.log(1.2)  # of log adj_factor
_EXPLAINED = 0.5  # share of a large step that the price must show
_DAY = np.log(1.12)  # of an ex-date's own move: a price limit
_UNIT_JUMP = np.log(20)  # no split is so large: another unit
_CAP_JUMP = np.log(50)  # a shell's shares have grown 31 times in one merger
_CLOSURE = np.timedelta64(15, "D")  # the market's longest holidays
_SILENT = np.timedelta64(366, "D")
_SURGE = 3  # of the amount before a suspension: what ends one without a limit has news
_CALM, _CALM_DAYS = 4, 20  # times the mean amount and range of so many rows before: no news
_ISSUE, _MOST_SHARES = 0.05, np.log(4)  # log growth of all shares: an issue, or a split
_WHOLE_YEAR = 150  # rows of a stock
_RESTLESS, _RESTLESS_LEAST = 0.1, 10  # share and number of a stock's rows where a ratio changes
_OTHER_RATE = 0.4  # of log turnover_rate / volume: more than two decimals of per cent round away

LEAVES = "price moves further than the market allows"
SPIKE = "adj_factor changes and the price does not"
AFTER = "after a step that nothing explains, and before one that takes it back"
FLAT = "price has not moved for 20 traded days"
REPEATED = "prices, volume and amount are those of the day before"
JUMP = "lasting move that the market does not allow, adj_factor unchanged"
TYPICAL = "lasting move near a split's ratio (2:1, 10:3 ...), adj_factor unchanged"
STEP = "lasting step of adj_factor that the price does not show"
VOLUME_JUMP = "amount / volume jumps twentyfold against the price"
TURNOVER_JUMP = "turnover_rate jumps twentyfold against the volume"
CAP_JUMP = "market_cap jumps fiftyfold against the close"
UNSTEADY = "turnover_rate does not follow the volume on more than a tenth of a stock's days"
RESTLESS = "adj_factor changes on more than a tenth of a stock's days"
STALE_CAP = "market_cap stays the same although the price moves"
REUSED = "stock traded again after more than a year: a code used twice?"
SHOWN = {VOLUME_JUMP: ("close", "volume", "amount"), TURNOVER_JUMP: ("volume", "turnover_rate"),
         UNSTEADY: ("volume", "turnover_rate"),
         CAP_JUMP: ("close", "market_cap")}  # fmt: skip
"""Note -> columns that its example shows, other than close and adj_factor."""

Masks = dict[str, np.ndarray]
"""Reason or note -> (n,) bool."""


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
    wide: int = 0
    """Where no limits are known: gaps of calm days as wide as a split's, at no split's ratio."""
    issues: int = 0
    """Pairs over which a stock's shares grow (market_cap / close)."""
    diluted: float = 0.0
    """Sum of -(log overnight gap + log step of adj_factor) x (log growth) over these."""
    grown: float = 0.0
    """Sum of (log growth)^2; `diluted` / `grown` is 0 for a right factor, 1 if it lacks splits."""
    payers: Counter[int] = field(default_factory=Counter)
    """Year -> stocks that are there in it and the year before, and had a dividend in that one."""
    stopped: Counter[int] = field(default_factory=Counter)
    """Year -> those of them whose adj_factor stays all year."""
    rows_in: Counter[int] = field(default_factory=Counter)
    """Year -> rows."""
    special_in: Counter[int] = field(default_factory=Counter)
    """Year -> those of them under special treatment."""
    yearly: int = 0
    """Rows of stocks with a year of rows, of an exchange whose companies pay dividends; this and
    what follows is of `adjustment.find_evidence`."""
    compared: int = 0
    """Pairs of next days with a previous close, a change or an adjusted close beside the price."""
    stated: int = 0
    """Those of them where these state an ex-date."""
    paid: int = 0
    """Rows of stocks with a year of rows, of any market, with an amount."""
    outside: int = 0
    """Those of them whose amount / volume is none of the day's prices."""
    whole: int = 0
    """Those of them whose volume is a whole number of shares."""
    surges_on_day: Counter[dt.date] = field(default_factory=Counter)
    """Day -> pairs of `on_day` whose volume is twenty times the other, or a twentieth."""
    unsteady: int = 0
    """Stocks whose turnover_rate goes its own way, not the volume's."""
    weeks_on_day: Counter[dt.date] = field(default_factory=Counter)
    """Day -> stocks with five rows before it and five from it on."""
    shifts_on_day: Counter[dt.date] = field(default_factory=Counter)
    """Day -> those of them whose prices leave amount / volume from one week to the next."""

    repeated: tuple[np.ndarray, ...] = ()
    """Rows that are as earlier ones, as of `copies.find_repeated_rows`."""

    def __add__(self, other: JumpSums) -> JumpSums:
        """The sums of both."""
        names = vars(self)
        return JumpSums(**{name: getattr(self, name) + getattr(other, name) for name in names})


def find_jumps(rows: Mapping[str, np.ndarray]) -> tuple[Masks, Masks, JumpSums]:
    """Find rows that leave their neighbours, and what stays odd without them.

    Args:
        rows: Columns of n traded rows of whole stocks, sorted by (asset, date): `quality.NUMBERS`;
            asset, the stock's number; date; position, the date's index in the calendar; and limit,
            the largest move of the day, a fraction (infinite = none, NaN = not known); and is_st.

    Returns:
        Reason -> (n,) bool, rows to set aside, each of which leaves the row before it; note ->
        (n,) bool, what is only counted, in the same way; and what the whole market judges.
    """
    pairs = _compare_rows(rows)
    wrong = _find_wrong(rows, pairs)
    stays = ~np.any(list(wrong.values()), axis=0)
    kept = rows if stays.all() else {name: values[stays] for name, values in rows.items()}
    lasting, sums = _find_lasting(kept, pairs if stays.all() else _compare_rows(kept))
    notes = {name: np.zeros(len(stays), dtype=bool) for name in lasting}
    for name, mask in lasting.items():
        notes[name][stays] = mask
    before = np.append(True, stays[:-1])[: len(stays)]
    followed = np.append((wrong[AFTER] | wrong[LEAVES] | wrong[SPIKE])[1:], False)[: len(stays)]
    followed &= np.append(pairs["same"][1:], False)[: len(stays)]
    for reason, note in ((LEAVES, JUMP), (SPIKE, STEP)):
        notes[note] |= wrong[reason] & followed
        notes[note] &= before  # two rows with one removed between them are not neighbours
    together = notes[STEP] & pairs["close_by"]
    sums.steps_on_day.update(_count_days(rows["date"][together]))
    notes[TYPICAL] = notes[JUMP] & pairs["near_ratio"]
    return wrong, notes, sums


def _compare_rows(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is said of each row and the one before it, which may be another stock's.

    Returns:
        level, log of the adjusted close; same, whether both rows are of one stock; step, log step
        of the factor; gap, log overnight gap from close to open; near_ratio, whether it is down
        to, or up from, one share of a split; close_by, whether so few days lie between that limits
        of a day bound the move; reused, whether more than a year does; anew, the same or a
        suspension that ends with many times the trade, and may end without a limit; far, whether
        open or close is further from the reference price than the market allows; unexplained,
        whether the factor makes a large step of which the price shows less than half.
    """
    close, factor, date = rows["close"], rows["adj_factor"], rows["date"]
    level = np.log(close) + np.log(factor)
    move, step = _subtract(np.log(close)), _subtract(np.log(factor))
    gap = np.log(rows["open"] / shift(close))
    days, reference = _subtract(rows["position"]), shift(close * factor) / factor
    away = np.diff(date, prepend=np.datetime64("NaT"))
    close_by = (days <= NEIGHBORS) & (away <= _CLOSURE)
    with np.errstate(invalid="ignore"):  # NaN compares as False: not known
        most = (1 + np.maximum(rows["limit"], LEAST_LIMIT)) ** np.maximum(days, 1) - 1
        most += SLACK + 0.01 / reference
        far = np.abs(close / reference - 1) > most
        far |= np.abs(rows["open"] / reference - 1) > most
    wide = np.flatnonzero(np.abs(gap) > np.log(RATIOS[0]) - NEAR)
    near = np.zeros(len(gap), dtype=bool)
    near[wide] = (np.abs(np.abs(gap[wide])[:, None] - np.log(RATIOS)) < NEAR).any(axis=1)
    shown = _EXPLAINED * np.abs(step) + _DAY
    hidden = (np.abs(gap + step) > shown) & (np.abs(move + step) > shown)
    resumed = (days > 1) & (rows["amount"] > _SURGE * shift(rows["amount"]))
    return {
        "level": level,
        "same": _subtract(rows["asset"]) == 0,
        "step": step,
        "gap": gap,
        "near_ratio": near,
        "close_by": close_by,
        "reused": away > _SILENT,
        "anew": (away > _SILENT) | (resumed & (np.abs(step) <= _NO_STEP)),
        "far": (far & close_by & (date >= LIMITS_SINCE)) | (np.abs(_subtract(level)) > EIGHTFOLD),
        "unexplained": (np.abs(step) > _LARGE_STEP) & hidden,
    }


def _find_wrong(rows: Mapping[str, np.ndarray], pairs: Mapping[str, np.ndarray]) -> Masks:
    """Reason -> (n,) bool: rows that leave their stock's level, and those that do not return."""
    same = pairs["same"]
    odd = same & (pairs["far"] | pairs["unexplained"])
    off = _find_off(rows["asset"], pairs, odd)
    bad = off & odd
    by_factor = bad & (pairs["unexplained"] | (np.abs(pairs["step"]) > _NO_STEP))
    still = same & np.all([_subtract(rows[name]) == 0 for name in PRICES], axis=0)
    repeated = still & ~bad  # no two traded days agree in all of these
    repeated &= (_subtract(rows["volume"]) == 0) & (_subtract(rows["amount"]) == 0)
    number = np.arange(len(same))
    flat = number - np.maximum.accumulate(np.where(still, 0, number)) >= FLAT_DAYS
    wrong = {LEAVES: bad & ~by_factor, SPIKE: by_factor, REPEATED: repeated}
    return {**wrong, FLAT: flat & ~bad & ~repeated, AFTER: off & ~bad & ~repeated & ~flat}


def _find_off(asset: np.ndarray, pairs: Mapping[str, np.ndarray], odd: np.ndarray) -> np.ndarray:
    """(n,) bool: rows that are off the level of the last row which could be trusted.

    The sum of a stock's odd moves says how far off it is. A move that takes back half of it or
    more, and leaves no more than two days' own moves, ends that: an odd one, the first one
    after, or one over many days. A stock that begins anew keeps the level to which it moved. Each
    row is judged by it and the rows before alone.
    """
    off, known = np.zeros(len(odd)), ~pairs["same"]
    may_end = odd | np.append(False, odd[:-1])[: len(odd)] | ~pairs["close_by"]
    move = _subtract(pairs["level"])
    distance, of = 0.0, -1
    for row in np.flatnonzero(pairs["same"] & may_end & np.isin(asset, asset[odd])).tolist():
        before = distance if asset[row] == of else 0.0
        of, distance = asset[row], before + (move[row] if odd[row] else 0.0)
        back, left = -move[row] * np.sign(before), abs(before + move[row])
        if before and back >= _EXPLAINED * abs(before) and left <= _BACK:
            distance = 0.0
        off[row], known[row] = distance, True
        if not before and pairs["anew"][row]:
            distance = 0.0
    last = np.maximum.accumulate(np.where(known, np.arange(len(odd)), 0))
    return np.asarray(off[last] != 0)


def _find_lasting(
    rows: Mapping[str, np.ndarray], pairs: Mapping[str, np.ndarray]
) -> tuple[Masks, JumpSums]:
    """Kind -> (n,) bool, rows that differ for good from the one before; and the sums."""
    same, step, gap, near = (pairs[name] for name in ("same", "step", "gap", "close_by"))
    asset, date = rows["asset"], rows["date"]
    calm = np.isnan(rows["limit"]) & same & (np.abs(step) <= _NO_STEP)
    calm &= _find_calm(rows) if calm.any() else False
    split = calm & (pairs["near_ratio"] | (np.abs(gap) > _HALVED))
    changed = same & (np.abs(step) > _NO_STEP)
    count = np.bincount(asset)
    restless = _find_restless(changed, asset)
    small = changed & (np.abs(step) < _STEP) & ~restless[asset] & near
    with np.errstate(divide="ignore", invalid="ignore"):  # what is not finite is no jump
        price = np.log(rows["amount"] / rows["volume"]) - np.log(rows["close"])
        turnover = np.log(rows["turnover_rate"] / rows["volume"])
        shares = np.log(rows["market_cap"] / rows["close"])
        units = [np.abs(_subtract(ratio)) for ratio in (price, turnover, shares)]
    volume_jump, turnover_jump, cap_jump = (
        (unit > _UNIT_JUMP) & np.isfinite(unit) for unit in units
    )
    other_rate = same & (units[1] > _OTHER_RATE) & np.isfinite(units[1])
    unsteady = _find_restless(other_rate, asset)
    surge = np.abs(_subtract(np.log(rows["volume"]))) > _UNIT_JUMP
    # not on an ex-date: a split halves the close and doubles the shares
    moved = same & ~changed & (_subtract(rows["close"]) != 0)
    notes = {
        JUMP: same & ~changed & (pairs["far"] | split),
        STEP: changed & (pairs["far"] | pairs["unexplained"]),
        VOLUME_JUMP: same & volume_jump,
        TURNOVER_JUMP: same & turnover_jump,
        CAP_JUMP: same & cap_jump & (units[2] > _CAP_JUMP),
        STALE_CAP: moved & (_subtract(rows["market_cap"]) == 0),
        REUSED: same & pairs["reused"],
        RESTLESS: _mark_first(changed & restless[asset], asset),
        UNSTEADY: _mark_first(other_rate & unsteady[asset], asset),
    }
    growth = _subtract(shares)
    steady = np.abs(growth) < _ISSUE / 5
    issue = same & near & (growth > _ISSUE) & (growth < _MOST_SHARES)
    issue[1:-1] &= steady[:-2] & steady[2:]  # else the cap is of another day
    payers, stopped = _count_payers(asset, date, changed & (np.abs(step) < _STEP), changed)
    sums = JumpSums(
        pairs=int(same.sum()),
        steps=int(small.sum()),
        explained=float(-(gap[small] * step[small]).sum()),
        squared=float(np.square(step[small]).sum()),
        assets=int((count > 0).sum()),
        restless=int(restless.sum()),
        on_day=_count_days(date[same & near]),
        steps_on_day=_count_days(date[changed & near]),
        surges_on_day=_count_days(date[same & near & surge]),
        unsteady=int(unsteady.sum()),
        wide=int((calm & ~split & (np.abs(gap) > np.log(RATIOS[0]) - NEAR)).sum()),
        issues=int(issue.sum()),
        diluted=float(-((gap + step)[issue] * growth[issue]).sum()),
        grown=float(np.square(growth[issue]).sum()),
        payers=payers,
        stopped=stopped,
        rows_in=Counter(_find_years(date).tolist()),
        special_in=Counter(_find_years(date[rows["is_st"]]).tolist()),
    )
    return notes, sums


def _find_restless(changes: np.ndarray, asset: np.ndarray) -> np.ndarray:
    """(stocks,) bool: stocks of which so many rows change what should hardly ever change."""
    count = np.bincount(asset)
    changed = np.bincount(asset[changes], minlength=len(count))
    return np.asarray(changed > np.maximum(_RESTLESS_LEAST, _RESTLESS * count))


def _mark_first(mask: np.ndarray, asset: np.ndarray) -> np.ndarray:
    """(n,) bool: of the rows of a mask the first of each stock."""
    rows = np.flatnonzero(mask)
    first = np.zeros(len(mask), dtype=bool)
    first[rows[np.unique(asset[rows], return_index=True)[1]]] = True
    return first


def _find_years(date: np.ndarray) -> np.ndarray:
    return np.asarray(date.astype("datetime64[Y]").astype(int) + 1970)


def _find_calm(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n,) bool: amount and range of the day are as those of the stock's rows before.

    So is a split's day; a real move of that size has news, and many times the trade.
    """
    number = np.arange(len(rows["asset"]))
    first = np.maximum(number - _CALM_DAYS, np.searchsorted(rows["asset"], rows["asset"]))
    traded = np.nan_to_num(rows["volume"] * rows["close"])
    calm = np.ones(len(number), dtype=bool)
    for values in (traded, rows["high"] / rows["low"] - 1):
        total = np.append(0, np.cumsum(values))
        mean = (total[number] - total[first]) / np.maximum(number - first, 1)
        calm &= values <= _CALM * mean
    return calm


def _count_payers(
    asset: np.ndarray, date: np.ndarray, paid: np.ndarray, changed: np.ndarray
) -> tuple[Counter[int], Counter[int]]:
    """`JumpSums.payers` and `JumpSums.stopped` of rows sorted by (asset, date)."""
    year = _find_years(date)
    start = np.flatnonzero((_subtract(asset) != 0) | (_subtract(year) != 0))
    if not len(start):
        return Counter(), Counter()
    whole = np.diff(np.append(start, len(asset))) >= _WHOLE_YEAR
    has_paid, has_changed = (np.logical_or.reduceat(mask, start) for mask in (paid, changed))
    before = np.append(False, (whole & has_paid)[:-1])
    before &= whole & (_subtract(asset[start]) == 0) & (_subtract(year[start]) == 1)
    years = year[start]
    return Counter(years[before].tolist()), Counter(years[before & ~has_changed].tolist())


def _count_days(dates: np.ndarray) -> Counter[dt.date]:
    days, count = np.unique(dates, return_counts=True)
    return Counter(dict(zip(days.tolist(), count.tolist(), strict=True)))


def _subtract(values: np.ndarray) -> np.ndarray:
    """(n,) each value less the one before; NaN at the first."""
    return np.diff(values, prepend=np.nan)


def shift(values: np.ndarray) -> np.ndarray:
    """(n,) the value before each; NaN at the first."""
    return np.append(np.nan, values)[:-1]
