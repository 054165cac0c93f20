"""A cluster that starts at zero workers: a job makes it grow, and afterwards it is empty again."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from cluster.nodes import PROJECT, growing_nodes
from tiny import FLAGS

from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig
from gangru_dist.runs.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.trials, pytest.mark.timeout(1800)]
RESOURCES = ("workers=2", "scoring_actors=2", "wait_for_nodes_minutes=5")


def test_from_zero_nodes_and_back(tmp_path: Path) -> None:
    """A window of two workers, then two scoring actors, each on a node of one CPU."""
    command = [sys.executable, "jobs/pipeline.py", "--preset", "demo", "--bars", "synthetic"]
    command += ["--run", "grown", "--storage", str(tmp_path / "s"), *FLAGS]
    command += [word for setting in RESOURCES for word in ("--set", f"resources.{setting}")]
    with (
        tempfile.TemporaryDirectory(prefix="g", ignore_cleanup_errors=True) as folder,
        growing_nodes(Path(folder), most=3) as cluster,
    ):
        assert cluster.count_nodes() == 1
        environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=900
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said[-3000:]
        deadline = time.monotonic() + 180
        while cluster.count_nodes() > 1 and time.monotonic() < deadline:
            time.sleep(1)
        assert cluster.count_nodes() == 1, "workers stay, though nobody works"
    assert "wait_for_nodes for=one window workers=2" in said or "for=one worker" in said
    assert "actors_start actors=2" in said
    (model,) = Run(Storage(str(tmp_path / "s")), "grown", RunConfig()).read_models().values()
    assert model.workers == 2
