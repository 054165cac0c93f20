"""What a job asks of the store: counted at a proxy in front of a real S3 server."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3.faults import FaultProxy, faulty
from s3.server import BUCKET, S3Server

from benchmarks.training_speed import Size, store_panel
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig, TrainingConfig, WindowConfig
from gangru_dist.panel.manifest import Manifest
from gangru_dist.runs.run import Run
from gangru_dist.training.checkpoint import TrainingState, write_model
from tests.training.store import TINY

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parents[2]
WINDOWS, SEEDS, EPOCHS = 4, (0, 1), 2
CFG = dataclasses.replace(
    TINY,
    variant="gru",
    windows=WindowConfig(history_days=120, sample_every=10, refit_months=(1, 2, 3, 4)),
    training=TrainingConfig(epochs=EPOCHS, seeds=SEEDS),
)


@pytest.fixture
def proxy(on_s3: S3Server) -> Iterator[FaultProxy]:
    with faulty(on_s3, rate=0.0) as found:
        yield found


def store(root: Storage, cfg: RunConfig = CFG) -> Manifest:
    size = Size(stored_assets=24, stored_days=360, buckets=cfg.panel.buckets)
    manifest = store_panel(root, cfg, size)
    root.child("panel").write_json("manifest.json", manifest.to_json())
    return manifest


def count(proxy: FaultProxy, before: dict[str, int]) -> tuple[int, Counter[str]]:
    """Requests since `before`: all of them, and by the first folder they name."""
    found = Counter(proxy.seen())
    found.subtract(before)
    folders = Counter[str]()
    for asked, times in found.items():
        name = "panel" if "/panel/" in asked else "checkpoints" if "checkpoints" in asked else "run"
        folders[name] += times
    return found.total(), folders


_TRAIN = """import sys
from s3.test_requests import CFG
from gangru_dist.base.storage import Storage
from gangru_dist.report.runs import write_index
from gangru_dist.runs.run import Run
from gangru_dist.training.launch import train_windows
run = Run(Storage(sys.argv[1]), "r", CFG)
print(sum(result.model is not None for result in train_windows(run).windows))
write_index(run.root)
"""


def train(root: Storage) -> int:
    """Models of a job in a process of its own, whose Ray has the server's keys."""
    own = {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}", "RAY_raylet_start_wait_time_s": "300"}
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN, root.uri],
        cwd=PROJECT,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | own,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


@pytest.mark.ray
def test_requests_of_a_job(proxy: FaultProxy) -> None:
    """4 windows x 2 seeds, then the same again, with nothing to do.

    Twice each of the panel's files, which all windows share: pyarrow asks for a file's size before
    it reads. Seven a model beside its checkpoints and what a job takes; two a model that is there.
    """
    root = Storage(proxy.uri(f"{BUCKET}/requests"))
    manifest, models = store(root), WINDOWS * len(SEEDS)
    before = proxy.seen()
    assert train(root) == models
    _, folders = count(proxy, before)
    assert folders["panel"] <= 2 * len(manifest.files) + 2
    assert folders["checkpoints"] <= (1 + EPOCHS) * models + 15
    assert folders["run"] <= 8 * models + 20
    before = proxy.seen()
    assert train(root) == models
    total, _ = count(proxy, before)
    assert total <= 2 * models + 20


def test_finished_models_are_read_side_by_side(on_s3: S3Server) -> None:
    """40 of them on a store that takes 0.2 s to answer: one after another takes 16 seconds."""
    plain = Storage(f"s3://{BUCKET}/latency")
    manifest = store(plain)
    names = [str(day) for day in manifest.calendar[:40]]
    for name in names:
        write_model(Run(plain, "r", CFG), name, 0, TrainingState(CFG, 0), identity="x")
    with faulty(on_s3, rate=0.0, latency=0.2) as proxy:
        run = Run(Storage(proxy.uri(f"{BUCKET}/latency")), "r", CFG)
        began = time.monotonic()
        assert [window for window, _ in run.read_models()] == names
        assert time.monotonic() - began < 4.0
        assert proxy.counts()["requests"] == 2 * len(names) + 1
