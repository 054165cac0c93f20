"""MLflow, with a real server: `make mlflow` installs one beside, and its client here."""

from __future__ import annotations

import builtins
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.log import publish
from gangru_dist.base.storage import Storage
from gangru_dist.config.identity import SETTINGS
from gangru_dist.events.callbacks import open_callbacks
from gangru_dist.events.events import EpochTrained, ReportWritten, TrialChanged, WindowDone
from gangru_dist.events.mlflow import Mlflow
from gangru_dist.runs.model import PredictorEpoch, TimedEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import TrialRecord
from gangru_dist.runs.summaries import WindowResult
from tests.events.test_callbacks import METRICS, TASK, TINY, dataclasses, epoch

SERVER = os.environ.get("MLFLOW_COMMAND", "")
needs_server = pytest.mark.skipif(not SERVER, reason="`make mlflow` runs it")


def run_at(folder: Path) -> Run:
    return Run(Storage(str(folder)), "r", dataclasses.replace(TINY, callbacks=("mlflow",)))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(url: str) -> bool:
    with suppress(OSError, urllib.error.URLError), urllib.request.urlopen(f"{url}/health"):
        return True
    return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    url = f"http://127.0.0.1:{port}"
    words = [SERVER, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    end = time.monotonic() + 300
    while not answers(url):
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        assert time.monotonic() < end, (folder / "log").read_text()[-2000:]
        time.sleep(0.5)
    yield url
    process.terminate()
    process.wait()


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    return mlflow.MlflowClient(server)


def found(client: Any, run: Run) -> dict[str, Any]:
    """MLflow runs of a storage by name."""
    experiment = client.get_experiment_by_name("gangru_dist").experiment_id
    runs = client.search_runs([experiment])
    parents = {one.info.run_id for one in runs if is_of(one, run)}
    ours = [one for one in runs if {one.info.run_id, of(one)} & parents]
    names = [one.info.run_name for one in ours]
    assert len(set(names)) == len(names)
    return dict(zip(names, ours, strict=True))


def is_of(one: Any, run: Run) -> bool:
    return bool(one.data.tags.get("gangru.storage") == run.root.uri)


def of(one: Any) -> str:
    return str(one.data.tags.get("mlflow.parentRunId"))


class FakeServer:
    """What the callback asks of MLflow: runs by tag, with at most 100 parameters a request."""

    def __init__(self) -> None:
        self.runs: list[SimpleNamespace] = []
        self.fails = 0
        self.entities = SimpleNamespace(Metric=tuple, Param=lambda *pair: pair, RunTag=tuple)

    def is_tracking_uri_set(self) -> bool:
        return True

    def MlflowClient(self) -> FakeServer:  # noqa: N802  # MLflow's name
        return self

    def set_experiment(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(experiment_id=name)

    def search_runs(self, _: list[str], query: str, max_results: int) -> list[SimpleNamespace]:
        return [one for one in self.runs if one.tag in query][:max_results]

    def create_run(self, _: str, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        data = SimpleNamespace(params={})
        info = SimpleNamespace(run_id=str(len(self.runs)))
        self.runs.append(SimpleNamespace(tag=tags["gangru.key"], info=info, data=data))
        return self.runs[-1]

    def log_batch(self, run_id: str, metrics: list, params: list, tags: list) -> None:
        assert len(params) <= 100
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no answer")
        self.runs[int(run_id)].data.params.update(params)


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_parameters_are_sent_until_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    server = FakeServer()
    monkeypatch.setitem(sys.modules, "mlflow", server)
    run = run_at(tmp_path)
    server.fails = fails
    for _ in range(3):  # three jobs
        with suppress(ConnectionError):
            Mlflow(run)._run_id  # noqa: B018
    (there,) = server.runs
    expected = {key for key in SETTINGS if not key.startswith("tune.")}
    assert len(expected) > 100  # more than one request takes
    assert set(there.data.params) == expected
    assert there.data.params["gru.hidden"] == str(run.cfg.gru.hidden)


@needs_server
def test_training_resumed_is_one_line(client: Any, tmp_path: Path) -> None:
    run = run_at(tmp_path)
    for numbers in ((1, 2), (2, 3)):  # the second job trains an epoch again
        with open_callbacks(run):
            for number in numbers:
                publish(EpochTrained(name=TASK, identity="a", epoch=epoch(number)))
    (tmp_path / "runs/r/tracking/mlflow").rename(tmp_path / "gone")  # the server knows the run
    with open_callbacks(run):
        publish(EpochTrained(name=TASK, identity="a", epoch=epoch(4)))
        failed = WindowResult(window="2019-06-28", seed=0, status="failed", reason="a\nb")
        publish(WindowDone(result=failed, identity="a"))
        publish(
            EpochTrained(name=TASK, identity="b", epoch=TimedEpoch(result(9), 1.0, 1.0))
        )  # another model of that name
    history = [one for one in client.search_runs([experiment_of(client)]) if is_model(one, client)]
    steps = {
        one.data.tags["gangru.key"]: [
            m.step for m in client.get_metric_history(one.info.run_id, "predictor/valid_ic")
        ]
        for one in history
    }
    assert sorted(steps.values()) == [[1, 2, 3, 4], [9]]
    (ended,) = [one for one in history if "gangru.status" in one.data.tags]
    assert ended.info.status == "FAILED"
    assert ended.data.tags["gangru.reason"] == "a\nb"


def result(number: int) -> PredictorEpoch:
    return PredictorEpoch(epoch=number, train_loss=-0.1, valid_ic=0.01)


def experiment_of(client: Any) -> str:
    return str(client.get_experiment_by_name("gangru_dist").experiment_id)


def is_model(one: Any, client: Any) -> bool:
    return bool(one.info.run_name == TASK)


@needs_server
def test_trials_and_report_belong_to_the_run(client: Any, tmp_path: Path) -> None:
    run = run_at(tmp_path)
    trial = TrialRecord(
        number=0,
        settings={"gru.hidden": 4, "gru.head": [4]},
        status="pruned",
        reports=((1, 0.1), (2, 0.2)),
        mean_ic=0.2,
    )
    for months in (3, 4):
        with open_callbacks(run):
            publish(TrialChanged(trial, "a"))
            publish(ReportWritten({**METRICS, "period": {"months": months}}, "report.html"))
    runs = found(client, run)
    assert sorted(runs) == ["r", "tune/trial-0000"]
    assert runs["r"].info.status == "FINISHED"
    assert runs["r"].data.params["gru.hidden"] == "4"
    assert runs["r"].data.params["training.seeds"] == "[0]"
    assert runs["r"].data.tags["gangru.page"] == "report.html"
    steps = client.get_metric_history(runs["r"].info.run_id, "ic/mean")
    assert [(metric.step, metric.value) for metric in steps] == [(3, 0.1), (4, 0.1)]
    pruned = runs["tune/trial-0000"]
    assert pruned.info.status == "KILLED"
    assert pruned.data.params == {"gru.hidden": "4", "gru.head": "[4]"}
    assert pruned.data.metrics["mean_ic"] == 0.2


@needs_server
def test_a_server_that_is_away_costs_a_line(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    started = time.monotonic()
    with open_callbacks(run_at(tmp_path)):
        publish(EpochTrained(name=TASK, identity="a", epoch=epoch(1)))
    assert "callback_failed callback=mlflow" in caplog.text
    assert "secret" not in caplog.text
    assert time.monotonic() - started < 60


@needs_server
def test_without_a_server_the_job_says_what_to_set(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI"):
        Mlflow(run_at(tmp_path))


def test_without_the_package_the_job_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "mlflow":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    with pytest.raises(ConfigError, match=r"pip install gangru_dist\[mlflow\]"):
        Mlflow(run_at(tmp_path))
