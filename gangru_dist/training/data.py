"""One worker's data of one window: its share of the panel and of each day's cross-section.

What concerns the whole cross-section (statistics, labels) is computed once, over all workers, and
so are the standardized samples: they go to a scratch file, and into memory a day at a time.

A file rather than memory: the operating system keeps it in its page cache as long as there is
room, and a worker's own memory stays that of its panel. What is read back is what was
written, bit for bit.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import Window
from gangru_dist.models.gan import asset_keys
from gangru_dist.models.precision import arithmetic
from gangru_dist.panel.store import PanelBlock
from gangru_dist.samples.channels import ChannelSamples, Standardizer
from gangru_dist.samples.labels import Exposures, compute_forward_return, make_label
from gangru_dist.samples.standardize import Statistics
from gangru_dist.samples.universe import select_universe
from gangru_dist.training.collective import Collective

_logger = logging.getLogger(__name__)
_SPARE = 0.1
"""Share of the disk that is never filled; of a large disk `_SPARE_BYTES`."""
_SPARE_BYTES = 5e9


class Scratch:
    """A budget of bytes in temporary files, shared by what one worker keeps."""

    def __init__(self, budget: float, folder: str | None = None) -> None:
        """`budget`: bytes; `folder`: None = the system's folder for temporary files."""
        self.folder = folder
        disk = shutil.disk_usage(folder or tempfile.gettempdir())
        room = disk.free - min(_SPARE * disk.total, _SPARE_BYTES)
        self.left = max(0.0, min(budget, room))

    def take(self, size: int) -> bool:
        """Reserve `size` bytes; False if the budget has no room for them."""
        if size > self.left:
            return False
        self.left -= size
        return True


class Kept:
    """Results of a function of a key, each made once; made anew where they do not fit.

    Only for tensors on the CPU: others are made anew each time.
    """

    def __init__(self, make: Callable[[int], Tensor], scratch: Scratch) -> None:
        self._make, self._scratch = make, scratch
        self._places: dict[int, tuple[int, torch.Size, torch.dtype]] = {}
        self._file = _File(scratch)
        self._is_full = False
        weakref.finalize(self, self._file.close)

    def __call__(self, key: int) -> Tensor:
        """The result for `key`; the caller may change it."""
        if key in self._places:
            return self._read(*self._places[key])
        value = self._make(key)
        self.put(key, value)
        return value

    def put(self, key: int, value: Tensor) -> None:
        """Keep a result that was made elsewhere, if there is room."""
        if value.device.type != "cpu" or key in self._places or self._is_full:
            return
        data = value.detach().contiguous()
        size = data.numel() * data.element_size()
        if not self._scratch.take(size):
            self._is_full = True
            kept = self._file.size / 1e6
            _logger.info("scratch_full kept_mb=%.0f: the rest is computed anew", kept)
            return
        try:
            self._file.write(data)
        except OSError as error:  # a full disk costs time, no result
            self._is_full = True
            self._scratch.left += size
            _logger.warning("scratch_failed %s: the rest is computed anew", error)
            return
        self._places[key] = (self._file.size, data.shape, data.dtype)
        self._file.size += size

    def _read(self, start: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        result = torch.empty(shape, dtype=dtype)
        self._file.read(result, start)
        return result

    def close(self) -> None:
        """Release the space; done too when nobody holds this any more."""
        self._file.close()
        self._places.clear()


class _File:
    """An unnamed file, which is removed when it is closed or this process ends."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._descriptor: int | None = None
        self.size = 0
        """Bytes taken of the budget; the next are written behind them."""

    def write(self, data: Tensor) -> None:
        view, place = _bytes(data), self.size
        while len(view):
            done = os.pwrite(self._open(), view, place)
            view, place = view[done:], place + done

    def read(self, into: Tensor, start: int) -> None:
        view = _bytes(into)
        while len(view):
            done = os.preadv(self._open(), [view], start)
            if not done:
                raise OSError("the scratch file is shorter than what was written to it")
            view, start = view[done:], start + done

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor, name = tempfile.mkstemp(prefix="gangru-", dir=self._scratch.folder)
            Path(name).unlink()
        return self._descriptor

    def close(self) -> None:
        """Give the space back, to the disk and to the budget."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._scratch.left += self.size
        self._descriptor, self.size = None, 0


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    flat = tensor.numpy().reshape(-1).data
    return memoryview(flat).cast("B") if tensor.numel() else memoryview(b"")


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
    statistics: tuple[Statistics, ...]
    """Of the whole universe, over all workers; one a kind of channels."""
    total: int
    """Assets with a label over all workers."""
    weight: float = 1.0
    """Weight in the predictor's loss; 1 on average over the training days."""


@dataclass(frozen=True)
class WindowData:
    """All a worker needs for one window."""

    panel: Float[Tensor, "D N F"]
    keys: Int[Tensor, " N"]
    train: tuple[DayShare, ...]
    valid: tuple[DayShare, ...]
    older: tuple[DayShare, ...]
    """Days before these, which the GAN alone sees."""
    dropped: tuple[str, ...]
    """Days with too few labelled assets, the GAN's own last."""
    standardizer: Standardizer
    dtype: torch.dtype
    kept: Kept
    """Samples by row of the day."""
    scratch: Scratch
    """Scratch space for other tensors."""

    @property
    def gan_days(self) -> tuple[DayShare, ...]:
        """What the GAN is trained on."""
        return (*self.older, *self.train)

    def samples(self, day: DayShare) -> Float[Tensor, "M T C"]:
        """Standardized samples of this worker's share."""
        return self.kept(day.row)

    def close(self) -> None:
        """Free the scratch file."""
        self.kept.close()


def first_day(window: Window, lookback: int) -> int:
    """Index of the earliest calendar day a window's samples read."""
    return (*window.older_days, *window.train_days, *window.valid_days)[0] - lookback + 1


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
    # the predictor's days first: scratch space may not last, and its epochs are more
    days = (*window.train_days, *window.valid_days, *window.older_days)
    rows = {day: block.row(calendar[day]) for day in days}
    labels = _labels(block, list(rows.values()), cfg, collective)
    universe = select_universe(block, cfg.universe, cfg.samples.lookback)
    standardizer = Standardizer(cfg.samples, cfg.features)
    dtype = arithmetic(cfg).dtype
    shares: dict[int, DayShare] = {}

    def make(row: int) -> Tensor:
        day = shares[row]
        parts = standardizer.standardize_time(panel, row, day.members, dtype)
        return standardizer.standardize_assets(parts, day.statistics)

    scratch = Scratch(cfg.resources.scratch_gb * 1e9)
    kept = Kept(make, scratch)
    for row, (label, total) in zip(rows.values(), labels, strict=True):
        members = np.flatnonzero(universe[row])
        parts = standardizer.standardize_time(
            panel, row, torch.from_numpy(members).to(device), dtype
        )
        has_label = np.flatnonzero(~np.isnan(label))
        shares[row] = DayShare(
            date=str(block.dates[row]),
            row=row,
            members=torch.from_numpy(has_label).to(device),
            label=torch.from_numpy(label[has_label]).to(device, dtype),
            statistics=standardizer.compute_statistics(
                parts, collective.all_sum, _gather(collective)
            ),
            total=total,
        )
        if total >= cfg.universe.min_assets:
            chosen = torch.from_numpy(np.searchsorted(members, has_label)).to(device)
            kept.put(
                row, standardizer.standardize_assets(_some(parts, chosen), shares[row].statistics)
            )
    usable = {row: share for row, share in shares.items() if share.total >= cfg.universe.min_assets}
    return WindowData(
        panel=panel,
        keys=asset_keys(block.assets.tolist()).to(device),
        train=_weighted(_on(usable, rows, window.train_days), cfg.windows.half_life_days),
        valid=_on(usable, rows, window.valid_days),
        older=_on(usable, rows, window.older_days),
        dropped=tuple(share.date for row, share in shares.items() if row not in usable),
        standardizer=standardizer,
        dtype=dtype,
        kept=kept,
        scratch=scratch,
    )


def _gather(collective: Collective) -> Callable[[np.ndarray], list[np.ndarray]]:
    return lambda value: collective.gather(value)


def _some(parts: Iterable[ChannelSamples], chosen: Int[Tensor, " M"]) -> list[ChannelSamples]:
    """The shares of some of their assets."""
    return [ChannelSamples(part.value[chosen], part.known[chosen]) for part in parts]


def _to_device(panel: Tensor, device: torch.device) -> Tensor:
    """The panel on its device; copied to a GPU through pinned memory."""
    if device.type != "cuda":
        return panel.to(device)
    return panel.pin_memory().to(device, non_blocking=True)


def _on(
    usable: Mapping[int, DayShare], rows: Mapping[int, int], days: Iterable[int]
) -> tuple[DayShare, ...]:
    """The usable ones of some calendar days."""
    return tuple(usable[rows[day]] for day in days if rows[day] in usable)


def _weighted(days: tuple[DayShare, ...], half_life: float | None) -> tuple[DayShare, ...]:
    """The training days with their weights by age."""
    if half_life is None or not days:
        return days
    weights = np.exp2([(day.row - days[-1].row) / half_life for day in days])
    weights /= weights.mean()
    return tuple(
        replace(day, weight=float(weight)) for day, weight in zip(days, weights, strict=True)
    )


def _returns(block: PanelBlock, rows: list[int], horizon: int, entry_lag: int) -> np.ndarray:
    """Forward returns of some rows, (days, N); some assets at a time.

    All at once, its temporaries would be half as large as the panel itself.
    """
    found = [
        compute_forward_return(
            block.adj_close[:, some],
            block.traded[:, some],
            horizon=horizon,
            entry_lag=entry_lag,
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
    universe = select_universe(block, cfg.universe, cfg.samples.lookback)
    own = [
        np.where(universe[rows], _returns(block, rows, horizon, cfg.label.entry_lag), np.nan)
        for horizon in cfg.label.horizons
    ]  # (days, N) each
    exposed = _exposures(block, rows) if cfg.label.neutralize else ()
    shares = collective.gather((np.asarray(block.assets), *own, *exposed))
    names = np.concatenate([share[0] for share in shares])
    order = np.argsort(names)  # the same sums in the same order, whoever owns what
    everyone = [
        np.concatenate(parts, axis=1)[:, order]
        for parts in zip(*(share[1:] for share in shares), strict=True)
    ]
    mine = np.searchsorted(names[order], block.assets)
    found = []
    count = len(own)
    for day in zip(*everyone, strict=True):
        returns, about = np.stack(day[:count]), day[count:]
        exposures = Exposures(industry=about[0], log_cap=about[1]) if about else None
        label = make_label(returns, cfg.label, exposures)
        found.append((label[mine], int((~np.isnan(label)).sum())))
    return found


def _exposures(block: PanelBlock, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Names of industries and log market caps of some rows, (days, N) each.

    Names, for codes are each worker's own.
    """
    names = np.array([*block.industries, ""], dtype=np.str_)  # code -1 is the last
    cap = block.market_cap[rows]
    return names[block.industry[rows]], np.log(np.where(cap > 0, cap, np.nan))
