"""Cut samples from the dense panel on demand and standardize them, in training as in scoring.

Shapes: D days, N assets of the panel (or of one rank), M assets of one cross-section, T lookback
days, F features, C channels: F for each kind in `samples.channels`. Samples are not kept: all
together they would take 40 times as much as the panel. Level channels hold the levels that
standardizing along time removes [D]. Formulas: docs/method.md, 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gangru_dist.base.errors import ConfigError
from gangru_dist.config.settings import ChannelKind, SampleConfig
from gangru_dist.features.price_volume import FEATURES, Level
from gangru_dist.maths.cross_section import MAD_TO_SIGMA

AllSum = Callable[[Tensor], Tensor]
"""Sums a tensor over all workers."""
Gather = Callable[[np.ndarray], list[np.ndarray]]
"""Gives every worker the arrays of all workers, in rank order."""

_FLAT = 1e-6
"""Relative spread below which a series counts as constant."""
_AT_ONCE = 512
"""Assets standardized along time at once, so that temporaries stay in the CPU cache."""
_ROWS_AT_ONCE = 64
"""The same for pairs of lag and feature, of which each is a row of all assets."""

Bounds = tuple[Float[Tensor, "T F"], Float[Tensor, "T F"]]
"""Lowest and highest value that is no outlier, per (lag, feature)."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of a day's whole universe, to standardize one kind of channels."""

    mean: Float[Tensor, "T F"]
    """Of the clipped values."""
    std: Float[Tensor, "T F"]
    """Of the clipped values; 0 where nothing is known."""
    bounds: Bounds | None = None
    """None = values are not clipped."""


def cut_samples(
    panel: Float[Tensor, "D N F"], day: int, members: Int[Tensor, " M"], lookback: int
) -> Float[Tensor, "M T F"]:
    """The `lookback` days up to and including `day` of the given assets; a copy."""
    block = panel[day - lookback + 1 : day + 1]  # (T, N, F), a view
    samples = block.index_select(1, members).transpose(0, 1)
    return samples.contiguous()  # else the rounding of torch's sums would depend on M


def masked_median(
    values: Float[Tensor, "*rows K"], count: Int[Tensor, "*rows 1"] | None = None
) -> Float[Tensor, "*rows 1"]:
    """Median along the last axis of the values that are not NaN; NaN if there are none.

    `count` is the number of these values, where it is known already.
    """
    if values.shape[-1] == 0:
        return values.new_full((*values.shape[:-1], 1), torch.nan)
    if count is None:
        count = values.isnan().logical_not().sum(dim=-1, keepdim=True)
    values = values.contiguous()
    if values.device.type == "cpu":  # numpy sorts short rows faster; both put NaN last
        ordered = torch.from_numpy(np.sort(values.numpy(), axis=-1))
    else:
        ordered = values.sort(dim=-1).values
    upper = ordered.gather(-1, (count // 2).clamp(max=values.shape[-1] - 1))
    lower = ordered.gather(-1, ((count - 1) // 2).clamp(min=0))
    return (lower + upper) / 2


def ts_standardize(
    raw: Float[Tensor, "M T F"], cfg: SampleConfig
) -> tuple[Float[Tensor, "M T F"], Float[Tensor, "M T F"]]:
    """Clip at median +- mad_clip x 1.4826 x MAD, then z-score, along time and per feature.

    Returns:
        The z-scores, 0 where missing or where the series is constant; and 1 where known, else 0.
    """
    known = raw.clone().eq_(raw)  # NaN is not equal to NaN
    count = known.sum(dim=1, keepdim=True)  # (M, 1, F)
    per_row = count.transpose(1, 2).long()
    middle = masked_median(raw.transpose(1, 2), per_row).transpose(1, 2)
    centered = raw - middle
    spread = masked_median(centered.abs().transpose(1, 2), per_row).transpose(1, 2)
    reach = spread * (cfg.mad_clip * MAD_TO_SIGMA)
    centered = centered.clamp_(-reach, reach).nan_to_num_(0.0)
    size = count.clamp(min=1.0)
    deviation = (centered - centered.sum(dim=1, keepdim=True) / size).mul_(known)
    std = ((deviation * deviation).sum(dim=1, keepdim=True) / size).sqrt()
    floor = _FLAT * middle.abs().nan_to_num(0.0) + torch.finfo(raw.dtype).tiny
    return deviation.mul_(_inverse(std, floor)), known


def _inverse(std: Tensor, floor: Tensor | float) -> Tensor:
    """1 / std; 0 where std is at most the floor, so that a constant series becomes 0, not NaN."""
    flat = std <= floor
    return torch.where(flat, 0.0, 1.0 / std.masked_fill(flat, 1.0))


def cs_sums(z: Float[Tensor, "M T F"], known: Float[Tensor, "M T F"]) -> Float[Tensor, "3 T F"]:
    """Count, sum and sum of squares over part of the cross-section, float64.

    The ranks all-reduce them: the sums of all parts add up to those of the whole.
    """
    sums = z.new_zeros((3, *z.shape[1:]), dtype=torch.float64)
    sums[0] = known.sum(dim=0)  # exact in float32 up to 2 ** 24 assets
    for some in z.split(_AT_ONCE):
        wide = some.double()  # missing entries are 0 already
        sums[1] += wide.sum(dim=0)
        sums[2] += (wide * wide).sum(dim=0)
    return sums


def compute_statistics(sums: Float[Tensor, "3 T F"], bounds: Bounds | None = None) -> Statistics:
    """Mean and standard deviation from `cs_sums` of values within the bounds."""
    count = sums[0].clamp(min=1.0)
    mean = sums[1] / count
    variance = (sums[2] / count - mean.square()).clamp(min=0.0)
    return Statistics(mean, variance.sqrt(), bounds)


def cs_standardize(
    z: Float[Tensor, "M T F"], known: Float[Tensor, "M T F"], day: Statistics, cfg: SampleConfig
) -> Float[Tensor, "M T F"]:
    """Z-score across the day's universe per (lag, feature), clipped; 0 where missing or flat."""
    flat = _FLAT if day.bounds is None else _FLAT * day.mean.abs() + _FLAT**2
    scale = _inverse(day.std, flat).to(z.dtype)
    inside = z if day.bounds is None else z.clamp(*day.bounds)
    scored = (inside - day.mean.to(z.dtype)).mul_(scale)
    return scored.clamp_(-cfg.z_clip, cfg.z_clip).mul_(known)


def ts_level(
    raw: Float[Tensor, "M T F"], levels: Sequence[Level], close: int | None
) -> tuple[Float[Tensor, "M T F"], Float[Tensor, "M T F"]]:
    """Each feature's level within its sample, before standardizing across assets.

    Args:
        raw: Features of the panel, NaN where missing.
        levels: Transform of each feature: `price` = log(value / the asset's last close in the
            sample), `own_mean` = value - its mean over the sample, `as_is` = the value.
        close: Position of the adjusted close among the features; needed for `price` only.

    Returns:
        The levels, 0 where missing; and 1 where known, else 0.

    Raises:
        ConfigError: A level is `price` and there is no close.
    """
    is_price = torch.tensor([level == "price" for level in levels], device=raw.device)
    has_mean = torch.tensor([level == "own_mean" for level in levels], device=raw.device)
    value = raw
    if is_price.any():
        if close is None:
            raise ConfigError(
                "the level of a price is relative to the sample's last close: add the feature "
                "'close', or leave 'level' out of samples.channels."
            )
        last = _last_known(raw[..., close])
        value = torch.where(is_price, (raw / last).log_(), raw)
    if has_mean.any():
        count = raw.clone().eq_(raw).sum(dim=1, keepdim=True)
        mean = raw.nan_to_num(0.0).sum(dim=1, keepdim=True) / count  # nanmean takes 4 times as long
        value = value - torch.where(has_mean, mean, 0.0)
    known = (value * 0).eq_(0)  # what is finite
    return value.nan_to_num(0.0, posinf=0.0, neginf=0.0), known


def _last_known(series: Float[Tensor, "M T"]) -> Float[Tensor, "M 1 1"]:
    """Newest value of each row that is not missing; NaN if all are missing."""
    days = torch.arange(series.shape[1], device=series.device)
    newest = torch.where(series.isnan(), -1, days).amax(dim=1, keepdim=True)  # (M, 1)
    return series.gather(1, newest.clamp(min=0))[..., None]


def cs_bounds(
    value: Float[Tensor, "M T F"],
    known: Float[Tensor, "M T F"],
    cfg: SampleConfig,
    gather: Gather,
) -> Bounds:
    """Median +- mad_clip x 1.4826 x MAD across the day's whole universe, per (lag, feature).

    The workers' samples are gathered, as a median cannot be computed from sums. There is no bound
    where more than half of the values are equal: with a MAD of 0 it would clip all others.
    """
    share = (value / known).flatten(1)  # where missing 0 / 0, NaN
    whole = torch.from_numpy(np.concatenate(gather(share.cpu().numpy()))).t().contiguous()
    bounds = [_bounds(some, cfg.mad_clip * MAD_TO_SIGMA) for some in whole.split(_ROWS_AT_ONCE)]
    low, high = (torch.cat(side).view(value.shape[1:]) for side in zip(*bounds, strict=True))
    return low.to(value.device), high.to(value.device)


def _bounds(rows: Float[Tensor, "K M"], clip: float) -> tuple[Tensor, Tensor]:
    """Median -+ clip x MAD of each row, infinite where the MAD is 0; the rows are used up."""
    count = rows.clone().eq_(rows).sum(dim=-1, keepdim=True).long()  # NaN is not equal to NaN
    middle = masked_median(rows, count)
    reach = masked_median(rows.sub_(middle).abs_(), count) * clip
    is_open = ~(reach > 0)  # also where nothing is known: NaN
    low = (middle - reach).masked_fill(is_open, -torch.inf)
    return low, (middle + reach).masked_fill(is_open, torch.inf)


@dataclass(frozen=True)
class ChannelSamples:
    """One kind of channels of a worker's samples, standardized along time only."""

    value: Float[Tensor, "M T F"]
    """0 where missing."""
    known: Float[Tensor, "M T F"]
    """1 or 0."""


@dataclass(frozen=True)
class Standardizer:
    """Cuts and standardizes samples; has no state but its settings."""

    cfg: SampleConfig
    features: tuple[str, ...]
    """Names of the panel's features, in order."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the C channels: `<feature>` for its shape, `<feature>_level` for its level."""
        names = {"shape": "", "level": "_level"}
        return tuple(f"{f}{names[kind]}" for kind in self.cfg.channels for f in self.features)

    def standardize_time(
        self,
        panel: Float[Tensor, "D N F"],
        day: int,
        members: Int[Tensor, " M"],
        dtype: torch.dtype,
    ) -> tuple[ChannelSamples, ...]:
        """Samples of some assets, standardized along time; one part per kind of channels."""
        blocks = [
            [self._along_time(kind, raw) for kind in self.cfg.channels]
            for some in members.split(_AT_ONCE)
            for raw in [cut_samples(panel, day, some, self.cfg.lookback).to(dtype)]
        ]
        return tuple(
            ChannelSamples(*map(torch.cat, zip(*parts, strict=True)))
            for parts in zip(*blocks, strict=True)
        )

    def _along_time(self, kind: ChannelKind, raw: Float[Tensor, "M T F"]) -> tuple[Tensor, Tensor]:
        """Values, and 1 where known, of one kind."""
        if kind == "shape":
            return ts_standardize(raw, self.cfg)
        close = self.features.index("close") if "close" in self.features else None
        return ts_level(raw, [FEATURES[name].level for name in self.features], close)

    def compute_statistics(
        self,
        parts: Sequence[ChannelSamples],
        all_sum: AllSum = lambda x: x,
        gather: Gather = lambda x: [x],
    ) -> tuple[Statistics, ...]:
        """Statistics of the day's whole universe, one per kind of channels.

        Args:
            parts: This worker's part of the universe.
            all_sum: Sums a tensor over the workers.
            gather: Gives every worker the arrays of all workers.
        """
        found = []
        for kind, part in zip(self.cfg.channels, parts, strict=True):
            value, bounds = part.value, None
            if kind == "level":
                bounds = cs_bounds(value, part.known, self.cfg, gather)
                value = value.clamp(*bounds) * part.known
            found.append(compute_statistics(all_sum(cs_sums(value, part.known)), bounds))
        return tuple(found)

    def standardize_assets(
        self, parts: Sequence[ChannelSamples], day: Sequence[Statistics]
    ) -> Float[Tensor, "M T C"]:
        """Standardize across the day's universe and concatenate the kinds of channels."""
        done = [
            cs_standardize(part.value, part.known, statistics, self.cfg)
            for part, statistics in zip(parts, day, strict=True)
        ]
        return done[0] if len(done) == 1 else torch.cat(done, dim=2)

    def standardize_day(
        self,
        panel: Float[Tensor, "D N F"],
        day: int,
        members: Int[Tensor, " M"],
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "M T C"]:
        """Samples of one day's whole universe, in one process."""
        parts = self.standardize_time(panel, day, members, dtype)
        return self.standardize_assets(parts, self.compute_statistics(parts))
