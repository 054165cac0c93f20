"""SIGTERM, as clusters and containers stop a job: it ends like one that was interrupted.

Ray's C++ library installs a handler of its own for SIGTERM that prints a stack of addresses and
aborts the process (status 134); nothing is cleaned up then. So what was in place before is put
back after Ray has started.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_ROOM = 1024
"""Bytes for C's `struct sigaction`; Linux needs 152, macOS 16."""


@dataclass
class Interruption:
    """The first signal that asked the job to end; `number` is 0 until one has arrived."""

    number: int = 0

    @property
    def status(self) -> int:
        """Exit status of a job that it ended, as a shell gives it: 130 or 143."""
        return 128 + (self.number or signal.SIGINT)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """As Ctrl-C does; Ray's waits turn it into a `KeyboardInterrupt` of their own."""
        self.number = self.number or number
        raise KeyboardInterrupt


@contextmanager
def as_interrupt() -> Iterator[Interruption]:
    """SIGTERM raises `KeyboardInterrupt` in the block; either signal is recorded.

    Only the main thread can set that up. SIGINT stays ignored where it was, as under nohup.
    """
    state = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, state.interrupt)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, state.interrupt)
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def kept() -> Iterator[None]:
    """Whatever the block installs for SIGTERM is taken back at its end; any thread may use it."""
    handler = signal.getsignal(signal.SIGTERM)
    library, action = ctypes.CDLL(None), ctypes.create_string_buffer(_ROOM)
    library.sigaction(int(signal.SIGTERM), None, action)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Python's own record too
        library.sigaction(int(signal.SIGTERM), action, None)
