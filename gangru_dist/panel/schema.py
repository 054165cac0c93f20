"""Our columns: of the bars that come in, and of the panel rows that are stored.

Prices are currency per share as traded, `volume` is shares, `amount` currency, `turnover_rate`
a fraction of the free float (0.01 = 1 %), `market_cap` currency (SPEC 1). In memory the stock
column is `asset`, spelled as the vendor does.
"""

from __future__ import annotations

from collections.abc import Sequence
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
}
"""The bars' columns by name (SPEC 1). `total_shares` (x close) stands in for `market_cap`, `vwap`
(x volume) for `amount`; `traded` false marks a suspended day whatever its volume says."""

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

BASE_COLUMNS = ("date", "asset", "is_st", "list_date", "adj_close")
"""Panel columns that every block needs."""

TRADING_COLUMNS = ("market_cap", "industry", "limit_up", "limit_down")
"""Panel columns that judging a portfolio needs besides."""

_PANEL_TYPES: dict[str, pa.DataType] = {
    "date": pa.date32(),
    "asset": pa.string(),
    "is_st": pa.bool_(),
    "list_date": pa.date32(),
    "adj_close": pa.float64(),
    "market_cap": pa.float64(),
    "industry": pa.string(),
    "limit_up": pa.bool_(),
    "limit_down": pa.bool_(),
}


def panel_schema(features: Sequence[str]) -> pa.Schema:
    """Schema of the stored rows: date, asset, the float32 features, then the rest."""
    rest = [name for name in _PANEL_TYPES if name not in ("date", "asset")]
    return pa.schema(
        [
            ("date", pa.date32()),
            ("asset", pa.string()),
            *((name, pa.float32()) for name in features),
            *((name, _PANEL_TYPES[name]) for name in rest),
        ]
    )
