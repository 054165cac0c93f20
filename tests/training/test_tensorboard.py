"""Event files: what TensorBoard would read of a run, and a store that fails."""

import builtins
import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gangru_dist.config import TrainingConfig, model_settings
from gangru_dist.errors import ConfigError
from gangru_dist.runs.model import GanEpoch, PredictorEpoch, TimedEpoch, figures
from gangru_dist.runs.run import Run
from gangru_dist.storage import Storage
from gangru_dist.training.tensorboard import TensorBoard, tensorboard
from tests.training.store import TINY

TASK = "2018-12-28/seed-0"
GAN = GanEpoch(
    epoch=1, discriminator_loss=1.5, generator_loss=0.7, discriminator_accuracy=0.5, distance=0.1
)
EPOCHS = [
    TimedEpoch(PredictorEpoch(epoch=e, train_loss=-0.1, valid_ic=e / 100), 1.0, 10.0)
    for e in (1, 2)
]


def records(data: bytes) -> Iterator[bytes]:
    """The payloads of a TFRecord file: length, its checksum, payload, its checksum."""
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + size]
        at += size + 16


def scalars(run: Storage, task: str) -> dict[tuple[str, int], float]:
    """(name, step) -> value, of all event files of a window."""
    event_pb2: Any = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = {}
    for name in run.list_files(f"tensorboard/{task}"):
        for payload in records(run.read_bytes(name)):
            event = event_pb2.Event.FromString(payload)
            for value in event.summary.value:
                found[value.tag, event.step] = pytest.approx(value.simple_value)
    return found


@pytest.fixture
def board(tmp_path: Path) -> Iterator[TensorBoard]:
    board = TensorBoard(Run(Storage(str(tmp_path)), "r", TINY))
    yield board
    board.close()


def test_every_epoch_can_be_read_at_once(tmp_path: Path, board: TensorBoard) -> None:
    run = Storage(str(tmp_path)).child("runs", "r")
    board.epoch(TASK, TimedEpoch(GAN, seconds=1.0, samples_per_s=10.0))
    found = {f"gan/{name}": value for name, value in figures(GAN).items()}
    expected = found | {"gan/seconds": 1.0, "gan/samples_per_s": 10.0}
    assert scalars(run, TASK) == {(name, 1): value for name, value in expected.items()}
    for epoch in EPOCHS:
        board.epoch(TASK, epoch)
    board.epoch("2019-06-28/seed-0", EPOCHS[0])
    assert scalars(run, TASK)["predictor/valid_ic", 2] == 0.02
    assert scalars(run, "2019-06-28/seed-0")["predictor/valid_ic", 1] == 0.01


def test_a_store_that_fails_costs_a_warning(
    tmp_path: Path,
    board: TensorBoard,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_bytes", fail)
        board.epoch(TASK, EPOCHS[0])
    assert "tensorboard_not_stored window=2018-12-28/seed-0 error=no answer" in caplog.text
    board.epoch(TASK, EPOCHS[1])  # the next one brings both
    assert len(scalars(Storage(str(tmp_path)).child("runs", "r"), TASK)) == 2 * 4


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


def test_it_is_asked_for_and_decides_no_model(tmp_path: Path) -> None:
    training = dataclasses.replace(TINY.training, tensorboard=True)
    drawn = dataclasses.replace(TINY, training=training)
    run = Run(Storage(str(tmp_path)), "r", drawn)
    board = tensorboard(run)
    assert board is not None
    board.close()
    assert tensorboard(dataclasses.replace(run, cfg=TINY)) is None
    assert model_settings(drawn) == model_settings(TINY)
    assert not TrainingConfig().tensorboard
