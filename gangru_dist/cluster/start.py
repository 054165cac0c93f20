"""Start Ray on this machine, or join a running cluster; one message if that fails [Ray].

| failure | what happens |
|---|---|
| a time-out on a busy machine, a helper process that died | cleaned up, tried once more |
| no room for Ray's files, a port taken, a path too long | one message, at once |
| /dev/shm full | nothing fails: Ray keeps its objects on disk, and a warning says so |
| `RAY_ADDRESS` is misspelt, does not answer, or is not Ray | one message, within 20 s |

Ray itself waits two minutes for a dead address and then ends the process, and when it fails to
start, it leaves running what it had started before. To ask an address first, to name Ray's folder
and to keep Ray on the loopback interface, this file uses four parts that are private to Ray. It is
the only file that does, and pyproject.toml pins Ray to the version that was tried.

SIGTERM ends a job as Ctrl-C does. Ray's C++ library installs a handler of its own, which aborts the
process without a clean-up (status 134), so the earlier handler is restored after Ray's start.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import socket
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import ray
from ray._common.utils import get_default_system_temp_dir
from ray._private import ray_constants
from ray._private.services import canonicalize_bootstrap_address

from gangru_dist.base import log
from gangru_dist.base.errors import ResourceError

_logger = logging.getLogger(__name__)

ROOM_BYTES = 100 * 2**20
"""What Ray's session, sockets and logs need on disk; a demo leaves 3 MB."""
SHARED_BYTES = 2**30
"""Warn that Ray will be slow below this; Docker's default is 64 MB."""
ANSWER_SECONDS = 20.0
"""Time limit for the answer of a cluster that is to be joined."""
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
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
def catch_signals() -> Iterator[Interruption]:
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
def restore_sigterm_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM at the block's end; any thread may use it."""
    handler = signal.getsignal(signal.SIGTERM)
    library, action = ctypes.CDLL(None), ctypes.create_string_buffer(_ROOM)
    library.sigaction(int(signal.SIGTERM), None, action)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Python's own record too
        library.sigaction(int(signal.SIGTERM), action, None)


def start_ray(*, cpus: int | None, gpus: int | None, dashboard: bool) -> None:
    """Start Ray here; once more if it fails in a way that may pass.

    Args:
        cpus: CPUs to offer; None = as many as the machine has.
        gpus: GPUs to offer; None = all.
        dashboard: Start Ray's dashboard; three seconds of a core.

    Raises:
        ResourceError: It did not start; nothing of it is left running.
    """
    _check_shared_memory()
    for is_last in (False, True):
        _check_room()
        _check_port()
        before = psutil.Process().children()
        try:
            with (
                log.reserve_stderr(),
                log.log_waiting("ray"),
                restore_sigterm_handler(),
                _batch_scheduling(),
                _on_loopback(),
            ):
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=gpus,
                    include_dashboard=dashboard,
                    **_QUIET,
                )
            return
        except Exception as error:  # Ray raises bare Exceptions here
            _clean_up(before)
            if is_last or isinstance(error, OSError | ValueError):
                raise ResourceError(
                    f"Ray did not start on this machine: {_in_one_line(error)} Its logs: "
                    f"{_temp()}/ray/session_latest/logs. Run the same command again when the "
                    "machine is less busy; RAY_TMPDIR gives Ray another folder."
                ) from error
            _logger.warning("ray_start_again reason=%r", _in_one_line(error))


def join_ray(address: str, environment: dict[str, Any]) -> None:
    """Join the cluster at `address`.

    Args:
        address: Of the cluster's GCS, `host:port`; `auto`: the one of this machine.
        environment: Ray's `runtime_env` of this job.

    Raises:
        ResourceError: Nothing answers there, or it is not Ray, or it refuses us.
    """
    try:
        with log.reserve_stderr(), log.log_waiting(f"ray_at_{address}"), restore_sigterm_handler():
            _check_answer(address)
            ray.init(address=address, runtime_env=environment, **_QUIET)
    except Exception as error:  # as above
        raise ResourceError(
            f"no Ray cluster can be joined at RAY_ADDRESS={address}: {_in_one_line(error)} Start "
            "one, correct the address, or unset RAY_ADDRESS to use this machine alone."
        ) from error


def _check_answer(address: str) -> None:
    """Wait until something speaks gRPC at the address; a URL is left to Ray's own checks."""
    if "://" in address:
        return
    import grpc  # half a second, for joined clusters alone
    from ray._private.grpc_utils import init_grpc_channel

    channel = init_grpc_channel(canonicalize_bootstrap_address(address))
    try:
        grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
    except grpc.FutureTimeoutError as error:
        raise ConnectionError(f"no answer for {ANSWER_SECONDS:.0f} s.") from error
    finally:
        channel.close()


def _temp() -> Path:
    return Path(get_default_system_temp_dir())


def _check_room() -> None:
    """Refuse a temporary folder that Ray cannot use; it would fail after minutes, or half start."""
    folder = _temp()
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise ResourceError(
            f"Ray cannot keep its files in {folder}: {error.strerror}. Make that folder, or set "
            "RAY_TMPDIR to another."
        ) from error
    if free < ROOM_BYTES:
        raise ResourceError(
            f"Ray keeps its sockets and logs in {folder}, which has {free / 2**20:.0f} MB free and "
            f"must have {ROOM_BYTES / 2**20:.0f}. Make room, or set RAY_TMPDIR to another folder."
        )


def _check_shared_memory() -> None:
    """Warn if Ray will keep its objects on disk."""
    place = Path("/dev/shm")
    if place.is_dir() and (free := shutil.disk_usage(place).free) < SHARED_BYTES:
        _logger.warning(
            "shared_memory_small free_mb=%.0f: Ray keeps its objects in %s, which is slower; free "
            "/dev/shm, in Docker enlarge it by --shm-size=2g",
            free / 2**20,
            _temp(),
        )


def _check_port() -> None:
    """Refuse a taken `RAY_GCS_SERVER_PORT`; without it, Ray finds free ports by itself."""
    port = os.environ.get("RAY_GCS_SERVER_PORT", "")
    if not port.isdigit():
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except (OSError, OverflowError) as error:
            raise ResourceError(
                f"Ray cannot listen on RAY_GCS_SERVER_PORT={port}: {error}. Give another port, or "
                "unset it and Ray finds one."
            ) from error


def _clean_up(before: list[psutil.Process]) -> None:
    """End what a failed start has left: Ray forgets its processes if it fails among them."""
    ray.shutdown()
    home = str(Path(ray.__file__).parent)
    left: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child not in before and any(home in word for word in child.cmdline()):
                left += [child, *child.children(recursive=True)]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _in_one_line(error: Exception) -> str:
    text = textwrap.shorten(str(error) or type(error).__name__, 400, placeholder=" …")
    return text if text.endswith((".", "…")) else f"{text}."


@contextmanager
def _batch_scheduling() -> Iterator[None]:
    """Start processes in the block under Linux's SCHED_BATCH, so that they preempt nobody.

    Each of Ray's helper processes wakes some 150 times a second, and each time a training thread
    would lose its core and its cache. Elsewhere, and under another policy already, nothing changes.
    """
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    with suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray listen on 127.0.0.1 alone in the block: no other machine may join.

    Ray does so by itself on macOS and Windows; on Linux its GCS, raylet and agents would listen on
    every interface, a token before them. If Ray's variable for that is set, it is left alone.
    """
    name, is_cluster = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    if name in os.environ:
        yield
        return
    os.environ[name] = "0"  # for Ray's processes; this one has read it already
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = is_cluster
        del os.environ[name]
