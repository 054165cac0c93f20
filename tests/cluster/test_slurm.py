"""slurm.sh on a real Slurm of two nodes, both on this machine; Debian: slurmd, slurmctld, munge."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from s3.server import free_ports, stop_group
from tiny import FLAGS

from cluster.kuberay import PROJECT
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig
from gangru_dist.runs.run import Run

PROGRAMS = ("slurmd", "slurmctld", "munged", "sbatch")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.trials,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, PROGRAMS)), reason="no Slurm, or not root"
    ),
]
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/control
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n/pid
SlurmctldPidFile={folder}/control/pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]},{ports[2]}] CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@contextmanager
def running(*command: object) -> Iterator[None]:
    process = subprocess.Popen(list(map(str, command)), start_new_session=True)
    try:
        yield
    finally:
        stop_group(process)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a user of it."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("munge", "control", "n1", "n2"):
        (folder / name).mkdir(mode=0o700)
    config = CONFIG.format(folder=folder, host=socket.gethostname(), ports=free_ports(3))
    (folder / "slurm.conf").write_text(config)
    (folder / "munge/key").write_bytes(os.urandom(64))
    (folder / "munge/key").chmod(0o600)
    munge = [f"--{name}={folder}/munge/{name}" for name in ("socket", "pid-file", "log-file")]
    munge += [f"--key-file={folder}/munge/key", f"--seed-file={folder}/munge/seed"]
    mine = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    mine |= {"SLURM_CONF": f"{folder}/slurm.conf", "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300"}
    with (
        running("munged", "--foreground", "--force", *munge),
        running("slurmctld", "-D", "-f", folder / "slurm.conf"),
        running("slurmd", "-D", "-N", "n1", "-f", folder / "slurm.conf"),
        running("slurmd", "-D", "-N", "n2", "-f", folder / "slurm.conf"),
    ):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            done = subprocess.run(["sinfo", "-h", "-o%T"], env=mine, capture_output=True, text=True)
            if done.stdout.split() == ["idle"]:
                break
            time.sleep(1)
        yield mine


def submit(slurm: dict[str, str], home: Path, *command: str) -> tuple[int, str]:
    """Exit status of a job of two nodes with `home/.venv`, and its log."""
    log = home / "log"
    words = ["sbatch", "--wait", "--nodes=2", "--cpus-per-task=1", "--mem=0", f"--output={log}"]
    done = subprocess.run([*words, PROJECT / "cluster/slurm.sh", *command], env=slurm, cwd=home)
    said = log.read_text()
    assert not list(home.glob(".ray-token-*"))
    assert not list(Path("/tmp").glob("ray-[0-9]*")), "files of Ray's stay"
    return done.returncode, said


def test_both_nodes_train(slurm: dict[str, str], tmp_path: Path) -> None:
    """Nobody starts before both are there: two models at once."""
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    command = ["python", str(PROJECT / "jobs/pipeline.py"), "--preset", "demo", "--run", "slurm"]
    command += ["--bars", "synthetic", "--storage", str(tmp_path / "s"), *FLAGS]
    status, said = submit(slurm, tmp_path, *command, "--set", "training.seeds=[0, 1]")
    assert status == 0, said[-3000:]
    assert "train_start models=2 units=2 at_once=2" in said
    assert len(Run(Storage(str(tmp_path / "s")), "slurm", RunConfig()).read_models()) == 2


def test_a_node_that_fails_ends_the_job(slurm: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("python", "ray"):
        tool = tmp_path / ".venv/bin" / name
        real = Path(sys.prefix, "bin", name)
        tool.write_text(
            f'#!/bin/sh\n[ "$SLURMD_NODENAME/$1" = n2/start ] && exit 7\nexec {real} "$@"\n'
        )
        tool.chmod(0o755)
    status, said = submit(slurm, tmp_path, "echo", "the job runs")
    assert status == 1
    assert "error: Ray is not alive on 2 node(s) of n[1-2]: see above" in said
    assert "n2: task 0: Exited with exit code 7" in said
    assert "the job runs" not in said
