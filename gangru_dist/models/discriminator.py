"""The discriminator: a CNN that reads a sample as a picture, days x features [R]."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gangru_dist.config import GanConfig

_SLOPE = 0.2
_STRIDE = 2


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
