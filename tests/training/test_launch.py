"""Windows through Ray Train: both ingests, several workers, failures, kills (SPEC 8)."""

import dataclasses
import datetime as dt
import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from gangru_dist.config import (
    GanConfig,
    GruConfig,
    PanelConfig,
    ResourcesConfig,
    RunConfig,
    SyntheticConfig,
    TrainingConfig,
    UniverseConfig,
    WindowConfig,
)
from gangru_dist.errors import ResourceError, WindowError
from gangru_dist.storage import Storage

TINY = RunConfig(
    panel=PanelConfig(buckets=4),
    windows=WindowConfig(history_days=120, sample_every=10),
    gan=GanConfig(hidden=4, layers=1, channels=(2, 3), epochs=2),
    gru=GruConfig(hidden=4, layers=1, head=(4,)),
    training=TrainingConfig(epochs=3, learning_rate=1e-3),
    synthetic=SyntheticConfig(assets=40, first=dt.date(2018, 1, 2), last=dt.date(2019, 7, 31)),
)
"""Refit days 2018-12-31 and 2019-06-28."""

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def with_resources(cfg: RunConfig, **resources: object) -> RunConfig:
    return dataclasses.replace(cfg, resources=ResourcesConfig(**resources))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Storage:
    """A storage with the panel of a small made-up market."""
    from gangru_dist.pipeline import SYNTHETIC, panel_from

    storage = Storage(str(tmp_path_factory.mktemp("train")))
    panel_from(storage, TINY, bars=SYNTHETIC)
    return storage


@pytest.fixture(scope="module")
def undisturbed(root: Storage) -> dict[str, str]:
    """Models of one worker a window that nothing happened to: window -> hash."""
    from gangru_dist.training.launch import train_windows

    summary = train_windows(root, "undisturbed", TINY)
    assert [result.status for result in summary.results if result.seed == 0] == ["trained"] * 2
    return {r.window: r.model for r in summary.results if r.model}


def test_finished_windows_are_kept(root: Storage, undisturbed: dict[str, str]) -> None:
    from gangru_dist.training.launch import train_windows

    again = train_windows(root, "undisturbed", TINY)
    kept = {r.window: r.model for r in again.results if r.status == "finished before"}
    assert kept == undisturbed
    assert not list(Path(root.path, "runs/undisturbed/checkpoints").rglob("*.safetensors"))


def test_ray_data_feeds_the_same_model(root: Storage, undisturbed: dict[str, str]) -> None:
    """Both windows in one chained run, read by Ray Data while the worker holds every CPU."""
    from gangru_dist.training.launch import train_windows

    cfg = with_resources(TINY, ingest="ray", cpus_per_worker=2, windows_per_run=2)
    summary = train_windows(root, "ray-data", cfg)
    assert {r.window: r.model for r in summary.results if r.model} == undisturbed


def test_two_workers_train_the_model_of_one(root: Storage, undisturbed: dict[str, str]) -> None:
    from gangru_dist.training.artifact import read_model
    from gangru_dist.training.launch import train_windows

    cfg = with_resources(TINY, workers=2, ingest="ray")
    name = next(iter(undisturbed))
    summary = train_windows(root, "two", cfg, only=[name])
    assert summary.ok
    assert len(summary.results) == 1
    two, about = read_model(root.child("runs", "two"), name, 0)
    one, _ = read_model(root.child("runs", "undisturbed"), name, 0)
    assert about["workers"] == 2
    for a, b in zip(two.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_one_windows_failure_stops_no_other(root: Storage, undisturbed: dict[str, str]) -> None:
    """Nobody is listed long enough for the first window; the second trains all the same."""
    from gangru_dist.training.launch import train_windows

    strict = UniverseConfig(min_listed_days=230)
    cfg = dataclasses.replace(with_resources(TINY, windows_per_run=2), universe=strict)
    summary = train_windows(root, "strict", cfg)
    failed, trained = (r for r in summary.results if r.seed == 0)
    assert (failed.status, trained.status) == ("failed", "trained")
    assert "universe.min_listed_days" in failed.reason
    assert summary.failed == 1
    assert not summary.ok


def train_workers() -> list[psutil.Process]:
    """Worker processes of Ray Train below this one's cluster."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if "RayTrainWorker" in " ".join(_cmdline(p))]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("epochs", [1, 3])
def test_killed_worker_resumes_to_the_same_bits(
    root: Storage, undisturbed: dict[str, str], epochs: int
) -> None:
    """SIGKILL after the first GAN epoch, and after the first predictor epoch."""
    from gangru_dist.training.launch import train_windows

    run = root.child("runs", f"killed-{epochs}")
    name = next(iter(undisturbed))
    killed = threading.Event()

    def kill() -> None:
        deadline = time.time() + 120
        while time.time() < deadline and not killed.is_set():
            states = [n for n in run.list_files("checkpoints") if n.endswith("state.safetensors")]
            if states and _epochs_of(run, states[-1]) >= epochs:
                for process in train_workers():
                    os.kill(process.pid, signal.SIGKILL)
                    killed.set()
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    summary = train_windows(root, f"killed-{epochs}", TINY, only=[name])
    thread.join()
    assert killed.is_set()
    (result,) = summary.results
    assert result.model == undisturbed[name]
    assert result.status == "resumed"


def _epochs_of(run: Storage, name: str) -> int:
    try:
        data = run.read_bytes(name)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (OSError, ValueError):
        return 0  # being replaced by the next one
    about = json.loads(header["__metadata__"]["about"])
    return len(about["progress"]["history"])


class TestValidation:
    def test_request_that_can_never_be_met_fails_at_once(self, root: Storage) -> None:
        from gangru_dist.training.launch import train_windows

        cfg = with_resources(TINY, workers=4)
        with pytest.raises(ResourceError, match=r"asks for 4 worker\(s\).*room for 2"):
            train_windows(root, "too-big", cfg)

    def test_unknown_window(self, root: Storage) -> None:
        from gangru_dist.training.launch import train_windows

        with pytest.raises(WindowError, match=r"'2018-12-30' is no refit day.*2018-12-31"):
            train_windows(root, "unknown", TINY, only=["2018-12-30"])
