"""Turn one bucket's checked bars into panel rows: sort, set aside, add features and price limits.

Columns are flat and sorted by (code, date); features are computed on dense (K, N) arrays, where row
k is an asset's k-th traded day.

The tick of adjusted prices is not known, so none of them is known to be at a limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from gangru_dist.bars.days import EMPTIED, THIN, to_days
from gangru_dist.bars.formats import STATED_LIMITS, BarsFormat, SideTable
from gangru_dist.bars.quality import NUMBERS, Findings, Quality
from gangru_dist.bars.rows import MISSING, find_missing
from gangru_dist.bars.side_tables import Members, check_same
from gangru_dist.bars.values import encode, is_as_before
from gangru_dist.features.price_volume import adjust_bars, compute_features
from gangru_dist.panel import jumps
from gangru_dist.panel.adjustment import derive_factor, find_evidence, find_yearly
from gangru_dist.panel.copies import find_repeated_rows
from gangru_dist.panel.jumps import JumpSums
from gangru_dist.panel.manifest import MEMBER, locate_listings, panel_schema
from gangru_dist.panel.price_limits import at_limit, at_stated_limit, find_limits

ASSETS_AT_ONCE = 256
"""Assets in one dense array: bounds memory where a bucket is large."""
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
    again = is_as_before(bars["code"]) & is_as_before(bars["date"])
    places = np.flatnonzero(again)
    if len(places):
        check_same(bars.take(places - 1), bars.take(places), task.files, ignore=("name",))
    bars = _keep(bars, findings.take(bars, {DUPLICATE: again}, show=()))
    bars = _add_listing(bars, findings)
    traded, close = ~bars["suspended"].to_numpy(), bars["close"].to_numpy()
    same = is_as_before(bars["code"])
    moves = same & is_as_before(bars["adj_factor"]) & (close > 0) & ~traded
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
    same = is_as_before(bars["code"])
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
    renamed = same & ~is_as_before(bars["industry"]) & known
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
    asset = np.cumsum(~is_as_before(bars["code"]))
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


def make_panel_rows(bars: pa.Table, task: BucketTask) -> pa.Table:
    """Panel rows of `select_rows`' rows: `panel_schema`, sorted by (asset, date)."""
    columns = {name: bars[name].to_numpy() for name in (*NUMBERS, *task.form.extra_columns)}
    same = is_as_before(bars["code"])
    values = _compute_features(columns, np.cumsum(~same) - 1, task)
    adjusted, cap = columns["close"] * columns["adj_factor"], columns["market_cap"]
    reference = np.where(same, np.roll(adjusted, 1) / columns["adj_factor"], np.nan)
    # the tick of prices that come adjusted is not known, so no close is known to be at a limit
    limit = bars[LIMIT].to_numpy()
    if task.form.prices == "adjusted":
        limit = np.full(len(bars), np.nan)
    up, down = at_limit(columns["close"], reference, limit)
    if set(STATED_LIMITS) <= columns.keys() and task.form.prices == "traded":
        up, down = at_stated_limit(columns, up, down)
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
    last = np.append(~is_as_before(bars["code"])[1:], True)[: len(bars)]
    early = last & (given < date)
    findings.note(bars, {EARLY_DELISTING: early}, show=("delist_date",))
    found: dict[str, str] = {}
    for row in np.flatnonzero(last):
        code = bars["code"][int(row)].as_py()
        days = (np.datetime64(known.get(code, "NaT"), "D"), given[row])
        fits = [str(day) for day in days if date[row] <= day <= task.calendar[-1]]
        found |= {code: fits[0]} if fits else {}
    return found


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


def _add_listing(bars: pa.Table, findings: Findings) -> pa.Table:
    """The bars and `LISTED`, one day an asset: what its first row says, else its date.

    Later rows are ignored, so that later bars cannot change an earlier day. A date after the
    first row is not believed, and counted.
    """
    date, given = to_days(bars["date"]), to_days(bars["list_date"])
    start = np.flatnonzero(~is_as_before(bars["code"]))
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
