"""The adversary of the predictor: weights of a day's stocks under which its IC is least.

Source: Lahoti et al., "Fairness without demographics through adversarially reweighted learning"
(NeurIPS 2020), whose weighted cross entropy is a weighted IC here.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

_HIDDEN = 32


class Adversary(nn.Module):
    """A share in (0, 1) a sample, of its channels' means; it learns from returns through the IC."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, 1))

    def forward(self, x: Float[Tensor, "B T F"]) -> Float[Tensor, " B"]:
        share: Tensor = self.layers(x.mean(dim=1)).squeeze(-1).sigmoid()
        return share
