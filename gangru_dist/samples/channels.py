"""From the panel to the networks' input: one standardizer for training and scoring.

Shapes: D days, N assets of the panel (or of one rank), M assets of one cross-section, T lookback
days, F features, C channels: F for each kind in `samples.channels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gangru_dist.config.settings import ChannelKind, SampleConfig
from gangru_dist.features.price_volume import FEATURES
from gangru_dist.samples.standardize import (
    AllSum,
    Gather,
    Statistics,
    compute_statistics,
    cs_bounds,
    cs_standardize,
    cs_sums,
    cut_samples,
    ts_level,
    ts_standardize,
)

_AT_ONCE = 512
"""Assets standardized along time at once, so that temporaries stay in the CPU cache."""


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

    def channel_range(self, kind: ChannelKind | None) -> range:
        """Where the channels of a kind are among all; None = all of them."""
        first = 0 if kind is None else self.cfg.channels.index(kind) * len(self.features)
        return range(first, first + len(self.features if kind else self.channels))

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
        return tuple(
            self._statistics(kind, part, all_sum, gather)
            for kind, part in zip(self.cfg.channels, parts, strict=True)
        )

    def _statistics(
        self, kind: ChannelKind, part: ChannelSamples, all_sum: AllSum, gather: Gather
    ) -> Statistics:
        if kind == "shape":
            return compute_statistics(all_sum(cs_sums(part.value, part.known)))
        low, high = cs_bounds(part.value, part.known, self.cfg, gather)
        inside = part.value.clamp(low, high) * part.known
        return compute_statistics(all_sum(cs_sums(inside, part.known)), (low, high))

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
