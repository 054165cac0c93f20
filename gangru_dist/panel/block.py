"""A dense block of the panel, days x assets x features, on which every later stage works.

It is scattered row by row into preallocated arrays, or cut from blocks of whole buckets: either way
memory holds one copy of it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from gangru_dist.bars.values import encode
from gangru_dist.base.errors import PanelError
from gangru_dist.base.records import Describable
from gangru_dist.maths.calendar import Day, to_day
from gangru_dist.panel.manifest import (
    BASE_COLUMNS,
    MEMBER,
    TRADING_COLUMNS,
    Manifest,
    locate_listings,
)

MOST_INDUSTRIES = 2**15 - 1
"""Codes of industries are int16."""
_no_flags = partial(np.empty, (0, 0), dtype=np.bool_)


@dataclass(frozen=True, kw_only=True, repr=False)
class PanelBlock(Describable):
    """D days x N assets x F features, scattered from panel rows.

    Arrays of columns that were not asked for are empty along the assets, shape (D, 0).
    """

    dates: np.ndarray
    """(D,) datetime64[D], consecutive trading days, ascending."""
    assets: np.ndarray
    """(N,) str, ascending."""
    feature_names: tuple[str, ...]
    """F names, in the order of the last axis of `features`."""
    features: Float[np.ndarray, "D N F"]
    """float32, raw values of the features; NaN where the asset did not trade or it is undefined."""
    traded: Bool[np.ndarray, "D N"]
    """Whether the asset has a bar with volume that day."""
    is_st: Bool[np.ndarray, "D N"]
    """Special treatment that day; False on days without a bar."""
    listed_days: Int[np.ndarray, "D N"]
    """int32, trading days since listing: 0 on the listing day, negative before."""
    adj_close: Float[np.ndarray, "D N"]
    """float64, close x adj_factor, currency per share; NaN on days without a bar."""
    market_cap: Float[np.ndarray, "_ M"] = field(default_factory=partial(np.empty, (0, 0)))
    """float64, currency; NaN where unknown."""
    industry: Int[np.ndarray, "_ M"] = field(default_factory=partial(np.empty, (0, 0), np.int16))
    """int16 index into `industries`; -1 where unknown."""
    industries: tuple[str, ...] = ()
    """Names, ascending."""
    limit_up: Bool[np.ndarray, "_ M"] = field(default_factory=_no_flags)
    """Closed at the upper price limit: cannot be bought at the close."""
    limit_down: Bool[np.ndarray, "_ M"] = field(default_factory=_no_flags)
    """Closed at the lower price limit: cannot be sold at the close."""
    member: Bool[np.ndarray, "_ L"] = field(default_factory=_no_flags)
    """Member of `panel.members` that day; False on days without a bar."""

    delist_date: np.ndarray = field(default_factory=partial(np.empty, 0, "datetime64[D]"))
    """(N,) datetime64[D], the day on which the asset left the exchange; NaT = it has not, as known
    on the last day."""

    def describe(self) -> dict[str, object]:
        """Its shape and its span."""
        span = {"first": self.dates[0], "last": self.dates[-1]} if len(self.dates) else {}
        names = ", ".join(self.feature_names) or "none"
        return {"days": len(self.dates), **span, "assets": len(self.assets), "features": names}

    def row(self, date: Day) -> int:
        """Index of a trading day; KeyError if it is none of the block's."""
        date = np.datetime64(to_day(date, "date"))
        index = int(np.searchsorted(self.dates, date))
        if index == len(self.dates) or self.dates[index] != date:
            raise KeyError(f"{date} is no trading day between {self.dates[0]} and {self.dates[-1]}")
        return index


def cut_blocks(
    load: Callable[[int], PanelBlock],
    manifest: Manifest,
    buckets: Sequence[int],
    *,
    start: dt.date,
    end: dt.date,
    features: tuple[str, ...],
    trading: bool,
) -> PanelBlock:
    """The block that `read_block` gives, from blocks of `read_bucket` that hold its days.

    Nothing of later days is in it, names of industries and listing dates included. Each block is
    loaded twice, and never two at once: the result is the only copy.

    Args:
        load: Gives a bucket's block.
        manifest: Of the panel that the blocks are of.
        buckets: Whose assets; not none.
        start: First day.
        end: Last day, included.
        features: Names, in the order wanted.
        trading: Also fill market cap, industry and price limits.
    """
    dates = manifest.trading_days(start, end)
    owned: dict[int, np.ndarray] = {}
    names: list[np.ndarray] = []
    industries: set[str] = set()
    for bucket in buckets:
        block = load(bucket)
        days = slice(block.row(dates[0]), block.row(dates[-1]) + 1)
        owned[bucket] = np.flatnonzero(block.traded[days].any(axis=0))
        names.append(block.assets[owned[bucket]])
        industries.update(block.industries)
    assets, known = np.sort(np.concatenate(names)), np.array(sorted(industries), dtype=np.str_)
    arrays = _make_arrays(
        (len(dates), len(assets)), features, trading=trading, members=manifest.has_members
    )
    for bucket in buckets:
        block, own = load(bucket), owned[bucket]
        place = np.searchsorted(assets, block.assets[own])
        days = slice(block.row(dates[0]), block.row(dates[-1]) + 1)
        columns = [block.feature_names.index(name) for name in features]
        for name, array in arrays.items():
            if not array.shape[1]:
                continue
            part = getattr(block, name)[days][:, own]
            if name == "features" and features != block.feature_names:
                part = part[:, :, columns]
            elif name == "industry":
                codes = np.append(np.searchsorted(known, block.industries), -1).astype(np.int16)
                part = codes[part]
            array[:, place] = part
    block = PanelBlock(
        dates=dates,
        assets=assets,
        feature_names=features,
        industries=tuple(known.tolist()) if trading else (),
        **arrays,
    )
    return finish_block(block, manifest.delisted)


def block_columns(
    features: Sequence[str], *, trading: bool, members: bool = False
) -> tuple[str, ...]:
    """Panel columns that `scatter` needs for such a block."""
    marks = (MEMBER,) if members else ()
    return (*BASE_COLUMNS, *features, *(TRADING_COLUMNS if trading else ()), *marks)


def scatter(
    tables: Iterable[pa.Table],
    *,
    calendar: np.ndarray,
    dates: np.ndarray,
    assets: np.ndarray,
    features: tuple[str, ...],
    trading: bool = False,
    members: bool = False,
) -> PanelBlock:
    """Put panel rows, in any order and any number of tables, at their places in a block.

    Codes of industries and listing dates are those of all rows, until `finish_block`.

    Args:
        tables: Panel rows with the columns of `block_columns`; each is dropped after use.
        calendar: (days,) datetime64[D], the whole calendar of the panel.
        dates: (D,) datetime64[D], consecutive days of it.
        assets: (N,) str, ascending.
        features: F names.
        trading: Also fill market cap, industry and price limits.
        members: Also fill who is a member; the panel marks them.

    Raises:
        PanelError: A row's date or asset is not among `dates` and `assets`.
    """
    arrays = _make_arrays((len(dates), len(assets)), features, trading=trading, members=members)
    asked = [name for name in ("is_st", "adj_close", *_TRADING, MEMBER) if arrays[name].shape[1]]
    first = int(np.searchsorted(calendar, dates[0])) if len(dates) else 0
    listed = arrays["listed_days"]
    listed += np.arange(first - len(calendar), first - len(calendar) + len(dates))[:, None]
    codes: dict[str, int] = {}
    for table in tables:
        day, asset = _locate(table, dates, assets)
        arrays["traded"][day, asset] = True
        for name in asked:
            arrays[name][day, asset] = table[name].to_numpy()
        listed[day, asset] = first + day - _locate_listings(table["list_date"], calendar)
        if features:
            rows = np.stack([table[name].to_numpy() for name in features], axis=1)
            arrays["features"][day, asset] = rows
        if trading:
            arrays["industry"][day, asset] = _industry_codes(table["industry"], codes)
    return PanelBlock(
        dates=dates, assets=assets, feature_names=features, industries=tuple(codes), **arrays
    )


_TRADING = tuple(name for name in TRADING_COLUMNS if name != "industry")


def _make_arrays(
    shape: tuple[int, int], features: Sequence[str], *, trading: bool, members: bool
) -> dict[str, np.ndarray]:
    """A block's arrays without a row; those that are not asked for are empty along the assets."""
    fills = {"is_st": False, "adj_close": np.nan, "market_cap": np.nan, "limit_up": False,
             "limit_down": False, MEMBER: False}  # fmt: skip
    asked = {name for name in block_columns((), trading=trading, members=members) if name in fills}
    absent = (shape[0], 0)
    return {
        "features": np.full((*shape, len(features)), np.nan, dtype=np.float32),
        "traded": np.zeros(shape, dtype=bool),
        "listed_days": np.zeros(shape, dtype=np.int32),
        "industry": np.full(shape if trading else absent, -1, dtype=np.int16),
        **{name: np.full(shape if name in asked else absent, fills[name]) for name in fills},
    }


def _locate_listings(list_date: pa.ChunkedArray, calendar: np.ndarray) -> np.ndarray:
    """(n,) index of each row's listing day, as in `locate_listings`; of null, that of NaT."""
    coded = encode(list_date)
    days = np.append(coded.dictionary.to_numpy(zero_copy_only=False), np.datetime64("NaT"))
    codes = pc.fill_null(coded.indices, len(days) - 1).to_numpy()
    return np.asarray(locate_listings(calendar, days.astype("datetime64[D]"))[codes])


def finish_block(block: PanelBlock, delisted: Mapping[str, str]) -> PanelBlock:
    """Let a block know what its days know: listing dates, industries with a row, delistings.

    Args:
        block: From `scatter`.
        delisted: `Manifest.delisted`; of days after the block's last nothing is known yet.
    """
    names = block.assets.tolist()
    days = np.array([delisted.get(name, "NaT") for name in names], "datetime64[D]")
    last = len(block.dates) - 1
    if last < 0:
        return replace(block, delist_date=days)
    days[days > block.dates[-1]] = np.datetime64("NaT")
    newest = last - np.argmax(block.traded[::-1], axis=0)  # of no row, the last
    age = block.listed_days[newest, np.arange(len(block.assets))] - newest
    used = np.zeros(len(block.industries) + 1, dtype=bool)
    used[block.industry.ravel()] = True
    rank = {name: code for code, name in enumerate(sorted(np.array(block.industries)[used[:-1]]))}
    final = np.array([*(rank.get(name, -1) for name in block.industries), -1], dtype=np.int16)
    return replace(
        block,
        listed_days=(np.arange(last + 1)[:, None] + age).astype(np.int32),
        industry=final[block.industry],
        industries=tuple(map(str, rank)),
        delist_date=days,
    )


def _locate(
    table: pa.Table, dates: np.ndarray, assets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each table row in a block of these dates and assets."""
    day_value = table["date"].to_numpy().astype("datetime64[D]")
    day = np.searchsorted(dates, day_value)
    coded = encode(table["asset"])
    code = coded.indices.to_numpy()
    names = np.array(coded.dictionary.to_pylist(), dtype=np.str_)
    known = np.searchsorted(assets, names)  # of a filtered table, names may have no row left
    used = np.unique(code)
    if len(day) and (day.max() >= len(dates) or (dates[day] != day_value).any()):
        raise PanelError(
            f"rows from {day_value.min()} to {day_value.max()} do not fit a block of the trading "
            f"days from {dates[0]} to {dates[-1]}."
        )
    strange = [
        n for n, at in zip(names[used], known[used], strict=True) if n not in assets[at : at + 1]
    ]
    if strange:
        raise PanelError(f"rows of other assets than the block's {len(assets)}, e.g. {strange[0]}.")
    return day, known[code]


def _industry_codes(column: pa.ChunkedArray, codes: dict[str, int]) -> np.ndarray:
    """(n,) code of each industry's name, -1 for null; new names are added to `codes`."""
    coded = encode(column)
    own = [codes.setdefault(name, len(codes)) for name in coded.dictionary.to_pylist()]
    if len(codes) > MOST_INDUSTRIES:
        raise PanelError(
            f"the panel names more than {MOST_INDUSTRIES} industries, e.g. {min(codes)!r}: "
            "no such classification. Correct bars.columns.industry, then build the panel again "
            "with `gangru panel --overwrite`."
        )
    indices = pc.fill_null(coded.indices, len(own)).to_numpy()
    return np.asarray(np.array([*own, -1], dtype=np.int16)[indices])
