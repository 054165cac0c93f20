"""Callbacks receive everything once, whatever is interrupted, and never fail a job."""

import dataclasses
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.log import publish
from gangru_dist.base.storage import Storage
from gangru_dist.config.identity import from_dict, model_settings, to_dict
from gangru_dist.config.settings import CALLBACKS, RunConfig
from gangru_dist.config.sources import load
from gangru_dist.events.callbacks import CallbackSink, flatten_numbers, open_callbacks
from gangru_dist.events.events import EpochTrained, ReportWritten, TrialChanged, WindowDone
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.runs.model import GanEpoch, PredictorEpoch, TimedEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import TrialRecord
from gangru_dist.runs.summaries import WindowResult
from gangru_dist.training import launch
from gangru_dist.training.checkpoint import TrainingState, write_model
from gangru_dist.training.launch import train_windows
from gangru_dist.training.units import (
    EpochDone,
    Event,
    TaskFinished,
    TrainingJob,
    Unit,
    make_task_identity,
)
from tests.training.store import TINY, stored_panel

CODE = "my_plugin"
TASK = "2019-06-28/seed-0"
METRICS = {"period": {"months": 3}, "ic": {"mean": 0.1, "stars": "*", "t": float("nan")}}


@pytest.fixture
def received() -> list[Any]:
    """The calls that `my_plugin:Recorder` received."""
    CALLBACKS.check_name(f"{CODE}:Recorder")
    found: list[Any] = sys.modules[CODE].received
    return found


def with_callbacks(*items: str) -> RunConfig:
    return dataclasses.replace(TINY, callbacks=tuple(f"{CODE}:{item}" for item in items))


def run_at(folder: Path, *items: str) -> Run:
    return Run(Storage(str(folder)), "r", with_callbacks(*items))


def epoch(number: int) -> TimedEpoch:
    return TimedEpoch(PredictorEpoch(epoch=number, train_loss=-0.1, valid_ic=0.01), 1.0, 10.0)


class Trainer:
    """Stands in for the workers: reports `epochs`, then stores a model of three."""

    def __init__(self, epochs: tuple[int, ...], fails: str = "") -> None:
        self.epochs, self.fails = epochs, fails

    def __call__(self, job: TrainingJob, units: Sequence[Unit], at_once: int) -> Iterator[Event]:
        manifest = read_manifest(job.run.root)
        for task in (task for unit in units for task in unit):
            for number in self.epochs:
                yield EpochDone(task, epoch(number))
            if not self.fails:
                state = TrainingState(job.run.cfg, 0)
                state.progress.history = [epoch(number).result for number in (1, 2, 3)]
                identity = make_task_identity(job.run.cfg, manifest, task)
                write_model(job.run, task.window.name, task.seed, state, identity=identity)
            yield TaskFinished(task, self.fails or None)


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training without Ray."""
    from contextlib import nullcontext

    monkeypatch.setattr(launch.session, "open_session", lambda _: nullcontext())
    monkeypatch.setattr(launch, "count_concurrent", lambda *_: 1)
    monkeypatch.setattr(launch.session, "count_nodes", lambda: 1)


class TestTraining:
    @pytest.mark.usefixtures("near")
    def test_a_resumed_job_sends_what_is_new_and_what_is_missing(
        self, tmp_path: Path, received: list[Any]
    ) -> None:
        run = Run(stored_panel(tmp_path), "r", with_callbacks("Recorder"))
        only = {"only": ["2019-06-28"]}
        train_windows(run, runner=Trainer((1,), fails="its node was lost"), **only)
        steps = ("predictor/train_loss", "predictor/valid_ic")
        pace = ("predictor/seconds", "predictor/samples_per_s")
        assert received == [(TASK, 1, *steps, *pace), (TASK, "failed"), ("closed",)]
        received.clear()  # the next job trains epoch 1 again; nobody received 2, which was lost
        train_windows(run, runner=Trainer((1, 3)), **only)
        assert [event[:2] for event in received] == [
            (TASK, 3),
            (TASK, 2),
            (TASK, "trained"),
            ("closed",),
        ]
        assert received[1] == (TASK, 2, *steps)  # from the model's history, which has no times
        received.clear()
        train_windows(run, runner=Trainer(()), **only)
        assert received == [("closed",)]

    @pytest.mark.usefixtures("near")
    def test_a_callback_that_is_added_later_learns_of_finished_models(
        self, tmp_path: Path, received: list[Any]
    ) -> None:
        run = Run(stored_panel(tmp_path), "r", TINY)
        train_windows(run, runner=Trainer((1, 2, 3)))
        train_windows(dataclasses.replace(run, cfg=with_callbacks("Recorder")), runner=Trainer(()))
        assert [e[:2] for e in received if e[0] == TASK] == [
            (TASK, 1),
            (TASK, 2),
            (TASK, 3),
            (TASK, "finished before"),
        ]
        assert not run.folder.list_files("tensorboard")

    def test_another_model_of_the_name_starts_anew(
        self, tmp_path: Path, received: list[Any]
    ) -> None:
        for identity in ("a", "a", "b"):
            with open_callbacks(run_at(tmp_path, "Recorder")):
                publish(EpochTrained(name=TASK, identity=identity, epoch=epoch(1)))
        assert [event[:2] for event in received if event[0] == TASK] == [(TASK, 1)] * 2

    def test_both_stages_have_their_epochs(self, tmp_path: Path, received: list[Any]) -> None:
        gan = GanEpoch(
            epoch=1,
            discriminator_loss=1.0,
            generator_loss=1.0,
            discriminator_accuracy=0.5,
            distance=0.1,
        )
        with open_callbacks(run_at(tmp_path, "Recorder")):
            publish(EpochTrained(name=TASK, identity="a", epoch=TimedEpoch(gan, 1.0, 1.0)))
            publish(EpochTrained(name=TASK, identity="a", epoch=epoch(1)))
        assert [event[2].split("/")[0] for event in received[:2]] == ["gan", "predictor"]


class TestSearchAndReport:
    def test_a_trial_grows_and_ends_once(self, tmp_path: Path, received: list[Any]) -> None:
        trial = TrialRecord(number=3, settings={"gru.hidden": 4}, reports=((1, 0.1),))
        grown = dataclasses.replace(trial, reports=((1, 0.1), (2, 0.2)), mean_ic=0.2)
        ended = dataclasses.replace(grown, status="pruned")
        for _ in range(2):  # the second session finds it ended
            with open_callbacks(run_at(tmp_path, "Recorder")):
                for record in (trial, grown, ended):
                    publish(TrialChanged(record, "search"))
        name = "tune/trial-0003"
        assert received == [
            (name, 1, "mean_ic"),
            (name, 2, "mean_ic"),
            (name, "pruned"),
            ("closed",),
            ("closed",),
        ]

    def test_a_report_is_sent_when_it_says_something_new(
        self, tmp_path: Path, received: list[Any]
    ) -> None:
        newer = {"period": {"months": 4}, "ic": {"mean": 0.2}}
        for metrics in (METRICS, METRICS, newer):
            with open_callbacks(run_at(tmp_path, "Recorder")):
                publish(ReportWritten(metrics, "report.html"))
        assert [event for event in received if event != ("closed",)] == [
            ("report", 3, "period/months", "ic/mean"),
            ("report", "written"),
            ("report", 4, "period/months", "ic/mean"),
            ("report", "written"),
        ]

    def test_numbers_of_a_table(self) -> None:
        assert flatten_numbers(
            {"a": {"b": 1, "c": [1]}, "d": True, "e": float("inf"), "f": None}
        ) == {"a/b": 1.0}


class TestErrors:
    def test_a_broken_callback_costs_a_line_and_the_others_receive_all(
        self, tmp_path: Path, received: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        with open_callbacks(run_at(tmp_path, "Broken", "Unmade", "Recorder")):
            for number in (1, 2):
                publish(EpochTrained(name=TASK, identity="a", epoch=epoch(number)))
            failed = WindowResult(window="2019-06-28", seed=0, status="failed", reason="no")
            publish(WindowDone(result=failed, identity="a"))
        assert [event[:2] for event in received] == [
            (TASK, 1),
            (TASK, 2),
            (TASK, "failed"),
            ("closed",),
        ]
        assert [record.getMessage() for record in caplog.records] == [
            "callback_failed callback=my_plugin:Unmade error=RuntimeError: no key; it is left out",
            "callback_failed callback=my_plugin:Broken error=RuntimeError: "
            "no room at http://***@host/x",
            "callback_failed callback=my_plugin:Broken times=3 last_error=1",
        ]
        assert all(record.exc_info is None for record in caplog.records)

    def test_a_report_goes_on_without_a_server_that_training_had(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(run: Run) -> None:
            raise ConfigError("set MLFLOW_TRACKING_URI")

        monkeypatch.setitem(CALLBACKS, f"{CODE}:Refused", refuse)
        run = run_at(tmp_path, "Refused")
        with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"), open_callbacks(run):
            pass
        with open_callbacks(run, required=False):
            publish(ReportWritten(METRICS, "report.html"))
        (record,) = caplog.records
        assert "MLFLOW_TRACKING_URI; it is left out" in record.getMessage()

    def test_what_failed_is_sent_by_the_next_job(self, tmp_path: Path, received: list[Any]) -> None:
        run = run_at(tmp_path, "Broken")
        with open_callbacks(run):
            publish(EpochTrained(name=TASK, identity="a", epoch=epoch(1)))
        sys.modules[CODE].Broken.on_figures = sys.modules[CODE].Recorder.on_figures
        with open_callbacks(run):
            publish(EpochTrained(name=TASK, identity="a", epoch=epoch(1)))
        assert received[0][:2] == (TASK, 1)

    def test_a_callback_that_hangs_is_left_behind(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        over = threading.Event()

        class Slow:
            def on_done(self, **_: object) -> None:
                over.wait(30)

        slow = CallbackSink("slow", Slow(), Storage(str(tmp_path)), patience=0.1)
        failed = WindowResult(window="2019-06-28", seed=0, status="failed", reason="no")
        for _ in range(2):
            slow(WindowDone(result=failed, identity="a"))
        with caplog.at_level(logging.WARNING):
            slow.close()
        over.set()
        assert "callback_too_slow callback=slow events_left=2" in caplog.text  # with the end's mark

    def test_a_killed_job_repeats_its_last_call_alone(self, tmp_path: Path) -> None:
        received: list[int] = []
        in_call, over = threading.Event(), threading.Event()

        class Killed:
            def on_figures(self, step: int, **_: object) -> None:
                received.append(step)
                if step == 2:  # received, and the job ends before that is recorded
                    in_call.set()
                    over.wait(30)

        class Next:
            def on_figures(self, step: int, **_: object) -> None:
                received.append(step)

        killed, after = (
            CallbackSink("c", callback, Storage(str(tmp_path))) for callback in (Killed(), Next())
        )
        for sink in (killed, after):
            for number in (1, 2):
                sink(EpochTrained(name=TASK, identity="a", epoch=epoch(number)))
            assert in_call.wait(30)
        after.close()
        assert received == [1, 2, 2]
        over.set()
        killed.close()


class TestNames:
    def test_one_that_cannot_be_found_is_refused_at_once(self) -> None:
        with pytest.raises(ConfigError, match="no_such"):
            load("default", None, ['callbacks=["no_such:Class"]'])
        with pytest.raises(ConfigError, match="'mlflow'"):
            load("default", None, ['callbacks=["mlflaw"]'])

    def test_it_decides_nothing(self, received: list[Any]) -> None:
        assert model_settings(with_callbacks("Recorder")) == model_settings(TINY)

    def test_stored_code_is_not_imported_and_not_missed(self, received: list[Any]) -> None:
        cfg = dataclasses.replace(TINY, callbacks=("tensorboard", f"{CODE}:Recorder"))
        assert from_dict(to_dict(cfg), stored=True).callbacks == cfg.callbacks
        stored = to_dict(cfg)
        CALLBACKS.pop(f"{CODE}:Recorder")
        sys.modules.pop(CODE)
        assert from_dict(stored, stored=True).callbacks == ("tensorboard",)
        assert CODE not in sys.modules
