"""One worker's data of one window: its share of the panel and of each day's cross-section.

What concerns the whole cross-section (statistics, labels) is computed once, over all workers, and
so are the standardized samples: they go to a scratch file and come into memory a day at a time.

A file takes no memory of the worker beside its panel, and the operating system keeps it in its
page cache as long as there is room. What is read back is what was written, bit for bit. A GPU's
tensors stay in its memory, as far as there is room.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from gangru_dist.config.settings import Exposure, RunConfig
from gangru_dist.maths.calendar import Window
from gangru_dist.models.gan import asset_keys
from gangru_dist.models.precision import Arithmetic, find_arithmetic
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.universe import select_universe
from gangru_dist.samples.labels import compute_forward_return, make_label
from gangru_dist.samples.standardize import ChannelSamples, Standardizer, Statistics

_logger = logging.getLogger(__name__)
_SPARE = 0.1
"""Share of the disk that is never filled; of a large disk `_SPARE_BYTES`."""
_SPARE_BYTES = 5e9
_DEVICE_SHARE = 0.5
"""Of a GPU's free memory that is for caches; the rest is for what training computes."""


@dataclass
class Collective:
    """The workers of one window: torch.distributed's process group, or one process alone.

    The training core knows only this, and runs the same in a test, a Tune trial and a worker.

    Every worker calls the same methods in the same order.
    """

    rank: int = 0
    size: int = 1

    def all_sum(self, x: Tensor) -> Tensor:
        """Sum of `x` over the workers, in its place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, in rank order, on every worker; nothing of it reaches storage."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


SINGLE = Collective()
"""One process, which is a window's only worker."""


def join_workers() -> Collective:
    """All workers of this process's group; this process alone if it is in none."""
    if dist.is_available() and dist.is_initialized():
        return Collective(dist.get_rank(), dist.get_world_size())
    return SINGLE


class Scratch:
    """A budget of bytes, shared by the caches of one worker; `left` is what remains of it."""

    def __init__(
        self, budget: float, folder: str | None = None, *, on_device: bool = False
    ) -> None:
        """Take the budget.

        Args:
            budget: Bytes of temporary files, or of a GPU's memory.
            folder: Of the files; None = the system's.
            on_device: Whether the tensors are on a GPU, and stay there.
        """
        self.folder, self.on_device, self.left = folder, on_device, budget
        if not on_device:
            disk = shutil.disk_usage(folder or tempfile.gettempdir())
            room = disk.free - min(_SPARE * disk.total, _SPARE_BYTES)
            self.left = max(0.0, min(budget, room))


def open_scratch(cfg: RunConfig, device: torch.device) -> Scratch:
    """A worker's budget: `resources.scratch_gb`, or half of its share of a GPU's free memory."""
    budget = cfg.resources.scratch_gb * 1e9
    if device.type == "cpu":
        return Scratch(budget)
    free, _ = torch.cuda.mem_get_info(device)
    share = min(cfg.resources.gpus_per_worker or 1.0, 1.0)
    return Scratch(_DEVICE_SHARE * share * free if budget else 0.0, on_device=True)


class TensorCache:
    """Results of a function of a key, each made once; made anew where they do not fit.

    A CPU's are in an unnamed file, which the system removes when nobody holds this any more. A
    GPU's are in its memory.
    """

    def __init__(self, make: Callable[[int], Tensor], scratch: Scratch) -> None:
        self._make, self._scratch = make, scratch
        self._file: IO[bytes] | None = None  # made with the first tensor
        self._size = 0  # bytes taken of the budget; the next are written behind them
        self._places: dict[int, tuple[int, torch.Size, torch.dtype]] = {}
        self._kept: dict[int, Tensor] = {}  # on a device
        self._is_full = False

    def __call__(self, key: int) -> Tensor:
        """The result for `key`; the caller may change it."""
        if key in self._kept:
            return self._kept[key].clone()
        if key not in self._places:
            value = self._make(key)
            self.put(key, value)
            return value
        start, shape, dtype = self._places[key]
        result = torch.empty(shape, dtype=dtype)
        view = _view_bytes(result)
        if self._file is None or os.preadv(self._file.fileno(), [view], start) < len(view):
            raise OSError("the scratch file is shorter than what was written to it")
        return result

    def put(self, key: int, value: Tensor) -> None:
        """Cache a result that was made elsewhere, if there is room."""
        if self._is_full or key in self._places or key in self._kept:
            return
        if value.nbytes > self._scratch.left:
            self._is_full = True
            cached = self._size / 1e6
            _logger.info("scratch_full cached_mb=%.0f: the rest is computed anew", cached)
            return
        try:
            if self._scratch.on_device:  # a copy, for the caller may change its own
                self._kept[key] = value.detach().clone()
            else:
                self._write(key, value.detach().contiguous())
        except (OSError, RuntimeError) as error:  # costs time, no result
            self._is_full = True
            _logger.warning("scratch_failed %s: the rest is computed anew", error)
            return
        self._size += value.nbytes
        self._scratch.left -= value.nbytes

    def _write(self, key: int, value: Tensor) -> None:
        """Append a tensor to the file."""
        view = _view_bytes(value)
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._scratch.folder, buffering=0)  # noqa: SIM115
        if os.pwrite(self._file.fileno(), view, self._size) < len(view):
            raise OSError("the disk is full")
        self._places[key] = (self._size, value.shape, value.dtype)

    def close(self) -> None:
        """Give the space back, to the disk and to the budget; done too when nobody holds this."""
        if self._file is not None:
            self._file.close()
        self._scratch.left += self._size
        self._file, self._size = None, 0
        self._places.clear()
        self._kept.clear()

    def __del__(self) -> None:
        self.close()


def _view_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data)


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
    dropped: tuple[str, ...]
    """Days with too few labelled assets."""
    standardizer: Standardizer
    arithmetic: Arithmetic
    cache: TensorCache
    """Samples by row of the day."""
    scratch: Scratch
    """Scratch space for other tensors."""

    def samples(self, day: DayShare) -> Float[Tensor, "M T C"]:
        """Standardized samples of this worker's share."""
        return self.cache(day.row)

    def autocast(self) -> torch.autocast:
        """bf16 arithmetic inside the networks, if it is asked for; losses and weights stay."""
        return torch.autocast(self.panel.device.type, torch.bfloat16, enabled=self.arithmetic.bf16)


def prepare(
    block: PanelBlock,
    window: Window,
    calendar: np.ndarray,
    cfg: RunConfig,
    collective: Collective = SINGLE,
    device: torch.device | str = "cpu",
    scratch: Scratch | None = None,
) -> WindowData:
    """Cut a worker's block into days: universe, labels and moments of whole cross-sections.

    Args:
        block: This worker's assets, from `first_day` to the refit day; it knows nothing later.
        window: Days as indices into `calendar`.
        calendar: (D,) datetime64[D] of the whole panel.
        cfg: The run.
        collective: The window's workers.
        device: Where the panel is kept.
        scratch: The budget of its caches, where others take of it; None = one of its own.
    """
    device = torch.device(device)
    panel = torch.from_numpy(block.features)
    if device.type == "cuda":
        panel = panel.pin_memory()
    panel = panel.to(device, non_blocking=True)
    rows = {day: block.row(calendar[day]) for day in (*window.train_days, *window.valid_days)}
    universe = select_universe(block, cfg.universe, cfg.samples.lookback)
    labels = _labels(block, universe, list(rows.values()), cfg, collective)
    standardizer = Standardizer(cfg.samples, cfg.features)
    arithmetic = find_arithmetic(cfg)
    shares: dict[int, DayShare] = {}

    def standardize(row: int) -> Tensor:
        day = shares[row]
        parts = standardizer.standardize_time(panel, row, day.members, arithmetic.dtype)
        return standardizer.standardize_assets(parts, day.statistics)

    scratch = scratch or open_scratch(cfg, device)
    cache = TensorCache(standardize, scratch)
    for row, (label, total) in zip(rows.values(), labels, strict=True):
        members = np.flatnonzero(universe[row])
        assets = torch.from_numpy(members).to(device)
        parts = standardizer.standardize_time(panel, row, assets, arithmetic.dtype)
        has_label = np.flatnonzero(~np.isnan(label))
        shares[row] = DayShare(
            date=str(block.dates[row]),
            row=row,
            members=torch.from_numpy(has_label).to(device),
            label=torch.from_numpy(label[has_label]).to(device, arithmetic.dtype),
            statistics=standardizer.compute_statistics(
                parts, collective.all_sum, collective.gather
            ),
            total=total,
        )
        if total >= cfg.universe.min_assets:
            chosen = torch.from_numpy(np.searchsorted(members, has_label)).to(device)
            some = [ChannelSamples(part.value[chosen], part.known[chosen]) for part in parts]
            cache.put(row, standardizer.standardize_assets(some, shares[row].statistics))
    usable = {row: share for row, share in shares.items() if share.total >= cfg.universe.min_assets}

    def find_usable(days: Iterable[int]) -> tuple[DayShare, ...]:
        return tuple(usable[rows[day]] for day in days if rows[day] in usable)

    return WindowData(
        panel=panel,
        keys=asset_keys(block.assets.tolist()).to(device),
        train=_weigh_days(find_usable(window.train_days), cfg.windows.half_life_days),
        valid=find_usable(window.valid_days),
        dropped=tuple(share.date for row, share in shares.items() if row not in usable),
        standardizer=standardizer,
        arithmetic=arithmetic,
        cache=cache,
        scratch=scratch,
    )


def _weigh_days(days: tuple[DayShare, ...], half_life: float | None) -> tuple[DayShare, ...]:
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
    starts = range(0, max(len(block.assets), 1), _ASSETS_AT_ONCE)  # a share may be empty
    found = [
        compute_forward_return(
            block.adj_close[:, start : start + _ASSETS_AT_ONCE],
            block.traded[:, start : start + _ASSETS_AT_ONCE],
            horizon=horizon,
            entry_lag=entry_lag,
        )[rows]
        for start in starts
    ]
    return np.concatenate(found, axis=1)


def _labels(
    block: PanelBlock,
    universe: np.ndarray,
    rows: list[int],
    cfg: RunConfig,
    collective: Collective,
) -> list[tuple[np.ndarray, int]]:
    """Per day: this worker's labels (N,), NaN outside the universe, and their global count."""
    own = [
        np.where(universe[rows], _returns(block, rows, horizon, cfg.label.entry_lag), np.nan)
        for horizon in cfg.label.horizons
    ]  # (days, N) each
    about: dict[Exposure, np.ndarray] = {}
    if "industry" in cfg.label.neutralize:  # names, for codes are each worker's own
        industries = np.array([*block.industries, ""], dtype=np.str_)  # code -1 is the last
        about["industry"] = industries[block.industry[rows]]
    if "size" in cfg.label.neutralize:
        cap = block.market_cap[rows]
        about["size"] = np.log(np.where(cap > 0, cap, np.nan))
    shares = collective.gather((np.asarray(block.assets), *own, *about.values()))
    names = np.concatenate([share[0] for share in shares])
    order = np.argsort(names)  # the same sums in the same order, whoever owns what
    everyone = [
        np.concatenate(parts, axis=1)[:, order]
        for parts in zip(*(share[1:] for share in shares), strict=True)
    ]
    mine = np.searchsorted(names[order], block.assets)
    found = []
    for day in zip(*everyone, strict=True):
        exposures = dict(zip(about, day[len(own) :], strict=True))
        label = make_label(np.stack(day[: len(own)]), cfg.label, exposures)
        found.append((label[mine], int((~np.isnan(label)).sum())))
    return found
