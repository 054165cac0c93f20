"""Columns of the panel rows that are stored.

The stock column is `asset`; prices are currency per share, `market_cap` currency.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

BASE_COLUMNS = ("date", "asset", "is_st", "list_date", "adj_close")
"""Panel columns that every block needs."""

TRADING_COLUMNS = ("market_cap", "industry", "limit_up", "limit_down")
"""Panel columns that judging a portfolio needs besides."""

MEMBER = "member"
"""Panel column of a panel that was built with `panel.members`, and of no other."""

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


def panel_schema(features: Sequence[str], *, members: bool = False) -> pa.Schema:
    """Schema of the stored rows: date, asset, the float32 features, then the rest."""
    rest = [name for name in _PANEL_TYPES if name not in ("date", "asset")]
    return pa.schema(
        [
            ("date", pa.date32()),
            ("asset", pa.string()),
            *((name, pa.float32()) for name in features),
            *((name, _PANEL_TYPES[name]) for name in rest),
            *([(MEMBER, pa.bool_())] if members else []),
        ]
    )
