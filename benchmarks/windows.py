"""Two windows at once on two cores against one after the other; and many small windows.

    python -m benchmarks.windows                       # half an hour: both
    python -m benchmarks.windows --epochs 2 --pairs 3  # about five minutes: both, a first look
    python -m benchmarks.windows --pairs 0             # a minute: the second alone
    python -m benchmarks.windows --pairs 0 --workers 2 --seeds 3  # 45 models, groups of two
    python -m benchmarks.windows --pairs 0 --seeds 3 --whole      # ten minutes: 45 whole networks

1. Paired runs, A B B A ...: each pair trains the same two windows once with `max_concurrent=1` and
   once with 2, on a Ray of two CPUs that is up already. Asked: at least 1.85 times as fast.
   A slot's start counts, so shorter windows give a lower ratio.
2. Fifteen windows on two slots: what is not training, by model. Asked of three seeds: at most 2 s,
   with two workers a window 6 s; of whole networks a wall time of at most 1.08 of the training on
   both slots. Else they are small, a second each, or the training would hide the rest.

Needs a quiet machine of two cores, and bytecode on the disk: with `PYTHONDONTWRITEBYTECODE` each of
Ray's processes may compile torch, which doubles the time of groups.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass

from benchmarks.training_speed import Size as Store
from benchmarks.training_speed import store_panel
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.config.settings import (
    GruConfig,
    PanelConfig,
    ResourcesConfig,
    RunConfig,
    TrainingConfig,
    UniverseConfig,
    WindowConfig,
)
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.runs.run import Run
from gangru_dist.training.launch import train_windows
from gangru_dist.training.plan import choose_windows

TARGET = 1.85
"""Speed of two at once over one after the other."""
START_UP_TARGETS = {1: 2.0, 2: 6.0}
"""Workers a window -> seconds a model, of fifteen windows on two slots, that are not training."""
WALL_TARGET = 1.08
"""Wall time of whole networks over their training on both slots."""
SMALL_WINDOWS = 15
_SHORT = WindowConfig(history_days=100, refit_months=tuple(range(1, 13)))


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much work; by default about two minutes of training a window."""

    assets: int = 300
    days: int = 520
    epochs: int = 10
    pairs: int = 5
    gru: GruConfig = dataclasses.field(default_factory=GruConfig)


def config(size: Size, at_once: int) -> RunConfig:
    """Two windows of the predictor alone, all their epochs."""
    return RunConfig(
        variant="gru",
        panel=PanelConfig(buckets=8),
        universe=UniverseConfig(min_listed_days=0),
        windows=WindowConfig(history_days=400, refit_months=tuple(range(1, 13))),
        gru=size.gru,
        training=TrainingConfig(epochs=size.epochs, patience=size.epochs),
        resources=ResourcesConfig(max_concurrent=at_once),
    )


def store(root: Storage, size: Size) -> None:
    """A finished panel of random rows."""
    cfg = config(size, 1)
    stored = Store(stored_assets=size.assets, stored_days=size.days, buckets=cfg.panel.buckets)
    root.child("panel").write_json("manifest.json", store_panel(root, cfg, stored).to_json())


def seconds(root: Storage, run: str, cfg: RunConfig, names: list[str]) -> float:
    """Wall time of some windows."""
    begin = time.perf_counter()
    summary = train_windows(Run(root, run, cfg), only=names)
    took = time.perf_counter() - begin
    assert {r.status for r in summary.windows} == {"trained"}, summary.format_lines()
    return took


def last_windows(root: Storage, cfg: RunConfig, count: int) -> list[str]:
    """Names of the last windows."""
    windows, _ = choose_windows(read_manifest(root), cfg, None)
    return [window.name for window in windows[-count:]]


def pairs(root: Storage, size: Size) -> float:
    """Print each pair; the median ratio."""
    ratios = []
    names = last_windows(root, config(size, 1), 2)
    for pair in range(size.pairs):
        order = (1, 2) if pair % 2 == 0 else (2, 1)
        took = {n: seconds(root, f"pair-{pair}-{n}", config(size, n), names) for n in order}
        ratios.append(took[1] / took[2])
        print(
            f"pair {pair}: one after the other {took[1]:.1f} s, at once {took[2]:.1f} s, "
            f"ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.2f}, asked >= {TARGET}")
    return statistics.median(ratios)


def start_up(root: Storage, size: Size, workers: int, seeds: int, *, whole: bool) -> float:
    """Seconds a model that are not training: fifteen windows on two slots."""
    if not whole:
        size = dataclasses.replace(size, epochs=2, gru=GruConfig(hidden=8, layers=1, head=(4,)))
    plain = config(size, 2 // workers)
    cfg = dataclasses.replace(
        plain,
        windows=_SHORT,
        training=dataclasses.replace(plain.training, seeds=tuple(range(seeds))),
        resources=dataclasses.replace(plain.resources, workers=workers),
    )
    names = last_windows(root, cfg, SMALL_WINDOWS)
    begin = time.time()
    took = seconds(root, "small", cfg, names)
    models = [m for m in Run(root, "small", cfg).read_models().values() if m.window in names]
    steps = [(m.first_step or 0.0, m.last_step or 0.0) for m in models]
    training = sum(last - first for first, last in steps) * workers / 2
    overhead = (took - training) / len(models)
    first = min(first for first, _ in steps) - begin
    print(
        f"{len(models)} models of {len(names)} windows on two slots, {workers} a window: "
        f"{took:.1f} s, {training:.1f} s of them training on both, ratio {took / training:.2f} "
        f"(of whole networks asked <= {WALL_TARGET}); first step after {first:.1f} s; "
        f"{overhead:.2f} s a model beside training, asked <= {START_UP_TARGETS[workers]}"
    )
    return overhead


def main() -> None:
    """Measure as much as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--epochs", type=int, default=Size.epochs, help="of a window of a pair")
    parser.add_argument("--pairs", type=int, default=Size.pairs, help="0: start-up alone")
    parser.add_argument("--workers", type=int, default=1, choices=START_UP_TARGETS, help="a window")
    parser.add_argument("--seeds", type=int, default=1, help="of the fifteen windows")
    parser.add_argument("--whole", action="store_true", help="networks and --epochs of a pair")
    args = parser.parse_args()
    size = Size(epochs=args.epochs, pairs=args.pairs)
    with tempfile.TemporaryDirectory() as place, session.open_session(RunConfig(), cpus=2):
        root = Storage(place)
        store(root, size)
        start_up(root, size, args.workers, args.seeds, whole=args.whole)
        if size.pairs:
            pairs(root, size)


if __name__ == "__main__":
    main()
