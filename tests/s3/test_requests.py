"""What a job asks of the store: counted at a proxy in front of a real S3 server."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from s3.faults import FaultProxy, faulty
from s3.server import BUCKET, S3Server

from benchmarks.training_speed import Size, store_panel
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig, TrainingConfig, WindowConfig
from gangru_dist.panel.manifest import Manifest
from gangru_dist.report.runs import write_index
from gangru_dist.runs.run import Run
from gangru_dist.training.checkpoint import TrainingState, write_model
from gangru_dist.training.launch import train_windows
from tests.training.store import TINY

pytestmark = pytest.mark.slow
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


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_requests_of_a_job(proxy: FaultProxy) -> None:
    """4 windows x 2 seeds, then the same again, with nothing to do.

    Twice each of the panel's files, which all windows share: pyarrow asks for a file's size before
    it reads. Seven a model beside its checkpoints; two a model that is there.
    """
    root = Storage(proxy.uri(f"{BUCKET}/requests"))
    manifest, run = store(root), Run(root, "r", CFG)
    before = proxy.seen()
    summary = train_windows(run)
    models = WINDOWS * len(SEEDS)
    statuses = [result.status for result in summary.windows]
    assert statuses.count("trained") == models, summary.format_lines()
    _, folders = count(proxy, before)
    assert folders["panel"] <= 2 * len(manifest.files) + 2
    assert folders["checkpoints"] <= (1 + EPOCHS) * models + 15
    assert folders["run"] <= 8 * models + 15
    before = proxy.seen()
    assert train_windows(run).ok
    write_index(root)
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
