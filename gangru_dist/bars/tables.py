"""Side tables: what a vendor exports beside its daily bars, and how their rows find a bar's.

Tushare has three tables a day, BaoStock and AKShare list factors at ex-dates only, and what
concerns a stock as a whole has one row a stock. Rows are joined a bucket of stocks at a time, on
(stock, date); a bar takes nothing from a row of a later day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Join = Literal["day", "since", "stock"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SideTable:
    """One table of a format."""

    gives: tuple[str, ...]
    """Our columns that it may bring."""
    join: Join
    """`day`: the row of the same day; `since`: the newest row up to the day; `stock`: the one row
    of the stock."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Our column -> names it has in these files, on top of the format's."""
    one_before: bool = False
    """Whether the factor is 1 before a stock's first row, and throughout if it has none."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns that its files must have."""
        return ("code",) if self.join == "stock" else ("code", "date")
