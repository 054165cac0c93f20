"""Columns of the bars that come in.

Prices are currency per share as traded, `volume` is shares, `amount` currency, `turnover_rate`
a fraction of the free float (0.01 = 1 %), `market_cap` currency. The stock column is `code`,
spelled as the vendor does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Kind = Literal["date", "string", "code", "float", "bool"]
"""`code` is text that no number can stand for: its leading zeros count."""

TEXT_KINDS: tuple[Kind, ...] = ("string", "code")
"""Kinds that are read as text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarColumn:
    """One column of the bars."""

    kind: Kind
    """What its values must be."""
    required: bool = False
    """Whether bars without it are refused."""


BAR_COLUMNS: dict[str, BarColumn] = {
    "date": BarColumn(kind="date", required=True),
    "code": BarColumn(kind="code", required=True),
    "open": BarColumn(kind="float", required=True),
    "high": BarColumn(kind="float", required=True),
    "low": BarColumn(kind="float", required=True),
    "close": BarColumn(kind="float", required=True),
    "volume": BarColumn(kind="float", required=True),
    "amount": BarColumn(kind="float", required=True),
    "adj_factor": BarColumn(kind="float"),
    "turnover_rate": BarColumn(kind="float"),
    "market_cap": BarColumn(kind="float"),
    "total_shares": BarColumn(kind="float"),
    "industry": BarColumn(kind="string"),
    "is_st": BarColumn(kind="bool"),
    "list_date": BarColumn(kind="date"),
    "vwap": BarColumn(kind="float"),
    "traded": BarColumn(kind="bool"),
    "name": BarColumn(kind="string"),
}
"""The bars' columns by name; `traded` false marks a suspended day."""


def kind_of(name: str) -> Kind:
    """Kind of one of our columns; a further one, which a feature reads, is a number."""
    return BAR_COLUMNS[name].kind if name in BAR_COLUMNS else "float"


STANDS_FOR = {"total_shares": "market_cap", "vwap": "amount", "name": "is_st"}
"""A column -> the one that it (x close, x volume, by its ST mark) stands in for if that is not
there."""

REQUIRED = tuple(name for name, column in BAR_COLUMNS.items() if column.required)
"""Names of the columns that bars must have."""

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "date": pa.date32(),
    "string": pa.string(),
    "code": pa.string(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}
"""Type of a column of each kind, once read."""
