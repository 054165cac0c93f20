"""Windows through Ray: panels read once and by each, one worker and a group, failures, kills.

A group costs Ray Train 10-14 s, so tests share them; kills by the dozen and long queues are in
`test_trials.py`.
"""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from gangru_dist.base.errors import ResourceError, WindowError
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig, UniverseConfig
from gangru_dist.runs.run import Run
from tests.training.store import TINY, WINDOWS, epochs_saved, stored_panel, with_resources

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return stored_panel(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def undisturbed(root: Storage, ray_cluster: None) -> dict[str, str]:
    """Models of one worker a window that nothing happened to, both at once: window -> hash."""
    from gangru_dist.training.launch import train_windows

    summary = train_windows(Run(root, "undisturbed", TINY))
    statuses = [result.status for result in summary.windows]
    assert statuses == ["no history", "trained", "trained"], summary.format_lines()
    return {r.window: r.model for r in summary.windows if r.model}


def test_finished_windows_are_kept(root: Storage, undisturbed: dict[str, str]) -> None:
    from gangru_dist.training.launch import train_windows

    again = train_windows(Run(root, "undisturbed", TINY))
    kept = {r.window: r.model for r in again.windows if r.status == "finished before"}
    assert kept == undisturbed


def test_nothing_is_left_behind(root: Storage, undisturbed: dict[str, str]) -> None:
    assert not list(Path(root.path, "runs/undisturbed/checkpoints").rglob("*.safetensors"))
    assert groups_left() == 0


def groups_left() -> int:
    """Placement groups that hold or ask for resources, once Ray has cleaned up."""
    from ray.util import placement_group_table

    deadline = time.monotonic() + 20
    while True:
        left = sum(group["state"] != "REMOVED" for group in placement_group_table().values())
        if left == 0 or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Say that there are two, so that the panel is read once, into the object store."""
    from gangru_dist.training.launch import session

    monkeypatch.setattr(session, "count_nodes", lambda: 2)
    with caplog.at_level("INFO"):
        yield
    told = [record.getMessage() for record in caplog.get_records("call")]
    assert any("shared_panel=True" in line for line in told)


@pytest.mark.usefixtures("two_nodes")
def test_a_panel_read_once_feeds_the_same_models(
    root: Storage, undisturbed: dict[str, str]
) -> None:
    from gangru_dist.training.launch import train_windows

    summary = train_windows(Run(root, "ray-data", TINY))
    assert {r.window: r.model for r in summary.windows if r.model} == undisturbed


@pytest.mark.usefixtures("two_nodes")
def test_two_workers_train_the_model_of_one(root: Storage, undisturbed: dict[str, str]) -> None:
    from gangru_dist.training.checkpoint import read_model
    from gangru_dist.training.launch import train_windows

    cfg = with_resources(TINY, workers=2)
    name = WINDOWS[0]
    summary = train_windows(Run(root, "two", cfg), only=WINDOWS)
    assert [result.status for result in summary.windows] == ["trained"] * 2, summary.format_lines()
    two, record = read_model(Run(root, "two", cfg), name, 0)
    one, alone = read_model(Run(root, "undisturbed", TINY), name, 0)
    assert record.workers == 2
    assert record.gan_samples is not None
    assert alone.gan_samples is not None
    for source in ("real", "generated"):
        for feature, figures in getattr(alone.gan_samples, source).items():
            found = getattr(record.gan_samples, source)[feature]
            assert sum(found.histogram) == sum(figures.histogram)
            assert found.cs_std == pytest.approx(figures.cs_std, rel=1e-4)
    for a, b in zip(two.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.detach().abs().max()))


def test_one_windows_failure_stops_no_other(root: Storage) -> None:
    """Nobody is listed long enough for the first window; the second trains all the same.

    On a quarter of a GPU that is only promised: training falls back to the CPU and gloo.
    """
    from gangru_dist.training.launch import train_windows

    strict = UniverseConfig(min_listed_days=230)
    cfg = with_resources(TINY, max_concurrent=1, gpus_per_worker=0.25)
    run = Run(root, "strict", dataclasses.replace(cfg, universe=strict))
    summary = train_windows(run)
    failed, trained = (r for r in summary.windows if r.seed == 0)
    assert (failed.status, trained.status) == ("failed", "trained"), summary.format_lines()
    assert "universe.min_listed_days" in failed.reason
    model = run.read_model(WINDOWS[1], 0)
    assert model is not None
    assert model.device == "cpu"
    assert summary.failures == 1
    assert not summary.ok


def test_killed_worker_resumes_to_the_same_bits(root: Storage, undisturbed: dict[str, str]) -> None:
    """SIGKILL once an epoch of each stage is in a checkpoint."""
    from gangru_dist.training.launch import train_windows

    run = Run(root, "killed", TINY)
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not killed:
            if epochs_saved(run.folder) > TINY.gan.epochs:
                killed.extend(process.pid for process in train_workers())
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    summary = train_windows(run, only=WINDOWS[:1])
    assert len(killed) == 1
    (result,) = summary.windows
    assert result.model == undisturbed[WINDOWS[0]], summary.format_lines()
    assert result.status == "resumed"


def train_workers() -> list[psutil.Process]:
    """Processes below this one's cluster that train."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if "ray::_train" in " ".join(_cmdline(p))]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_where_the_news_are_lost_training_goes_on(
    root: Storage, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actor that carries them dies at once: the models are those of an undisturbed run."""
    import ray

    from gangru_dist.training import units
    from gangru_dist.training.launch import train_windows

    class Dying:
        def __init__(self) -> None:
            os._exit(1)

        def append(self, _: object) -> None: ...

        def drain(self) -> None: ...

    monkeypatch.setattr(units, "News", Dying)
    assert ray.is_initialized()
    summary = train_windows(Run(root, "no-news", TINY), only=WINDOWS[:1])
    assert [r.model for r in summary.windows] == [undisturbed[WINDOWS[0]]]


def test_a_driver_that_stops_ends_its_units(root: Storage, tmp_path: Path) -> None:
    """In a session that goes on, as in a notebook: else they train beside those of the next try."""
    from gangru_dist.panel.manifest import read_manifest
    from gangru_dist.panel.shared import SharedPanel
    from gangru_dist.training.plan import choose_windows
    from gangru_dist.training.units import Report, Task, TrainingJob, Unit, UnitStarted, run_units

    def work(job: TrainingJob, unit: Unit, report: Report) -> None:
        report(UnitStarted(unit))
        for _ in range(600):  # a minute
            (tmp_path / str(unit[0].seed)).touch()
            time.sleep(0.1)

    def find_touched() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    manifest = read_manifest(root)
    window = choose_windows(manifest, TINY, None)[0][0]
    job = TrainingJob(
        run=Run(root, "stopped", TINY), panel=SharedPanel(root=root, manifest=manifest)
    )
    events = run_units(job, [(Task(window=window, seed=s),) for s in range(4)], 4, train=work)
    next(events)
    events.close()
    for _ in range(10):
        before = find_touched()
        time.sleep(2)
        if find_touched() == before:
            break
    else:
        pytest.fail("the units of a driver that has stopped go on")


class TestValidation:
    @pytest.mark.parametrize("more", [{"workers": 4}, {"gpus_per_worker": 2}])
    def test_request_that_can_never_be_met_fails_at_once(
        self, root: Storage, more: dict[str, int]
    ) -> None:
        from gangru_dist.training.launch import train_windows

        cfg: RunConfig = with_resources(TINY, **more)
        with pytest.raises(ResourceError, match=r"asks for \d worker\(s\).*room for [02]"):
            train_windows(Run(root, "too-big", cfg))

    def test_unknown_window(self, root: Storage) -> None:
        from gangru_dist.training.launch import train_windows

        with pytest.raises(WindowError, match=r"'2018-12-30' is not a refit day.*2018-12-31"):
            train_windows(Run(root, "unknown", TINY), only=["2018-12-30"])


def test_an_elastic_group_starts_with_the_workers_that_fit(
    root: Storage, undisturbed: dict[str, str]
) -> None:
    from gangru_dist.training.checkpoint import read_model
    from gangru_dist.training.launch import train_windows

    cfg = with_resources(TINY, workers=3, min_workers=1)
    summary = train_windows(Run(root, "elastic", cfg), only=WINDOWS[:1])
    assert [result.status for result in summary.windows] == ["trained"], summary.format_lines()
    _, record = read_model(Run(root, "elastic", cfg), WINDOWS[0], 0)
    assert record.workers == 2
