"""Samples cut from the dense panel when needed, and their standardization (SPEC 3).

Shapes: D days, N assets of the panel (or of a rank's shard), M assets of one cross-section,
T lookback days, F features. Nothing here keeps a sample: the 40-fold copy never exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gangru_dist.config import SampleConfig

AllSum = Callable[[Tensor], Tensor]
"""Adds a tensor over all workers."""

MAD_TO_SIGMA = 1.4826
"""Makes the median absolute deviation of normal values their standard deviation."""
_FLAT = 1e-6
"""A spread below this share of the series' size counts as a constant series."""


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of a day's whole cross-section, (T, F) each."""

    mean: Float[Tensor, "T F"]
    std: Float[Tensor, "T F"]


@dataclass(frozen=True)
class Bounds:
    """Values beyond these are outliers of a day's whole cross-section, (T, F) each."""

    low: Float[Tensor, "T F"]
    high: Float[Tensor, "T F"]

    def clip(self, value: Float[Tensor, "M T F"]) -> Float[Tensor, "M T F"]:
        """The values, cut at the bounds."""
        return value.clamp(self.low, self.high)


@dataclass(frozen=True)
class Statistics:
    """What standardizing one kind of channels needs to know of a day's whole universe."""

    moments: Moments
    """After outliers were cut."""
    bounds: Bounds | None = None
    """None = no outlier is cut."""


def cut(
    panel: Float[Tensor, "D N F"], day: int, members: Int[Tensor, " M"], lookback: int
) -> Float[Tensor, "M T F"]:
    """The `lookback` days up to and including `day` of the given assets; a copy."""
    block = panel[day - lookback + 1 : day + 1]  # (T, N, F), a view
    samples = block.index_select(1, members).transpose(0, 1)
    return samples.contiguous()  # else torch's sums over time would round as the neighbors are many


def _sort_time(values: Float[Tensor, "M T F"]) -> Float[Tensor, "M F T"]:
    """Ascending along time, NaN last. numpy sorts short rows ten times faster than torch."""
    rows = values.transpose(1, 2).contiguous()
    if rows.device.type != "cpu":
        return rows.sort(dim=-1).values
    return torch.from_numpy(np.sort(rows.numpy(), axis=-1))


def _masked_median(
    values: Float[Tensor, "M T F"], count: Int[Tensor, "M 1 F"]
) -> Float[Tensor, "M 1 F"]:
    """Median over T of the values that are not NaN; NaN where there are none."""
    ordered = _sort_time(values)
    size = count.transpose(1, 2)  # (M, F, 1)
    upper = ordered.gather(2, (size // 2).clamp(max=values.shape[1] - 1))
    lower = ordered.gather(2, ((size - 1) // 2).clamp(min=0))
    return ((lower + upper) / 2).transpose(1, 2)


def ts_standardize(
    raw: Float[Tensor, "M T F"], cfg: SampleConfig
) -> tuple[Float[Tensor, "M T F"], Float[Tensor, "M T F"]]:
    """Clip at median +- mad_clip x 1.4826 x MAD, then z-score, along time and per feature.

    Returns:
        The z-scores, 0 where missing or where the series is constant; and 1 where known, else 0.
    """
    known = raw.isnan().logical_not_().to(raw.dtype)
    count = known.sum(dim=1, keepdim=True)  # (M, 1, F)
    middle = _masked_median(raw, count.long())
    centered = raw - middle
    reach = _masked_median(centered.abs(), count.long()) * (cfg.mad_clip * MAD_TO_SIGMA)
    centered = centered.clamp_(-reach, reach).nan_to_num_(0.0)
    size = count.clamp(min=1.0)
    deviation = (centered - centered.sum(dim=1, keepdim=True) / size).mul_(known)
    std = ((deviation * deviation).sum(dim=1, keepdim=True) / size).sqrt()
    floor = _FLAT * middle.abs().nan_to_num(0.0) + torch.finfo(raw.dtype).tiny
    return deviation.mul_(_inverse(std, floor)), known


def _inverse(std: Tensor, floor: Tensor | float) -> Tensor:
    """1 / std; 0 where std is not above the floor, so that a constant becomes 0, never NaN."""
    flat = std <= floor
    return torch.where(flat, 0.0, 1.0 / std.masked_fill(flat, 1.0))


def cs_sums(z: Float[Tensor, "M T F"], known: Float[Tensor, "M T F"]) -> Float[Tensor, "3 T F"]:
    """Count, sum and sum of squares over this share of the cross-section, float64.

    Sums of several shares add up to the sums of the whole: that is what ranks all-reduce.
    """
    wide = z.double()  # missing entries are 0 already
    return torch.stack([known.double().sum(dim=0), wide.sum(dim=0), (wide * wide).sum(dim=0)])


def moments(sums: Float[Tensor, "3 T F"]) -> Moments:
    """Mean and standard deviation from `cs_sums`; std 0 where nothing is known."""
    count = sums[0].clamp(min=1.0)
    mean = sums[1] / count
    variance = (sums[2] / count - mean.square()).clamp(min=0.0)
    return Moments(mean=mean, std=variance.sqrt())


def cs_standardize(
    z: Float[Tensor, "M T F"], known: Float[Tensor, "M T F"], day: Statistics, cfg: SampleConfig
) -> Float[Tensor, "M T F"]:
    """Z-score across the day's universe per (lag, feature), clipped; 0 where missing or flat."""
    whole = day.moments
    flat = _FLAT if day.bounds is None else _FLAT * whole.mean.abs() + _FLAT**2
    scale = _inverse(whole.std, flat).to(z.dtype)
    inside = z if day.bounds is None else day.bounds.clip(z)
    scored = (inside - whole.mean.to(z.dtype)).mul_(scale)
    return scored.clamp_(-cfg.z_clip, cfg.z_clip).mul_(known)
