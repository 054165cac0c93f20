"""Ray's session: started in this process, or a running cluster's, and quiet either way [Ray].

| how a job is started | what happens |
|---|---|
| `gangru train …` | Ray starts here and ends with the job |
| the same with `RAY_ADDRESS` | it joins that cluster and ships this package to its workers |
| `ray job submit --working-dir . -- python jobs/train.py …` | it joins; the working dir is there |
| `gangru train … --here`, `with run_here()` | Ray does not start: this process does everything |
"""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import gangru_dist
from gangru_dist.base.errors import ResourceError
from gangru_dist.cluster import start
from gangru_dist.config.settings import (
    CALLBACKS,
    LABEL_TRANSFORMS,
    PREDICTORS,
    ResourcesConfig,
    RunConfig,
)
from gangru_dist.features.price_volume import FEATURES

_logger = logging.getLogger(__name__)
_POLL_SECONDS = 2.0
_ANSWER_SECONDS = 300.0
"""For a node to start a process that imports torch, perhaps for the first time."""
A = TypeVar("A")

_DRIVER_ENV = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no warning about hidden GPUs
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report waits for it: 2 s by default
    "RAY_USAGE_STATS_ENABLED": "0",
}


def make_worker_environment(cfg: RunConfig) -> dict[str, str]:
    """Environment of every worker: few threads, which sleep when they wait; bounded caches."""
    threads = str(cfg.resources.threads_per_worker)
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "passive",  # two spinning threads are slower than one
        # bf16 compiles a primitive for each size of cross-section: after 120 sizes 1.0 GB, with
        # the default of 1024 1.8 GB; as fast.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    }


@contextmanager
def open_session(
    cfg: RunConfig,
    *,
    cpus: int | None = None,
    gpus: int | None = None,
    dashboard: bool | None = None,
) -> Iterator[None]:
    """Ray, for as long as the block lasts. Inside another session: that one, left running.

    Args:
        cfg: Decides the workers' threads.
        cpus: CPUs to offer if Ray starts here; None = as many as the machine has.
        gpus: GPUs to offer; None = all. Tests may declare more than there are.
        dashboard: Start Ray's dashboard too; None = if windows have several workers. Without it
            placement groups of runs that were stopped are never given back.

    Raises:
        ResourceError: Ray does not start here, or `RAY_ADDRESS` names no cluster that answers.
    """
    if _shared is not None:
        _shared.begin().result()
    if _here or ray.is_initialized():
        yield
        return
    dashboard = cfg.resources.workers > 1 if dashboard is None else dashboard
    try:
        _start(cfg, cpus, gpus, dashboard)
        yield
    finally:
        ray.shutdown()  # ends what we started; only leaves what we joined


@contextmanager
def share_session(cfg: RunConfig, *, at_once: bool) -> Iterator[None]:
    """One session for all that open one in the block: started by the first of them, or at once.

    Args:
        cfg: As for `open_session`.
        at_once: Start it beside what the block does first; who needs it waits for it.
    """
    global _shared  # as Ray itself: one session a process
    if _here or ray.is_initialized():
        yield
        return
    _shared = _Shared(cfg)
    try:
        if at_once:
            _shared.begin()
        yield
    finally:
        ended, _shared = _shared, None
        ended.end()


@contextmanager
def run_here() -> Iterator[None]:
    """Do without Ray in the block: one task after another in this process, with the same results.

    For a debugger's breakpoints and for small jobs. A search needs Ray all the same.
    """
    global _here
    before, _here = _here, True
    try:
        yield
    finally:
        _here = before


def is_here() -> bool:
    """Whether this process does without Ray."""
    return _here


_here = False


class _Shared:
    """A session in a thread of its own, which lives as long: Linux ends Ray's processes with it."""

    def __init__(self, cfg: RunConfig) -> None:
        self._start = partial(_start, cfg, None, None, cfg.resources.workers > 1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self._started: Future[None] | None = None
        self._lock = threading.Lock()

    def begin(self) -> Future[None]:
        """Start, if that is not under way; the result raises ResourceError if it fails."""
        with self._lock:
            self._started = self._started or self._thread.submit(self._start)
            return self._started

    def end(self) -> None:
        """End it, if it was ever begun."""
        if self._started is not None:
            self._thread.submit(ray.shutdown)
        self._thread.shutdown()


_shared: _Shared | None = None
"""The session of the `share_session` block that this process is in."""


def _start(cfg: RunConfig, cpus: int | None, gpus: int | None, dashboard: bool) -> None:
    # Ray's default has no limit: a task that needs more memory than there is would never end
    oom_retries = {"RAY_task_oom_retries": str(cfg.resources.max_failures)}
    for name, value in (_DRIVER_ENV | oom_retries).items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS") or "local"
    _logger.info("ray_start address=%s", address)
    started = time.monotonic()
    if not is_on_cluster():
        os.environ.update(
            make_worker_environment(cfg)
        )  # workers inherit it; a runtime_env costs 1 s
        start.start_ray(cpus=cpus, gpus=gpus, dashboard=dashboard)
    else:
        environment: dict[str, Any] = {"env_vars": {**_DRIVER_ENV, **make_worker_environment(cfg)}}
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # a submitted job has its working dir
            environment["py_modules"] = [str(Path(gangru_dist.__file__).parent), *list_user_files()]
        start.join_ray(address, environment)
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    _logger.info("ray_ready seconds=%.1f", time.monotonic() - started)


def list_user_files() -> list[str]:
    """Packages and modules of the user's own features, labels, predictors and callbacks.

    Those that are installed here must be installed on the workers too.
    """
    tables = (FEATURES, LABEL_TRANSFORMS, PREDICTORS, CALLBACKS)
    names = {name for table in tables for name in table.list_user_modules()}
    modules = [sys.modules[name] for name in sorted(names)]
    files = [
        Path(file)
        for module in modules  # a namespace package has no file of its own
        for file in ([module.__file__] if module.__file__ else getattr(module, "__path__", ()))
    ]
    installed = tuple(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    places = [file.parent if file.name == "__init__.py" else file for file in files]
    return [str(place) for place in places if not str(place).startswith(installed)]


def count_workers(size: ResourcesConfig) -> int:
    """How many workers of that size the living nodes hold at once, each on one node."""
    if _here:
        return 1
    return sum(_room(node, size) for node in _nodes())


def count_cpus() -> float:
    """CPUs of the largest living node."""
    return max((node.get("CPU", 0.0) for node in _nodes()), default=0.0)


def count_nodes() -> int:
    """Living nodes that offer CPUs."""
    if _here:
        return 1
    return sum(node.get("CPU", 0) > 0 for node in _nodes())


def count_store_bytes() -> float:
    """Size of the smallest object store of the living nodes that offer CPUs."""
    nodes = [node for node in _nodes() if node.get("CPU", 0) > 0]
    return min((node.get("object_store_memory", 0.0) for node in nodes), default=0.0)


def ask_nodes(cfg: RunConfig, question: Callable[[], A]) -> list[tuple[str, A]]:
    """Call a function on each living node with room for a worker: (" on node …", result).

    In this process, and without Ray, where this machine is all there is: then the place is "".

    Raises:
        ResourceError: No node has room for a worker, or one does not answer.
    """
    if _is_alone():
        return [("", question())]
    size = cfg.resources
    with open_session(cfg):
        find_room("one worker", size)
        nodes = [node for node in ray.nodes() if node["Alive"] and _room(node["Resources"], size)]
        tasks = [
            ray.remote(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )(question).remote()
            for node in nodes
        ]
        places = [f" on node {node['NodeManagerAddress']}" for node in nodes]
        try:
            return list(zip(places, ray.get(tasks, timeout=_ANSWER_SECONDS), strict=True))
        except (RayError, TimeoutError) as error:
            raise ResourceError(
                f"not all of {len(nodes)} nodes reported their devices within "
                f"{_ANSWER_SECONDS:g} s: {error}. See `ray status`, then start the job again."
            ) from error


def is_on_cluster() -> bool:
    """Whether a session would join a running cluster."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


def _is_alone() -> bool:
    """Whether workers run on this machine only."""
    if _here:
        return True
    if not ray.is_initialized():
        return not is_on_cluster()
    here = ray.get_runtime_context().get_node_id()
    return all(node["NodeID"] == here for node in ray.nodes() if node["Alive"])


def find_room(what: str, size: ResourcesConfig, workers: int = 1) -> int:
    """How many workers of a job's size the cluster holds at once: at least `workers`.

    A cluster that grows is told what is needed, and its autoscaler is given
    `resources.wait_for_nodes_minutes`: Ray cannot say how far a cluster may grow, so a time limit
    must decide.

    Args:
        what: Who asks, for the message.
        size: Of each worker.
        workers: How many are needed together.

    Raises:
        ResourceError: There is no such room; Ray itself would wait for ever.
    """
    if _here:
        return workers
    cpus, gpus, minutes = size.cpus_per_worker, size.gpus_per_worker, size.wait_for_nodes_minutes
    room = count_workers(size)
    if minutes and room < workers:
        _logger.info("wait_for_nodes for=%s workers=%d at_most_min=%g", what, workers, minutes)
        bundle = {name: need for name, need in (("CPU", cpus), ("GPU", gpus)) if need}
        deadline = time.monotonic() + 60 * minutes
        request_resources(bundles=[bundle] * workers)
        try:
            while (room := count_workers(size)) < workers and time.monotonic() < deadline:
                time.sleep(min(_POLL_SECONDS, 60 * minutes))
        finally:
            request_resources(bundles=[])  # the runs ask for themselves from here on
    if room >= workers:
        return room
    there = ", ".join(f"{node.get('CPU', 0):g} CPU {node.get('GPU', 0):g} GPU" for node in _nodes())
    late = f" after {minutes:g} minutes" if minutes else ""
    way_out = "" if minutes else " (if it grows by itself: resources.wait_for_nodes_minutes)"
    raise ResourceError(
        f"{what} asks for {workers} worker(s) of {cpus:g} CPU and {gpus:g} GPU each; the cluster "
        f"has room for {room}{late} (nodes: {there or 'none'}). Lower resources.workers, "
        f"resources.cpus_per_worker or resources.gpus_per_worker, or add nodes{way_out}."
    )


def find_slots(what: str, size: ResourcesConfig, most: int) -> int:
    """How many of `most` workers to give Ray at once: those that it has room for.

    All of them on a cluster that grows, for what waits is what its autoscaler sees.

    Raises:
        ResourceError: As `find_room`.
    """
    room = find_room(what, size)
    return most if size.wait_for_nodes_minutes else min(most, room)


def _nodes() -> list[dict[str, float]]:
    """Total resources of each living node."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _room(node: dict[str, float], size: ResourcesConfig) -> int:
    """Workers one node holds, whole; the 1e-9 forgives 3 x 0.1 > 0.3."""
    asked = {"CPU": size.cpus_per_worker, "GPU": size.gpus_per_worker}
    return min(int(node.get(name, 0.0) / need + 1e-9) for name, need in asked.items() if need > 0)
