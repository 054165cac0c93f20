"""Write panel rows: one file per (bucket, year), named by its rows and its bytes; hashes by month.

A file's name has the hash of its rows, so that a build with the same rows leaves it alone, and the
hash of its bytes, by which a reader checks what it reads.

The hash of a month is the sum, modulo 2^256, of the SHA-256 of each asset's rows in it. A sum
does not depend on order, so it is the same for any buckets, files and machines.

`names.parquet` has the short names of stocks, one row per change of name. They are for readers
only: no row depends on a name, and no hash includes one. If the bars have no names, there is no
such file.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gangru_dist.bars.quality import Quality
from gangru_dist.bars.values import encode
from gangru_dist.base.errors import PanelError, shorten
from gangru_dist.base.records import hash_bytes
from gangru_dist.base.storage import Storage
from gangru_dist.panel.copies import Histories
from gangru_dist.panel.jumps import JumpSums
from gangru_dist.panel.manifest import (
    MEMBER,
    Manifest,
    PanelFile,
    View,
    hash_text,
    locate_files,
    panel_schema,
)

NAMES = "names.parquet"
"""Its name below `<storage>/panel`."""
LONGEST_NAME = 40
"""Characters of a name that are kept."""

_MODULUS = 2**256
_NAMES_SCHEMA = pa.schema([("asset", pa.string()), ("since", pa.date32()), ("name", pa.string())])


@dataclass(frozen=True, kw_only=True)
class WrittenBucket:
    """What is known of one bucket once its files are written."""

    files: tuple[PanelFile, ...] = ()
    """One a year, ascending."""
    assets: int
    """Distinct assets."""
    months: Mapping[str, int] = field(default_factory=dict)
    """Month ("2018-12") -> sum of hashes."""
    views: Sequence[Mapping[str, int]] = ()
    """The same sums of rows with the features of each view alone."""
    has_industry: bool = False
    """Whether any row names its industry."""
    has_market_cap: bool = False
    """Whether any row has a market cap."""
    names: pa.Table = field(default_factory=_NAMES_SCHEMA.empty_table)
    """Assets' names, as of `find_name_changes`."""
    quality: Quality = field(default_factory=Quality)
    """Rows set aside in it, and what days say of each other."""
    sums: JumpSums = field(default_factory=JumpSums)
    """How prices and factors move."""
    rows_by_day: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(days,) its rows on each trading day."""
    valued: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Column that side tables bring -> (days,) those of them with a value."""
    delisted: Mapping[str, str] = field(default_factory=dict)
    """Its part of `Manifest.delisted`."""
    histories: Histories | None = None
    """What is compared with other stocks."""


def write_bucket(
    panel: Storage,
    bucket: int,
    buckets: int,
    rows: pa.Table,
    *,
    existing: Collection[str] = (),
    views: Sequence[Sequence[str]] = (),
) -> WrittenBucket:
    """Write one bucket's rows, a file a year, each whole or not at all.

    Args:
        panel: The folder `<storage>/panel`.
        bucket: Its number.
        buckets: How many there are; decides the width of the folder's number.
        rows: All rows of the bucket, `panel_schema` columns, sorted by (asset, date), unique.
        existing: Names of finished files; one whose content comes out the same is left alone.
        views: Features of runs that name others than the rows have.
    """
    year = pc.year(rows["date"])
    hashes = hash_row_groups(rows)
    files = []
    for value in sorted(pc.unique(year).to_pylist()):
        part = rows.filter(pc.equal(year, value))
        own = {key: h for key, h in hashes.items() if key[1][:4] == f"{value:04d}"}
        digest = rows_digest(rows.column_names, own)
        start = f"{locate_files(bucket, value, buckets)}{digest}-"
        name = next((name for name in existing if name.startswith(start)), None)
        if name is None or not panel.exists(name):
            data = _parquet(part)
            name = f"{start}{hash_bytes(data)}.parquet"
            panel.write_bytes(name, data)
        files.append(PanelFile(name=name, bucket=bucket, year=value, rows=len(part)))
    return WrittenBucket(
        files=tuple(files),
        assets=len(pc.unique(rows["asset"])),
        months=_add_groups(hashes),
        views=[
            _add_groups(hash_row_groups(rows.select(_columns_of(view, rows)))) for view in views
        ],
        has_industry=rows["industry"].null_count < len(rows),
        has_market_cap=rows["market_cap"].null_count < len(rows),
    )


def _columns_of(features: Sequence[str], rows: pa.Table) -> list[str]:
    """Columns of the rows in a panel with these features alone."""
    schema = panel_schema(features, members=MEMBER in rows.column_names)
    return list(schema.names)


def _add_groups(hashes: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Sum of `hash_row_groups` by month."""
    return add_hashes({month: value} for (_, month), value in hashes.items())


def make_manifest(
    written: Sequence[WrittenBucket], views: Sequence[Sequence[str]] = (), **known: Any
) -> Manifest:
    """Describe a panel of written buckets, in their order.

    Args:
        written: All of them.
        views: Features of each view that they have sums of.
        known: The fields beside the rows'.
    """
    files = tuple(file for bucket in written for file in bucket.files)
    months = add_hashes(bucket.months for bucket in written)
    by_view = [add_hashes(b.views[i] for b in written if b.views) for i in range(len(views))]
    return Manifest(
        views=tuple(
            View(tuple(view), {month: f"{sums[month]:064x}" for month in sorted(sums)})
            for view, sums in zip(views, by_view, strict=True)
        ),
        files=files,
        rows=sum(file.rows for file in files),
        assets=sum(bucket.assets for bucket in written),
        months={month: f"{months[month]:064x}" for month in sorted(months)},
        has_industry=any(bucket.has_industry for bucket in written),
        has_market_cap=any(bucket.has_market_cap for bucket in written),
        delisted={code: day for b in written for code, day in sorted(b.delisted.items())},
        **known,
    )


def rows_digest(columns: Sequence[str], hashes: Mapping[tuple[str, str], int]) -> str:
    """The part of a file's name that stands for its rows: a hash of `hash_row_groups`."""
    text = f"{','.join(columns)} {sum(hashes.values()) % _MODULUS:x}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def add_hashes(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum of hashes by month."""
    total: dict[str, int] = {}
    for part in parts:
        for month, value in part.items():
            total[month] = (total.get(month, 0) + value) % _MODULUS
    return total


def hash_row_groups(rows: pa.Table) -> dict[tuple[str, str], int]:
    """SHA-256 of each asset's rows of each month, as a number.

    `rows` is sorted by (asset, date). The key is (asset, month); every column counts, a null
    float counts as NaN, and the sign of a zero and the bits of a NaN do not.
    """
    if not len(rows):
        return {}
    names = rows["asset"].to_pylist()
    date = rows["date"].to_numpy().astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    asset = _string_keys(rows["asset"])
    content = np.concatenate([_column_bytes(column) for column in rows.columns], axis=1)
    change = (asset[1:] != asset[:-1]) | (month[1:] != month[:-1])
    starts = np.flatnonzero(np.concatenate([[True], change]))
    ends = np.append(starts[1:], len(rows))
    return {
        (names[a], str(month[a])): int.from_bytes(
            hashlib.sha256(content[a:b].tobytes()).digest(), "big"
        )
        for a, b in zip(starts, ends, strict=True)
    }


def _column_bytes(column: pa.ChunkedArray) -> np.ndarray:
    """(n, bytes) uint8 of a column; little-endian on every machine."""
    if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type):
        values = _string_keys(column)
    elif pa.types.is_floating(column.type):
        values = column.to_numpy() + 0.0
        values[np.isnan(values)] = np.nan
    elif pa.types.is_date(column.type):
        values = column.to_numpy().astype("datetime64[D]").astype(np.int32)
    else:
        values = column.to_numpy().astype(np.uint8)
    little = values.astype(values.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(len(little), -1)


def _string_keys(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) uint64, a hash of each string; null is 0."""
    coded = encode(column)
    keys = np.array([*map(hash_text, coded.dictionary.to_pylist()), 0], dtype=np.uint64)
    indices = pc.fill_null(coded.indices, len(keys) - 1).to_numpy()
    return np.asarray(keys[indices])


def _parquet(table: pa.Table) -> bytes:
    """A parquet file in memory; strings by dictionary, numbers plain and compressed."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="zstd", use_dictionary=["asset", "industry", "date", "list_date"]
    )
    return bytes(sink.getvalue().to_pybytes())


def find_name_changes(bars: pa.Table) -> pa.Table:
    """asset, since, name: an asset's first name, and each one that is another than before.

    Args:
        bars: Columns code, date and name, sorted by code, then date. A day without a name
            changes nothing.
    """
    bars = bars.select(["code", "date", "name"]).filter(pc.is_valid(bars["name"]))
    coded = encode(bars["name"])
    shown = pa.array([clean_name(name) for name in coded.dictionary.to_pylist()], pa.string())
    name = shown.take(coded.indices)
    bars = pa.table({"asset": encode(bars["code"]), "since": bars["date"], "name": name})
    bars = bars.filter(pc.not_equal(name, ""))
    keys = [encode(bars[key].cast(pa.string())).indices for key in ("asset", "name")]
    asset, text = (key.to_numpy() for key in keys)
    other = np.ones(len(bars), dtype=bool)
    other[1:] = (asset[1:] != asset[:-1]) | (text[1:] != text[:-1])
    return bars.filter(pa.array(other)).cast(_NAMES_SCHEMA)


def clean_name(name: str) -> str:
    """A name that any page can show: without what moves or hides other text, and not endless.

    Control and format characters (line ends, directions of writing) go; blanks in a row are one.
    """
    plain = "".join(" " if c.isspace() else c for c in name)
    plain = "".join(c for c in plain if unicodedata.category(c)[0] != "C")
    return " ".join(plain.split())[:LONGEST_NAME]


def write_names(panel: Storage, changes: Iterable[pa.Table]) -> None:
    """Write the changes of all buckets; without any, remove what an earlier build wrote.

    Args:
        panel: The folder `<storage>/panel`.
        changes: Of `find_name_changes`.
    """
    table = pa.concat_tables([_NAMES_SCHEMA.empty_table(), *changes])
    table = table.sort_by([("asset", "ascending"), ("since", "ascending")])
    if not len(table):
        panel.delete(NAMES)
        return
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    panel.write_bytes(NAMES, bytes(sink.getvalue().to_pybytes()))


def read_names(root: Storage, day: dt.date) -> dict[str, str]:
    """Asset -> its name as of a day; later ones are not looked at.

    Raises:
        PanelError: The file is damaged.
    """
    panel = root.child("panel")
    try:
        table = pq.read_table(pa.BufferReader(panel.read_bytes(NAMES)), schema=_NAMES_SCHEMA)
    except FileNotFoundError:
        return {}
    except pa.ArrowException as error:
        raise PanelError(
            f"{panel.uri}/{NAMES} is damaged ({shorten(error)}). Delete it to go on "
            "without names, or build the panel again with `gangru panel --overwrite`."
        ) from error
    known = table.filter(pc.less_equal(table["since"], pa.scalar(day, pa.date32())))
    return dict(zip(known["asset"].to_pylist(), known["name"].to_pylist(), strict=True))
