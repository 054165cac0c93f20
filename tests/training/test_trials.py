"""Kills at random moments, long queues, a large cluster: `make trials`, a quarter of an hour.

Each seeded trial runs `jobs/train.py` on a cluster of three raylets on this machine, kills a
worker, the driver or the raylet under the worker at a random moment of either stage, starts the
driver again where it was the victim, and asks for the weights of an undisturbed run, bit for bit,
with no more than the epoch after the last checkpoint trained twice.
"""

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.cluster.map import keep_on_ray, load_kept
from gangru_dist.config.settings import RunConfig, TrainingConfig, UniverseConfig, WindowConfig
from gangru_dist.runs.run import Run
from tests.training.store import TINY, WINDOWS, epochs_saved, stored_panel, with_resources
from tests.training.test_world_size import free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.trials, pytest.mark.timeout(1800)]

SOURCE = Path(__file__).parents[2]
GAN_EPOCHS, EPOCHS = 5, 7
SETTINGS = f"""
variant = "gan_gru"
[panel]
buckets = 4
[windows]
history_days = 120
sample_every = 1
[gan]
hidden = 32
layers = 1
channels = [2, 3]
epochs = {GAN_EPOCHS}
[gru]
hidden = 64
layers = 1
head = [4]
[training]
epochs = {EPOCHS}
patience = {EPOCHS}
learning_rate = 1e-3
seeds = [0]
"""
"""An epoch is about a third of a second: long enough to be hit."""


class Nodes:
    """A head without CPUs and two nodes with two each, as processes of this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": free_port()}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self.workers = [self.cluster.add_node(num_cpus=2) for _ in range(2)]

    @property
    def processes(self) -> list[psutil.Process]:
        """Raylets of the nodes that are alive."""
        return [psutil.Process(_raylet(node)) for node in self.workers]

    def running(self, name: str) -> list[psutil.Process]:
        """Ray's processes of that name on any node but the head."""
        found = [child for raylet in self.processes for child in raylet.children(recursive=True)]
        return [process for process in found if name in _command(process)]

    def train_workers(self) -> list[psutil.Process]:
        """Processes that train: a plain task where a window has one worker, else Ray Train's."""
        return self.running("ray::_train") + self.running("RayTrainWorker")

    def kill_under(self, process: psutil.Process) -> None:
        """Kill the node that a worker runs on, without a word, and add another."""
        parents = {parent.pid for parent in process.parents()}
        (node,) = [node for node in self.workers if _raylet(node) in parents]
        self.replace(node)

    def replace(self, node: Any) -> None:
        """Kill a node, without a word, and add another."""
        self.workers.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        self.workers.append(self.cluster.add_node(num_cpus=2))


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    made = Nodes()
    yield made
    made.cluster.shutdown()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return stored_panel(tmp_path_factory.mktemp("trials"))


@pytest.mark.parametrize("readers", ["the driver", "tasks"])
def test_kept_blocks_of_lost_nodes_are_made_again(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, readers: str
) -> None:
    """The panel in Ray's object store, whose nodes die; there are CPUs to make it again."""
    import ray

    monkeypatch.setenv("RAY_ADDRESS", nodes.cluster.address)
    with session.open_session(RunConfig()):
        kept = keep_on_ray(RunConfig(), partial(np.full, (1000, 1000)), range(4))
        for node in list(nodes.workers):
            nodes.replace(node)
        if readers == "the driver":
            blocks = [load_kept(reference) for reference in kept]
        else:
            read = ray.remote(num_cpus=0)(lambda held: load_kept(held[0]))
            blocks = ray.get([read.remote([reference]) for reference in kept])
        assert [np.unique(block).tolist() for block in blocks] == [[0], [1], [2], [3]]


class Driver:
    """`jobs/train.py` of one window or more, as a process of its own; its log is kept."""

    def __init__(
        self, nodes: Nodes, root: Storage, run: str, workers: int, windows: int = 1
    ) -> None:
        settings = Path(root.path, "settings.toml")
        settings.write_text(SETTINGS)
        self.nodes, self.folder = nodes, root.child("runs", run)
        self.log = Path(root.path, f"{run}.log")
        job = str(SOURCE / "jobs" / "train.py")
        self.command = [sys.executable, job, "--storage", root.path, "--run", run]
        self.command += ["--config", str(settings), "--windows", ",".join(WINDOWS[:windows])]
        self.command += ["--set", f"resources.workers={workers}"]
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Run it, or run it again."""
        environment = os.environ | {
            "RAY_ADDRESS": self.nodes.cluster.address,
            "PYTHONPATH": str(SOURCE),
        }
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def end(self) -> dict[str, Any]:
        """Wait for it; the first window's model.json."""
        code = self.process.wait(timeout=900)
        assert code == 0, self.log.read_text()[-3000:]
        place = Path(self.folder.path, "windows", WINDOWS[0], "seed-0", "model.json")
        return dict(json.loads(place.read_text()))

    def epochs(self) -> Counter[str]:
        """How often each epoch of each stage was trained to its end, by the driver's log."""
        return Counter(re.findall(r"epoch_done .*?(stage=\w+ epoch=\d+)", self.log.read_text()))


@pytest.fixture(scope="module")
def undisturbed(nodes: Nodes, root: Storage) -> dict[int, str]:
    """Model by number of workers."""
    drivers = {workers: Driver(nodes, root, f"calm-{workers}", workers) for workers in (1, 2)}
    return {workers: driver.end()["sha256"] for workers, driver in drivers.items()}


def wait_until_saved(driver: Driver, epochs: int) -> None:
    """Until a checkpoint holds so many epochs; for 0, until there is a worker."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert driver.process.poll() is None, driver.log.read_text()[-3000:]
        if epochs_saved(driver.folder) >= epochs and driver.nodes.train_workers():
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of {epochs} epochs: {driver.log.read_text()[-3000:]}")


def kill(driver: Driver, victim: str) -> None:
    """SIGKILL."""
    if victim == "driver":
        os.kill(driver.process.pid, signal.SIGKILL)
        driver.process.wait()
        driver.process = driver.start()
        return
    workers = driver.nodes.train_workers()
    assert workers, "the run was over before the kill: make its epochs longer"
    if victim == "worker":
        os.kill(workers[0].pid, signal.SIGKILL)
    else:
        driver.nodes.kill_under(workers[0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("victim", ["worker", "driver", "raylet"])
def test_killed_at_a_random_moment(
    nodes: Nodes, root: Storage, undisturbed: dict[int, str], victim: str, seed: int
) -> None:
    rng = random.Random(f"{victim}-{seed}")
    workers = 1 + seed % 2
    saved = rng.randrange(GAN_EPOCHS) if seed < 2 else GAN_EPOCHS + rng.randrange(EPOCHS - 1)
    driver = Driver(nodes, root, f"{victim}-{seed}", workers)
    wait_until_saved(driver, saved)
    time.sleep(rng.random() * 0.3)
    kill(driver, victim)
    about = driver.end()
    assert about["sha256"] == undisturbed[workers]
    assert about["workers"] == workers
    assert about["resumed_epochs"] >= saved
    counts = driver.epochs()
    assert sum(counts.values()) <= GAN_EPOCHS + EPOCHS + 1, counts
    assert max(counts.values()) <= 2, counts


def test_an_interrupted_driver_ends_at_once_and_continues(
    nodes: Nodes, root: Storage, undisturbed: dict[int, str]
) -> None:
    """Ctrl-C: exit code 130, no traceback, and the same command goes on."""
    driver = Driver(nodes, root, "interrupted", 1)
    wait_until_saved(driver, 2)
    os.kill(driver.process.pid, signal.SIGINT)
    assert driver.process.wait(timeout=60) == 130
    assert "Traceback" not in driver.log.read_text()
    driver.process = driver.start()
    about = driver.end()
    assert about["sha256"] == undisturbed[1]
    assert about["resumed_epochs"] >= 2


def test_the_node_under_a_controller_is_lost(
    nodes: Nodes, root: Storage, undisturbed: dict[int, str]
) -> None:
    """With two windows at once on several nodes, runs spread; one that is lost is continued."""
    driver = Driver(nodes, root, "controller", 2, windows=2)
    wait_until_saved(driver, 2)
    controllers = nodes.running("TrainController")
    assert controllers, "both controllers are on the head"
    nodes.kill_under(controllers[0])
    assert driver.end()["sha256"] == undisturbed[2]
    assert "window_restarted" in driver.log.read_text()


class Watch:
    """The most CPUs that ever were in use at once: workers, for each asks for one."""

    def __init__(self) -> None:
        self.most, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.most = max(self.most, cpus_in_use())


def cpus_in_use() -> float:
    """CPUs that tasks, actors and placement groups hold."""
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    return total.get("CPU", 0.0) - free.get("CPU", 0.0)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("per_run", [None, 3])
def test_twelve_windows_on_a_cluster_with_room_for_two(root: Storage, per_run: int | None) -> None:
    """Six windows x two seeds; in the first, nobody is listed long enough."""
    from gangru_dist.panel.manifest import read_manifest
    from gangru_dist.training.launch import train_windows
    from gangru_dist.training.plan import choose_windows

    cfg = dataclasses.replace(
        with_resources(TINY, windows_per_run=per_run),
        windows=WindowConfig(history_days=120, sample_every=10, refit_months=tuple(range(1, 13))),
        training=TrainingConfig(epochs=1, seeds=(0, 1)),
        universe=UniverseConfig(min_listed_days=200),
    )
    windows = [window.name for window in choose_windows(read_manifest(root), cfg, None)[0]]
    chosen = [windows[0], *windows[-5:]]
    with Watch() as watch:
        summary = train_windows(Run(root, f"twelve-{per_run}", cfg), only=chosen)
    statuses = [result.status for result in summary.windows]
    assert statuses == ["failed"] * 2 + ["trained"] * 10, summary.format_lines()
    assert all("universe.min_listed_days" in r.reason for r in summary.windows[:2])
    assert watch.most == 2
    deadline = time.monotonic() + 30
    while cpus_in_use() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert cpus_in_use() == 0


def test_units_that_need_too_much_memory_together_run_one_by_one() -> None:
    """Two of them fit alone, not together; a third needs more than there is and says so."""
    code = """
import os, psutil, tempfile, time
import numpy as np
memory = psutil.virtual_memory()
step = int(0.05 * memory.total)
os.environ |= {"RAY_memory_usage_threshold": f"{memory.percent / 100 + 0.1:.3f}"}
from gangru_dist.cluster.session import open_session
from gangru_dist.config.settings import ResourcesConfig, RunConfig
from gangru_dist.maths.calendar import Window
from gangru_dist.base.storage import Storage
from gangru_dist.runs.run import Run
from gangru_dist.training.units import Task, TrainingJob, run_units

def fill_memory(job, unit, report):
    held = []
    for _ in range(10 if unit[0].seed == 2 else 1):
        held.append(np.ones(step, dtype=np.uint8))
        time.sleep(1)
    time.sleep(15)

cfg = RunConfig(resources=ResourcesConfig(max_failures=0))
days = dict(train_days=(), valid_days=(), score_first=0, score_last=0)
window = Window(name="2019-06-28", refit=0, **days)
with open_session(cfg, cpus=2), tempfile.TemporaryDirectory() as folder:
    job = TrainingJob(run=Run(Storage(folder), "r", cfg), panel=None)
    units = [(Task(window=window, seed=seed),) for seed in range(3)]
    for event in run_units(job, units, 3, train=fill_memory):
        print(type(event).__name__, event.unit[0].seed, event.reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ends = dict(re.findall(r"^UnitFinished (\d) (.*)$", done.stdout, re.MULTILINE))
    assert (ends["0"], ends["1"]) == ("None", "None"), done.stdout + done.stderr
    says = r"out of memory on node [\d.]+: [\d.]+ of [\d.]+ GB .*_train [\d.]+"
    assert re.match(says, ends["2"]), ends["2"]
    assert "max_concurrent=1" in ends["2"]


def test_many_units_cost_the_driver_no_more_than_few() -> None:
    """20 and 200 units on 20 slots; see the benchmark."""
    command = [sys.executable, "-m", "benchmarks.many_windows"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        command, cwd=SOURCE, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pattern = r"([\d.]+) s a unit, driver ([\d.]+) % of a core, (\d+) MB \(([+-][\d.]+)\)"
    few, many = ([float(value) for value in line] for line in re.findall(pattern, done.stdout))
    assert many[0] <= 1.3 * few[0], done.stdout
    assert many[1] <= 1.3 * few[1], done.stdout
    assert many[3] <= 30, done.stdout  # MB
