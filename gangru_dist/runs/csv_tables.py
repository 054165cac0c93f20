"""Tables as CSV files for people: a spreadsheet shows every cell, and runs none."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

from gangru_dist.storage import Storage

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes text that begins so for a formula, whoever wrote it into the data."""


def write_table(folder: Storage, name: str, table: pd.DataFrame) -> None:
    """Write a table without its index, atomically; texts that look like formulas get a quote."""
    shown = table.rename(columns=_defused)
    for column in shown.columns:
        values = shown[column]
        if not is_numeric_dtype(values) and not is_datetime64_any_dtype(values):
            shown[column] = values.astype(object).map(_defused)
    text = shown.to_csv(index=False, date_format="%Y-%m-%d", lineterminator="\n")
    folder.write_bytes(name, text.encode())


def _defused(cell: Any) -> Any:
    """The cell, after a `'` if a spreadsheet would run it; numbers stay, also as text."""
    if not isinstance(cell, str) or not cell.lstrip(" ").startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
