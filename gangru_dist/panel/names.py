"""Short names of stocks as the bars give them, in `panel/names.parquet`: one row a change of name.

For readers only: names decide no row, so they stand beside the panel, and no hash has them. A
panel whose bars have none, or that an earlier version built, has no names.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gangru_dist.bars.columns import dictionary_of
from gangru_dist.errors import PanelError, in_short
from gangru_dist.storage import Storage

FILE = "names.parquet"
LONGEST = 40
"""Characters of a name that are kept."""

_SCHEMA = pa.schema([("asset", pa.string()), ("since", pa.date32()), ("name", pa.string())])


def name_changes(bars: pa.Table) -> pa.Table:
    """asset, since, name: an asset's first name, and each one that is another than before.

    Args:
        bars: Columns code, date and name, sorted by code, then date. A day without a name
            changes nothing.
    """
    bars = bars.select(["code", "date", "name"]).filter(pc.is_valid(bars["name"]))
    coded = dictionary_of(bars["name"])
    shown = pa.array([clean(name) for name in coded.dictionary.to_pylist()], pa.string())
    name = shown.take(coded.indices)
    bars = pa.table({"asset": dictionary_of(bars["code"]), "since": bars["date"], "name": name})
    bars = bars.filter(pc.not_equal(name, ""))
    keys = [dictionary_of(bars[key].cast(pa.string())).indices for key in ("asset", "name")]
    asset, text = (key.to_numpy() for key in keys)
    other = np.ones(len(bars), dtype=bool)
    other[1:] = (asset[1:] != asset[:-1]) | (text[1:] != text[:-1])
    return bars.filter(pa.array(other)).cast(_SCHEMA)


def clean(name: str) -> str:
    """A name that any page can show: without what moves or hides other text, and not endless.

    Control and format characters (line ends, directions of writing) go; blanks in a row are one.
    """
    plain = "".join(" " if c.isspace() else c for c in name)
    plain = "".join(c for c in plain if unicodedata.category(c)[0] != "C")
    return " ".join(plain.split())[:LONGEST]


def write_names(panel: Storage, changes: Iterable[pa.Table]) -> None:
    """Write the changes of all buckets; without any, remove what an earlier build wrote.

    Args:
        panel: The folder `<storage>/panel`.
        changes: Of `name_changes`.
    """
    table = pa.concat_tables([_SCHEMA.empty_table(), *changes])
    table = table.sort_by([("asset", "ascending"), ("since", "ascending")])
    if not len(table):
        panel.delete(FILE)
        return
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    panel.write_bytes(FILE, bytes(sink.getvalue().to_pybytes()))


def names_on(root: Storage, day: dt.date) -> dict[str, str]:
    """Asset -> its name as of a day; later ones are not looked at.

    Raises:
        PanelError: The file is damaged.
    """
    panel = root.child("panel")
    try:
        table = pq.read_table(pa.BufferReader(panel.read_bytes(FILE)), schema=_SCHEMA)
    except FileNotFoundError:
        return {}
    except pa.ArrowException as error:
        raise PanelError(
            f"{panel.uri}/{FILE} is damaged ({in_short(error)}). Delete it to go on "
            "without names, or build the panel again with `gangru panel --overwrite`."
        ) from error
    known = table.filter(pc.less_equal(table["since"], pa.scalar(day, pa.date32())))
    return dict(zip(known["asset"].to_pylist(), known["name"].to_pylist(), strict=True))
