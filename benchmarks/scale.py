"""Expected speed-up of 1 to 64 workers and windows, computed from parts measured here.

    python -m benchmarks.scale

Measured: samples per second of one thread (an epoch of preset `default`) and gloo's all-reduce
between two processes of this machine, small and large. Counted: the bytes that training sums over
the workers, and how unevenly hash buckets distribute the assets. The rest is arithmetic, printed as
the tables of docs/LOG.md:

    step(W)  = busiest worker's samples / speed + all-reduce(bytes, W)
    ring     = 2 (W - 1) latency + 2 (W - 1) / W x bytes / bandwidth
    windows  = a queue: a free slot takes the next model; models differ in their epochs

No cluster was measured: your network has its own latency and bandwidth (--latency-us, --gigabit),
and processes of one machine share the memory bandwidth.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import sys
import tempfile
import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks.training_speed import Size, prepared_window
from gangru_dist.config.presets import default
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.manifest import assign_buckets
from gangru_dist.runs.model import TimedEpoch
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.window import train_window

ASSETS, TRAINING_DAYS = 4000, 64
"""Assets of the whole market; training days of a window."""
BUCKETS = 64
WORKERS = (1, 2, 4, 8, 16, 32, 64)
EPOCHS = (8, 20)
"""Fewest and most epochs of a model, with early stopping; the whole market's took 10 and 11."""
START_UP = 4.0
"""Seconds until a slot takes its first step (`benchmarks.windows`)."""
_SMALL, _LARGE, _ROUNDS = 1, 2_000_000, 15


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Measured inputs of the estimates."""

    samples_per_second: float
    """One worker, one thread, forward and backward, validation included."""
    latency: float
    """Seconds of one message between two workers."""
    bandwidth: float
    """Bytes per second between two workers."""


def gradient_bytes(cfg: RunConfig) -> int:
    """Bytes of gradients that one step sums over the workers."""
    predictor = TrainingState(cfg, 0).network.predictor
    return sum(p.numel() * p.element_size() for p in predictor.parameters())


def busiest_share(workers: int, assets: int = ASSETS, buckets: int = BUCKETS) -> float:
    """Assets of the largest worker over the mean, as hash buckets are not quite even."""
    bucket = assign_buckets([f"{number:06d}.SH" for number in range(assets)], buckets)
    return float(np.bincount(bucket % workers, minlength=workers).max() * workers / assets)


def all_reduce_seconds(size: int, workers: int, parts: Parts) -> float:
    """A ring all-reduce: every worker sends and receives 2 (W - 1) pieces of size / W bytes."""
    hops = 2 * (workers - 1)
    return hops * (parts.latency + size / workers / parts.bandwidth)


def step_seconds(assets: int, workers: int, size: int, parts: Parts) -> float:
    """One day's cross-section: the busiest worker's samples, the gradients, the IC's two sums."""
    compute = assets / workers * busiest_share(workers) / parts.samples_per_second
    return (
        compute
        + all_reduce_seconds(size, workers, parts)
        + 2 * all_reduce_seconds(64, workers, parts)
    )


def efficiency(assets: int, workers: int, size: int, parts: Parts) -> float:
    """Time of one worker over W times the time of W workers."""
    alone = step_seconds(assets, 1, size, parts)
    return alone / (workers * step_seconds(assets, workers, size, parts))


def enough_assets(workers: int, size: int, parts: Parts, least: float = 0.9) -> int:
    """Smallest cross-section with which W workers reach `least` of the possible efficiency."""
    even = least / busiest_share(workers)
    assets = 64
    while efficiency(assets, workers, size, parts) < even and assets < 1_000_000:
        assets *= 2
    return assets


def makespan(models: int, slots: int, epoch_seconds: float, seed: int = 0) -> float:
    """Seconds until all models are trained, if each free slot takes the next one."""
    epochs = np.random.default_rng(seed).integers(*EPOCHS, size=models)
    free = [START_UP] * min(slots, models)
    for length in epochs * epoch_seconds:
        heapq.heappush(free, heapq.heappop(free) + float(length))
    return max(free)


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    found = []
    for size in (_SMALL, _LARGE):
        data = torch.zeros(size)
        dist.all_reduce(data)
        spent = []
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            dist.all_reduce(data)
            spent.append(time.perf_counter() - started)
        found.append(median(spent))
    if rank == 0:
        np.save(f"{folder}/network.npy", found)
    dist.destroy_process_group()


def measured_network(folder: str) -> tuple[float, float]:
    """Latency (s) and bandwidth (bytes/s) between two gloo processes on this machine."""
    spawn(_worker, args=(folder,), nprocs=2)
    small, large = np.load(f"{folder}/network.npy")
    latency = float(small) / 2
    return latency, 4 * _LARGE / max(float(large) - float(small), 1e-6)


def measured_speed() -> float:
    """Samples per second of an epoch, validation included."""
    torch.set_num_threads(1)
    preset = default()
    cfg = dataclasses.replace(
        preset,
        label=dataclasses.replace(preset.label, neutralize=()),
        training=dataclasses.replace(preset.training, epochs=6, patience=6),
    )
    epochs: list[TimedEpoch] = []
    data = prepared_window(cfg, Size(assets=1000, train_days=6, valid_days=1))
    train_window(
        data, TrainingState(cfg, 0), cfg, seed=0, report=lambda epoch, _: epochs.append(epoch)
    )
    return median(epoch.samples_per_s for epoch in epochs[1:])


def workers_table(size: int, parts: Parts) -> list[str]:
    """Efficiency of one window's workers."""
    lines = [
        "| workers of one window | busiest worker | 4,000 assets | 1,000 assets | 90 % from |",
        "|---|---|---|---|---|",
    ]
    for count in WORKERS:
        whole, quarter = (efficiency(n, count, size, parts) for n in (ASSETS, ASSETS // 4))
        enough = f"{enough_assets(count, size, parts):,} assets" if count > 1 else ""
        lines.append(
            f"| {count} | {busiest_share(count):.2f} of the mean | {whole:.2f} | {quarter:.2f} | "
            f"{enough} |"
        )
    return lines


def windows_table(epoch_seconds: float) -> list[str]:
    """Speed-up of many windows on many slots."""
    lines = [
        "| windows at once | 15 windows x 3 seeds, hours | over one at a time |",
        "|---|---|---|",
    ]
    alone = makespan(45, 1, epoch_seconds)
    for slots in WORKERS:
        spent = makespan(45, slots, epoch_seconds)
        lines.append(f"| {slots} | {spent / 3600:.1f} | {alone / spent:.1f} |")
    return lines


def report(parts: Parts) -> str:
    """All tables, as Markdown."""
    size = gradient_bytes(default())
    epoch = ASSETS * TRAINING_DAYS / parts.samples_per_second
    head = (
        f"{parts.samples_per_second:,.0f} samples/s a worker; a message takes "
        f"{parts.latency * 1e6:.0f} us, {parts.bandwidth / 1e9:.2f} GB/s; "
        f"an epoch of the whole market {epoch:.0f} s on one worker; gradients are "
        f"{size / 1e6:.2f} MB a step, {size * TRAINING_DAYS / 1e6:.0f} MB an epoch"
    )
    tables = (workers_table(size, parts), windows_table(epoch))
    return "\n\n".join([head, *("\n".join(table) for table in tables)])


def main() -> None:
    """Measure the parts that are not given and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--samples-per-s", type=float, help="of one worker (default: measured)")
    parser.add_argument("--latency-us", type=float, help="of your network (default: measured here)")
    parser.add_argument("--gigabit", type=float, help="per second (default: measured here)")
    args = parser.parse_args()
    latency = args.latency_us and args.latency_us / 1e6
    bandwidth = args.gigabit and args.gigabit * 1e9 / 8
    if not latency or not bandwidth:
        with tempfile.TemporaryDirectory() as folder:
            found = measured_network(folder)
        latency, bandwidth = latency or found[0], bandwidth or found[1]
    speed = args.samples_per_s or measured_speed()
    parts = Parts(samples_per_second=speed, latency=latency, bandwidth=bandwidth)
    sys.stdout.write(f"{report(parts)}\n")


if __name__ == "__main__":
    main()
