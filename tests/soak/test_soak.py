"""A short slice of the soak: the same seeds every time; `make soak HOURS=…` goes on from there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.trial import make_plan

PROJECT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_slice(tmp_path: Path) -> None:
    words = ["--folder", str(tmp_path), "--trials", "10"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *words], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "10 trials, 0 failed" in done.stdout


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
