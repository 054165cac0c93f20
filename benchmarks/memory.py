"""Peak memory of a training worker against its shard of the panel (issue: at most 1.5 times).

    python -m benchmarks.memory

The panel grows in days while assets, networks and training days stay, so whatever the peak grows
by is due to the shard: first reading and preparing, then training with networks and one day's
samples. Every measurement is a fresh process that does what a worker does between Ray's calls,
and reads its own high-water mark (Linux, VmHWM).
"""

from __future__ import annotations

import multiprocessing
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.training_speed import Size as Store
from benchmarks.training_speed import store_panel
from gangru_dist.config import (
    GanConfig,
    GruConfig,
    PanelConfig,
    RunConfig,
    TrainingConfig,
    UniverseConfig,
)
from gangru_dist.panel.manifest import Manifest
from gangru_dist.runs.run import Run
from gangru_dist.splits import Window
from gangru_dist.storage import Storage
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.collective import Alone
from gangru_dist.training.data import prepare
from gangru_dist.training.ingest import read_share
from gangru_dist.training.window import train_window
from gangru_dist.training.worker import share_of

LIMIT = 1.5
"""Peak over shard that is allowed, beside networks and one day's samples."""
_MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Size:
    """How far the panel grows."""

    assets: int = 1000
    days: tuple[int, ...] = (400, 800, 1600, 3200)
    train_days: int = 4
    buckets: int = 64
    hidden: int = 32


@dataclass(frozen=True, kw_only=True)
class Peak:
    """High-water marks of one worker, MB."""

    shard: float
    """Of its dense features tensor."""
    start: float
    """Python, torch, Ray and this package loaded, before anything was read."""
    ready: float
    """The panel read and cut into days."""
    trained: float
    """After an epoch of each stage."""


def config(size: Size) -> RunConfig:
    """One epoch of each stage; every asset counts from the first day."""
    return RunConfig(
        panel=PanelConfig(buckets=size.buckets),
        universe=UniverseConfig(min_listed_days=0),
        gan=GanConfig(hidden=size.hidden, layers=1, channels=(4, 8), epochs=1),
        gru=GruConfig(hidden=size.hidden, layers=1, head=(32,)),
        training=TrainingConfig(epochs=1),
    )


def measure(root: Storage, manifest: Manifest, cfg: RunConfig, train_days: int) -> Peak:
    """What a worker of the panel's last window needs; call it in a fresh process."""
    torch.set_num_threads(1)
    start = high_water()
    end = len(manifest.calendar) - 1
    newest = end - cfg.label.reach
    first = cfg.samples.lookback - 1  # the first training day: the whole panel is read
    train = (first, *range(newest - train_days, newest - 1))
    window = Window(
        name="bench",
        refit=end,
        train_days=train,
        valid_days=(newest,),
        score_first=end + 1,
        score_last=end,
    )
    share = share_of(Run(root, "memory", cfg), manifest, window)
    block = read_share(share, 0, 1, through_ray=False)
    data = prepare(block, window, manifest.calendar, cfg, Alone())
    del block
    ready = high_water()
    train_window(data, TrainingState(cfg, 0), cfg, seed=0)
    shard = data.panel.numel() * data.panel.element_size() / _MB
    return Peak(shard=shard, start=start, ready=ready, trained=high_water())


def high_water() -> float:
    """Peak resident memory of this process, MB; getrusage would count the parent's too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / _MB


def peaks(size: Size) -> list[Peak]:
    """One fresh process a panel length."""
    cfg = config(size)
    context = multiprocessing.get_context("spawn")
    found = []
    for days in size.days:
        with tempfile.TemporaryDirectory() as folder, context.Pool(1) as pool:
            root = Storage(folder)
            stored = Store(stored_assets=size.assets, stored_days=days, buckets=size.buckets)
            manifest = store_panel(root, cfg, stored)
            found.append(pool.apply(measure, (root, manifest, cfg, size.train_days)))
    return found


def growth(small: Peak, large: Peak) -> float:
    """MB of peak per MB of shard: while reading and preparing, or over all, whichever is more."""
    more = max(large.ready - small.ready, large.trained - small.trained)
    return more / (large.shard - small.shard)


def main(size: Size | None = None) -> float:
    """Print a line a panel length, and the growth between the two longest.

    Networks and one day's samples are the same in all, so they drop out.
    """
    found = peaks(size or Size())
    for peak in found:
        print(
            f"shard {peak.shard:6.1f} MB   peak over start: ready {peak.ready - peak.start:6.1f}, "
            f"trained {peak.trained - peak.start:6.1f} MB   (start {peak.start:.0f} MB)",
            flush=True,
        )
    ratio = growth(found[-2], found[-1])
    print(f"growth of the peak: {ratio:.2f} x the shard's, allowed {LIMIT}")
    return ratio


if __name__ == "__main__":
    main()
