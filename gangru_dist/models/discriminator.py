"""The discriminator: a CNN that reads a sample as a picture, days x features (SPEC 5) [R]."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gangru_dist.config import GanConfig

_SLOPE = 0.2
_STRIDE = 2
CHUNK = 128
"""Samples at a time on a CPU: their feature maps stay in its cache (twice as fast as 4,000)."""
KEPT = 2048
"""Samples whose feature maps are kept for the gradient, about 0.1 MB each; others are computed
again, so that memory does not grow with the number of assets."""


class Discriminator(nn.Module):
    """D(x): one logit a sample, positive = real. B samples, T days, F features.

    No batch statistics: they would tie a sample's result to its neighbours. Dropout takes its
    masks as an argument, for they must follow the asset and not the worker.
    """

    def __init__(self, lookback: int, features: int, cfg: GanConfig) -> None:
        super().__init__()
        first, second = cfg.channels
        self.first = nn.Conv2d(1, first, kernel_size=5, stride=_STRIDE, padding=2)
        self.second = nn.Conv2d(first, second, kernel_size=5, stride=_STRIDE, padding=2)
        cells = -(-lookback // _STRIDE**2) * -(-features // _STRIDE**2)
        self.logit = nn.Linear(second * cells, 1)
        self.dropout = cfg.dropout
        self.mask_size = first + second

    def forward(
        self, x: Float[Tensor, "B T F"], draws: Float[Tensor, "B C"] | None = None
    ) -> Float[Tensor, " B"]:
        """`draws`: uniform numbers, one a feature map; None = no dropout."""
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return self._logit(x, draws)
        parts = x.split(CHUNK)
        shares = [None] * len(parts) if draws is None else draws.split(CHUNK)
        kept = KEPT // CHUNK if torch.is_grad_enabled() else len(parts)
        return torch.cat(
            [
                self._logit(part, share) if number < kept else self._logit_again(part, share)
                for number, (part, share) in enumerate(zip(parts, shares, strict=True))
            ]
        )

    def _logit_again(self, x: Tensor, draws: Tensor | None) -> Tensor:
        """The same, keeping `x` and `draws` alone for the gradient."""
        logit = checkpoint(self._logit, x, draws, use_reentrant=False, preserve_rng_state=False)
        return cast(Tensor, logit)

    def _logit(
        self, x: Float[Tensor, "B T F"], draws: Float[Tensor, "B C"] | None
    ) -> Float[Tensor, " B"]:
        hidden = F.leaky_relu(self.first(x[:, None]), _SLOPE)  # (B, C1, T/2, F/2)
        count = hidden.shape[1]
        if draws is not None:
            hidden = hidden * self._keep(draws[:, :count])
        hidden = F.leaky_relu(self.second(hidden), _SLOPE)  # (B, C2, T/4, F/4)
        if draws is not None:
            hidden = hidden * self._keep(draws[:, count:])
        logit: Tensor = self.logit(hidden.flatten(1))  # (B, 1)
        return logit.squeeze(-1)

    def _keep(self, draws: Float[Tensor, "B C"]) -> Float[Tensor, "B C 1 1"]:
        return ((draws >= self.dropout) / (1.0 - self.dropout))[:, :, None, None]
