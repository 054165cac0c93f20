"""Logging and progress: one event per line, `key=value`, unit in the key; bars on a terminal.

    2026-03-02T03:00:07 INFO  window_done window=2018-12-31 epochs=23 valid_ic=+0.081

Modules log through `logging.getLogger(__name__)` with lazy arguments. Only the driver reports
progress; workers do not.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from gangru_dist.base.redaction import sanitize

_console = Console(stderr=True)
_logger = logging.getLogger(__name__)

_sinks: list[Callable[[object], None]] = []

LINE_EVERY_SECONDS = 15.0
"""Time between two progress lines when there is no terminal."""


def setup() -> None:
    """Log this package's events to standard error; safe to call again."""
    handler: logging.Handler
    if _console.is_terminal:
        handler = RichHandler(console=_console, show_path=False, log_time_format="%H:%M:%S")
        handler.setFormatter(_Safe("%(message)s"))
    else:
        handler = logging.StreamHandler()
        line = "%(asctime)s %(levelname)-7s %(message)s"
        handler.setFormatter(_Safe(line, datefmt="%Y-%m-%dT%H:%M:%S"))
    package = logging.getLogger("gangru_dist")
    package.handlers = [handler]
    package.setLevel(logging.INFO)
    package.propagate = False


class _Safe(logging.Formatter):
    """One line an event: no secret of a URI, no control character of a stock's name."""

    def format(self, record: logging.LogRecord) -> str:
        return sanitize(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own
        record.message = record.message.replace("\n", "\\n")
        return super().formatMessage(record)


@contextmanager
def reserve_stderr() -> Iterator[None]:
    """Reserve standard error for this package's events; other output there is discarded.

    Works on the file descriptor, so that C++ libraries are silenced too.
    """
    handlers = logging.getLogger("gangru_dist").handlers
    streams = [
        handler
        for handler in handlers
        if isinstance(handler, logging.StreamHandler)
        and not getattr(handler.stream, "closed", False)
    ]
    original = os.dup(2)
    with os.fdopen(original, "w", buffering=1) as ours, Path(os.devnull).open("w") as nowhere:
        before = [handler.setStream(ours) for handler in streams]
        os.dup2(nowhere.fileno(), 2)
        try:
            with redirect_stderr(ours):  # for rich's console
                yield
        finally:
            os.dup2(original, 2)
            for handler, stream in zip(streams, before, strict=True):
                handler.setStream(stream or sys.stderr)


@contextmanager
def log_waiting(what: str, every: float = LINE_EVERY_SECONDS) -> Iterator[None]:
    """Log every `every` seconds, while the block runs, what it is waiting for."""
    started, over = time.monotonic(), threading.Event()

    def report() -> None:
        while not over.wait(every):
            _logger.info("waiting for=%s seconds=%.0f", what, time.monotonic() - started)

    thread = threading.Thread(target=report, name=f"waiting for {what}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def subscribe(sink: Callable[[object], None]) -> Iterator[None]:
    """Send every event of this process to `sink`, until the block ends.

    `sink` is called from the thread that publishes; it returns at once and raises nothing.
    """
    _sinks.append(sink)
    try:
        yield
    finally:
        _sinks.remove(sink)


def publish(event: object) -> None:
    """Send an event, such as a `Progress` at its begin and at each step, to every sink."""
    for sink in tuple(_sinks):
        sink(event)


class Progress:
    """Counts equal steps: a bar with ETA on a terminal, else a line at intervals.

    A context manager; call `advance` from one thread at a time.
    """

    def __init__(
        self,
        name: str,
        *,
        total: int,
        unit: str = "",
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, 0
        self._clock, self._reported = clock, clock()
        self._first: tuple[float, int] | None = None
        self._waiting = ExitStack()
        self._bar = _make_bar(console)
        self._task = self._bar.add_task(name, total=total, note=unit)

    def __enter__(self) -> Progress:
        self._reported = self._clock()
        self._bar.start()
        if self._bar.disable:
            self._waiting.enter_context(log_waiting(self.name))
        publish(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.close()
        self._bar.stop()

    def advance(self, steps: int = 1) -> None:
        """Count `steps` as done."""
        self.done += steps
        self._waiting.close()
        if self._first is None:
            self._first = self._clock(), self.done
        self._bar.update(self._task, advance=steps)
        is_due = self._clock() - self._reported >= LINE_EVERY_SECONDS
        if self._bar.disable and is_due and self.done < self.total:
            self._reported = self._clock()
            _logger.info("progress %s", self.line())
        publish(self)

    @property
    def eta_minutes(self) -> float | None:
        """Minutes left at the pace since the first result; None before a second result."""
        at, had = self._first or (0.0, 0)
        if self.done == had:
            return None
        return (self._clock() - at) / (self.done - had) * (self.total - self.done) / 60

    def line(self) -> str:
        """Return the log line: `what=score done=3/10 eta_min=0.3`."""
        left = self.eta_minutes
        eta = "unknown" if left is None else f"{left:.1f}"
        return f"what={self.name} done={self.done}/{self.total} eta_min={eta}"


class TaskBars:
    """Concurrent tasks in one display: a bar for each running task and one for all of them.

    A context manager. Without a terminal (`is_live` is False) nothing is drawn; the caller logs
    lines instead.
    """

    def __init__(self, name: str, *, total: int, console: Console | None = None) -> None:
        self._bar = _make_bar(console)
        self.is_live = not self._bar.disable
        self._all = self._bar.add_task(name, total=total, note="")
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> TaskBars:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, row: str, *, done: int, total: int, note: str) -> None:
        """Show a task at `done` of `total`; the first call adds its row."""
        if row not in self._rows:
            self._rows[row] = self._bar.add_task(row, total=total, note=note)
        self._bar.update(self._rows[row], completed=done, total=total, note=note)

    def finish(self, row: str) -> None:
        """Remove a finished task's row and count the task as done."""
        if row in self._rows:
            self._bar.remove_task(self._rows.pop(row))
        self._bar.advance(self._all)


class _NotebookBar(Bar):
    """The bars as text in a notebook's cell; needs no widgets. Rich would need ipywidgets."""

    def start(self) -> None:
        """Begin an output in the cell that is running."""
        from IPython.display import display

        self._output, self._shown = display(self._text(), raw=True, display_id=True), 0.0

    def stop(self) -> None:
        """Show how it ended."""
        self._show()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As `Bar`, then show it."""
        super().update(*args, **kwargs)
        self._show(every=0.5)

    def _show(self, every: float = 0.0) -> None:
        if time.monotonic() - self._shown >= every:
            self._shown = time.monotonic()
            self._output.update(self._text(), raw=True)

    def _text(self) -> dict[str, str]:
        text = io.StringIO()
        Console(file=text, force_jupyter=False, force_terminal=False, width=100).print(
            self.get_renderable()
        )
        return {"text/plain": text.getvalue()}


def _make_bar(console: Console | None) -> Bar:
    """Bars are drawn on a terminal and in a notebook."""
    console = console or _console
    kind = _NotebookBar if console.is_jupyter else Bar
    return kind(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not (console.is_terminal or console.is_jupyter),
    )
