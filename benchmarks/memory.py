"""Growth of a training worker's peak memory: with its shard (at most 1.3 times), and with a day.

    python -m benchmarks.memory

1. The panel grows in days while assets, networks and training days stay the same, so the peak grows
only because of the shard: first in reading and preparing, then in training with networks and one
day's samples.
2. The cross-section grows by half. Beyond the shard, what grows is a day's samples, standardized,
   generated, with their gradients, in several precisions: asked for is a fixed multiple. Networks
   are so large that what they keep for their gradients has reached its limits in both.

Every measurement runs in a new process, which does what a worker does between
Ray's calls and reads its own high-water mark (Linux, VmHWM).
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
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import (
    GanConfig,
    GruConfig,
    PanelConfig,
    RunConfig,
    SampleConfig,
    TrainingConfig,
    UniverseConfig,
)
from gangru_dist.maths.calendar import Window
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import prepare
from gangru_dist.training.window import train_window
from gangru_dist.training.worker import read_share

LIMIT = 1.3
"""Allowed growth of the peak, in MB per MB of shard."""
SAMPLES_LIMIT = 40
"""Allowed growth of the peak beyond that, in MB per MB of one day's samples."""
_MB = 1e6
_FEW_DAYS = 400


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of the panels."""

    assets: int = 1000
    days: tuple[int, ...] = (400, 800, 1600, 3200)
    train_days: int = 4
    buckets: int = 64
    hidden: int = 32


@dataclass(frozen=True, kw_only=True)
class Peak:
    """High-water marks of one worker, MB."""

    shard: float
    """Size of its dense feature tensor."""
    start: float
    """With Python, torch, Ray and this package loaded, before reading."""
    ready: float
    """With the panel read and cut into days."""
    trained: float
    """After an epoch of each stage."""


def config(size: Size) -> RunConfig:
    """One epoch of each stage; all assets belong to the universe from the first day."""
    return RunConfig(
        panel=PanelConfig(buckets=size.buckets),
        universe=UniverseConfig(min_listed_days=0),
        gan=GanConfig(hidden=size.hidden, layers=1, channels=(4, 8), epochs=1),
        gru=GruConfig(hidden=size.hidden, layers=1, head=(32,)),
        training=TrainingConfig(epochs=1),
    )


def measure(root: Storage, manifest: Manifest, cfg: RunConfig, train_days: int) -> Peak:
    """Peaks of a worker on the panel's last window; call it in a new process."""
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
    block = read_share(SharedPanel(root=root, manifest=manifest), cfg, window)
    data = prepare(block, window, manifest.calendar, cfg)
    del block
    ready = high_water()
    train_window(data, TrainingState(cfg, 0), cfg, seed=0)
    shard = data.panel.numel() * data.panel.element_size() / _MB
    return Peak(shard=shard, start=start, ready=ready, trained=high_water())


def high_water() -> float:
    """Peak resident memory of this process, MB; getrusage would include the parent's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / _MB


def peaks(size: Size) -> list[Peak]:
    """Measure and print each panel length in a new process."""
    cfg = config(size)
    context = multiprocessing.get_context("spawn")
    found = []
    for days in size.days:
        with tempfile.TemporaryDirectory() as folder, context.Pool(1) as pool:
            root = Storage(folder)
            stored = Store(stored_assets=size.assets, stored_days=days, buckets=size.buckets)
            manifest = store_panel(root, cfg, stored)
            peak = pool.apply(measure, (root, manifest, cfg, size.train_days))
            print(
                f"shard {peak.shard:6.1f} MB   peak over start: ready "
                f"{peak.ready - peak.start:6.1f}, trained {peak.trained - peak.start:6.1f} MB   "
                f"(start {peak.start:.0f} MB)",
                flush=True,
            )
            found.append(peak)
    return found


def growth(small: Peak, large: Peak) -> float:
    """MB of peak per MB of shard: for reading and preparing, or in total, whichever is larger."""
    more = max(large.ready - small.ready, large.trained - small.trained)
    return more / (large.shard - small.shard)


def in_samples(small: Peak, large: Peak) -> float:
    """MB of peak beyond `LIMIT` times the shard, per MB of one day's samples."""
    more = large.shard - small.shard
    a_day = more * SampleConfig().lookback / _FEW_DAYS
    return (large.trained - small.trained - LIMIT * more) / a_day


def longer(size: Size) -> float:
    """Print a line per panel length, and the growth between the two longest.

    Networks and one day's samples have the same size in both, so they cancel out.
    """
    found = peaks(size)
    ratio = growth(found[-2], found[-1])
    print(f"growth of the peak: {ratio:.2f} x the shard's, allowed {LIMIT}")
    return ratio


def wider(assets: int) -> float:
    """Print the same for two cross-sections, and what a day's samples are worth."""
    found = [
        peaks(Size(assets=count, days=(_FEW_DAYS,), train_days=3, hidden=256))[0]
        for count in (assets, assets * 3 // 2)
    ]
    ratio = in_samples(*found)
    print(f"beyond {LIMIT} x the shard: {ratio:.0f} x a day's samples, allowed {SAMPLES_LIMIT}")
    return ratio


def main() -> None:
    """Print both."""
    longer(Size())
    wider(4000)


if __name__ == "__main__":
    main()
