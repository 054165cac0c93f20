"""Faults at a moment of a job: before, within or after its n-th step in storage.

A moment is counted, so a seed finds the same one again; a fault by the clock does not. Runs in
the job's own process.

| act | what happens |
|---|---|
| `kill`, `term`, `int`, `stop` | that signal; a stopped job goes on when its parent says so |
| `clock` | time.time() jumps by a day, forward or back, and again at later moments |
| `full` | the disk has not a byte left from here on |
| `readonly` | nor can anything be written |
| `sabotage` | a defect, for tests of the oracle alone: `sabotage` |
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from gangru_dist.base.storage import Storage
from tests.soak import sabotage

SIGNALS = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "stop": signal.SIGSTOP,
}


def install(faults: list[dict[str, Any]]) -> list[int]:
    """Let faults with a `moment` happen; the list's one number counts moments."""
    passed = [0]
    clock = _Clock()

    def tick() -> None:
        now, passed[0] = passed[0], passed[0] + 1
        for fault in faults:
            if fault.get("moment") == now and not act(fault, clock):
                fault["moment"] = now + 1
        clock.jump(now)

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            tick()
            result = real(*args, **kwargs)
            tick()
            return result

        return call

    for name in ("write_bytes", "read_bytes", "delete", "delete_folder", "list_files", "_put"):
        setattr(Storage, name, watched(getattr(Storage, name)))
    os.fsync = watched(os.fsync)  # within a write
    DeltaTable.create_write_transaction = watched(DeltaTable.create_write_transaction)
    DeltaTable.create = watched(DeltaTable.create)
    return passed


def act(fault: dict[str, Any], clock: _Clock) -> bool:
    """Do it, here and now; False if that cannot be, as long as a file is open for writing."""
    kind = fault["kind"]
    if kind in SIGNALS:
        os.kill(os.getpid(), SIGNALS[kind])
    elif kind == "clock":
        clock.begin(fault["seed"])
    elif kind == "full":
        fill(Path(fault["disk"]))
    elif kind == "readonly":
        words = ["mount", "-o", "remount,ro,bind", fault["disk"]]
        return subprocess.run(words, capture_output=True).returncode == 0
    elif kind == "sabotage":
        sabotage.begin(fault["what"])
    else:
        raise ValueError(kind)
    return True


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)


class _Clock:
    """time.time() with jumps; what has its own clock, Delta's Rust, keeps it."""

    def __init__(self) -> None:
        self._rng: random.Random | None = None
        self._offset = 0.0
        self._real = time.time

    def begin(self, seed: int) -> None:
        self._rng = random.Random(seed)
        time.time = lambda: self._real() + self._offset
        self._offset = self._rng.choice((-1, 1)) * 86400.0

    def jump(self, now: int) -> None:
        if self._rng is not None and now % 7 == 0:
            self._offset = self._rng.uniform(-86400, 86400)
