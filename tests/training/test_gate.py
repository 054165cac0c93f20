"""A training job without Ray: what runs, how many at once, under which name."""

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gangru_dist.base.errors import (
    ConfigError,
    GangruError,
    PanelError,
    ResourceError,
    WindowError,
)
from gangru_dist.base.log import subscribe
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.cluster.failures import describe_memory
from gangru_dist.cluster.map import map_on_ray
from gangru_dist.config.identity import to_dict
from gangru_dist.config.settings import TrainingConfig, WindowConfig
from gangru_dist.events.events import EpochTrained, ModelsPlanned, WindowDone
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.runs.model import PredictorEpoch, TimedEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.summaries import WindowResult
from gangru_dist.training import launch, units, worker
from gangru_dist.training.checkpoint import TrainingState, load_model, write_model
from gangru_dist.training.data import Collective, prepare
from gangru_dist.training.launch import find_model, train_windows
from gangru_dist.training.plan import choose_windows
from gangru_dist.training.units import (
    EpochDone,
    Event,
    Task,
    TaskFinished,
    TrainingJob,
    Unit,
    UnitFinished,
    UnitStarted,
    find_more_cpus,
    make_task_identity,
    make_units,
)
from gangru_dist.training.window import train_window
from gangru_dist.training.worker import read_share
from tests.training.store import TINY, WINDOWS, stored_panel, with_resources

TWELVE = dataclasses.replace(
    TINY,
    windows=WindowConfig(history_days=120, sample_every=10, refit_months=tuple(range(1, 13))),
    training=TrainingConfig(epochs=1, seeds=(0, 1)),
)


SAID = """1 worker(s) were killed due to the node running low on memory.
Memory on the node (IP: 10.0.3.7, ID: 9f2c) was 23.1GB used / 24.0GB limit (0.9625)
OOM kill reason: usage above the threshold
Ray killed 1 worker(s) based on the killing policy
Considered workers: [
(Worker's Lease ID: 3): job ID=01, lease ID=3, task name=_train, required resources={CPU: 1}, \
pid=7, actual memory used=9.25GB, worker ID=a1)
(Worker's Lease ID: 2): job ID=01, lease ID=2, task name=_train, required resources={CPU: 1}, \
pid=8, actual memory used=8.5GB, worker ID=a2)]
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return stored_panel(tmp_path_factory.mktemp("gate"))


class Recorder:
    """Remembers."""

    def __init__(self) -> None:
        self.todo: list[str] = []
        self.over: list[tuple[str, WindowResult]] = []
        self.epochs: list[tuple[str, Any, float]] = []

    def __call__(self, event: object) -> None:
        match event:
            case ModelsPlanned(names=names):
                self.todo = list(names)
            case EpochTrained():
                assert event.seconds_left >= 0
                self.epochs.append((event.name, event.epoch.result, event.share))
            case WindowDone():
                self.over.append((event.name, event.result))


class Runner:
    """Trains nothing; fails the windows of one refit day; remembers what it was given."""

    def __init__(self, bad: str) -> None:
        self.bad, self.at_once = bad, 0
        self.units: list[Unit] = []

    def __call__(self, job: TrainingJob, units: Sequence[Unit], at_once: int) -> Iterator[Event]:
        manifest = read_manifest(job.run.root)
        self.units, self.at_once = list(units), at_once
        for unit in units:
            for task in unit:
                if task.window.name == self.bad:
                    yield TaskFinished(task, "bad")
                    continue
                write_untrained(job.run, manifest, task)
                yield TaskFinished(task, None)
            yield UnitFinished(unit, None)


def write_untrained(run: Run, manifest: Manifest, task: Task) -> None:
    """A model of the right identity, of first weights."""
    identity, state = make_task_identity(run.cfg, manifest, task), TrainingState(run.cfg, 0)
    write_model(run, task.window.name, task.seed, state, identity=identity)


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.session, "open_session", lambda _: nullcontext())
    monkeypatch.setattr(launch.session, "find_room", lambda *_: 2)
    monkeypatch.setattr(launch.session, "count_nodes", lambda: 1)


@pytest.mark.usefixtures("room_for_two")
class TestClaim:
    """The run's own promise, whoever calls: another configuration is refused."""

    def test_another_configuration_is_refused(self, root: Storage) -> None:
        run, runner = Run(root, "claimed", TWELVE), Runner(bad="")
        train_windows(run, runner=runner)
        wider = dataclasses.replace(TWELVE, gru=dataclasses.replace(TWELVE.gru, hidden=5))
        other = dataclasses.replace(run, cfg=wider)
        with pytest.raises(ConfigError, match=r"another configuration: gru.hidden: 4 -> 5\."):
            train_windows(other, runner=runner)
        assert train_windows(other, overwrite=True, runner=runner).ok
        assert other.read_claim() == dataclasses.replace(run.read_claim(), config=to_dict(wider))

    @pytest.mark.parametrize(
        ("change", "only", "says"),
        [
            ({"features": ("clsoe",)}, None, "lacks the feature"),
            ({}, ["1999-12-31"], "is not a refit day"),
        ],
    )
    def test_a_mistake_takes_no_name(
        self, root: Storage, change: dict[str, object], only: list[str] | None, says: str
    ) -> None:
        panel = dataclasses.replace(TWELVE.panel, **change)  # type: ignore[arg-type]
        run = Run(root, "misspelt", dataclasses.replace(TWELVE, panel=panel))
        with pytest.raises(GangruError, match=says):
            train_windows(run, only=only, runner=Runner(bad=""))
        assert run.read_claim() is None


@pytest.mark.usefixtures("room_for_two")
def test_every_window_has_a_result_and_none_is_trained_twice(root: Storage) -> None:
    windows = [window.name for window in choose_windows(read_manifest(root), TWELVE, None)[0]][:6]
    runner = Runner(bad=windows[0])
    seen = Recorder()
    run = Run(root, "queue", TWELVE)
    with subscribe(seen):
        summary = train_windows(run, only=windows, runner=runner)
    assert runner.at_once == 6  # Ray's queue holds all: two run
    assert [[task.seed for task in unit] for unit in runner.units] == [[0, 1]] * 6
    statuses = [result.status for result in summary.windows]
    assert statuses == ["failed"] * 2 + ["trained"] * 10
    assert summary.failures == 2
    on_disk = root.child("runs", "queue").read_json("summary.json")
    assert on_disk["failed"] == 2
    names = [f"{name}/seed-{seed}" for name in windows for seed in (0, 1)]
    assert sorted(seen.todo) == names
    assert {name: one.status for name, one in seen.over} == dict(zip(names, statuses, strict=True))
    again = Recorder()
    with subscribe(again):
        train_windows(run, only=windows[1:], runner=Runner(bad=""))
    assert again.todo == []
    assert {one.status for _, one in again.over} == {"finished before"}  # a callback is not seen


@pytest.mark.usefixtures("room_for_two")
def test_a_task_whose_end_was_never_heard_of_has_a_result(root: Storage) -> None:
    """The news of it were lost: what storage has of the task decides."""
    windows = [window.name for window in choose_windows(read_manifest(root), TWELVE, None)[0]][:2]
    seen = Recorder()
    run = Run(root, "unheard", TWELVE)
    runner = Runner(bad=windows[0])

    def run_silently(job: TrainingJob, units: Sequence[Unit], at_once: int) -> Iterator[Event]:
        events = runner(job, units, at_once)
        return (event for event in events if isinstance(event, UnitFinished))

    with subscribe(seen):
        summary = train_windows(run, only=windows, runner=run_silently)
    assert [result.status for result in summary.windows] == ["failed"] * 2 + ["trained"] * 2
    assert "without a model" in summary.windows[0].reason
    assert len(seen.over) == 4


@pytest.mark.usefixtures("room_for_two")
def test_a_unit_that_began_again_is_told_of_and_its_models_count_once(
    root: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    def run_twice(job: TrainingJob, units: Sequence[Unit], at_once: int) -> Iterator[Event]:
        unit = units[0] + units[1]
        write_untrained(job.run, read_manifest(root), unit[0])
        for _ in range(2):
            yield UnitStarted(unit)
            yield TaskFinished(unit[0], None)
        yield UnitFinished(unit, "No space left on device")

    seen, run = Recorder(), Run(root, "twice", TWELVE)
    with subscribe(seen):
        summary = train_windows(run, only=["2018-12-31"], runner=run_twice)
    assert [result.status for result in summary.windows] == ["trained", "failed"]
    assert summary.windows[1].reason == "No space left on device"
    assert len(seen.over) == 2
    assert caplog.text.count("window_restarted window=2018-12-31/seed-0 starts=2") == 1


@pytest.mark.usefixtures("room_for_two")
def test_a_sink_receives_epochs(root: Storage) -> None:
    def runner(job: TrainingJob, units: Sequence[Unit], at_once: int) -> Iterator[Event]:
        result = PredictorEpoch(epoch=1, train_loss=0.0, valid_ic=0.1)
        yield EpochDone(units[0][0], TimedEpoch(result, 1.0, 1))
        raise ResourceError("no room\nleft")

    seen, run = Recorder(), Run(root, "broken", TWELVE)
    windows = [window.name for window in choose_windows(read_manifest(root), TWELVE, None)[0]][:1]
    with pytest.raises(ResourceError), subscribe(seen):
        train_windows(run, only=windows, runner=runner)
    (name, result, share), *_ = seen.epochs
    assert (name, result.valid_ic) == (f"{windows[0]}/seed-0", 0.1)
    assert share == (TWELVE.gan.epochs + 1) / (TWELVE.gan.epochs + TWELVE.training.epochs)


def test_seeds_share_a_unit_unless_there_are_more_slots_than_windows(root: Storage) -> None:
    windows = choose_windows(read_manifest(root), TWELVE, None)[0][:2]
    tasks = [Task(window=window, seed=seed) for window in windows for seed in (0, 1)]
    assert make_units(tasks, 2) == [tuple(tasks[:2]), tuple(tasks[2:])]
    assert make_units(tasks, 3) == [(task,) for task in tasks]


@pytest.mark.parametrize(
    ("resources", "at_once"),
    [
        ({}, 3),
        ({"max_concurrent": 2}, 2),
        ({"wait_for_nodes_minutes": 1}, 10),
        ({"wait_for_nodes_minutes": 1, "max_concurrent": 4}, 4),
        ({"workers": 2}, 1),
        ({"workers": 2, "wait_for_nodes_minutes": 1}, 1),
        ({"workers": 2, "wait_for_nodes_minutes": 1, "max_concurrent": 4}, 4),
    ],
)
def test_models_that_ray_gets_at_once(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, object], at_once: int
) -> None:
    """The first node has room for three workers; it may be the first of many."""
    monkeypatch.setattr(launch.session, "find_room", lambda *_: 3)
    assert launch.count_concurrent(with_resources(TWELVE, **resources), 10) == at_once


class TestMemory:
    """Units whose processes Ray ended because memory was short."""

    def test_node_task_and_gigabytes_are_said(self) -> None:
        said = describe_memory(SAID, units._MORE_MEMORY)
        assert said.startswith(
            "out of memory on node 10.0.3.7: 23.1 of 24.0 GB (GB of Ray's processes there: _train "
            "9.25, _train 8.5)."
        )
        assert "--set resources.max_concurrent=1" in said
        assert describe_memory("Killed.\nRefer to the documentation", "") == "out of memory: Killed"

    @pytest.mark.parametrize(
        ("resources", "cpus", "expected"),
        [
            ({}, 1.0, 2.0),
            ({}, 3.0, 4.0),
            ({}, 4.0, None),
            ({"workers": 2}, 1.0, 2.0),
            ({"workers": 2}, 2.0, None),
        ],
    )
    def test_the_next_attempt_asks_for_more_until_it_is_alone(
        self,
        monkeypatch: pytest.MonkeyPatch,
        resources: dict[str, object],
        cpus: float,
        expected: float | None,
    ) -> None:
        """A node of four CPUs; two workers of three would never fit."""
        node = {"Alive": True, "Resources": {"CPU": 4.0}}
        monkeypatch.setattr(launch.session.ray, "nodes", lambda: [node])
        size = with_resources(TWELVE, **resources).resources
        assert find_more_cpus(size, cpus) == expected

    def test_a_unit_is_run_again_with_twice_the_cpus_until_it_is_alone(
        self, root: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Ray's part is played by hand: it ends the unit for memory each time."""
        asked: list[float] = []
        news = SimpleNamespace(drain=SimpleNamespace(remote=lambda: []))
        actor = SimpleNamespace(remote=lambda: news)
        fake = {
            "get_runtime_context": lambda: SimpleNamespace(get_node_id=lambda: "0" * 56),
            "remote": lambda **_: lambda _: actor,
            "wait": lambda references, **_: (references, []),
            "get": lambda events, **_: events,
            "kill": lambda _: None,
            "nodes": lambda: [{"Alive": True, "Resources": {"CPU": 4.0}}],
        }
        for name, value in fake.items():
            monkeypatch.setattr(units.ray, name, value)
        monkeypatch.setattr(units, "_find_reason", lambda _: ("out of memory", True))
        monkeypatch.setattr(
            units, "_make_submit", lambda *_: lambda unit, cpus: asked.append(cpus) or len(asked)
        )
        manifest = read_manifest(root)
        job = TrainingJob(
            run=Run(root, "oom", TWELVE), panel=SharedPanel(root=root, manifest=manifest)
        )
        unit = (Task(window=choose_windows(manifest, TWELVE, None)[0][0], seed=0),)
        events = list(units.run_units(job, [unit], 1))
        assert asked == [1.0, 2.0, 4.0]
        assert events == [UnitFinished(unit, "out of memory")]
        assert [m.split(":")[0] for m in caplog.messages if "restarted" in m] == [
            f"window_restarted window={unit[0].name} cpus_per_worker={cpus}" for cpus in (2, 4)
        ]

    @pytest.mark.parametrize("said", [SAID, "worker 1 raised ValueError"])
    def test_a_groups_end_for_memory_is_told_from_others(
        self, root: Storage, monkeypatch: pytest.MonkeyPatch, said: str
    ) -> None:
        import ray.train
        import ray.train.torch
        from ray.exceptions import OutOfMemoryError

        class Trainer:
            def __init__(self, *_: object, **__: object) -> None: ...

            def fit(self) -> None:
                error = ray.train.TrainingFailedError("failed")
                error.worker_failures = {0: RuntimeError(said)}
                raise error

        monkeypatch.setattr(ray.train.torch, "TorchTrainer", Trainer)
        manifest = read_manifest(root)
        cfg = with_resources(TWELVE, workers=2)
        job = TrainingJob(
            run=Run(root, "oom", cfg), panel=SharedPanel(root=root, manifest=manifest)
        )
        unit = (Task(window=choose_windows(manifest, cfg, None)[0][0], seed=0),)
        if said == SAID:
            with pytest.raises(OutOfMemoryError, match="low on memory"):
                units._fit(job, unit, None, None, 1.0)
        else:
            assert units._fit(job, unit, None, None, 1.0) == said


class TestResult:
    """What became of a finished task."""

    def test_an_unreadable_model_fails_alone(self, root: Storage) -> None:
        manifest, run = read_manifest(root), Run(root, "refused", TWELVE)
        window = choose_windows(manifest, TWELVE, None)[0][0]
        tasks = [Task(window=window, seed=seed) for seed in (0, 1, 2)]
        for task in tasks[:2]:
            write_untrained(run, manifest, task)
        run.folder.write_bytes(f"{run.model_folder(window.name, 1)}/model.json", b"{")
        results = [
            find_model(run, task, None, make_task_identity(TWELVE, manifest, task)).result
            for task in tasks
        ]
        assert [result.status for result in results] == ["trained", "failed", "failed"]
        assert "model.json is damaged" in results[1].reason
        assert results[2].reason == "ended without a model and without an error"

    def test_a_model_that_is_there_is_not_failed(self, root: Storage) -> None:
        """Its news were lost, and the unit died over a later seed."""
        manifest, run = read_manifest(root), Run(root, "died", TWELVE)
        task = Task(window=choose_windows(manifest, TWELVE, None)[0][0], seed=0)
        write_untrained(run, manifest, task)
        identity = make_task_identity(TWELVE, manifest, task)
        assert find_model(run, task, "worker died", identity).result.status == "trained"
        assert find_model(run, task, "worker died", "another").result.reason == "worker died"

    @pytest.mark.parametrize("is_done", [True, False])
    def test_the_first_worker_looks_for_all(self, root: Storage, is_done: bool) -> None:
        """Each for itself, one could skip what the other trains, while another job writes."""

        class Second(Collective):
            def gather(self, value: Any) -> list[Any]:
                return [(is_done, b"state"), value]

        manifest, run = read_manifest(root), Run(root, f"second-{is_done}", TWELVE)
        task = Task(window=choose_windows(manifest, TWELVE, None)[0][0], seed=0)
        if not is_done:
            write_untrained(run, manifest, task)  # which the first has not seen
        job = TrainingJob(run=run, panel=SharedPanel(root=root, manifest=manifest))
        trainer, begun = worker._Trainer(job, Second(1, 2), lambda _: None), []
        trainer._train = lambda *given: begun.append(given[2])
        trainer.train(task)
        assert begun == ([] if is_done else [b"state"])


class TestPanelChanges:
    def test_no_refit_day(self, root: Storage) -> None:
        late = dataclasses.replace(TWELVE.windows, first=dt.date(2029, 1, 1))
        cfg = dataclasses.replace(TWELVE, windows=late)
        with pytest.raises(WindowError, match=r"2019-07-26, has no refit day.*first=2029-01-01"):
            train_windows(Run(root, "none", cfg))

    def test_a_calendar_that_lost_a_day_under_the_job(self, root: Storage) -> None:
        manifest = read_manifest(root)
        task = Task(window=choose_windows(manifest, TWELVE, None)[0][0], seed=0)
        changed = dataclasses.replace(manifest, calendar=np.delete(manifest.calendar, 3))
        with pytest.raises(WindowError, match="was built again while this job ran"):
            make_task_identity(TWELVE, changed, task)

    def test_days_without_a_row_are_part_of_a_models_identity(self, root: Storage) -> None:
        """On a day all are suspended there is no row; samples and labels count it all the same."""
        manifest = read_manifest(root)
        fewer = dataclasses.replace(manifest, calendar=np.delete(manifest.calendar, 3))
        (name,) = {w.name for w in choose_windows(manifest, TWELVE, None)[0][:1]}
        identities = set()
        for panel in (manifest, fewer):
            (window,) = (w for w in choose_windows(panel, TWELVE, None)[0] if w.name == name)
            identities.add(make_task_identity(TWELVE, panel, Task(window=window, seed=0)))
        assert len(identities) == 2


@pytest.mark.usefixtures("room_for_two")
def test_a_checkpoint_beside_its_model_goes(root: Storage) -> None:
    """A killed job had written it after another's model; that of an unfinished one stays."""
    run, only = Run(root, "left", TWELVE), ["2018-12-31"]
    train_windows(run, only=only, runner=Runner(bad=""))
    (model, *_) = run.read_models().values()
    for identity in (model.identity, "unfinished"):
        run.folder.write_bytes(f"checkpoints/{identity}/state.safetensors", b"x")
    train_windows(run, only=only, runner=Runner(bad=""))
    assert run.folder.list_files("checkpoints") == ["checkpoints/unfinished/state.safetensors"]


class TestHere:
    def test_a_baselines_only_epoch_is_all_of_it(
        self, root: Storage, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = Run(root, "ridge", dataclasses.replace(TINY, variant="gru", predictor="ridge"))
        published: list[object] = []
        with caplog.at_level("INFO"), session.run_here(), subscribe(published.append):
            assert train_windows(run, only=WINDOWS[:1]).ok
        (epoch,) = (event for event in published if isinstance(event, EpochTrained))
        assert (epoch.done, epoch.total, epoch.seconds_left) == (1, 1, 0)
        assert "stage=predictor epoch=1/1 " in caplog.text

    @pytest.mark.parametrize("bug", [False, True])
    def test_one_windows_error_stops_no_other(
        self, root: Storage, monkeypatch: pytest.MonkeyPatch, bug: bool
    ) -> None:
        """A mistake of ours ends all, with its traceback."""
        from gangru_dist.training import worker

        begun: list[str] = []

        def fail(job: TrainingJob, unit: Unit, report: object) -> None:
            begun.append(unit[0].window.name)
            raise KeyError("bug") if bug else PanelError("a file is gone")

        monkeypatch.setattr(worker, "train_unit", fail)
        run = Run(root, f"here-fails-{bug}", TINY)
        with session.run_here():
            if bug:
                with pytest.raises(KeyError):
                    train_windows(run, only=WINDOWS)
                assert begun == WINDOWS[:1]
                return
            summary = train_windows(run, only=WINDOWS)
        assert begun == WINDOWS
        assert [(r.status, r.reason) for r in summary.windows] == [
            ("failed", "a file is gone")
        ] * len(WINDOWS)

    def test_training_without_ray_gives_the_models_of_the_core(
        self, root: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(*_: object) -> None:
            raise AssertionError("Ray was started")

        monkeypatch.setattr(session, "_start", start)
        run = Run(root, "here", dataclasses.replace(TINY, variant="gru"))
        published: list[object] = []
        with session.run_here(), subscribe(published.append):
            summary = train_windows(run)
            assert map_on_ray(run.cfg, lambda: abs, [-1, 2]).__next__() == (0, 1)
        assert summary.ok
        assert not session.is_here()
        epochs = [event for event in published if isinstance(event, EpochTrained)]
        assert len(epochs) == 3 * len(WINDOWS)  # each is heard of when it is over
        manifest = read_manifest(root)
        (window,) = choose_windows(manifest, run.cfg, WINDOWS[:1])[0]
        block = read_share(SharedPanel(root=root, manifest=manifest), run.cfg, window)
        data = prepare(block, window, manifest.calendar, run.cfg)
        expected = train_window(data, TrainingState(run.cfg, 0), run.cfg, seed=0).network
        found = load_model(run, WINDOWS[0]).state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.state_dict().items())
