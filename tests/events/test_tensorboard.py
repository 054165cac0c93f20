"""Event files: what TensorBoard would read of a run, and a store that fails."""

import builtins
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.storage import Storage
from gangru_dist.events.callbacks import Series
from gangru_dist.events.tensorboard import TensorBoard
from gangru_dist.runs.run import Run
from tests.training.store import TINY

MODEL = Series("train", "2018-12-28/seed-0", "a")
TRIAL = Series("tune", "tune/trial-0001", "a")


def records(data: bytes) -> Iterator[bytes]:
    """The payloads of a TFRecord file: length, its checksum, payload, its checksum."""
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + size]
        at += size + 16


def events(root: Path, name: str) -> Iterator[Any]:
    """Values of all event files of a series, with their step."""
    event_pb2: Any = pytest.importorskip("tensorboardX.proto.event_pb2")
    run = Storage(str(root)).child("runs", "r")
    for file in run.list_files(f"tensorboard/{name}"):
        for payload in records(run.read_bytes(file)):
            event = event_pb2.Event.FromString(payload)
            for value in event.summary.value:
                yield event.step, value


def scalars(root: Path, name: str) -> dict[tuple[str, int], float]:
    """(name, step) -> value."""
    found = [(value.tag, step, value) for step, value in events(root, name)]
    return {(t, s): pytest.approx(v.simple_value) for t, s, v in found if not v.metadata.ByteSize()}


def refuse(*_: object) -> None:
    raise OSError("no answer")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[TensorBoard]:
    board = TensorBoard(Run(Storage(str(tmp_path)), "r", TINY))
    yield board
    board.close()


def test_every_step_can_be_read_at_once(tmp_path: Path, board: TensorBoard) -> None:
    board.on_figures(MODEL, 1, {"gan/distance": 0.1, "gan/seconds": 1.0})
    assert scalars(tmp_path, MODEL.name) == {("gan/distance", 1): 0.1, ("gan/seconds", 1): 1.0}
    board.on_figures(MODEL, 2, {"gan/distance": 0.2})
    board.on_figures(Series("report", "report", "report"), 12, {"ic/mean": 0.1})
    assert scalars(tmp_path, MODEL.name)["gan/distance", 2] == 0.2
    assert scalars(tmp_path, "report") == {("ic/mean", 12): 0.1}


def test_a_trial_brings_its_settings(tmp_path: Path, board: TensorBoard) -> None:
    board.on_figures(TRIAL, 1, {"mean_ic": 0.1})
    facts: Mapping[str, Any] = {"gru.hidden": 8, "gru.head": [4, 2], "label.transform": "rank"}
    board.on_done(TRIAL, "complete", {"objective": 0.2, "epochs": 3.0}, facts)
    board.on_done(MODEL, "trained", {"seconds": 1.0}, {"seed": 0})  # has all in its epochs
    found = scalars(tmp_path, TRIAL.name)
    assert found["hparam/objective", 3] == 0.2
    content = b"".join(v.metadata.plugin_data.content for _, v in events(tmp_path, TRIAL.name))
    assert all(name.encode() in content for name in facts)
    assert b"[4, 2]" in content
    assert not list(events(tmp_path, MODEL.name))


def test_another_model_of_the_name_replaces_the_line(tmp_path: Path, board: TensorBoard) -> None:
    board.on_figures(MODEL, 1, {"x": 1.0})
    again = TensorBoard(board.run)
    again.on_figures(MODEL, 2, {"x": 2.0})  # a resumed job goes on
    assert len(scalars(tmp_path, MODEL.name)) == 2
    again.on_figures(Series("train", MODEL.name, "b"), 1, {"x": 3.0})
    again.close()
    assert scalars(tmp_path, MODEL.name) == {("x", 1): 3.0}


def test_a_store_that_fails_costs_a_warning(
    tmp_path: Path,
    board: TensorBoard,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_bytes", refuse)
        board.on_figures(MODEL, 1, {"x": 1.0})
    assert "tensorboard_not_stored series=2018-12-28/seed-0 error=no answer" in caplog.text
    board.on_figures(MODEL, 2, {"x": 2.0})  # the next one brings both
    assert len(scalars(tmp_path, MODEL.name)) == 2


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_a_series_that_is_done_holds_no_file(tmp_path: Path, board: TensorBoard) -> None:
    board.on_figures(MODEL, 1, {"x": 1.0})
    before = open_files()
    many = [Series("train", f"2018-12-28/seed-{i}", "b") for i in range(30)]
    for series in many:
        board.on_figures(series, 1, {"x": 1.0})
        board.on_done(series, "trained", {"seconds": 1.0}, {})
    assert open_files() <= before + 3
    assert [len(board.run.folder.list_files(f"tensorboard/{one.name}")) for one in many] == [1] * 30
    board.on_figures(many[3], 2, {"x": 2.0})
    assert scalars(tmp_path, many[3].name) == {("x", 1): 1.0, ("x", 2): 2.0}


def test_what_the_store_refused_until_the_end_is_stored_then(
    tmp_path: Path, board: TensorBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_bytes", refuse)
        board.on_figures(MODEL, 1, {"x": 1.0})
        board.on_figures(TRIAL, 1, {"x": 1.0})
        board.on_done(TRIAL, "failed", {}, {})
    board.on_done(MODEL, "trained", {}, {})
    assert scalars(tmp_path, MODEL.name) == {("x", 1): 1.0}
    board.on_figures(TRIAL, 2, {"x": 2.0})
    assert len(scalars(tmp_path, TRIAL.name)) == 2


def test_without_the_package_the_job_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "tensorboardX":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install gangru_dist\[tensorboard\]"):
        TensorBoard(Run(Storage(str(tmp_path)), "r", TINY))
