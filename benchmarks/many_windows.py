"""Cost for the driver of many units of training on many slots.

    python -m benchmarks.many_windows

One worker trains a unit, on a machine that is said to have as many CPUs as slots. A worker sleeps
in place of training, reports its epochs and writes a model; the rest is the real code: plan, Ray's
queue, events, summary. Few units come first, then many: the driver's memory must not grow, nor its
share of a core. Asked of 1,000 units on 64 slots (`--slots 64 --few 64 --many 1000`): less than a
tenth of a core and 1 GB.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import psutil

from gangru_dist.base.records import write_record
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.config.settings import RunConfig, TrainingConfig, WindowConfig
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.runs.model import ModelRecord, PredictorEpoch, TimedEpoch
from gangru_dist.runs.run import MODEL, WEIGHTS, Run
from gangru_dist.training.launch import train_windows
from gangru_dist.training.plan import choose_windows
from gangru_dist.training.units import (
    EpochDone,
    Report,
    Task,
    TaskFinished,
    TrainingJob,
    Unit,
    UnitStarted,
    make_task_identity,
    run_units,
)

EPOCHS = 5
SECONDS = 2.0
"""Of a model."""
CFG = RunConfig(
    variant="gru",
    windows=WindowConfig(refit_months=tuple(range(1, 13))),
    training=TrainingConfig(epochs=EPOCHS),
)


@dataclass(frozen=True, kw_only=True)
class Load:
    """Cost of a number of units for the driver."""

    units: int
    seconds: float
    """Each, of wall time."""
    core: float
    """Share of a core that the driver takes."""
    memory: float
    """Resident memory afterwards, MB."""
    grown: float
    """Growth of resident memory, MB."""


def sleep_unit(job: TrainingJob, unit: Unit, report: Report) -> None:
    """Report what training would."""
    manifest = read_manifest(job.run.root)
    report(UnitStarted(unit))
    for task in unit:
        for epoch in range(1, EPOCHS + 1):
            time.sleep(SECONDS / EPOCHS)
            result = PredictorEpoch(epoch=epoch, train_loss=-0.1, valid_ic=0.1)
            report(EpochDone(task, TimedEpoch(result, SECONDS / EPOCHS, 1e6)))
        _write_model(job.run, manifest, task)
        report(TaskFinished(task, None))


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


def store(root: Storage) -> None:
    """Write the manifest of a panel of a hundred years; its rows are not read."""
    days = np.arange("1920-01-01", "2020-01-01", dtype="datetime64[D]")
    manifest = Manifest(
        features=CFG.panel.features,
        buckets=CFG.panel.buckets,
        calendar=days[np.is_busday(days)],
        files=(),
        rows=0,
        assets=0,
        months={},
        source={},
    )
    root.child("panel").write_json("manifest.json", manifest.to_json())


def load(root: Storage, units: int, name: str) -> Load:
    """Train the first windows, a model each."""
    names = [window.name for window in choose_windows(read_manifest(root), CFG, None)[0][:units]]
    me = psutil.Process()
    before, spent, begin = me.memory_info().rss, sum(me.cpu_times()[:2]), time.perf_counter()
    runner = partial(run_units, train=sleep_unit)
    summary = train_windows(Run(root, name, CFG), only=names, runner=runner)
    took, after = time.perf_counter() - begin, me.memory_info().rss
    assert summary.ok, summary.format_lines()
    return Load(
        units=units,
        seconds=took / units,
        core=(sum(me.cpu_times()[:2]) - spent) / took,
        memory=after / 1e6,
        grown=(after - before) / 1e6,
    )


def main(slots: int, few: int, many: int) -> None:
    """Print the cost of few and of many units."""
    with tempfile.TemporaryDirectory() as folder, session.open_session(CFG, cpus=slots):
        root = Storage(folder)
        store(root)
        load(root, slots, "warm")  # starts the processes
        for name, units in (("few", few), ("many", many)):
            cost = load(root, units, name)
            print(
                f"{cost.units:4d} units on {slots} slots: {cost.seconds:.3f} s a unit, driver "
                f"{100 * cost.core:.1f} % of a core, {cost.memory:.0f} MB ({cost.grown:+.1f})",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("slots", 20), ("few", 20), ("many", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    main(**vars(parser.parse_args()))
