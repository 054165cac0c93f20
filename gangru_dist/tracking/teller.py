"""One callback beside a job: in a thread of its own, told everything once, never a failure."""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from gangru_dist.errors import StorageError, reason_of
from gangru_dist.runs.records import find_record, write_record
from gangru_dist.storage import Storage
from gangru_dist.tracking.callback import Callback, Series

_logger = logging.getLogger(__name__)
_PATIENCE_SECONDS = 30.0
"""At the end of a job: how long one event may take before the rest is dropped."""
_PASSWORD = re.compile(r"//[^/\s@]+@")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a callback has been told of a series: `tracking/<callback>/<series>.json`."""

    identity: str
    keys: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Event:
    series: Series
    key: str | None
    """Its name among the series' events; None = may be told again."""
    call: Callable[[Callback], None]


class Teller:
    """Hands events to a callback, in order. An event is noted before it is told: at most once."""

    def __init__(self, name: str, callback: Callback, folder: Storage) -> None:
        """Start the thread; `folder` keeps what was told."""
        self._name, self._callback, self._folder = name, callback, folder
        self._events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._told: dict[str, Told] = {}
        self._taken = self._failures = 0
        self._error = ""
        self._thread = threading.Thread(target=self._work, name=f"callback {name}", daemon=True)
        self._thread.start()

    def tell(self, series: Series, key: str | None, call: Callable[[Callback], None]) -> None:
        """Have the callback called, unless it was told this key before; returns at once."""
        self._events.put(_Event(series, key, call))

    def close(self) -> None:
        """Wait for what is left, as long as the callback takes it."""
        self._events.put(None)
        taken = -1
        while self._thread.is_alive() and self._taken != taken:
            taken = self._taken
            self._thread.join(_PATIENCE_SECONDS)
        if self._thread.is_alive():
            left = self._events.qsize()
            _logger.warning("callback_too_slow callback=%s events_left=%d", self._name, left)
        if self._failures > 1:
            text = "callback_failed callback=%s times=%d last_error=%s"
            _logger.warning(text, self._name, self._failures, self._error)

    def _work(self) -> None:
        for event in iter(self._events.get, None):
            self._safely(partial(self._tell, event))
            self._taken += 1
        self._safely(self._callback.close)

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # also sys.exit(): it is not our code
            self._failures += 1
            self._error = _PASSWORD.sub("//***@", reason_of(error))
            if self._failures == 1:
                text = "callback_failed callback=%s error=%s: %s"
                _logger.warning(text, self._name, type(error).__name__, self._error)

    def _tell(self, event: _Event) -> None:
        if event.key is None:
            event.call(self._callback)
            return
        told = self._told_of(event.series)
        if event.key in told.keys:
            return
        told.keys.append(event.key)
        try:
            write_record(self._folder, _file(event.series), told)
            event.call(self._callback)
        except BaseException:
            told.keys.remove(event.key)  # to be told with what comes at the end, or next time
            with suppress(OSError, StorageError):
                write_record(self._folder, _file(event.series), told)
            raise

    def _told_of(self, series: Series) -> Told:
        if series.name not in self._told:
            stored = find_record(Told, self._folder, _file(series))
            self._told[series.name] = stored or Told(identity=series.identity)
        told = self._told[series.name]
        if told.identity != series.identity:
            told = self._told[series.name] = Told(identity=series.identity)
        return told


def _file(series: Series) -> str:
    return f"{series.name}.json"
