"""Operations on each asset's time series. Shapes: D days, N assets; NaN = no value that day."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def ts_carry_forward(values: Float[np.ndarray, "D N"]) -> Float[np.ndarray, "D N"]:
    """Last finite value so far in each column; NaN before the first."""
    days = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(np.isfinite(values), days, -1), axis=0)
    carried = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return np.where(last >= 0, carried, np.nan)
