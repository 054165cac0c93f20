"""Every epoch's figures as TensorBoard's event files, on any storage.

Event files grow by appending, which object stores cannot do: each window's file is written on this
machine and stored whole after every epoch, a few hundred bytes an epoch.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from gangru_dist.config import RunConfig
from gangru_dist.errors import ConfigError, StorageError
from gangru_dist.storage import Storage

_logger = logging.getLogger(__name__)
FOLDER = "tensorboard"
_NOT_DRAWN = ("stage", "epoch")


class TensorBoard:
    """One line a window and seed, below `runs/<run>/tensorboard/<refit day>/seed-<s>/`.

    A job that comes again adds a file beside the old one; TensorBoard draws both as one line.
    """

    def __init__(self, run: Storage) -> None:
        """Raise ConfigError if the package that writes event files is not there."""
        try:
            from tensorboardX import event_file_writer, proto, summary
        except ImportError as error:
            raise ConfigError(
                "training.tensorboard = true needs the package tensorboardX: "
                "pip install gangru_dist[tensorboard]."
            ) from error
        self._run = run
        # not its SummaryWriter: that one writes when its thread finds the time
        self._open, self._scalar = event_file_writer.EventsWriter, summary.scalar
        self._event = proto.event_pb2.Event
        self._local = tempfile.TemporaryDirectory(prefix="gangru-tensorboard-")
        self._writers: dict[str, Any] = {}

    def epoch(self, task: str, metrics: dict[str, Any]) -> None:
        """Add one epoch; a store that fails costs a warning, never the training."""
        writer = self._writer(task)
        for name, value in metrics.items():
            if name not in _NOT_DRAWN and isinstance(value, int | float):
                scalar = self._scalar(f"{metrics['stage']}/{name}", value)
                step = int(metrics["epoch"])
                writer.write_event(self._event(wall_time=time.time(), step=step, summary=scalar))
        writer.flush()
        try:
            self._store(task)
        except (OSError, StorageError) as error:
            _logger.warning("tensorboard_not_stored window=%s error=%s", task, error)

    def close(self) -> None:
        """Nothing more comes."""
        for writer in self._writers.values():
            writer.close()
        self._local.cleanup()

    def _writer(self, task: str) -> Any:
        if task not in self._writers:
            self._folder(task).mkdir(parents=True)
            self._writers[task] = self._open(str(self._folder(task) / "events"))
        return self._writers[task]

    def _folder(self, task: str) -> Path:
        return Path(self._local.name, task)

    def _store(self, task: str) -> None:
        for file in self._folder(task).iterdir():
            self._run.write_bytes(f"{FOLDER}/{task}/{file.name}", file.read_bytes())


def tensorboard(cfg: RunConfig, run: Storage) -> TensorBoard | None:
    """What `training.tensorboard` asks for."""
    return TensorBoard(run) if cfg.training.tensorboard else None
