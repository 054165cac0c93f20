"""Trials through Ray Tune: concurrency, pruning, divergence, a dead process, resuming."""

import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from gangru_dist.base.errors import ResourceError
from gangru_dist.base.storage import Storage
from gangru_dist.report.progress import ProgressPage
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import find_best_trial, read_trials
from tests.tuning import store

pytestmark = [pytest.mark.ray, pytest.mark.trials]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    storage = Storage(str(tmp_path_factory.mktemp("tune")))
    store.write_panel(storage, store.market())
    return storage


@pytest.mark.usefixtures("ray_cluster")
class TestProperties:
    def test_a_search_ends_and_a_longer_one_continues_it(self, root: Storage) -> None:
        """Learning rates up to 1e30 diverge: marked, and the search goes on."""
        from gangru_dist.tuning.search import search

        rates = {"low": 1e-3, "high": 1e30, "log": True}
        space = {**store.SPACE, "training.learning_rate": rates}
        tune: dict[str, Any] = {"space": space, "trials": 5}
        run = Run(root, "a", store.config(tune=tune))
        with ProgressPage(run).show():
            done = search(run)
        said = run.folder.read_bytes("progress.html").decode()
        assert "5 of 5 trials have ended." in said
        assert "<b>Done</b>" in said
        status = [record.status for record in done.trials]
        assert status[0] == "complete"  # the configuration itself is never stopped
        assert "diverged" in status
        assert "running" not in status
        best = find_best_trial(done.trials)
        assert best is not None
        assert best.objective == max(r.objective or -1 for r in done.trials)
        more = search(Run(root, "a", store.config(tune={**tune, "trials": 6})))
        assert len(more.trials) == 6
        assert more.trials[:5] == done.trials

    def test_a_request_that_can_never_be_met_is_told(self, root: Storage) -> None:
        from gangru_dist.tuning.search import search

        with pytest.raises(ResourceError, match="one trial asks for 1 worker"):
            search(Run(root, "b", store.config(resources={"cpus_per_worker": 99})))


@pytest.mark.trials
@pytest.mark.usefixtures("ray_cluster")
def test_a_search_finds_what_matters_within_20_trials(tmp_path: Path) -> None:
    """Rates from 1e-6 to 1, of which few are any good; a lookback of 5 cannot see the signal.

    With horizon 4 and lag 8, the label follows features 5 to 8 days old.
    """
    from gangru_dist.tuning.search import search

    root = Storage(str(tmp_path))
    store.write_panel(root, store.market(assets=60, lag=8))
    space = {
        "training.learning_rate": {"low": 1e-6, "high": 1.0, "log": True},
        "samples.lookback": {"choices": [5, 8]},
    }
    sections = {"training": {"epochs": 12, "patience": 12, "learning_rate": 1e-6}}
    found = {}
    for sampler, prune in (("tpe", True), ("random", False)):
        tune = {"space": space, "trials": 20, "sampler": sampler, "prune": prune}
        found[sampler] = search(Run(root, sampler, store.config(**sections, tune=tune)))
    best = find_best_trial(found["tpe"].trials)
    assert best is not None
    assert best.objective is not None
    assert best.settings["samples.lookback"] == 8
    assert 1e-3 <= best.settings["training.learning_rate"] <= 0.3
    chance = [r.objective for r in found["random"].trials if r.objective is not None]
    assert best.objective > statistics.median(chance) + 0.05
    epochs = {name: sum(r.epochs for r in one.trials) for name, one in found.items()}
    assert epochs["tpe"] < 0.6 * epochs["random"]


_JOB = """
    from gangru_dist.base import log
    from gangru_dist.runs.run import Run
    from gangru_dist.base.storage import Storage
    from gangru_dist.tuning.search import search
    from tests.tuning import store
    log.setup()
    cfg = store.config(tune={"trials": 8}, training={"epochs": 30, "patience": 30},
                       resources={"max_concurrent": 1})
    search(Run(Storage({root!r}), "killed", cfg))
"""


@pytest.mark.trials
def test_killed_in_the_middle_nothing_is_lost_and_nothing_runs_twice(root: Storage) -> None:
    code = textwrap.dedent(_JOB).replace("{root!r}", repr(root.uri))
    command = [sys.executable, "-c", code]
    folder = root.child("runs", "killed", "tune")
    trials = Path(folder.path) / "trials"
    first = subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True)
    deadline = time.monotonic() + 500
    while time.monotonic() < deadline and first.poll() is None:
        if sum(record.is_over for record in read_trials(folder)) >= 3:
            break
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    over = {record.number for record in read_trials(folder) if record.is_over}
    assert 3 <= len(over) < 8
    kept = {number: (trials / f"{number:04d}.json").read_bytes() for number in over}
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=500)
    records = read_trials(folder)
    assert len(records) == 8
    assert all(record.is_over for record in records)
    assert {n: (trials / f"{n:04d}.json").read_bytes() for n in over} == kept
    assert {record.starts for record in records if record.number in over} == {1}
    assert len({repr(record.settings) for record in records}) == 8
