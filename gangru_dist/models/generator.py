"""The generator: an LSTM that turns a sample and noise into features [R]."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gangru_dist.config import GanConfig
from gangru_dist.models.recurrent import LSTM


class Generator(nn.Module):
    """G(x, z): a sample of the shape of x. B samples, T days, F features, Z noise channels.

    x are all channels of the samples, or those of `place` among them; see `seen`.
    """

    def __init__(self, place: range, cfg: GanConfig) -> None:
        super().__init__()
        features = len(place)
        self.place = slice(place.start, place.stop)
        self.noise_channels = cfg.noise_channels
        self.lstm = LSTM(features + cfg.noise_channels, cfg.hidden, cfg.layers)
        self.out = nn.Linear(cfg.hidden, features)

    def seen(self, samples: Float[Tensor, "B T C"]) -> Float[Tensor, "B T F"]:
        """The channels that the GAN sees."""
        return samples[..., self.place]

    def forward(
        self, x: Float[Tensor, "B T F"], noise: Float[Tensor, "B T Z"] | None = None
    ) -> Float[Tensor, "B T F"]:
        """Without noise, z = 0: the result is a function of the data alone."""
        if noise is None:
            noise = x.new_zeros(x.shape[0], x.shape[1], self.noise_channels)
        return self.lstm.every(torch.cat([x, noise], dim=-1), self.out)
