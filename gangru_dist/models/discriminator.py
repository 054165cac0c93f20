"""The discriminator: a CNN that reads a sample as a picture, days x features [R]."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization
from torch.utils.checkpoint import checkpoint

from gangru_dist.config import GanConfig

_SLOPE = 0.2
_STRIDE = 2
CHUNK = 128
"""Samples at a time on a CPU: their feature maps stay in its cache (1.5 to 1.9 x 4,000's speed)."""
KEPT = 2048
"""Samples whose feature maps are kept for the gradient, about 0.1 MB each; others are computed
again, so that memory does not grow with the number of assets."""


class SpectralNorm(nn.Module):
    """Weights over their largest singular value: the layer stretches no input by more than 1.

    The value is exact, not of a power iteration, whose state would be each worker's own: an empty
    share runs no forward pass.

    Source: Miyato, Kataoka, Koyama, Yoshida, "Spectral normalization for generative adversarial
    networks" (ICLR 2018), which takes a convolution as its matrix of outputs x the rest, too.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """`weight`: outputs first."""
        largest: Tensor = torch.linalg.matrix_norm(weight.flatten(1), ord=2)
        return weight / largest


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
        if cfg.spectral_norm:
            for layer in (self.first, self.second, self.logit):
                register_parametrization(layer, "weight", SpectralNorm())

    def forward(
        self, x: Float[Tensor, "B T F"], draws: Float[Tensor, "B C"] | None = None
    ) -> Float[Tensor, " B"]:
        """`draws`: uniform numbers, one a feature map; None = no dropout."""
        return self._in_chunks(self._logit, x, draws)

    def features(
        self, x: Float[Tensor, "B T F"], draws: Float[Tensor, "B C"] | None = None
    ) -> Float[Tensor, "B K"]:
        """What the logit weighs: the second convolution's maps."""
        return self._in_chunks(self._maps, x, draws)

    def steepness(
        self, x: Float[Tensor, "B T F"], draws: Float[Tensor, "B C"] | None = None
    ) -> Float[Tensor, " B"]:
        """Squared norm of the logit's gradient with respect to each sample; differentiable."""
        samples = x.detach().requires_grad_()
        logits = self._logit(samples, draws)
        (slopes,) = torch.autograd.grad(logits.sum(), samples, create_graph=True)
        return slopes.square().sum(dim=(1, 2))

    def _in_chunks(
        self,
        function: Callable[[Tensor, Tensor | None], Tensor],
        x: Float[Tensor, "B T F"],
        draws: Float[Tensor, "B C"] | None,
    ) -> Tensor:
        """A function of each sample; what the gradient needs is kept for `KEPT` of them."""
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return function(x, draws)
        parts = x.split(CHUNK)
        shares = [None] * len(parts) if draws is None else draws.split(CHUNK)
        kept = KEPT // CHUNK if torch.is_grad_enabled() else len(parts)
        done = [
            function(part, share)
            if number < kept
            else checkpoint(function, part, share, use_reentrant=False, preserve_rng_state=False)
            for number, (part, share) in enumerate(zip(parts, shares, strict=True))
        ]
        return torch.cat(cast("list[Tensor]", done))

    def _logit(self, x: Tensor, draws: Tensor | None) -> Float[Tensor, " B"]:
        logit: Tensor = self.logit(self._maps(x, draws))  # (B, 1)
        return logit.squeeze(-1)

    def _maps(self, x: Tensor, draws: Tensor | None) -> Float[Tensor, "B K"]:
        hidden = F.leaky_relu(self.first(x[:, None]), _SLOPE)  # (B, C1, T/2, F/2)
        count = hidden.shape[1]
        if draws is not None:
            hidden = hidden * self._keep(draws[:, :count])
        hidden = F.leaky_relu(self.second(hidden), _SLOPE)  # (B, C2, T/4, F/4)
        if draws is not None:
            hidden = hidden * self._keep(draws[:, count:])
        return hidden.flatten(1)

    def _keep(self, draws: Float[Tensor, "B C"]) -> Float[Tensor, "B C 1 1"]:
        return ((draws >= self.dropout) / (1.0 - self.dropout))[:, :, None, None]
