"""The dense panel of some days and assets: what every stage after the store works on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class PanelBlock:
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
    market_cap: Float[np.ndarray, "_ M"] = field(default_factory=lambda: np.empty((0, 0)))
    """float64, currency; NaN where unknown."""
    industry: Int[np.ndarray, "_ M"] = field(
        default_factory=lambda: np.empty((0, 0), dtype=np.int16)
    )
    """int16 index into `industries`; -1 where unknown."""
    industries: tuple[str, ...] = ()
    """Names, ascending."""
    limit_up: Bool[np.ndarray, "_ M"] = field(default_factory=lambda: np.empty((0, 0), dtype=bool))
    """Closed at the upper price limit: cannot be bought at the close."""
    limit_down: Bool[np.ndarray, "_ M"] = field(
        default_factory=lambda: np.empty((0, 0), dtype=bool)
    )
    """Closed at the lower price limit: cannot be sold at the close."""

    member: Bool[np.ndarray, "_ L"] = field(default_factory=lambda: np.empty((0, 0), dtype=bool))
    """Member of `panel.members` that day; False on days without a bar."""

    def row(self, date: np.datetime64) -> int:
        """Index of a trading day; KeyError if it is none of the block's."""
        index = int(np.searchsorted(self.dates, date))
        if index == len(self.dates) or self.dates[index] != date:
            raise KeyError(f"{date} is no trading day between {self.dates[0]} and {self.dates[-1]}")
        return index
