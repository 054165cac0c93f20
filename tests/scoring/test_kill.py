"""Scoring jobs that are killed, and jobs that run at the same time, leave the right table.

A helper process imports everything once and forks a job per request, so a trial costs a second.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from gangru_dist.base.storage import Storage
from gangru_dist.cluster.session import open_session
from gangru_dist.config.identity import to_dict
from gangru_dist.config.settings import RunConfig
from gangru_dist.scoring.reader import read_factor
from gangru_dist.scoring.score import score_days
from gangru_dist.scoring.table import FactorTable
from tests.scoring.market import CFG, RUN, make_world, run_of, score_here

_HELPER = """
import datetime as dt, json, os, signal, sys
from deltalake import DeltaTable
from gangru_dist.config.identity import from_dict
from gangru_dist.cluster.map import map_here, map_on_ray
from gangru_dist.runs.run import Run
from gangru_dist.scoring.score import score_days
from gangru_dist.base.storage import Storage

def die_at(moment):
    # SIGKILL at the n-th moment: before or after a file, the table's creation, the commit.
    passed = [0]
    def tick():
        if passed[0] == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        passed[0] += 1
    def watched(real):
        def call(*args, **kwargs):
            tick()
            result = real(*args, **kwargs)
            tick()
            return result
        return call
    Storage.write_bytes = watched(Storage.write_bytes)
    DeltaTable.create_write_transaction = watched(DeltaTable.create_write_transaction)
    DeltaTable.create = watched(DeltaTable.create)
    return passed

def job(uri, start, end, moment):
    days = [None if day == "-" else dt.date.fromisoformat(day) for day in (start, end)]
    passed = die_at(int(moment))
    score_days(Run(Storage(uri), "r", cfg), start=days[0], end=days[1], runner=runner)
    return passed[0]

cfg = from_dict(json.loads(sys.argv[1]))
runner = map_on_ray
if len(sys.argv) > 2:  # one job on the cluster; a fork would not survive gRPC's threads
    job(*sys.argv[2:])
    sys.exit(0)
runner = map_here
print("ready", flush=True)
for line in sys.stdin:
    command, *rest = line.split()
    if command == "wait":
        status = os.waitstatus_to_exitcode(os.waitpid(int(rest[0]), 0)[1])
        print(status, flush=True)
        continue
    pid = os.fork()
    if not pid:
        try:
            code = job(*rest)
        except BaseException as error:
            sys.stderr.write(repr(error))
            code = 255
        os._exit(code)
    print(pid, flush=True)
"""


class Helper:
    """Starts, kills and awaits jobs."""

    def __init__(self, cfg: RunConfig) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _HELPER, json.dumps(to_dict(cfg))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _ask(self, *words: object) -> int:
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)
        return int(self._answer())

    def start(self, root: Storage, start: str = "-", end: str = "-", moment: int = -1) -> int:
        """Start a job, to die at a moment of its own (-1 = never); its process id."""
        return self._ask("job", root.uri, start, end, moment)

    def wait(self, pid: int) -> int:
        """Moments that a job passed; minus the signal that ended it."""
        return self._ask("wait", pid)

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait()


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    helper = Helper(CFG)
    yield helper
    helper.close()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """Panel and models, nothing scored."""
    return make_world(str(tmp_path_factory.mktemp("built")))


def copy(built: Storage, folder: Path) -> Storage:
    shutil.copytree(built.path, folder)
    return Storage(str(folder))


@pytest.fixture(scope="module")
def undisturbed(built: Storage, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    root = copy(built, tmp_path_factory.mktemp("undisturbed") / "root")
    score_here(run_of(root))
    return root


def check_same(root: Storage, undisturbed: Storage) -> None:
    """Rows and coverage."""
    pd.testing.assert_frame_equal(read_factor(root.uri, RUN), read_factor(undisturbed.uri, RUN))
    assert (
        FactorTable(run_of(root).factor).read_coverage()
        == FactorTable(run_of(undisturbed).factor).read_coverage()
    )


def check_whole_or_nothing(root: Storage, undisturbed: Storage) -> bool:
    """After a kill the table is as it was, absent or empty, or complete; whether complete."""
    if not FactorTable(run_of(root).factor).read_coverage():
        return False
    check_same(root, undisturbed)
    return True


@pytest.mark.slow
class TestKilled:
    @pytest.mark.trials
    def test_at_random_moments_and_run_again(
        self, helper: Helper, built: Storage, undisturbed: Storage, tmp_path: Path
    ) -> None:
        """Twenty seeded trials: ten by the clock, ten at a random write or commit."""
        first = copy(built, tmp_path / "timed")
        began = time.monotonic()
        moments = helper.wait(helper.start(first))
        seconds = time.monotonic() - began
        check_same(first, undisturbed)
        assert moments > 10
        killed, complete = 0, 0
        for trial in range(20):
            rng = random.Random(trial)
            root = copy(built, tmp_path / str(trial))
            by_clock = trial % 2 == 0
            pid = helper.start(root, moment=-1 if by_clock else rng.randrange(moments))
            if by_clock:
                time.sleep(rng.uniform(0, seconds))
                os.kill(pid, signal.SIGKILL)  # a zombie at worst: nobody has waited for it yet
            killed += helper.wait(pid) == -signal.SIGKILL
            complete += check_whole_or_nothing(root, undisturbed)
            score_here(run_of(root))
            check_same(root, undisturbed)
        assert killed >= 10
        assert complete < 20

    def test_at_every_moment_around_the_commit(
        self, helper: Helper, built: Storage, undisturbed: Storage, tmp_path: Path
    ) -> None:
        moments = helper.wait(helper.start(copy(built, tmp_path / "count")))
        found = []
        for moment in range(moments - 6, moments):
            root = copy(built, tmp_path / str(moment))
            assert helper.wait(helper.start(root, moment=moment)) == -signal.SIGKILL
            found.append(check_whole_or_nothing(root, undisturbed))
            score_here(run_of(root))
            check_same(root, undisturbed)
        assert found == sorted(found)  # nothing, nothing, ... then everything: one commit
        assert {*found} == {False, True}

    @pytest.mark.ray
    @pytest.mark.trials
    def test_the_driver_of_a_cluster(
        self,
        built: Storage,
        undisturbed: Storage,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The driver dies before the table is made, around its commit, and while actors start."""
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        try:
            monkeypatch.setenv("RAY_ADDRESS", cluster.address)
            with open_session(RunConfig()):
                self._kill_drivers(cluster.address, built, undisturbed, tmp_path)
        finally:
            cluster.shutdown()

    def _kill_drivers(
        self, address: str, built: Storage, undisturbed: Storage, tmp_path: Path
    ) -> None:
        for trial, moment in enumerate((2, 4, 5)):  # around the claim, the table and its commit
            root = copy(built, tmp_path / str(trial))
            assert start_driver(root, address, moment).wait(180) == -signal.SIGKILL
            check_whole_or_nothing(root, undisturbed)
            score_days(run_of(root))
            check_same(root, undisturbed)
        root = copy(built, tmp_path / "early")
        driver = start_driver(root, address, -1)
        time.sleep(random.Random(0).uniform(8, 14))
        driver.kill()
        driver.wait()
        score_days(run_of(root))
        check_same(root, undisturbed)


def start_driver(root: Storage, address: str, moment: int) -> subprocess.Popen[bytes]:
    """A scoring job of its own process on a running cluster, to die at a moment (-1 = never)."""
    words = [root.uri, "-", "-", str(moment)]
    return subprocess.Popen(
        [sys.executable, "-c", _HELPER, json.dumps(to_dict(CFG)), *words],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "RAY_ADDRESS": address},
    )


@pytest.mark.slow
class TestAtOnce:
    @pytest.mark.parametrize("trial", range(3))
    def test_overlapping_days(
        self, helper: Helper, built: Storage, undisturbed: Storage, tmp_path: Path, trial: int
    ) -> None:
        rng = random.Random(trial)
        root = copy(built, tmp_path / "root")
        low, high = sorted(rng.sample(range(25, 85), 2))
        days = [dt.date(2019, 2, 1) + dt.timedelta(days=n) for n in (low, high)]
        jobs = [
            helper.start(root, end=str(days[1])),
            helper.start(root, start=str(days[0])),
            helper.start(root),
        ]
        assert all(helper.wait(pid) >= 0 for pid in jobs)
        check_same(root, undisturbed)

    def test_one_is_killed_beside_another(
        self, helper: Helper, built: Storage, undisturbed: Storage, tmp_path: Path
    ) -> None:
        root = copy(built, tmp_path / "root")
        doomed = helper.start(root, moment=4)
        other = helper.start(root)
        assert helper.wait(other) >= 0
        assert helper.wait(doomed) == -signal.SIGKILL
        check_same(root, undisturbed)
