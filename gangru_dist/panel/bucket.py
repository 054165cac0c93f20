"""From one bucket's checked bars to its panel rows: sort, set aside, features, price limits.

Works on flat columns sorted by (code, date); features on dense (K, N) arrays, row k being an
asset's k-th traded day.

Daily price limits of the A-share market say who closed at one and so could not be traded. Boards
are told by code: STAR 688, 689; ChiNext 300, 301, 302; Beijing 43, 83, 87, 88, 92; main, the rest.
`LIMITS` has their rules by date. Not modeled: suspensions during the day, B shares' ticks of 0.001,
the 44 % of a main-board stock's first day. Prices that come adjusted have a tick that is not known,
so none of them is known to be at a limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from gangru_dist.bars.days import EMPTIED, THIN, to_days
from gangru_dist.bars.formats import STATED_LIMITS, BarsFormat, SideTable
from gangru_dist.bars.quality import NUMBERS, Findings, Quality
from gangru_dist.bars.rows import MISSING, find_missing
from gangru_dist.bars.side_tables import Members, check_same, normalize_code
from gangru_dist.bars.values import encode
from gangru_dist.features.price_volume import adjust_bars, compute_features
from gangru_dist.panel import jumps
from gangru_dist.panel.adjustment import derive_factor, find_evidence, find_yearly
from gangru_dist.panel.copies import find_repeated_rows
from gangru_dist.panel.jumps import JumpSums
from gangru_dist.panel.manifest import MEMBER, locate_listings, panel_schema

ASSETS_AT_ONCE = 256
"""Assets in one dense array: bounds memory where a bucket is large."""
LIMITS = (
    # The exchanges' notice of December 1996.
    ("main", str(jumps.LIMITS_SINCE), 0.10, 0.10, 1),
    # Listing rules of 1998: special treatment.
    ("main", "1998-04-22", 0.10, 0.05, 1),
    # Trading rules of 2023: registration.
    ("main", "2023-04-10", 0.10, 0.05, 5),
    # The exchanges' "notice on the price limit of risk-warning stocks of the main board", draft of
    # 2025-06-27. Its day is from public reports (akfamily/akquant#249,
    # simonlin1212/TradingAgents-astock#85; rustdx-complete measured it): the text was not found.
    ("main", "2026-07-06", 0.10, 0.10, 5),
    # Shanghai's special rules for trading on the STAR market, 2019: registration.
    ("star", "1990-01-01", 0.20, 0.20, 5),
    ("chinext", "1990-01-01", 0.10, 0.05, 1),
    # Shenzhen's special rules for trading on ChiNext, 2020: registration.
    ("chinext", "2020-08-24", 0.20, 0.20, 5),
    # Beijing's trading rules of 2021.
    ("beijing", "1990-01-01", 0.30, 0.30, 1),
)
"""Board, first day; limit as a fraction of the reference price, and the same under special
treatment; days from the listing on that have none. There are none before the first row."""
FREE_LEAVING = np.datetime64("2020-12-31", "D")
"""From this day on, the first day of a stock's delisting period has no limit; the board's own, not
that of special treatment, holds in it. Listing rules of December 2020."""
_BOARDS = {
    **dict.fromkeys(("688", "689"), "star"),
    **dict.fromkeys(("300", "301", "302"), "chinext"),
    **dict.fromkeys(("43", "83", "87", "88", "92"), "beijing"),
}
_TICK = 0.01  # CNY
_LISTED = re.compile(r"(?<!\d)\d{6}(?!\d)")
"""A code of an exchange whose companies pay dividends."""

LISTED, LIMIT = "@listed", "@limit"
"""Columns of selected rows: listing day; largest move of the day, a fraction (infinite = none, NaN
= not known). No vendor's column is called so."""

DUPLICATE = "identical duplicate"
UNSOLD = "price moves on a day without volume"
RENAMED = "industry of a stock changes"
LATE_LISTING = "list_date after the stock's first row"
EARLY_DELISTING = "delist_date before the stock's last row, not used"
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
    given: frozenset[str] = frozenset()
    """Columns that they bring."""
    members: Members | None = None
    """Of an index; None = nobody is marked."""
    closed: np.ndarray = field(default_factory=lambda: np.empty(0, "datetime64[D]"))
    """(days,) datetime64[D], days with rows that are no trading days."""
    emptied: np.ndarray = field(default_factory=lambda: np.empty(0, "datetime64[D]"))
    """(days,) datetime64[D], days that are none for most of their rows were set aside here."""


def select_rows(bars: pa.Table, task: BucketTask) -> tuple[pa.Table, Quality, JumpSums]:
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
    thin = {THIN: np.isin(to_days(bars["date"]), task.closed)}
    bars = _keep(bars, findings.take(bars, thin, show=()))
    again = _is_as_before(bars["code"]) & _is_as_before(bars["date"])
    places = np.flatnonzero(again)
    if len(places):
        check_same(bars.take(places - 1), bars.take(places), task.files, ignore=("name",))
    bars = _keep(bars, findings.take(bars, {DUPLICATE: again}, show=()))
    bars = _add_listing(bars, findings)
    traded, close = ~bars["suspended"].to_numpy(), bars["close"].to_numpy()
    same = _is_as_before(bars["code"])
    moves = same & _is_as_before(bars["adj_factor"]) & (close > 0) & ~traded
    moves[1:] &= (close[1:] != close[:-1]) & (close[:-1] > 0)
    findings.note(bars, {UNSOLD: moves}, show=("close",), previous=("close",))
    # a day without a row may be a lost one, a suspended row is none
    days = np.diff(np.searchsorted(task.calendar, to_days(bars["date"])), prepend=0)
    bars = _adjust(_keep(bars, traded), days[traded], task, findings)
    shown = {"show": ("open", *_SHOWN), "previous": ("date", *_SHOWN)}
    emptied = np.isin(to_days(bars["date"]), task.emptied)
    if emptied.any():  # their rows go for their own reasons, and no other day meets them
        reasons, _, _ = jumps.find_jumps(_to_arrays(bars, task))
        reasons = {reason: mask & emptied for reason, mask in reasons.items()}
        bars = _keep(bars, findings.take(bars, {**reasons, EMPTIED: emptied}, **shown))
    rows = _to_arrays(bars, task)
    reasons, notes, sums = jumps.find_jumps(rows)
    repeated = find_repeated_rows(rows)
    sums += _judge(bars, rows, task.form)
    sums += JumpSums(repeated=(repeated,) if len(repeated) else ())
    bars = bars.append_column(LIMIT, pa.array(rows["limit"]))
    same = _is_as_before(bars["code"])
    stays = findings.take(bars, reasons, **shown)
    if task.form.prices == "adjusted":
        del notes[jumps.STALE_CAP]  # dividends move an adjusted price and no market cap
    for kind, mask in notes.items():
        own = jumps.SHOWN.get(kind)
        previous = ("date", *(own or _SHOWN))
        findings.note(bars, {kind: mask}, show=own or ("open", *_SHOWN), previous=previous)
    for name in sorted(task.given & MISSING.keys()):
        first = np.flatnonzero(~same)
        never = np.zeros(len(bars), dtype=bool)
        if len(first):
            never[first] = np.logical_and.reduceat(find_missing(bars[name]), first)
        findings.note(bars, {f"stock without any {name}": never}, show=())
    known = bars["industry"].is_valid().to_numpy()
    renamed = same & ~_is_as_before(bars["industry"]) & known
    renamed[1:] &= known[:-1]
    findings.note(bars, {RENAMED: renamed}, show=("industry",), previous=("industry",))
    return _keep(bars, stays), findings.quality, sums


def _to_arrays(bars: pa.Table, task: BucketTask) -> dict[str, np.ndarray]:
    """Columns of sorted rows as `jumps.find_jumps` takes them."""
    date, limit = to_days(bars["date"]), np.full(len(bars), np.nan)
    position = np.searchsorted(task.calendar, date)
    if task.form.price_limits != "none":
        since = position - locate_listings(task.calendar, to_days(bars[LISTED]))
        limit = find_limits(bars, date, since)
    rows = {name: bars[name].to_numpy() for name in (*NUMBERS, *task.form.extra_columns)}
    asset = np.cumsum(~_is_as_before(bars["code"]))
    rows["is_st"] = bars["is_st"].to_numpy()
    return {**rows, "asset": asset, "date": date, "position": position, "limit": limit}


def _adjust(bars: pa.Table, days: np.ndarray, task: BucketTask, findings: Findings) -> pa.Table:
    """The bars with the factor that their columns give, if they have none.

    Args:
        bars: n traded rows, sorted.
        days: (n,) trading days since the stock's row before, a suspended one or not.
        task: What the whole build has in common.
        findings: Where odd rows are counted.
    """
    source = task.form.factor_source
    if source is None or task.form.prices == "adjusted":
        return bars
    factor, notes = derive_factor({**_to_arrays(bars, task), "days": days}, source)
    findings.note(bars, notes, show=("close", source), previous=("date", "close"))
    return bars.set_column(bars.column_names.index("adj_factor"), "adj_factor", pa.array(factor))


def _judge(bars: pa.Table, rows: dict[str, np.ndarray], form: BarsFormat) -> JumpSums:
    """What whole histories say of a factor that follows from them, or of its absence."""
    if form.prices == "traded" and form.factor_source is None:
        return JumpSums()
    code = encode(bars["code"])
    listed = [
        form.price_limits == "ashare" or _LISTED.search(name) is not None
        for name in code.dictionary.to_pylist()
    ]
    is_listed = np.array(listed, dtype=bool)[code.indices.to_numpy()]
    if form.prices == "traded":
        return JumpSums(yearly=int((is_listed & find_yearly(rows)).sum()))
    return find_evidence(
        rows,
        source=form.factor_source,
        is_listed=is_listed,
        lot=form.scales.get("volume", 1.0),
        unit=form.scales.get("amount", 1.0),
        paid=not form.adjusted,
    )


def panel_rows(bars: pa.Table, task: BucketTask) -> pa.Table:
    """Panel rows of `select_rows`' rows: `panel_schema`, sorted by (asset, date)."""
    columns = {name: bars[name].to_numpy() for name in (*NUMBERS, *task.form.extra_columns)}
    same = _is_as_before(bars["code"])
    values = _compute_features(columns, np.cumsum(~same) - 1, task)
    adjusted, cap = columns["close"] * columns["adj_factor"], columns["market_cap"]
    reference = np.where(same, np.roll(adjusted, 1) / columns["adj_factor"], np.nan)
    # the tick of prices that come adjusted is not known, so no close is known to be at a limit
    limit = bars[LIMIT].to_numpy()
    if task.form.prices == "adjusted":
        limit = np.full(len(bars), np.nan)
    up, down = at_limit(columns["close"], reference, limit)
    if set(STATED_LIMITS) <= columns.keys() and task.form.prices == "traded":
        stated = [columns[name] for name in STATED_LIMITS]
        with np.errstate(invalid="ignore"):  # limits that the day's prices break are none
            fits = columns["high"] <= stated[0] + _TICK / 2
            fits &= columns["low"] >= stated[1] - _TICK / 2
            up = np.where(fits, columns["close"] >= stated[0] - _TICK / 2, up)
            down = np.where(fits, columns["close"] <= stated[1] + _TICK / 2, down)
    table = {
        "date": bars["date"],
        "asset": bars["code"].cast(pa.string()),
        **{name: pa.array(values[:, i]) for i, name in enumerate(task.features)},
        "is_st": bars["is_st"],
        "list_date": bars[LISTED],
        "adj_close": pa.array(adjusted),
        "market_cap": pa.array(cap, mask=np.isnan(cap)),
        "industry": bars["industry"].cast(pa.string()),
        "limit_up": pa.array(up),
        "limit_down": pa.array(down),
    }
    if task.members is not None:
        members = task.members.find_members(encode(bars["code"]), to_days(bars["date"]))
        table[MEMBER] = pa.array(members)
    schema = panel_schema(task.features, members=task.members is not None)
    return pa.table({name: table[name] for name in schema.names}, schema=schema)


def find_delisted(
    bars: pa.Table, known: Mapping[str, str], task: BucketTask, findings: Findings
) -> dict[str, str]:
    """Stock -> the day on which it left the exchange, ISO: one of the calendar's time.

    What is known beats what the bars say now, unless the stock has a row after it.

    Args:
        bars: Rows of `select_rows`.
        known: What the panel that is there says.
        task: What the whole build has in common.
        findings: Where days are counted that cannot be.
    """
    date, given = to_days(bars["date"]), to_days(bars["delist_date"])
    last = np.append(~_is_as_before(bars["code"])[1:], True)[: len(bars)]
    early = last & (given < date)
    findings.note(bars, {EARLY_DELISTING: early}, show=("delist_date",))
    found: dict[str, str] = {}
    for row in np.flatnonzero(last):
        code = bars["code"][int(row)].as_py()
        days = (np.datetime64(known.get(code, "NaT"), "D"), given[row])
        fits = [str(day) for day in days if date[row] <= day <= task.calendar[-1]]
        found |= {code: fits[0]} if fits else {}
    return found


def find_boards(codes: pa.DictionaryArray) -> np.ndarray:
    """(n,) str: main, star, chinext or beijing, by the six digits in any vendor's spelling."""
    boards = []
    for code in codes.dictionary.to_pylist():
        digits = normalize_code(code)[:6]
        if not digits.isdigit():
            digits = "".join(c for c in code if c.isdigit()).zfill(6)[:6]
        found = [board for start, board in _BOARDS.items() if digits.startswith(start)]
        boards.append(found[0] if found else "main")
    return np.asarray(np.array(boards, dtype="U8")[codes.indices.to_numpy()])


def limit_share(
    board: np.ndarray, date: np.ndarray, listed_days: np.ndarray, is_st: np.ndarray
) -> Float[np.ndarray, " n"]:
    """Largest move of a day as a fraction of the reference price, by `LIMITS`.

    Infinite where there is none.

    Args:
        board: (n,) of `find_boards`.
        date: (n,) datetime64[D].
        listed_days: (n,) trading days since listing, 0 on the first day.
        is_st: (n,) bool, special treatment that day.
    """
    limits, free_days = np.full(len(date), np.inf), np.zeros(len(date))
    for name, first, share, share_st, days in LIMITS:
        holds = (board == name) & (date >= np.datetime64(first))
        limits[holds] = np.where(is_st[holds], share_st, share)
        free_days[holds] = days
    return np.where((listed_days >= 0) & (listed_days < free_days), np.inf, limits)


def find_limits(bars: pa.Table, date: np.ndarray, since: np.ndarray) -> Float[np.ndarray, " n"]:
    """Largest moves of sorted rows, `since` trading days after their listings."""
    leaving, marked = (bars[name].to_numpy() for name in ("is_delisting", "is_st"))
    limit = limit_share(find_boards(encode(bars["code"])), date, since, marked & ~leaving)
    first = leaving & _is_as_before(bars["code"]) & (date >= FREE_LEAVING)
    first[1:] &= ~leaving[:-1]
    limit[first] = np.inf
    return limit


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
    names = code.dictionary.to_numpy(zero_copy_only=False)
    rank = np.unique(names, return_inverse=True)[1][code.indices.to_numpy()]
    days = bars["date"].cast(pa.int32()).to_numpy()
    order = np.lexsort((bars["file"].to_numpy(), days, rank))
    return bars.take(pa.array(order)).combine_chunks()


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


def _compute_features(
    columns: dict[str, np.ndarray], asset: np.ndarray, task: BucketTask
) -> np.ndarray:
    """(n, F) float32 of rows sorted by asset, through dense arrays of some assets at a time."""
    result = np.empty((len(asset), len(task.features)), dtype=np.float32)
    step = np.arange(len(asset)) - np.searchsorted(asset, asset)  # a row's place within its asset
    for low in range(0, int(asset[-1]) + 1 if len(asset) else 0, ASSETS_AT_ONCE):
        rows = slice(*np.searchsorted(asset, [low, low + ASSETS_AT_ONCE]))
        k, n = step[rows], asset[rows] - low
        dense = {name: np.full((k.max() + 1, n.max() + 1), np.nan) for name in columns}
        for name, values in columns.items():
            dense[name][k, n] = values[rows]
        adjusted = adjust_bars(dense, has_turnover_rate=task.has_turnover_rate)
        result[rows] = compute_features(adjusted, task.features)[k, n]
    return result
