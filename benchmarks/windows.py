"""Two windows at once on two cores against one after the other, and Ray's cost per window.

    python -m benchmarks.windows

Paired runs, A B B A ...: each pair trains the same two windows once with `max_concurrent=1` and
once with 2, on a Ray of two CPUs that is up already. Asked: at least 1.7 times as fast (DESIGN 8).
Ray's cost per window is read off every single run: from the call to the first step, and from the
last step to the model in storage, and until the run is cleared away. Needs a quiet machine of two
cores; about twenty minutes.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.training_speed import Size as Store
from benchmarks.training_speed import store_panel
from gangru_dist import runtime
from gangru_dist.config import (
    GruConfig,
    PanelConfig,
    ResourcesConfig,
    RunConfig,
    TrainingConfig,
    UniverseConfig,
    WindowConfig,
)
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.runs.run import MODEL, Run
from gangru_dist.runs.train_summary import WindowResult
from gangru_dist.storage import Storage
from gangru_dist.training.chain import train_chain
from gangru_dist.training.launch import choose_windows, train_windows
from gangru_dist.training.worker import Chain

TARGET = 1.7
"""Speed of two at once over one after the other (DESIGN 8)."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much work; by default about two minutes of training a window."""

    assets: int = 300
    days: int = 520
    epochs: int = 10
    pairs: int = 3
    gru: GruConfig = dataclasses.field(default_factory=GruConfig)


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """Ray's cost of one window, seconds."""

    before: float
    """From the call to the first step: start-up and reading."""
    after: float
    """From the last step to the model in storage."""
    clearing: float
    """From there until the run is over."""


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


class Stopwatch:
    """`train_chain`, timed."""

    def __init__(self) -> None:
        self.overheads: list[Overhead] = []

    def __call__(self, chain: Chain, manifest: Manifest, *, spread: bool) -> list[WindowResult]:
        """One chain of one window."""
        begin = time.time()
        results = train_chain(chain, manifest, spread=spread)
        end = time.time()
        (task,) = chain.tasks
        run, place = chain.run, (task.window.name, task.seed)
        model = run.model(*place)
        assert model is not None, results
        assert model.first_step is not None
        assert model.last_step is not None
        written = Path(run.folder.path, run.model_folder(*place), MODEL).stat().st_mtime
        self.overheads.append(
            Overhead(
                before=model.first_step - begin,
                after=written - model.last_step,
                clearing=end - written,
            )
        )
        return results


def seconds(root: Storage, run: str, size: Size, at_once: int, clock: Stopwatch) -> float:
    """Wall time of two windows."""
    names = two_windows(root, size)
    begin = time.perf_counter()
    summary = train_windows(Run(root, run, config(size, at_once)), only=names, runner=clock)
    assert [r.status for r in summary.windows] == ["trained"] * 2, summary.lines()
    return time.perf_counter() - begin


def two_windows(root: Storage, size: Size) -> list[str]:
    """Names of the last two windows."""
    windows, _ = choose_windows(read_manifest(root), config(size, 1), None)
    return [window.name for window in windows[-2:]]


def main(size: Size | None = None) -> float:
    """Print each pair, the median ratio and Ray's cost per window."""
    chosen, clock, ratios = size or Size(), Stopwatch(), []
    with tempfile.TemporaryDirectory() as place, runtime.session(RunConfig(), cpus=2):
        root = Storage(place)
        store(root, chosen)
        for pair in range(chosen.pairs):
            order = (1, 2) if pair % 2 == 0 else (2, 1)
            took = {n: seconds(root, f"pair-{pair}-{n}", chosen, n, clock) for n in order}
            ratios.append(took[1] / took[2])
            print(
                f"pair {pair}: one after the other {took[1]:.1f} s, at once {took[2]:.1f} s, "
                f"ratio {ratios[-1]:.2f}",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f}, asked >= {TARGET}")
    for name, text in (
        ("before", "start to first step"),
        ("after", "last step to model written"),
        ("clearing", "model written to run over"),
    ):
        values = [getattr(overhead, name) for overhead in clock.overheads]
        print(
            f"{text:28s} median {statistics.median(values):5.1f} s "
            f"({min(values):.1f}..{max(values):.1f})"
        )
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
