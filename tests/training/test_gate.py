"""Our gate in front of Ray Train, without Ray: who runs, how many at once, under which name."""

import dataclasses
import datetime as dt
import threading
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayTaskError, WorkerCrashedError

from gangru_dist.base.errors import (
    ConfigError,
    GangruError,
    ResourceError,
    StorageError,
    WindowError,
)
from gangru_dist.base.log import subscribe
from gangru_dist.base.storage import Storage
from gangru_dist.config.identity import to_dict
from gangru_dist.config.settings import TrainingConfig, WindowConfig
from gangru_dist.events.events import EpochTrained, ModelsPlanned, WindowDone
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.runs.model import PredictorEpoch, TimedEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.summaries import WindowResult
from gangru_dist.training import groups, launch
from gangru_dist.training.checkpoint import TrainingState, write_model
from gangru_dist.training.groups import run_workers
from gangru_dist.training.launch import (
    choose_ray_ingest,
    choose_windows,
    find_model,
    run_in_threads,
    train_windows,
)
from gangru_dist.training.queue import (
    Task,
    TaskFinished,
    TaskQueue,
    WorkerGroup,
    make_task_identity,
)
from tests.training.store import TINY, stored_panel, with_resources

TWELVE = dataclasses.replace(
    TINY,
    windows=WindowConfig(history_days=120, sample_every=10, refit_months=tuple(range(1, 13))),
    training=TrainingConfig(epochs=1, seeds=(0, 1)),
)


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
    """Trains nothing; fails the first window; remembers how many were under way at once."""

    def __init__(self, bad: str) -> None:
        self.bad, self.now, self.most = bad, 0, 0
        self.served: list[int] = []
        self._lock = threading.Lock()

    def __call__(self, group: WorkerGroup) -> None:
        manifest = read_manifest(group.run.root)
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        while (task := group.tasks.take(group.number)) is not None:
            time.sleep(0.02)
            bad = task.window.name == self.bad
            if not bad:
                write_untrained(group.run, manifest, task)
            group.tasks.finish(group.number, "bad" if bad else None)
            self.served.append(group.number)
        with self._lock:
            self.now -= 1


def write_untrained(run: Run, manifest: Manifest, task: Task) -> None:
    """A model of the right identity, of first weights."""
    identity, state = make_task_identity(run.cfg, manifest, task), TrainingState(run.cfg, 0)
    write_model(run, task.window.name, task.seed, state, identity=identity)


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "RemoteTaskQueue", TaskQueue)
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
def test_all_windows_pass_two_at_a_time(root: Storage) -> None:
    windows = [window.name for window in choose_windows(read_manifest(root), TWELVE, None)[0]][:6]
    runner = Runner(bad=windows[0])
    seen = Recorder()
    run = Run(root, "queue", TWELVE)
    with subscribe(seen):
        summary = train_windows(run, only=windows, runner=runner)
    assert runner.most == 2
    assert sorted(set(runner.served)) == [0, 1]
    statuses = [result.status for result in summary.windows]
    assert statuses == ["failed"] * 2 + ["trained"] * 10
    assert summary.failed == 2
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
def test_a_task_whose_end_was_never_heard_of_has_a_result(
    root: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue's answer came too late: what storage has of the task decides."""
    monkeypatch.setattr(TaskQueue, "drain_events", lambda _: [])
    windows = [window.name for window in choose_windows(read_manifest(root), TWELVE, None)[0]][:2]
    seen = Recorder()
    run = Run(root, "unheard", TWELVE)
    runner = Runner(bad=windows[0])
    with subscribe(seen):
        summary = train_windows(run, only=windows, runner=runner)
    assert [result.status for result in summary.windows] == ["failed"] * 2 + ["trained"] * 2
    assert "without a model" in summary.windows[0].reason
    assert len(seen.over) == 4


@pytest.mark.usefixtures("room_for_two")
def test_a_sink_receives_epochs(root: Storage) -> None:
    def runner(group: WorkerGroup) -> None:
        task = group.tasks.take(group.number)
        assert task is not None
        result = PredictorEpoch(epoch=1, train_loss=0.0, valid_ic=0.1)
        group.tasks.report_epoch(task, TimedEpoch(result, 1.0, 1))
        raise ResourceError("no room\nleft")

    seen, run = Recorder(), Run(root, "broken", TWELVE)
    windows = [window.name for window in choose_windows(read_manifest(root), TWELVE, None)[0]][:1]
    with pytest.raises(ResourceError), subscribe(seen):
        train_windows(run, only=windows, runner=runner)
    (name, result, share), *_ = seen.epochs
    assert (name, result.valid_ic) == (f"{windows[0]}/seed-0", 0.1)
    assert share == (TWELVE.gan.epochs + 1) / (TWELVE.gan.epochs + TWELVE.training.epochs)


class TestTaskQueue:
    """Who gets which task, and when a task counts as failed."""

    @pytest.fixture
    def tasks(self, root: Storage) -> list[Task]:
        windows = choose_windows(read_manifest(root), TWELVE, None)[0][:2]
        return [Task(window=window, seed=seed) for window in windows for seed in (0, 1)]

    def test_a_group_keeps_to_the_window_it_has_in_memory(self, tasks: list[Task]) -> None:
        queue = TaskQueue(tasks, 0)
        first, other = queue.take(0), queue.take(1)
        assert (first, other) == (tasks[0], tasks[1])
        queue.finish(1)
        assert queue.take(1) == tasks[2]
        queue.finish(0)
        assert queue.take(0) == tasks[3]
        assert not queue.is_done(0)
        queue.finish(0)
        assert queue.is_done(0)
        assert not queue.is_done(1)

    def test_lost_workers_get_their_task_again_and_then_the_next(self, tasks: list[Task]) -> None:
        queue = TaskQueue(tasks[:2], max_failures=2)
        assert [queue.take(0) for _ in range(3)] == [tasks[0]] * 3
        queue.record_failure(0, "the disk is full")
        assert queue.take(0) == tasks[1]
        assert queue.drain_events() == [TaskFinished(tasks[0], "the disk is full")]
        queue.finish(0)
        assert queue.take(0) is None

    def test_failures_are_counted_by_task(self, tasks: list[Task]) -> None:
        queue = TaskQueue(tasks[:2], max_failures=1)
        for task in tasks[:2]:
            assert [queue.take(0), queue.take(0)] == [task, task]
            queue.finish(0)
        assert [event.reason for event in queue.drain_events()] == [None, None]  # type: ignore[union-attr]

    def test_a_group_that_cannot_be_had_fails_one_task(self, tasks: list[Task]) -> None:
        queue = TaskQueue(tasks[:2], max_failures=1)
        queue.give_up(0, "no room")
        queue.take(0)
        queue.record_failure(0, "worse")
        queue.give_up(0, "no room")
        queue.give_up(0, "no room")  # nothing is left to fail
        reasons = [event.reason for event in queue.drain_events()]  # type: ignore[union-attr]
        assert reasons == ["no room", "worse"]


class TestWorkersFail:
    """Whatever happens to one group's workers, every task is finished."""

    @pytest.fixture
    def served(self, root: Storage, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(groups.ray, "is_initialized", lambda: True)
        manifest = read_manifest(root)
        windows = choose_windows(manifest, TWELVE, None)[0][:2]
        queue = TaskQueue([Task(window=window, seed=0) for window in windows], 1)
        run = Run(root, "slots", with_resources(TWELVE, max_failures=1))
        group = WorkerGroup(run=run, number=0, tasks=queue)
        self.goes = 0

        def serve(work: Any) -> list[str | None]:
            def go(*_: object, **__: object) -> Exception | None:
                self.goes += 1
                error: Exception | None = work(queue)
                return error

            run_workers(group, run_once=go, pause_seconds=0.0)
            return [event.reason for event in queue.drain_events()]  # type: ignore[union-attr]

        return serve

    @pytest.mark.parametrize("error", [OSError("no answer"), StorageError("no answer")])
    def test_a_store_that_does_not_answer(self, served: Any, error: Exception) -> None:
        def work(_: TaskQueue) -> None:
            raise error

        assert served(work) == ["no answer", "no answer"]
        assert self.goes == 2

    def test_workers_that_died_are_replaced(self, served: Any) -> None:
        died = iter([True, False])

        def work(queue: TaskQueue) -> None:
            task = queue.take(0)
            if next(died, False):
                raise WorkerCrashedError
            while task is not None:
                queue.finish(0)
                task = queue.take(0)

        assert served(work) == [None, None]

    def test_losses_of_one_task_do_not_count_for_the_next(self, served: Any) -> None:
        """Each of two tasks may lose its workers once."""

        def work(queue: TaskQueue) -> None:
            queue.take(0)
            if self.goes % 2:
                raise WorkerCrashedError
            queue.finish(0)

        assert served(work) == [None, None]
        assert self.goes == 4

    def test_workers_that_die_before_they_take_a_task(self, served: Any) -> None:
        def work(_: TaskQueue) -> None:
            raise WorkerCrashedError

        assert served(work) == [str(WorkerCrashedError())[:500].strip()] * 2
        assert self.goes == 4

    def test_workers_that_cannot_go_on_are_tried_again_and_their_reason_is_kept(
        self, served: Any
    ) -> None:
        def work(queue: TaskQueue) -> Exception | None:
            return ResourceError("out of memory") if queue.take(0) else None

        assert served(work) == ["out of memory"] * 2

    def test_an_error_of_a_worker_names_its_last_line(self, served: Any) -> None:
        """As Ray raises it: with the worker's traceback in front."""

        def work(queue: TaskQueue) -> None:
            if queue.take(0):
                cause = OSError("No space left on device")
                raise RayTaskError("_run_worker", "Traceback ...\nOSError: No space left", cause)

        assert served(work) == ["OSError: No space left"] * 2


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
            find_model(
                run, TaskFinished(task, None), make_task_identity(TWELVE, manifest, task)
            ).result
            for task in tasks
        ]
        assert [result.status for result in results] == ["trained", "failed", "failed"]
        assert "model.json is damaged" in results[1].reason
        assert results[2].reason == "ended without a model and without an error"

    @pytest.mark.parametrize("nodes", [1, 3])
    def test_ray_data_reads_where_there_are_several_nodes(self, root: Storage, nodes: int) -> None:
        run = Run(root, "ingest", TWELVE)
        assert choose_ray_ingest(run, nodes) is (nodes > 1)
        for ingest in ("direct", "ray"):
            chosen = dataclasses.replace(run, cfg=with_resources(TWELVE, ingest=ingest))
            assert choose_ray_ingest(chosen, nodes) is (ingest == "ray")


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


class TestRunInThreads:
    def test_every_number_once(self) -> None:
        done: list[int] = []
        run_in_threads(done.append, 7)
        assert sorted(done) == list(range(7))

    def test_an_error_reaches_the_caller_who_waits_for_nobody(self) -> None:
        release = threading.Event()

        def work(number: int) -> None:
            if number == 0:
                raise ZeroDivisionError
            release.wait(60)

        begin = time.monotonic()
        with pytest.raises(ZeroDivisionError):
            run_in_threads(work, 3)
        assert time.monotonic() - begin < 30
        release.set()


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
