"""From one bucket's checked bars to its panel rows: sort, set aside, features, price limits.

Works on flat columns sorted by (code, date); features on dense (K, N) arrays, row k being an
asset's k-th traded day.

Daily price limits of the A-share market say who closed at one and so could not be traded:

| board | code | limit |
|---|---|---|
| main | other | 10 %, ST 5 % |
| STAR | 688, 689 | 20 %; none on the first 5 days |
| ChiNext | 300, 301, 302 | 10 %, ST 5 %; from 2020-08-24 20 %, none on the first 5 days |
| Beijing | 43, 83, 87, 88, 92 | 30 %; none on the first day |

On the main board none applies on the first day (it had 44 %), and from 2023-04-10 on the first
5 days. Source: the exchanges' trading rules. Not modeled: the first day of a stock's delisting
period, suspensions during the day, B shares' ticks of 0.001.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from gangru_dist.bars.columns import encode
from gangru_dist.bars.days import THIN, to_days
from gangru_dist.bars.formats import BarsFormat, SideTable
from gangru_dist.bars.index import Members
from gangru_dist.bars.quality import NUMBERS, Findings, Quality
from gangru_dist.base.errors import BarsError
from gangru_dist.features.price_volume import adjust_bars, compute_features
from gangru_dist.maths.calendar import locate_listings
from gangru_dist.panel import jumps
from gangru_dist.panel.manifest import MEMBER, panel_schema

ASSETS_AT_ONCE = 256
"""Assets in one dense array: bounds memory where a bucket is large."""
CHINEXT_REFORM = np.datetime64("2020-08-24", "D")
"""ChiNext: 20 % and registration from this day."""
MAIN_REFORM = np.datetime64("2023-04-10", "D")
"""Main board: registration, first listings from this day."""
_BOARDS = {
    **dict.fromkeys(("688", "689"), "star"),
    **dict.fromkeys(("300", "301", "302"), "chinext"),
    **dict.fromkeys(("43", "83", "87", "88", "92"), "beijing"),
}
_TICK = 0.01  # CNY
_OLD_DAYS = 5

LISTED, LIMIT = "@listed", "@limit"
"""Columns of selected rows: listing day; largest move of the day, a fraction (infinite = none, NaN
= not known). No vendor's column is called so."""

DUPLICATE = "identical duplicate"
UNSOLD = "price moves on a day without volume"
RENAMED = "industry of a stock changes"
LATE_LISTING = "list_date after the stock's first row"
_SHOWN = ("close", "adj_factor")

Tables = tuple[tuple[SideTable, tuple[str, ...]], ...]
"""Side tables, each with its staged files."""


@dataclass(frozen=True, kw_only=True)
class BucketTask:
    """What all buckets have in common."""

    features: tuple[str, ...]
    """Names, in order."""
    calendar: np.ndarray
    """(days,) datetime64[D]."""
    has_turnover_rate: bool
    """Whether the files bring a turnover rate: all of them, or none."""
    form: BarsFormat
    """Units, for what was rounded away, and the market's price limits."""
    files: tuple[str, ...]
    """Names of the bars' files by number, for messages."""
    tables: Tables = ()
    """What lies beside the bars."""
    members: Members | None = None
    """Of an index; None = nobody is marked."""
    closed: np.ndarray = field(default_factory=lambda: np.empty(0, "datetime64[D]"))
    """(days,) datetime64[D], days with rows that are no trading days."""


def select_rows(bars: pa.Table, task: BucketTask) -> tuple[pa.Table, Quality, jumps.JumpSums]:
    """Rows of one bucket that can be trusted, sorted by (code, date), traded days only.

    Args:
        bars: Checked rows (`rows.CHECKED`) of whole assets, in any order.
        task: What the whole build has in common.

    Returns:
        The rows, with `LISTED` and `LIMIT` behind; what was set aside or is odd; and what only the
        whole market can judge.

    Raises:
        BarsError: Two rows of one date and code differ.
    """
    findings = Findings(files=task.files)
    bars = _sort(bars)
    closed = findings.take(bars, {THIN: np.isin(to_days(bars["date"]), task.closed)}, show=())
    bars = _keep(bars, closed)
    again = _find_duplicates(bars, task)
    bars = _keep(bars, findings.take(bars, {DUPLICATE: again}, show=()))
    bars = _add_listing(bars, findings)
    traded = ~bars["suspended"].to_numpy()
    unsold = {UNSOLD: _find_moves(bars) & ~traded}
    findings.note(bars, unsold, show=("close",), previous=("close",))
    bars = _keep(bars, traded)
    bars = bars.append_column(LIMIT, pa.array(_limit_shares(bars, task)))
    date = to_days(bars["date"])
    found = jumps.find_jumps(
        jumps.History(
            columns={name: bars[name].to_numpy() for name in NUMBERS},
            asset=_positions(bars)[0],
            date=date,
            position=np.searchsorted(task.calendar, date),
            limit=bars[LIMIT].to_numpy(),
        )
    )
    stays = findings.take(bars, found.reasons, show=("open", *_SHOWN), previous=("date", *_SHOWN))
    for kind, mask in found.notes.items():
        if kind == jumps.STALE_CAP and task.form.prices == "adjusted":
            continue  # dividends move an adjusted price and no market cap
        own = jumps.SHOWN.get(kind)
        previous = ("date", *(own or _SHOWN))
        findings.note(bars, {kind: mask}, show=own or ("open", *_SHOWN), previous=previous)
    renamed = {RENAMED: _find_renamed(bars)}
    findings.note(bars, renamed, show=("industry",), previous=("industry",))
    quality = Quality(quarantined=findings.quarantined, notes=findings.notes)
    return _keep(bars, stays), quality, found.sums


def panel_rows(bars: pa.Table, task: BucketTask) -> pa.Table:
    """Panel rows of `select_rows`' rows: `panel_schema`, sorted by (asset, date)."""
    columns = {name: bars[name].to_numpy() for name in (*NUMBERS, *task.form.further)}
    asset, step = _positions(bars)
    values = _features(columns, asset, step, task)
    up, down = _find_at_limits(columns, asset, bars[LIMIT].to_numpy())
    cap = columns["market_cap"]
    table = {
        "date": bars["date"],
        "asset": bars["code"].cast(pa.string()),
        **{name: pa.array(values[:, i]) for i, name in enumerate(task.features)},
        "is_st": bars["is_st"],
        "list_date": bars[LISTED],
        "adj_close": pa.array(columns["close"] * columns["adj_factor"]),
        "market_cap": pa.array(cap, mask=np.isnan(cap)),
        "industry": bars["industry"].cast(pa.string()),
        "limit_up": pa.array(up),
        "limit_down": pa.array(down),
    }
    if task.members is not None:
        table[MEMBER] = pa.array(
            task.members.find_members(encode(bars["code"]), to_days(bars["date"]))
        )
    schema = panel_schema(task.features, members=task.members is not None)
    return pa.table({name: table[name] for name in schema.names}, schema=schema)


def find_boards(codes: np.ndarray) -> np.ndarray:
    """(n,) str: main, star, chinext or beijing, by the six digits in any vendor's spelling."""
    digits = ["".join(c for c in str(code) if c.isdigit()).zfill(6)[:6] for code in codes]
    starts = [[board for start, board in _BOARDS.items() if d.startswith(start)] for d in digits]
    return np.array([found[0] if found else "main" for found in starts], dtype="U8")


def limit_share(
    board: np.ndarray, date: np.ndarray, listed_days: np.ndarray, is_st: np.ndarray
) -> Float[np.ndarray, " n"]:
    """Largest move of a day as a fraction of the reference price; infinite where there is none.

    Args:
        board: (n,) of `find_boards`.
        date: (n,) datetime64[D].
        listed_days: (n,) trading days since listing, 0 on the first day.
        is_st: (n,) bool, special treatment that day.
    """
    free = (board == "star") | ((board == "chinext") & (date >= CHINEXT_REFORM))
    share = np.where(is_st & (board != "beijing") & ~free, 0.05, 0.10)
    share[free] = 0.20
    share[board == "beijing"] = 0.30
    registered = free | ((board == "main") & (date >= MAIN_REFORM))
    unlimited = np.where(registered, _OLD_DAYS, 1)
    early = (listed_days >= 0) & (listed_days < unlimited)
    return np.where(early, np.inf, share)


def at_limit(
    close: Float[np.ndarray, " n"], reference: Float[np.ndarray, " n"], share: np.ndarray
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Whether each close stands at its upper, and at its lower, price limit.

    Args:
        close: Currency per share as traded.
        reference: Previous close, adjusted for today's ex-right and dividend; NaN = none.
        share: Of `limit_share`.

    Returns:
        Two arrays; False where there is no reference price.
    """
    base = _round(reference)
    with np.errstate(invalid="ignore"):
        upper, lower = _round(base * (1 + share)), _round(base * (1 - share))
        return close >= upper - _TICK / 2, close <= lower + _TICK / 2


def _round(price: np.ndarray) -> np.ndarray:
    """To the tick, halves up as the exchange does, whatever a float makes of 1.005."""
    return np.asarray(np.floor(price / _TICK + 0.5 + 1e-6) * _TICK)


def _keep(bars: pa.Table, mask: np.ndarray) -> pa.Table:
    return bars if mask.all() else bars.filter(pa.array(mask)).combine_chunks()


def _sort(bars: pa.Table) -> pa.Table:
    """By code, then date, then file."""
    code = encode(bars["code"])
    names = code.dictionary.to_pylist()
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(np.array(names, dtype=object))] = np.arange(len(names))
    days = bars["date"].cast(pa.int32()).to_numpy()
    order = np.lexsort((bars["file"].to_numpy(), days, rank[code.indices.to_numpy()]))
    return bars.take(pa.array(order)).combine_chunks()


def _find_duplicates(bars: pa.Table, task: BucketTask) -> np.ndarray:
    """(n,) bool: rows that repeat the one before; refuses those that contradict it."""
    same: np.ndarray = _is_as_before(bars["code"]) & _is_as_before(bars["date"])
    others = [name for name in bars.column_names if name not in ("code", "date", "file", "name")]
    for name in others if same.any() else ():
        differs = same & ~_is_as_before(bars[name])
        if differs.any():
            one, two = bars.slice(int(np.argmax(differs)) - 1, 2).to_pylist()
            files = task.files[one["file"]], task.files[two["file"]]
            raise BarsError(
                f"two rows of {one['date']} {one['code']} contradict each other: "
                f"{name}={one[name]} in {files[0]}, {name}={two[name]} in {files[1]}. Every (date, "
                "code) must be unique; remove the wrong one."
            )
    return same


def _find_moves(bars: pa.Table) -> np.ndarray:
    """(n,) bool: the price is another than the row's before, and the factor the same."""
    close = bars["close"].to_numpy()
    moved = (close[1:] != close[:-1]) & (close[1:] > 0) & (close[:-1] > 0)
    same: np.ndarray = _is_as_before(bars["code"]) & _is_as_before(bars["adj_factor"])
    same[1:] &= moved
    return same


def _find_renamed(bars: pa.Table) -> np.ndarray:
    """(n,) bool: the industry is another than the row's before."""
    known = bars["industry"].is_valid().to_numpy()
    other: np.ndarray = _is_as_before(bars["code"]) & ~_is_as_before(bars["industry"])
    other[1:] &= known[1:] & known[:-1]
    return other


def _is_as_before(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) bool: each value equals the one before; missing equals missing. The first does not."""
    if pa.types.is_dictionary(column.type):
        values = pc.fill_null(encode(column).indices, -1).to_numpy()
    elif pa.types.is_date(column.type):
        values = pc.fill_null(column.cast(pa.int32()), -(2**31)).to_numpy()
    else:
        values = column.to_numpy()
    result = np.zeros(len(values), dtype=bool)
    result[1:] = values[1:] == values[:-1]
    if values.dtype.kind == "f":
        result[1:] |= np.isnan(values[1:]) & np.isnan(values[:-1])
    return result


def _add_listing(bars: pa.Table, findings: Findings) -> pa.Table:
    """The bars and `LISTED`, one day an asset: what its first row says, else its date.

    Later rows are ignored, so that later bars cannot change an earlier day. A date after the
    first row is not believed, and counted.
    """
    date, given = to_days(bars["date"]), to_days(bars["list_date"])
    start = np.flatnonzero(~_is_as_before(bars["code"]))
    late = np.zeros(len(bars), dtype=bool)
    late[start] = given[start] > date[start]
    findings.note(bars, {LATE_LISTING: late}, show=("list_date",))
    first = np.repeat(np.fmin(given[start], date[start]), np.diff(np.append(start, len(bars))))
    return bars.append_column(LISTED, pa.array(first, pa.date32()))


def _positions(bars: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(n,) number of each row's asset, and (n,) of the row within its asset."""
    is_first = ~_is_as_before(bars["code"])
    asset = np.cumsum(is_first) - 1
    return asset, np.arange(len(bars)) - np.flatnonzero(is_first)[asset]


def _features(
    columns: dict[str, np.ndarray], asset: np.ndarray, step: np.ndarray, task: BucketTask
) -> np.ndarray:
    """(n, F) float32 of the flat rows, through dense arrays of some assets at a time."""
    result = np.empty((len(asset), len(task.features)), dtype=np.float32)
    assets = int(asset[-1]) + 1 if len(asset) else 0
    for low in range(0, assets, ASSETS_AT_ONCE):
        rows = slice(*np.searchsorted(asset, [low, low + ASSETS_AT_ONCE]))
        k, n = step[rows], asset[rows] - low
        shape = (int(k.max()) + 1, int(n.max()) + 1)
        dense = {}
        for name in columns:
            dense[name] = np.full(shape, np.nan)
            dense[name][k, n] = columns[name][rows]
        adjusted = adjust_bars(dense, has_turnover_rate=task.has_turnover_rate)
        result[rows] = compute_features(adjusted, task.features)[k, n]
    return result


def _limit_shares(bars: pa.Table, task: BucketTask) -> np.ndarray:
    """(n,) largest move of each day, a fraction; NaN where the market's rule is not known."""
    if task.form.price_limits == "none" or not len(bars):
        return np.full(len(bars), np.nan)
    date, listed = to_days(bars["date"]), to_days(bars[LISTED])
    since = np.searchsorted(task.calendar, date) - locate_listings(task.calendar, listed)
    names = encode(bars["code"])
    board = find_boards(np.array(names.dictionary.to_pylist()))[names.indices.to_numpy()]
    return limit_share(board, date, since, bars["is_st"].to_numpy())


def _find_at_limits(
    columns: dict[str, np.ndarray], asset: np.ndarray, limit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool twice: closed at the upper limit, at the lower; False where it is not known."""
    reference = np.full(len(asset), np.nan)
    same = asset[1:] == asset[:-1]
    adjusted = columns["close"] * columns["adj_factor"]
    reference[1:][same] = (adjusted[:-1] / columns["adj_factor"][1:])[same]
    return at_limit(columns["close"], reference, limit)
