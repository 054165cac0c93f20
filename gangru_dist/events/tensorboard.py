"""Figures as TensorBoard's event files, on any storage.

Event files grow by appending, which object stores cannot do: each series' file is written on this
machine and stored whole after every step, a few hundred bytes a step.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from gangru_dist.base.errors import ConfigError, StorageError
from gangru_dist.events.callbacks import Series
from gangru_dist.runs.run import TENSORBOARD, Run

_logger = logging.getLogger(__name__)


class TensorBoard:
    """A line for each series, below `runs/<run>/tensorboard/<series>/`.

    A job that comes again adds a file beside the old one; TensorBoard draws both as one line.
    """

    def __init__(self, run: Run) -> None:
        """Raise ConfigError if the package that writes event files is not there."""
        self.run = run
        try:
            from tensorboardX import event_file_writer, proto, summary
        except ImportError as error:
            raise ConfigError(
                "the callback tensorboard needs the package tensorboardX: "
                "pip install gangru_dist[tensorboard]."
            ) from error
        # not its SummaryWriter: that one writes when its thread finds the time
        self._open, self._summary = event_file_writer.EventsWriter, summary
        self._event = proto.event_pb2.Event
        self._local = tempfile.TemporaryDirectory(prefix="gangru-tensorboard-")
        self._writers: dict[Series, Any] = {}
        self._unstored: set[Series] = set()

    def on_figures(self, series: Series, step: int, figures: Mapping[str, float]) -> None:
        """Add a step; a store that fails costs a warning, and the next step brings both."""
        self._write(series, step, [self._summary.scalar(n, x) for n, x in figures.items()])

    def on_done(
        self, series: Series, status: str, figures: Mapping[str, float], facts: Mapping[str, Any]
    ) -> None:
        """Of a trial: its settings and what they reached, for the page HPARAMS. Close the file."""
        if series.job == "tune" and figures:
            plain = (int, float, str, bool)
            settings = {k: v if isinstance(v, plain) else json.dumps(v) for k, v in facts.items()}
            results = {f"hparam/{name}": value for name, value in figures.items()}
            parts = self._summary.hparams(settings, results)
            scalars = [self._summary.scalar(name, value) for name, value in results.items()]
            self._write(series, int(figures.get("epochs", 0)), [*parts, *scalars])
        self._finish(series)

    def close(self) -> None:
        """Close all writers."""
        for writer in self._writers.values():
            writer.close()
        self._local.cleanup()

    def _write(self, series: Series, step: int, summaries: list[Any]) -> None:
        writer = self._writer(series)
        for part in summaries:
            writer.write_event(self._event(wall_time=time.time(), step=step, summary=part))
        writer.flush()
        self._store(series)

    def _store(self, series: Series) -> None:
        try:
            for file in self._folder(series).iterdir():
                self.run.folder.write_bytes(f"{_place(series)}/{file.name}", file.read_bytes())
            self._unstored.discard(series)
        except (OSError, StorageError) as error:
            self._unstored.add(series)
            _logger.warning("tensorboard_not_stored series=%s error=%s", series.name, error)

    def _finish(self, series: Series) -> None:
        """Close its file, and delete it here once it is stored; a later event opens a new one."""
        writer = self._writers.pop(series, None)
        if writer is not None:
            writer.close()
        if series in self._unstored:
            self._store(series)
        if series not in self._unstored:
            shutil.rmtree(self._folder(series), ignore_errors=True)

    def _writer(self, series: Series) -> Any:
        if series not in self._writers:
            self._forget_others(series)
            self._folder(series).mkdir(parents=True, exist_ok=True)
            prefix = str(self._folder(series) / "events")
            job = uuid4().hex[:8]  # else two jobs of one second would share a file
            self._writers[series] = self._open(prefix, f".{job}.{series.identity}")
        return self._writers[series]

    def _forget_others(self, series: Series) -> None:
        """Delete the line of an earlier model or trial of this name."""
        for name in self.run.folder.list_files(_place(series)):
            if not name.endswith(f".{series.identity}"):
                self.run.folder.delete(name)

    def _folder(self, series: Series) -> Path:
        return Path(self._local.name, series.name, series.identity)


def _place(series: Series) -> str:
    return f"{TENSORBOARD}/{series.name}"
