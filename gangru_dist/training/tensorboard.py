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

from gangru_dist.errors import ConfigError, StorageError
from gangru_dist.runs.model import TimedEpoch, figures
from gangru_dist.runs.run import TENSORBOARD, Run

_logger = logging.getLogger(__name__)


class TensorBoard:
    """One line a window and seed, below `runs/<run>/tensorboard/<refit day>/seed-<s>/`.

    A job that comes again adds a file beside the old one; TensorBoard draws both as one line.
    """

    def __init__(self, run: Run) -> None:
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

    def epoch(self, task: str, epoch: TimedEpoch) -> None:
        """Add one epoch; a store that fails causes a warning and does not stop the training."""
        writer = self._writer(task)
        pace = {"seconds": epoch.seconds, "samples_per_s": epoch.samples_per_s}
        step = epoch.result.epoch
        for name, value in (figures(epoch.result) | pace).items():
            scalar = self._scalar(f"{epoch.result.stage}/{name}", value)
            writer.write_event(self._event(wall_time=time.time(), step=step, summary=scalar))
        writer.flush()
        try:
            self._store(task)
        except (OSError, StorageError) as error:
            _logger.warning("tensorboard_not_stored window=%s error=%s", task, error)

    def close(self) -> None:
        """Close all writers."""
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
            self._run.folder.write_bytes(f"{TENSORBOARD}/{task}/{file.name}", file.read_bytes())


def tensorboard(run: Run) -> TensorBoard | None:
    """What `training.tensorboard` asks for."""
    return TensorBoard(run) if run.cfg.training.tensorboard else None
