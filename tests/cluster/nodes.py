"""Ray clusters on this machine, as an operator starts them, with token authentication.

`two_nodes` stand; `growing_nodes` come and go as Ray's own autoscaler has them.

Own ports, own folder, own process groups: other clusters on the machine are not touched, and
`ray stop`, which would end them, is never called.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from s3.server import free_ports, stop_group

PROJECT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_START_SECONDS = 90  # 10 on a quiet machine
_ATTEMPTS = 4
_MARK = "GANGRU_TEST_CLUSTER"


@dataclass(frozen=True)
class Cluster:
    """Its nodes, and what a client of theirs needs."""

    folder: Path
    address: str
    """Of the GCS, for `RAY_ADDRESS`."""
    dashboard: str
    metrics: str
    token: str
    environment: dict[str, str]
    """Of a client with the token."""

    def ray(self, *words: str, token: bool = True) -> subprocess.CompletedProcess[str]:
        """Ray's command line, as a user with or without the token has it."""
        environment = self.environment if token else without_token(self.folder)
        return subprocess.run(
            [str(_BIN / "ray"), *words],
            env=environment | {"RAY_ADDRESS": self.dashboard},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=900,
        )

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`ray job submit --working-dir .`; words before `--` are its own flags."""
        return self.ray("job", "submit", "--working-dir", ".", *words)

    def api(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """Status and answer of the dashboard's API."""
        request = urllib.request.Request(f"{self.dashboard}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, None

    def count_nodes(self) -> int:
        """Nodes that are alive, the head among them."""
        status, answer = self.api("/nodes?view=summary", self.token)
        nodes = answer["data"]["summary"] if status == 200 else []
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    def job(self, submission: str) -> dict[str, Any]:
        """What the API tells of a job."""
        found: dict[str, Any] = self.api(f"/api/jobs/{submission}", self.token)[1]
        return found


def without_token(folder: Path) -> dict[str, str]:
    """The environment of a user who has none; their home is empty."""
    home = folder / "stranger"
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"HOME": str(home), "RAY_AUTH_MODE": "token"}


@contextmanager
def two_nodes(folder: Path, environment: dict[str, str]) -> Iterator[Cluster]:
    """Head and worker of one CPU each, in `folder` (a short path), until the block ends.

    Args:
        folder: For Ray's session, the token and logs.
        environment: Of both nodes on top of ours, say the storage's credentials.
    """
    (folder / "w").mkdir()  # nodes that share a folder unpack the working dir over each other
    with _head(folder, environment, "--num-cpus=1", "--node-ip-address=127.0.0.1") as (cluster, up):
        words = [f"--address={cluster.address}", f"--temp-dir={folder}/w", "--num-cpus=1"]
        up("worker", [*words, "--node-ip-address=127.0.0.1"])
        yield cluster


_LISTS = [
    *("setup_commands", "head_setup_commands", "worker_setup_commands"),
    "cluster_synced_files",
]
"""What the autoscaler asks of any configuration."""


@contextmanager
def growing_nodes(folder: Path, most: int) -> Iterator[Cluster]:
    """A head without CPUs, and up to `most` nodes of one CPU that Ray's autoscaler adds and ends.

    Its v2, as in our manifests, with Ray's provider of nodes that are processes of this machine.
    """
    head = "f" * 51 + "00000"  # the name that the provider gives it
    config = {
        "cluster_name": "fake",
        "max_workers": most,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external",  # fake_multinode reads a file that the wheel does not have
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": "127.0.0.1:PORT",
            "head_node_id": head,
            "launch_multiple": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "cpu": {
                "resources": {"CPU": 1, "object_store_memory": 200_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            },
        },
        "head_node_type": "ray.head.default",
        **{name: [] for name in _LISTS},
    }
    environment = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    environment |= {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": head}
    environment |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": head}
    words = ["--num-cpus=0", "--node-ip-address=127.0.0.1"]
    words += [f"--autoscaling-config={folder}/config.json"]
    with _head(folder, environment, *words, config=json.dumps(config)) as (cluster, _):
        yield cluster


@contextmanager
def _head(
    folder: Path, environment: dict[str, str], *more: str, config: str = ""
) -> Iterator[tuple[Cluster, Callable[[str, list[str]], None]]]:
    """The cluster of a head, and what starts another of its nodes: by name, with these flags."""
    token = secrets.token_hex(32)
    (folder / "token").write_text(token)
    (folder / "token").chmod(0o600)
    mark = secrets.token_hex(8)
    ports = free_ports(10)
    client = without_token(folder) | {"RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    client |= {"PATH": f"{_BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    node = client | environment | {"RAY_raylet_start_wait_time_s": "300", _MARK: mark}
    node |= {"RAY_metrics_report_interval_ms": "1000", "OMP_NUM_THREADS": "1"}
    address, *urls = (f"127.0.0.1:{port}" for port in (ports[0], ports[1], ports[5]))
    cluster = Cluster(folder, address, *(f"http://{url}" for url in urls), token, client)
    flags = ["--head", f"--port={ports[0]}", f"--dashboard-port={ports[1]}"]
    flags += [f"--ray-client-server-port={ports[2]}", f"--temp-dir={folder}"]
    flags += ["--include-dashboard=true", *more]
    (folder / "config.json").write_text(config.replace("PORT", str(ports[0])))
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, words: list[str]) -> None:
        count = len(processes)
        own = ports[3 + 3 * count : 6 + 3 * count]
        processes.append(_up(folder / f"{name}.log", node, own, words, cluster, count + 1))

    try:
        start("head", flags)
        yield cluster, start
    finally:
        for process in reversed(processes):
            stop_group(process)
        _end_leftovers(mark)


def _start(
    log: Path, environment: dict[str, str], ports: list[int], flags: list[str]
) -> subprocess.Popen[bytes]:
    agent, grpc, metrics = ports
    command = [str(_BIN / "ray"), "start", "--block", *flags]
    command += [f"--dashboard-agent-listen-port={agent}"]
    command += [f"--dashboard-agent-grpc-port={grpc}", f"--metrics-export-port={metrics}"]
    command += ["--object-store-memory=200000000", "--disable-usage-stats"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]  # any, not 10002 to 19999
    with log.open("wb") as out:
        return subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, start_new_session=True
        )


def _up(
    log: Path,
    environment: dict[str, str],
    ports: list[int],
    flags: list[str],
    cluster: Cluster,
    count: int,
) -> subprocess.Popen[bytes]:
    """A node, once `count` are alive; tried again, for a raylet gives up after 15 busy seconds."""
    for _ in range(_ATTEMPTS):
        process = _start(log, environment, ports, flags)
        if _wait(lambda: cluster.count_nodes() >= count, process):
            return process
        stop_group(process)
        _end_leftovers(environment[_MARK], only=process.pid)
    raise RuntimeError(f"the node did not come up:\n{log.read_text()[-3000:]}")


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):  # nobody listens yet
            if ready():
                return True
        time.sleep(0.5)
    return False


def _end_leftovers(mark: str, only: int | None = None) -> None:
    """Ray's daemons have groups of their own; ours are known by the mark in their environment.

    Args:
        mark: Of this cluster.
        only: End those alone whose parent was this process, of one node.
    """
    for process in psutil.process_iter():
        try:
            ours = process.environ().get(_MARK) == mark
            if ours and (only is None or process.ppid() in (only, 1)):
                process.kill()
        except psutil.Error:
            continue
