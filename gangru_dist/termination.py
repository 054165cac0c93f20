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

STATUS = 128 + signal.SIGTERM
"""Exit status of a job that SIGTERM ended, as a shell gives it."""
_ROOM = 1024
"""Bytes for C's `struct sigaction`; Linux needs 152, macOS 16."""


@dataclass
class Termination:
    """Whether SIGTERM has arrived."""

    has_arrived: bool = False

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """As Ctrl-C does; Ray's waits turn it into a `KeyboardInterrupt` of their own."""
        self.has_arrived = True
        raise KeyboardInterrupt


@contextmanager
def as_interrupt() -> Iterator[Termination]:
    """SIGTERM raises `KeyboardInterrupt` in the block; only the main thread can set that up."""
    state = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return
    before = signal.signal(signal.SIGTERM, state.interrupt)
    try:
        yield state
    finally:
        signal.signal(signal.SIGTERM, before)


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
