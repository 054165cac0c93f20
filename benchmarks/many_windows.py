"""Memory and speed of the driver with 200 windows x 8 workers on a simulated cluster.

    python -m benchmarks.many_windows

The cluster has 160 logical GPUs, enough for 20 windows at once. A stand-in replaces Ray Train: it
reserves a placement group of eight GPUs, reports epochs to the driver, and releases the group. The
rest is the real code: plan, gate, driver threads, progress, summary. Trains 20 windows, then 200:
driver memory and seconds per window must not grow. Takes half a minute.
"""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass

import numpy as np
import psutil
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from gangru_dist.base.records import write_record
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.config.settings import (
    PanelConfig,
    ResourcesConfig,
    RunConfig,
    TrainingConfig,
    WindowConfig,
)
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.runs.model import ModelRecord, PredictorEpoch, TimedEpoch
from gangru_dist.runs.run import MODEL, WEIGHTS, Run
from gangru_dist.training.launch import choose_windows, train_windows
from gangru_dist.training.queue import Task, WorkerGroup, make_task_identity

WORKERS, EPOCHS, AT_ONCE = 8, 5, 20
FEW, MANY = 20, 200


@dataclass(frozen=True, kw_only=True)
class Load:
    """Cost of a number of windows for the driver."""

    windows: int
    seconds_per_window: float
    memory: float
    """Resident memory afterwards, MB."""
    grown: float
    """Growth of resident memory, MB."""
    most_at_once: int


class StandIn:
    """Replaces `run_workers`: reserves GPUs, reports epochs, releases the GPUs."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.running, self.most = seconds, 0, 0
        self._lock = threading.Lock()

    def __call__(self, workers: WorkerGroup) -> None:
        """Pretend to train every task of the group."""
        size, manifest = workers.run.cfg.resources, read_manifest(workers.run.root)
        group = placement_group([{"GPU": size.gpus_per_worker}] * size.workers)
        assert group.wait(600)
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        while (task := workers.tasks.take(workers.number)) is not None:
            self._train(workers, task)
            _write_model(workers.run, manifest, task)
            workers.tasks.finish(workers.number)
        with self._lock:
            self.running -= 1
        remove_placement_group(group)

    def _train(self, workers: WorkerGroup, task: Task) -> None:
        for epoch in range(1, EPOCHS + 1):
            time.sleep(self.seconds / EPOCHS)
            result = PredictorEpoch(epoch=epoch, train_loss=-0.1, valid_ic=0.1)
            seconds = self.seconds / EPOCHS
            workers.tasks.report_epoch(task, TimedEpoch(result, seconds=seconds, samples_per_s=1e6))


def _write_model(run: Run, manifest: Manifest, task: Task) -> None:
    """Write the record of a trained model, and a file in place of its weights."""
    record = ModelRecord(
        window=task.window.name,
        seed=task.seed,
        model="",
        sha256="",
        identity=make_task_identity(run.cfg, manifest, task),
        device="cuda",
        architecture={},
        best_epoch=1,
        best_valid_ic=0.1,
        history=(),
    )
    folder = run.model_folder(task.window.name, task.seed)
    run.folder.write_bytes(f"{folder}/{WEIGHTS}", b"")
    write_record(run.folder, f"{folder}/{MODEL}", record)


def config() -> RunConfig:
    """One window per month, eight workers with a GPU each."""
    return RunConfig(
        variant="gru",
        panel=PanelConfig(buckets=WORKERS),
        windows=WindowConfig(refit_months=tuple(range(1, 13))),
        training=TrainingConfig(epochs=EPOCHS),
        resources=ResourcesConfig(workers=WORKERS, cpus_per_worker=0.001, gpus_per_worker=1),
    )


def store(root: Storage, cfg: RunConfig) -> None:
    """Write the manifest of a panel of twenty years; its rows are not read."""
    days = np.arange("2000-01-03", "2020-01-01", dtype="datetime64[D]")
    manifest = Manifest(
        features=cfg.panel.features,
        buckets=WORKERS,
        calendar=days[np.is_busday(days)],
        files=(),
        rows=0,
        assets=0,
        months={},
        source={},
    )
    root.child("panel").write_json("manifest.json", manifest.to_json())


def load(root: Storage, windows: int, seconds: float) -> Load:
    """Train the first windows with the stand-in."""
    cfg, stand_in = config(), StandIn(seconds)
    names = [window.name for window in choose_windows(read_manifest(root), cfg, None)[0][:windows]]
    before = _resident()
    begin = time.perf_counter()
    summary = train_windows(Run(root, f"of-{windows}", cfg), only=names, runner=stand_in)
    took = time.perf_counter() - begin
    assert [r.status for r in summary.windows] == ["trained"] * windows
    return Load(
        windows=windows,
        seconds_per_window=took / windows,
        memory=_resident(),
        grown=_resident() - before,
        most_at_once=stand_in.most,
    )


def _resident() -> float:
    return float(psutil.Process().memory_info().rss / 1e6)


def groups_left() -> int:
    """Number of placement groups that were not released."""
    return sum(group["state"] != "REMOVED" for group in placement_group_table().values())


def main(seconds: float = 1.0) -> tuple[Load, Load]:
    """Print and return the cost of few and many windows of `seconds` of training each."""
    cfg = config()
    with tempfile.TemporaryDirectory() as folder, session.open_session(cfg, gpus=AT_ONCE * WORKERS):
        root = Storage(folder)
        store(root, cfg)
        load(root, 5, seconds)  # first imports and connections
        few, many = load(root, FEW, seconds), load(root, MANY, seconds)
        left = groups_left()
    for found in (few, many):
        print(
            f"{found.windows:4d} windows of {WORKERS} workers: {found.seconds_per_window:.3f} s a "
            f"window, at most {found.most_at_once} at once, driver {found.memory:.0f} MB "
            f"({found.grown:+.1f})",
            flush=True,
        )
    print(f"placement groups left: {left}")
    return few, many


if __name__ == "__main__":
    main()
