"""One build of a panel at a time: the second waits until the first has ended, or is dead.

Whoever builds keeps `panel/build.json`: a token of its own, where it runs, and a beat that changes
every few seconds. On the same machine a builder is dead when its process is gone; elsewhere, when
its beat has not changed for half a minute, so no two clocks are compared. A builder that was only
slow finds another's token there and stops before it changes what readers see.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from pydantic import ValidationError

from gangru_dist.base import log
from gangru_dist.base.errors import PanelError, StorageError, in_short
from gangru_dist.base.records import parse, plain
from gangru_dist.base.storage import Storage

_logger = logging.getLogger(__name__)

TURN = "build.json"
"""Its name below `<storage>/panel`."""
BEAT_SECONDS = 5.0
DEAD_SECONDS = 30.0
"""Without a beat; a store that answers late gets six chances."""
_POLL_SECONDS = 0.5
_SETTLE_SECONDS = 1.0
"""After which, on a store without exclusive creation, the last of several writers is known."""


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Content of `build.json`."""

    token: str
    machine: str
    pid: int
    began: float
    """Unix time at which the process began, by its machine's clock; tells it from a later one."""
    beat: int = 0


@dataclass(frozen=True)
class Turn:
    """The right to build; lost if another build takes this one for dead."""

    panel: Storage
    """The folder `<storage>/panel`."""
    builder: Builder
    """This process."""

    def is_held(self) -> bool:
        """Whether the panel's files are still for this build alone."""
        there = _there(self.panel)
        return there is not None and there.token == self.builder.token

    def require(self) -> None:
        """Check that before the new panel is shown.

        Raises:
            PanelError: Another build has begun.
        """
        if not self.is_held():
            raise PanelError(
                f"another build of {self.panel.uri} has begun, because this one gave no sign of "
                f"life for {DEAD_SECONDS:.0f} s. Run the same command again when it has ended."
            )


@contextmanager
def turn(panel: Storage) -> Iterator[Turn]:
    """The right to build, for as long as the block lasts; waits for whoever builds now."""
    me = _myself()
    _wait_for(panel, me)
    over = threading.Event()
    beats = threading.Thread(target=_beat, args=(panel, me, over), name="turn", daemon=True)
    beats.start()

    held = Turn(panel, me)
    try:
        yield held
    finally:
        over.set()
        beats.join()
        try:
            if held.is_held():
                panel.delete(TURN)
        except (OSError, StorageError) as error:
            _logger.warning("turn_left file=%s/%s %s", panel.uri, TURN, in_short(error))


def _wait_for(panel: Storage, me: Builder) -> None:
    """Until the turn is ours."""
    seen, since, said = _there(panel), time.monotonic(), False
    with log.waiting("another_build"):
        while not _taken(panel, me, seen):
            there = _there(panel)
            if there != seen:
                seen, since = there, time.monotonic()
            if seen is None or _is_dead(seen, me, time.monotonic() - since):
                _free(panel, seen)
                seen = None
                continue
            if not said:
                _logger.info("panel_waits builder=%s pid=%d", seen.machine, seen.pid)
                said = True
            time.sleep(_POLL_SECONDS)


def _taken(panel: Storage, me: Builder, seen: Builder | None) -> bool:
    """Whether we are the builder now; tried only where none is seen."""
    if seen is not None:
        return False
    data = json.dumps(plain(me)).encode()
    if panel.is_local:
        return _create(Path(panel.full(TURN)), data)
    panel.write_bytes(TURN, data)
    time.sleep(_SETTLE_SECONDS)
    return _there(panel) == me


def _create(file: Path, data: bytes) -> bool:
    """Create a file, unless it is there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("xb") as new:
            new.write(data)
    except FileExistsError:
        return False
    return True


def _free(panel: Storage, dead: Builder | None) -> None:
    """Forget a builder that is dead, if it is still the one there."""
    if dead is not None and _there(panel) == dead:
        _logger.warning("panel_builder_dead machine=%s pid=%d", dead.machine, dead.pid)
        panel.delete(TURN)


def _beat(panel: Storage, me: Builder, over: threading.Event) -> None:
    """Renew our sign of life until the build is over or another build has the turn."""
    beat = 0
    while not over.wait(BEAT_SECONDS):
        beat += 1
        with suppress(OSError, StorageError):  # the next one may get through
            there = _there(panel)
            if there is None or there.token != me.token:
                return
            panel.write_bytes(TURN, json.dumps(plain(replace(me, beat=beat))).encode())


def _there(panel: Storage) -> Builder | None:
    """Who builds; None if nobody does. What cannot be read was written by none of us."""
    try:
        return parse(Builder, panel.read_bytes(TURN))
    except FileNotFoundError:
        return None
    except ValidationError:
        return Builder(token="", machine="unknown", pid=0, began=0.0)


def _is_dead(builder: Builder, me: Builder, silent: float) -> bool:
    """Whether it will not come back, by all that can be seen from here."""
    if builder.machine != me.machine:
        return silent > DEAD_SECONDS
    try:
        process = psutil.Process(builder.pid)
        return bool(
            process.create_time() != builder.began or process.status() == psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return True


def _myself() -> Builder:
    process = psutil.Process()
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())  # a process number means something there
    return Builder(
        token=uuid.uuid4().hex,
        machine=f"{socket.gethostname()} {space}".strip(),
        pid=process.pid,
        began=process.create_time(),
    )
