"""Random numbers that belong to an asset, not to a worker.

Noise and dropout are functions of (seed, stage, epoch, day, asset): however the assets are
shared out, each sees the same numbers, so N workers train the model of one. The
generator is counter-based: splitmix64 of a key, one counter a number.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
