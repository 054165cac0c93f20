"""A short slice of the soak: the same seeds every time; `make soak HOURS=…` goes on from there."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.sabotage import JOBS, VERDICTS
from tests.soak.site import Site, opened
from tests.soak.trial import Plan, Trial, make_plan

PROJECT = Path(__file__).parents[2]
SEEDS = ["3,0", pytest.param("199,230,354,1,25,46", marks=pytest.mark.trials)]
_IN_EVERY_RUN = ("factor",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the soak is; what undisturbed jobs lead to is made once for all tests."""
    return tmp_path_factory.mktemp("soak")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seeds", SEEDS)
def test_a_slice(folder: Path, seeds: str) -> None:
    words = ["--folder", str(folder), "--seeds", seeds]
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *words], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert f"{len(seeds.split(','))} trials, 0 failed" in done.stdout


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    with opened(folder, s3=False) as site:
        yield site


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "what",
    [
        what if what in _IN_EVERY_RUN else pytest.param(what, marks=pytest.mark.trials)
        for what in VERDICTS
    ],
)
def test_a_defect_is_seen(site: Site, what: str) -> None:
    """Each in a job that nothing else disturbs, so only the defect can be to blame."""
    fault = {"kind": "sabotage", "what": what, "moment": 3}
    trial = Trial(site, Plan(10**9, (JOBS.get(what, "score"),), "folder", [fault]))
    trial.limit = 5.0 if what == "sleep" else 250.0
    found = trial.run()
    assert found.verdict == VERDICTS[what], found


def test_a_seed_is_a_plan() -> None:
    """And a hundred of them have every job and every fault."""
    places = ("folder", "disk", "s3")
    plans = [make_plan(seed, places=places, moments=lambda _: 50) for seed in range(100)]
    assert plans == [make_plan(seed, places=places, moments=lambda _: 50) for seed in range(100)]
    names = {name for plan in plans for name in plan.jobs}
    assert names == {
        "panel", "append", "train", "tune", "score", "report", "pipeline", "monthly",
    }  # fmt: skip
    kinds = {fault["kind"] for plan in plans for fault in plan.faults}
    assert kinds == {"kill", "term", "int", "stop", "clock", "full", "readonly", "s3"}
