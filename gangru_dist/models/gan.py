"""The GAN: an LSTM turns a sample and noise into features, a CNN judges them as pictures [R].

Noise and dropout are functions of (seed, stage, epoch, day, asset): however the assets are shared
out, each gets the same numbers, so N workers train the same model as one. The random numbers are
counter-based: splitmix64 of a key, with one counter per number.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from gangru_dist.config.settings import GanConfig
from gangru_dist.models.recurrent import LSTM, run_in_chunks

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def asset_keys(assets: Sequence[str]) -> Int[Tensor, " N"]:
    """A 64-bit key per asset name, the same on every machine."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in assets)
    return torch.tensor([int.from_bytes(d, "little", signed=True) for d in digests]).long()


def sample_keys(keys: Int[Tensor, " M"], *, seed: int, purpose: str) -> Int[Tensor, " M"]:
    """Keys of one step: asset keys stirred with a purpose such as "noise/epoch=3/day=17"."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return _mix(keys ^ int.from_bytes(digest, "little", signed=True))


def uniform(keys: Int[Tensor, " M"], count: int) -> Float[Tensor, "M C"]:
    """`count` float32 numbers in (0, 1) per key."""
    counters = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    bits = _shift(_mix(keys[:, None] + counters), 40)  # 24 bits
    return (bits.float() + 0.5) * 2.0**-24


def normal(keys: Int[Tensor, " M"], count: int) -> Float[Tensor, "M C"]:
    """`count` float32 standard normal numbers per key (Box-Muller)."""
    half = (count + 1) // 2
    drawn = uniform(keys, 2 * half)
    first, second = drawn[:, :half], drawn[:, half:]  # of no numbers, both are empty
    radius = (-2.0 * first.log()).sqrt()
    angle = 2.0 * math.pi * second
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


class Generator(nn.Module):
    """G(x, z): a sample of the shape of x. B samples, T days, F features, Z noise channels."""

    def __init__(self, features: int, cfg: GanConfig) -> None:
        super().__init__()
        self.noise_channels = cfg.noise_channels
        self.lstm = LSTM(features + cfg.noise_channels, cfg.hidden, cfg.layers)
        self.out = nn.Linear(cfg.hidden, features)

    def forward(
        self, x: Float[Tensor, "B T F"], noise: Float[Tensor, "B T Z"] | None = None
    ) -> Float[Tensor, "B T F"]:
        """Without noise, z = 0: the result is a function of the data alone."""
        if noise is None:
            noise = x.new_zeros(x.shape[0], x.shape[1], self.noise_channels)
        return self.lstm.every(torch.cat([x, noise], dim=-1), self.out)


_SLOPE = 0.2
_STRIDE = 2
CHUNK = 128
"""Samples at a time on a CPU: their feature maps stay in its cache (1.5 to 1.9 x 4,000's speed)."""
STORED = 2048
"""Samples whose feature maps are stored for the gradient, about 0.1 MB each; others are computed
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
        inputs = (x,) if draws is None else (x, draws)
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return self._logit(*inputs)
        return run_in_chunks(self._logit, *inputs, chunk=CHUNK, stored=STORED)

    def _logit(self, x: Tensor, draws: Tensor | None = None) -> Float[Tensor, " B"]:
        hidden = F.leaky_relu(self.first(x[:, None]), _SLOPE)  # (B, C1, T/2, F/2)
        count = hidden.shape[1]
        if draws is not None:
            hidden = hidden * self._keep(draws[:, :count])
        hidden = F.leaky_relu(self.second(hidden), _SLOPE)  # (B, C2, T/4, F/4)
        if draws is not None:
            hidden = hidden * self._keep(draws[:, count:])
        return torch.squeeze(self.logit(hidden.flatten(1)), -1)  # of (B, 1)

    def _keep(self, draws: Float[Tensor, "B C"]) -> Float[Tensor, "B C 1 1"]:
        return ((draws >= self.dropout) / (1.0 - self.dropout))[:, :, None, None]
