"""Ray's failures to start, the real ones provoked: one message, status 2, nothing left running."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gangru_dist.base.errors import ResourceError
from gangru_dist.cluster import start

ROOT = Path(__file__).parents[2]
JOB = """
import sys
from gangru_dist.commands.cli import Outcome, run_job
from gangru_dist.config.settings import RunConfig
from gangru_dist.cluster import session as runtime

within = sys.argv.pop(1)

def body(job):
    with runtime.open_session(job.run.cfg, cpus=1):
        exec(within)
    return Outcome(outputs=())

status = run_job("doc", body)
import psutil
for child in psutil.Process().children(recursive=True):
    print("left over:", child.pid, child.name(), child.status())
raise SystemExit(status)
"""
"""A job that starts Ray and does nothing."""
TERMINATED = """
import os, signal, time
from contextlib import contextmanager
from gangru_dist.cluster import session as runtime

plain = runtime.open_session

@contextmanager
def session(cfg, **words):
    with START:
        import ray
        driver = os.getpid()
        ray.get(ray.remote(lambda: os.kill(driver, signal.SIGTERM)).remote())
        ray.get(ray.remote(lambda: time.sleep(60)).remote())
        yield

runtime.open_session = session
"""
"""SIGTERM while the driver waits for a task."""
LISTENERS = """
import psutil, ray
ray.get(ray.remote(lambda: None).remote())  # a worker is there too
for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
    for there in process.net_connections(kind="inet"):
        if there.status == "LISTEN":
            print("listens", there.laddr.ip, process.name(), file=sys.stderr)
"""
"""Says on which addresses Ray's processes and the job listen."""
STOP_FIRST_RAYLET = """
import os, psutil, signal, threading, time

def stop():
    while not (found := [p for p in psutil.Process().children() if p.name() == "raylet"]):
        time.sleep(0.01)
    os.kill(found[0].pid, signal.SIGSTOP)

threading.Thread(target=stop, daemon=True).start()
"""
NO_NAMESPACE = (
    subprocess.run(["unshare", "--mount", "true"], check=False).returncode
    if (shutil.which("unshare"))
    else 1
)


def run_job(
    folder: Path, *, mount: str = "", first: str = "", within: str = "", **environment: str
) -> tuple[int, str]:
    """Exit status of the job, and what it wrote to standard error, without lines of INFO.

    `mount` is a shell command in a mount namespace of the job's own; `first` is code before it,
    `within` while Ray runs.
    """
    command = [sys.executable, "-c", first + JOB, within, "--storage", str(folder / "storage")]
    if mount:
        command = ["unshare", "--mount", "sh", "-ec", f'{mount}; exec "$@"', "sh", *command]
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        command, env=surroundings | environment, capture_output=True, text=True, timeout=240
    )
    assert "left over" not in done.stdout
    lines = [line for line in done.stderr.splitlines() if "INFO" not in line[:30]]
    return done.returncode, "\n".join(lines)


@pytest.fixture
def listener() -> Iterator[int]:
    """A port where somebody listens who never says a word."""
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class TestAddress:
    @pytest.mark.parametrize(
        ("address", "says"),
        [
            ("nonsense", "Invalid address format: nonsense."),
            ("http://127.0.0.1:8265", "you set RAY_ADDRESS to an HTTP address"),
            ("127.0.0.1:{closed}", "no answer for 1 s."),
            ("no-such-host.invalid:6379", "no answer for 1 s."),
            ("127.0.0.1:{listener}", "no answer for 1 s."),
        ],
    )
    def test_nobody_who_answers(
        self, monkeypatch: pytest.MonkeyPatch, address: str, says: str, listener: int
    ) -> None:
        monkeypatch.setattr(start, "ANSWER_SECONDS", 1.0)
        address = address.format(closed=closed_port(), listener=listener)
        with pytest.raises(ResourceError) as raised:
            start.join_ray(address, {})
        said = str(raised.value)
        assert said.startswith(f"no Ray cluster can be joined at RAY_ADDRESS={address}: ")
        assert says in said
        assert "\n" not in said


class TestThisMachine:
    @pytest.mark.ray
    @pytest.mark.parametrize("thread", [pytest.param("main", marks=pytest.mark.trials), "other"])
    def test_terminated_is_interrupted(self, tmp_path: Path, thread: str) -> None:
        start = "plain(cfg, cpus=1)"
        if thread == "other":
            start = "runtime.share_session(cfg, at_once=True), plain(cfg)"
        status, said = run_job(tmp_path, first=TERMINATED.replace("START", start))
        assert status == 143
        assert said == "interrupted: run the same command again to continue."

    def test_a_port_that_is_taken(self, monkeypatch: pytest.MonkeyPatch, listener: int) -> None:
        monkeypatch.setenv("RAY_GCS_SERVER_PORT", str(listener))
        says = rf"^Ray cannot listen on RAY_GCS_SERVER_PORT={listener}: .*Address already in use"
        with pytest.raises(ResourceError, match=says):
            start.start_ray(cpus=1, gpus=0, dashboard=False)

    def test_a_temporary_folder_that_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "nowhere"))
        says = f"Ray cannot keep its files in {tmp_path}/nowhere: No such file"
        with pytest.raises(ResourceError, match=says):
            start.start_ray(cpus=1, gpus=0, dashboard=False)

    @pytest.mark.ray
    def test_a_path_too_long_for_a_socket(self, tmp_path: Path) -> None:
        folder = tmp_path / ("long" * 25)
        folder.mkdir()
        status, said = run_job(tmp_path, RAY_TMPDIR=str(folder))
        assert status == 2
        assert said.startswith("error: Ray did not start on this machine: ")
        assert "path length cannot exceed" in said
        assert said.count("\n") == 0

    @pytest.mark.skipif(NO_NAMESPACE != 0, reason="may not mount here")
    def test_a_full_temporary_folder(self, tmp_path: Path) -> None:
        full = tmp_path / "full"
        full.mkdir()
        mount = f"mount -t tmpfs -o size=8m tmpfs {full}"
        status, said = run_job(tmp_path, mount=mount, RAY_TMPDIR=str(full))
        assert status == 2
        assert said.startswith(f"error: Ray keeps its sockets and logs in {full}, which has 8 MB")
        assert said.count("\n") == 0

    @pytest.mark.ray
    @pytest.mark.skipif(NO_NAMESPACE != 0, reason="may not mount here")
    def test_a_full_shared_memory_is_no_failure_but_told(self, tmp_path: Path) -> None:
        mount = "mount -t tmpfs -o size=4m tmpfs /dev/shm; head -c 4m /dev/zero > /dev/shm/fill"
        status, said = run_job(tmp_path, mount=mount)
        assert status == 0
        assert "shared_memory_small free_mb=0: Ray keeps its objects in /tmp, which is" in said
        assert said.count("\n") == 0

    @pytest.mark.ray
    def test_a_time_out_is_tried_again_and_then_told(self, tmp_path: Path) -> None:
        """No second is given to the first helper, twice."""
        status, said = run_job(tmp_path, RAY_gcs_server_port_wait_time_s="0")
        assert status == 2
        again, message = said.split("\n")
        assert "ray_start_again reason='Timed out waiting for file" in again
        assert message.startswith("error: Ray did not start on this machine: Timed out waiting")

    @pytest.mark.ray
    @pytest.mark.trials
    def test_a_node_that_hangs_once_is_replaced(self, tmp_path: Path) -> None:
        """The first raylet is stopped as it appears; Ray waits 30 s for it."""
        status, said = run_job(tmp_path, first=STOP_FIRST_RAYLET)
        assert status == 0
        assert "ray_start_again reason='The current node timed out during startup." in said
        assert said.count("\n") == 0

    @pytest.mark.ray
    def test_nothing_listens_to_other_machines(self, tmp_path: Path) -> None:
        status, said = run_job(tmp_path, within=LISTENERS)
        assert status == 0, said
        assert said.count("listens") > 5, said
        assert re.findall(r"listens (?!127\.0\.0\.1|::ffff:127\.0\.0\.1)", said) == []

    def test_other_policies_are_back_after_a_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        policies: list[int] = []
        monkeypatch.setattr(
            start.ray, "init", lambda **_: policies.append(os.sched_getscheduler(0))
        )
        start.start_ray(cpus=1, gpus=0, dashboard=False)
        assert policies == [os.SCHED_BATCH]
        assert os.sched_getscheduler(0) == os.SCHED_OTHER

    def test_a_defect_of_ours_is_not_retried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[None] = []

        def init(**_: object) -> None:
            calls.append(None)
            raise ValueError("first\nsecond")

        monkeypatch.setattr(start.ray, "init", init)
        monkeypatch.setattr(start.ray, "shutdown", lambda: None)  # of the tests' own cluster
        with pytest.raises(ResourceError, match=r"did not start on this machine: first second\. "):
            start.start_ray(cpus=1, gpus=0, dashboard=False)
        assert len(calls) == 1
