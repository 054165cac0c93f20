"""Level channels: the levels that standardizing along time removes (SPEC 3) [D].

Shapes: M assets of one cross-section (or of one rank), T lookback days, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gangru_dist.config import SampleConfig
from gangru_dist.cross_section import MAD_TO_SIGMA
from gangru_dist.errors import ConfigError
from gangru_dist.features.price_volume import Level
from gangru_dist.samples.standardize import Bounds, masked_median

Gather = Callable[[np.ndarray], list[np.ndarray]]
"""Gives every worker the arrays of all workers, in rank order."""


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
    value = raw.clone()
    prices = [i for i, level in enumerate(levels) if level == "price"]
    if prices:
        if close is None:
            raise ConfigError(
                "the level of a price is relative to the sample's last close: add the feature "
                "'close', or leave 'level' out of samples.channels."
            )
        value[..., prices] = (raw[..., prices] / _last_known(raw[..., close])).log()
    means = [i for i, level in enumerate(levels) if level == "own_mean"]
    if means:
        value[..., means] -= raw[..., means].nanmean(dim=1, keepdim=True)
    known = value.isfinite()
    return value.masked_fill_(~known, 0.0), known.to(raw.dtype)


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
    share = np.where(known.cpu().numpy() > 0, value.cpu().numpy(), np.nan)
    whole = torch.from_numpy(np.concatenate(gather(share))).permute(1, 2, 0)  # (T, F, all M)
    middle = masked_median(whole)
    reach = masked_median((whole - middle).abs()) * (cfg.mad_clip * MAD_TO_SIGMA)
    is_open = ~(reach > 0)  # also where nothing is known: NaN
    low = (middle - reach).masked_fill(is_open, -torch.inf)[..., 0]
    high = (middle + reach).masked_fill(is_open, torch.inf)[..., 0]
    return Bounds(low=low.to(value.device), high=high.to(value.device))
