"""Level channels: what standardizing along time would lose (SPEC 3) [D].

Shapes: M assets of one cross-section (or of a rank's share of it), T lookback days, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gangru_dist.config import SampleConfig
from gangru_dist.errors import ConfigError
from gangru_dist.features.price_volume import Level
from gangru_dist.samples.standardize import MAD_TO_SIGMA, Bounds

Gather = Callable[[np.ndarray], list[np.ndarray]]
"""Every worker's array, in rank order, on every worker."""


def ts_level(
    raw: Float[Tensor, "M T F"], levels: Sequence[Level], close: int | None
) -> tuple[Float[Tensor, "M T F"], Float[Tensor, "M T F"]]:
    """Each feature's level within its sample, before anything is known of other assets.

    Args:
        raw: Features as the panel has them, NaN where missing.
        levels: Transform of each feature: `price` = log(value / the asset's last close in the
            sample), `own_mean` = value less its mean of the sample, `as_is` = the value.
        close: Place of the adjusted close among the features; needed by `price` alone.

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
                "the level of a price is taken over the sample's last close: add the feature "
                "'close', or leave 'level' out of samples.channels."
            )
        value[..., prices] = (raw[..., prices] / _last_known(raw[..., close])).log()
    means = [i for i, level in enumerate(levels) if level == "own_mean"]
    if means:
        value[..., means] -= raw[..., means].nanmean(dim=1, keepdim=True)
    known = value.isfinite()
    return value.masked_fill_(~known, 0.0), known.to(raw.dtype)


def _last_known(series: Float[Tensor, "M T"]) -> Float[Tensor, "M 1 1"]:
    """Newest value of each row that is not missing; NaN where all are."""
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

    The workers' shares are gathered, for a median does not follow from sums. No bound where more
    than half of the values are equal: a MAD of 0 would cut off whatever differs.
    """
    share = np.where(known.cpu().numpy() > 0, value.cpu().numpy(), np.nan)
    lines = np.concatenate(gather(share)).transpose(1, 2, 0)  # (T, F, all M)
    middle = _median_of_lines(lines)
    reach = _median_of_lines(np.abs(lines - middle)) * (cfg.mad_clip * MAD_TO_SIGMA)
    open_end = ~(reach > 0)  # NaN where nothing is known
    low = np.where(open_end, -np.inf, middle - reach)[..., 0]
    high = np.where(open_end, np.inf, middle + reach)[..., 0]
    return Bounds(
        low=torch.from_numpy(low).to(value.device, value.dtype),
        high=torch.from_numpy(high).to(value.device, value.dtype),
    )


def _median_of_lines(lines: Float[np.ndarray, "T F M"]) -> Float[np.ndarray, "T F 1"]:
    """Median along the last axis of what is not NaN; NaN where all is."""
    count = (~np.isnan(lines)).sum(axis=-1, keepdims=True)
    if lines.shape[-1] == 0:
        return np.full(count.shape, np.nan, dtype=lines.dtype)
    ordered = np.sort(lines, axis=-1)  # NaN last
    upper = np.take_along_axis(ordered, np.minimum(count // 2, lines.shape[-1] - 1), axis=-1)
    lower = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0), axis=-1)
    return np.asarray((lower + upper) / 2, dtype=lines.dtype)
