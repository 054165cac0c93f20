"""Our gate in front of Ray Train, without Ray: who runs, how many at once, under which name."""

import dataclasses
import datetime as dt
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from gangru_dist.config import TrainingConfig, WindowConfig, to_dict
from gangru_dist.errors import ConfigError, GangruError, StorageError, WindowError
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.runs.run import Run
from gangru_dist.runs.train_summary import WindowResult
from gangru_dist.storage import Storage
from gangru_dist.training import chain, launch
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.launch import choose_windows, cut_chains, each, train_windows
from gangru_dist.training.model_files import write_model
from gangru_dist.training.worker import Chain, Task, task_identity
from tests.training.store import TINY, stored_panel, with_resources

TWELVE = dataclasses.replace(
    TINY,
    windows=WindowConfig(history_days=120, sample_every=10, refit_months=tuple(range(1, 13))),
    training=TrainingConfig(epochs=1, seeds=(0, 1)),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return stored_panel(tmp_path_factory.mktemp("gate"))


class NoProgress:
    """In place of `ProgressLog`."""

    board = None

    def __init__(self, *_: object) -> None:
        self.finished: list[str] = []

    def __enter__(self) -> "NoProgress":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def finish(self, task: str, result: WindowResult) -> None:
        self.finished.append(task)


class Runner:
    """Trains nothing; fails the first window; remembers how many were under way at once."""

    def __init__(self, bad: str) -> None:
        self.bad, self.now, self.most = bad, 0, 0
        self.names: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, chain: Chain, manifest: Manifest, *, spread: bool) -> list[WindowResult]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.names.append(chain.name)
        time.sleep(0.02)
        with self._lock:
            self.now -= 1
        return [
            WindowResult(
                window=task.window.name,
                seed=task.seed,
                status="failed" if task.window.name == self.bad else "trained",
            )
            for task in chain.tasks
        ]


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "ProgressLog", NoProgress)
    monkeypatch.setattr(launch.runtime, "session", lambda _: nullcontext())
    monkeypatch.setattr(launch.runtime, "require", lambda *_, **__: None)
    monkeypatch.setattr(launch.runtime, "slots", lambda **_: 2)
    monkeypatch.setattr(launch.runtime, "nodes", lambda: 1)


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
        assert other.claimed() == dataclasses.replace(run.claimed(), config=to_dict(wider))

    @pytest.mark.parametrize(
        ("change", "only", "says"),
        [({"features": ("clsoe",)}, None, "lacks the feature"), ({}, ["1999-12-31"], "no refit")],
    )
    def test_a_mistake_takes_no_name(
        self, root: Storage, change: dict[str, object], only: list[str] | None, says: str
    ) -> None:
        panel = dataclasses.replace(TWELVE.panel, **change)  # type: ignore[arg-type]
        run = Run(root, "misspelt", dataclasses.replace(TWELVE, panel=panel))
        with pytest.raises(GangruError, match=says):
            train_windows(run, only=only, runner=Runner(bad=""))
        assert run.claimed() is None


@pytest.mark.usefixtures("room_for_two")
@pytest.mark.parametrize("per_run", [1, 3])
def test_all_windows_pass_two_at_a_time(root: Storage, per_run: int, tmp_path: Path) -> None:
    cfg = with_resources(TWELVE, windows_per_run=per_run)
    windows = [window.name for window in choose_windows(read_manifest(root), cfg, None)[0]][:6]
    runner = Runner(bad=windows[0])
    summary = train_windows(Run(root, f"queue-{per_run}", cfg), only=windows, runner=runner)
    assert runner.most == 2
    assert len(runner.names) == len(set(runner.names)) == 12 / per_run
    statuses = [result.status for result in summary.windows]
    assert statuses == ["failed"] * 2 + ["trained"] * 10
    assert summary.failed == 2
    on_disk = root.child("runs", f"queue-{per_run}").read_json("summary.json")
    assert on_disk["failed"] == 2


class TestChains:
    @pytest.fixture
    def run(self, root: Storage) -> Run:
        return Run(root, "chains", with_resources(TWELVE, windows_per_run=2))

    def identities(self, root: Storage) -> dict[Task, str]:
        manifest = read_manifest(root)
        windows, _ = choose_windows(manifest, TWELVE, None)
        tasks = [Task(window=w, seed=s) for w in windows for s in (0, 1)]
        return {task: task_identity(TWELVE, manifest, task) for task in tasks}

    def test_a_half_done_chain_keeps_its_name(self, run: Run) -> None:
        """So that the window a driver was killed in finds its checkpoint again."""
        tasks = self.identities(run.root)
        before = cut_chains(run, tasks, set(tasks))
        done, left = before[0].tasks
        after = cut_chains(run, tasks, set(tasks) - {done})
        assert after[0].name == before[0].name
        assert after[0].tasks == (left,)
        assert after[1:] == before[1:]

    def test_finished_chains_are_left_out(self, run: Run) -> None:
        tasks = self.identities(run.root)
        first = cut_chains(run, tasks, set(tasks))[0]
        assert first not in cut_chains(run, tasks, set(tasks) - set(first.tasks))

    def test_another_configuration_has_another_name(self, run: Run) -> None:
        tasks = self.identities(run.root)
        changed = {task: identity[::-1] for task, identity in tasks.items()}
        names = {chain.name for chain in cut_chains(run, tasks, set(tasks))}
        assert not names & {chain.name for chain in cut_chains(run, changed, set(tasks))}


class TestStorageFails:
    """Whatever the store does in one window, the others' results are not lost."""

    @pytest.fixture
    def one(self, root: Storage) -> Chain:
        window = choose_windows(read_manifest(root), TWELVE, None)[0][0]
        task = Task(window=window, seed=0)
        return Chain(run=Run(root, "refused", TWELVE), name="a", tasks=(task,))

    @pytest.mark.parametrize("error", [OSError("no answer"), StorageError("no answer")])
    @pytest.mark.parametrize("where", [(chain, "_fit"), (Run, "model")])
    def test_a_window_fails_alone(
        self,
        one: Chain,
        error: Exception,
        where: tuple[object, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(chain, "_fit", lambda *_: {})
        monkeypatch.setattr(*where, fail)
        (result,) = chain.train_chain(one, read_manifest(one.run.root))
        assert (result.status, result.reason) == ("failed", "no answer")

    def test_one_unreadable_model_leaves_the_others_of_its_chain(
        self, one: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manifest, run = read_manifest(one.run.root), one.run
        tasks = tuple(Task(window=one.tasks[0].window, seed=seed) for seed in (0, 1))
        for task in tasks:
            name, identity = task.window.name, task_identity(run.cfg, manifest, task)
            write_model(run, name, task.seed, TrainingState(run.cfg, 0), identity=identity)
        run.folder.write_bytes(f"{run.model_folder(name, 1)}/model.json", b"{")
        monkeypatch.setattr(chain, "_fit", lambda *_: {})
        results = chain.train_chain(dataclasses.replace(one, tasks=tasks), manifest)
        assert [result.status for result in results] == ["trained", "failed"]


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
            task_identity(TWELVE, changed, task)

    def test_days_without_a_row_are_part_of_a_models_identity(self, root: Storage) -> None:
        """On a day all are suspended there is no row; samples and labels count it all the same."""
        manifest = read_manifest(root)
        fewer = dataclasses.replace(manifest, calendar=np.delete(manifest.calendar, 3))
        (name,) = {w.name for w in choose_windows(manifest, TWELVE, None)[0][:1]}
        identities = set()
        for panel in (manifest, fewer):
            (window,) = (w for w in choose_windows(panel, TWELVE, None)[0] if w.name == name)
            identities.add(task_identity(TWELVE, panel, Task(window=window, seed=0)))
        assert len(identities) == 2


class TestEach:
    def test_every_item_once(self) -> None:
        assert sorted(each(range(50), lambda x: x * x, 7)) == [x * x for x in range(50)]

    def test_an_error_of_ours_reaches_the_caller(self) -> None:
        with pytest.raises(ZeroDivisionError):
            list(each([1, 0], lambda x: 1 / x, 2))

    def test_an_interrupted_caller_waits_for_nobody_and_nothing_new_begins(self) -> None:
        release, begun = threading.Event(), []

        def work(x: int) -> int:
            begun.append(x)
            if x:
                release.wait(60)
            return x

        begin = time.monotonic()
        results = each([0, 1, 2, 3, 4], work, 2)
        assert next(results) == 0
        while len(begun) < 3:  # both threads are at work again
            time.sleep(0.01)
        results.close()  # type: ignore[attr-defined]
        assert time.monotonic() - begin < 30
        release.set()
        time.sleep(0.2)
        assert sorted(begun) == [0, 1, 2]
