"""Figures as TensorBoard's event files, on any storage.

Event files grow by appending, which object stores cannot do: the file of each series is held in
memory and stored whole after every step; a step adds a few hundred bytes.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from gangru_dist.base.errors import ConfigError, StorageError
from gangru_dist.base.storage import Storage
from gangru_dist.events.callbacks import Series
from gangru_dist.runs.run import TENSORBOARD, Run

_logger = logging.getLogger(__name__)


class TensorBoard:
    """Writes a line for each series, below `runs/<run>/tensorboard/<series>/`.

    A job that comes again adds a file beside the old one; TensorBoard draws both as one line.
    """

    def __init__(self, run: Run) -> None:
        """Raise ConfigError if the package that writes event files is not there."""
        self.run = run
        try:
            from tensorboardX import event_file_writer, proto, record_writer, summary
        except ImportError as error:
            raise ConfigError(
                "the callback tensorboard needs the package tensorboardX: "
                "pip install gangru_dist[tensorboard]."
            ) from error
        # not its SummaryWriter: that one writes when its thread finds the time
        self._open, self._summary = event_file_writer.EventsWriter, summary
        self._event = proto.event_pb2.Event
        self._scheme = f"gangru-{uuid4().hex}"
        files = SimpleNamespace(open=partial(_StoredFile, run.folder))
        record_writer.register_writer_factory(self._scheme, files)
        self._writers: dict[Series, Any] = {}

    def on_figures(self, series: Series, step: int, figures: Mapping[str, float]) -> None:
        """Add a step; a store that fails costs a warning, and the next step brings both."""
        self._write(series, step, [self._summary.scalar(n, x) for n, x in figures.items()])

    def on_done(
        self, series: Series, status: str, figures: Mapping[str, float], facts: Mapping[str, Any]
    ) -> None:
        """Add a trial's settings and what they reached, for the page HPARAMS; close the file."""
        if series.job == "tune" and figures:
            scalar = (int, float, str, bool)
            settings = {k: v if isinstance(v, scalar) else json.dumps(v) for k, v in facts.items()}
            results = {f"hparam/{name}": value for name, value in figures.items()}
            parts = self._summary.hparams(settings, results)
            scalars = [self._summary.scalar(name, value) for name, value in results.items()]
            self._write(series, int(figures.get("epochs", 0)), [*parts, *scalars])
        if self._store(series):
            self._writers.pop(series, None)  # a later figure opens a new file

    def close(self) -> None:
        """Store what the store refused before."""
        for series in self._writers:
            self._store(series)

    def _write(self, series: Series, step: int, summaries: list[Any]) -> None:
        if series not in self._writers:
            folder = f"{TENSORBOARD}/{series.name}"
            for name in self.run.folder.list_files(folder):
                if not name.endswith(f".{series.identity}"):  # an earlier model of this name
                    self.run.folder.delete(name)
            unique = uuid4().hex[:8]  # else two files of one second would have one name
            suffix = f".{unique}.{series.identity}"
            self._writers[series] = self._open(f"{self._scheme}:{folder}/events", suffix)
        for part in summaries:
            event = self._event(wall_time=time.time(), step=step, summary=part)
            self._writers[series].write_event(event)
        self._store(series)

    def _store(self, series: Series) -> bool:
        try:
            if series in self._writers:
                self._writers[series].flush()
        except (OSError, StorageError) as error:
            _logger.warning("tensorboard_not_stored series=%s error=%s", series.name, error)
            return False
        return True


class _StoredFile:
    """A file that is stored whole at each flush, as tensorboardX's own `S3RecordWriter`."""

    def __init__(self, folder: Storage, path: str) -> None:
        self._folder, self._path = folder, path.partition(":")[2]
        self._content, self._stored = bytearray(), 0

    def write(self, data: bytes) -> None:
        self._content += data

    def flush(self) -> None:
        if self._stored < len(self._content):
            self._folder.write_bytes(self._path, bytes(self._content))
            self._stored = len(self._content)
