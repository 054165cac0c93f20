"""One worker's data of one window: its share of the panel and of each day's cross-section.

What concerns the whole cross-section (moments, labels) is computed once, over all workers,
and kept; samples are cut when needed and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gangru_dist.config import RunConfig, SampleConfig
from gangru_dist.models.noise import asset_keys
from gangru_dist.models.precision import arithmetic
from gangru_dist.panel.block import PanelBlock
from gangru_dist.samples.labels import forward_return, training_label
from gangru_dist.samples.standardize import (
    Moments,
    cs_standardize,
    cs_sums,
    cut,
    moments,
    ts_standardize,
)
from gangru_dist.samples.universe import universe_mask
from gangru_dist.splits import Window
from gangru_dist.training.collective import Collective

_ASSETS_AT_ONCE = 256


@dataclass(frozen=True)
class DayShare:
    """This worker's part of one day's cross-section: the M assets that have a label."""

    date: str
    row: int
    """Row of the day in the worker's panel."""
    members: Int[Tensor, " M"]
    """Columns of the worker's panel."""
    label: Float[Tensor, " M"]
    moments: Moments
    """Of the whole universe, over all workers."""
    total: int
    """Assets with a label over all workers."""


@dataclass(frozen=True)
class WindowData:
    """All a worker needs for one window."""

    panel: Float[Tensor, "D N F"]
    keys: Int[Tensor, " N"]
    train: tuple[DayShare, ...]
    valid: tuple[DayShare, ...]
    dropped: tuple[str, ...]
    """Training or validation days with too few labelled assets."""
    cfg: SampleConfig
    dtype: torch.dtype

    def samples(self, day: DayShare) -> Float[Tensor, "M T F"]:
        """Standardized samples of this worker's share, cut afresh."""
        raw = cut(self.panel, day.row, day.members, self.cfg.lookback).to(self.dtype)
        z, known = ts_standardize(raw, self.cfg)
        return cs_standardize(z, known, day.moments, self.cfg)


def first_day(window: Window, lookback: int) -> int:
    """Index of the earliest calendar day a window's samples read."""
    return (window.train_days or window.valid_days)[0] - lookback + 1


def prepare(
    block: PanelBlock,
    window: Window,
    calendar: np.ndarray,
    cfg: RunConfig,
    collective: Collective,
    device: torch.device | str = "cpu",
) -> WindowData:
    """Cut a worker's block into days: universe, labels and moments of whole cross-sections.

    Args:
        block: This worker's assets, from `first_day` to the refit day; it knows nothing later.
        window: Days as indices into `calendar`.
        calendar: (D,) datetime64[D] of the whole panel.
        cfg: The run.
        collective: The window's workers.
        device: Where the panel is kept.
    """
    panel = _to_device(torch.from_numpy(block.features), torch.device(device))
    rows = {day: block.row(calendar[day]) for day in (*window.train_days, *window.valid_days)}
    labels = _labels(block, list(rows.values()), cfg, collective)
    universe = universe_mask(block, cfg.universe, cfg.samples.lookback)
    shares: dict[int, DayShare | None] = {}
    for (day, row), (label, total) in zip(rows.items(), labels, strict=True):
        members = torch.from_numpy(np.flatnonzero(universe[row])).to(device)
        day_moments = _moments(panel, row, members, cfg, collective)
        has_label = np.flatnonzero(~np.isnan(label))
        shares[day] = DayShare(
            date=str(calendar[day]),
            row=row,
            members=torch.from_numpy(has_label).to(device),
            label=torch.from_numpy(label[has_label]).to(device, arithmetic(cfg).dtype),
            moments=day_moments,
            total=total,
        )
        if total < cfg.universe.min_assets:
            shares[day] = None
    return WindowData(
        panel=panel,
        keys=asset_keys(block.assets.tolist()).to(device),
        train=_kept(shares, window.train_days),
        valid=_kept(shares, window.valid_days),
        dropped=tuple(str(calendar[day]) for day, share in shares.items() if share is None),
        cfg=cfg.samples,
        dtype=arithmetic(cfg).dtype,
    )


def _to_device(panel: Tensor, device: torch.device) -> Tensor:
    """The panel where it will stay; to a GPU through pinned memory."""
    if device.type != "cuda":
        return panel.to(device)
    return panel.pin_memory().to(device, non_blocking=True)


def _kept(shares: dict[int, DayShare | None], days: Iterable[int]) -> tuple[DayShare, ...]:
    return tuple(share for day in days if (share := shares[day]) is not None)


def _moments(
    panel: Tensor, row: int, members: Tensor, cfg: RunConfig, collective: Collective
) -> Moments:
    raw = cut(panel, row, members, cfg.samples.lookback).to(arithmetic(cfg).dtype)
    return moments(collective.all_sum(cs_sums(*ts_standardize(raw, cfg.samples))))


def _returns(block: PanelBlock, rows: list[int], cfg: RunConfig) -> np.ndarray:
    """Forward returns of some rows, (days, N); some assets at a time.

    All at once, its temporaries would be half as large as the panel itself.
    """
    found = [
        forward_return(
            block.adj_close[:, some],
            block.traded[:, some],
            horizon=cfg.label.horizon,
            entry_lag=cfg.label.entry_lag,
        )[rows]
        for some in _slices(len(block.assets))
    ]
    return np.concatenate(found, axis=1)


def _slices(assets: int) -> list[slice]:
    """At least one, for a share may be empty."""
    starts = range(0, max(assets, 1), _ASSETS_AT_ONCE)
    return [slice(start, start + _ASSETS_AT_ONCE) for start in starts]


def _labels(
    block: PanelBlock, rows: list[int], cfg: RunConfig, collective: Collective
) -> list[tuple[np.ndarray, int]]:
    """Per day: this worker's labels (N,), NaN outside the universe, and their global count."""
    universe = universe_mask(block, cfg.universe, cfg.samples.lookback)
    own = np.where(universe[rows], _returns(block, rows, cfg), np.nan)  # (days, N)
    shares = collective.gather((np.asarray(block.assets), own))
    names = np.concatenate([share[0] for share in shares])
    order = np.argsort(names)  # the same sums in the same order, whoever owns what
    everyone = np.concatenate([share[1] for share in shares], axis=1)[:, order]
    mine = np.searchsorted(names[order], block.assets)
    found = []
    for day in everyone:
        label = training_label(day, cfg.label)
        found.append((label[mine], int((~np.isnan(label)).sum())))
    return found
