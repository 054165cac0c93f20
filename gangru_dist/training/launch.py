"""Train every window and seed that has no model yet: one Ray Train run a chain, many at once.

Driver threads run the chains behind our own gate, for Ray itself would wait for ever on a request
that the cluster cannot meet (RAY.md). One window's failure does not stop the others. [Ray]
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from gangru_dist import runtime
from gangru_dist.config import RunConfig
from gangru_dist.errors import WindowError
from gangru_dist.lineage import code_version
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.splits import SkippedWindow, Window, make_windows, select_windows
from gangru_dist.storage import Storage
from gangru_dist.training.artifact import read_about
from gangru_dist.training.chain import train_chain
from gangru_dist.training.progress import ProgressLog
from gangru_dist.training.summary import (
    TrainSummary,
    WindowResult,
    from_about,
    in_order,
    write_summary,
)
from gangru_dist.training.worker import Job, Task, task_identity

_logger = logging.getLogger(__name__)
A = TypeVar("A")
B = TypeVar("B")


@runtime_checkable
class ChainRunner(Protocol):
    """Trains one chain and says what became of its tasks: `train_chain`, or a stand-in of it."""

    def __call__(self, job: Job, manifest: Manifest, *, spread: bool) -> list[WindowResult]:
        """See `train_chain`."""
        ...


@dataclass(frozen=True)
class Chain:
    """Tasks of one Ray Train run, and its name."""

    name: str
    todo: tuple[Task, ...]
    """Those without a model of their identity."""


def plan(
    manifest: Manifest, cfg: RunConfig, only: Sequence[str] | None
) -> tuple[list[Window], list[SkippedWindow]]:
    """Windows of the panel's calendar, all or the named ones, and those without history.

    Raises:
        WindowError: A named window does not exist, or there is no refit day at all.
    """
    days = manifest.calendar
    windows, skipped = make_windows(days, cfg.windows, cfg.label, lookback=cfg.samples.lookback)
    if not windows and not skipped:
        raise WindowError(
            f"the panel, {days[0]} to {days[-1]}, has no refit day: "
            f"windows.refit_months={list(cfg.windows.refit_months)}, "
            f"windows.first={cfg.windows.first}, windows.last={cfg.windows.last}. Widen them, or "
            "add bars with jobs/panel.py."
        )
    if only is None:
        return windows, skipped
    wanted = [window for window in skipped if window.name in only]
    left = [name for name in only if name not in {window.name for window in wanted}]
    return select_windows(windows, left), wanted


def train_windows(
    root: Storage,
    run: str,
    cfg: RunConfig,
    *,
    only: Sequence[str] | None = None,
    runner: ChainRunner = train_chain,
) -> TrainSummary:
    """Train what is not trained yet; finished models of the same identity are kept.

    Args:
        root: Storage root with the panel.
        run: Name of the run; its models go to `runs/<run>/windows`.
        cfg: The run's configuration.
        only: Refit days to train; None = all.
        runner: What trains a chain once the gate lets it through.

    Returns:
        What became of every window and seed; also in `summary.json`.

    Raises:
        PanelError: There is no panel, or it lacks a feature.
        WindowError: A named window does not exist, or there is no refit day at all.
        ResourceError: The cluster can never run one window.
    """
    manifest = read_manifest(root)
    manifest.require_features(cfg.features)
    folder = root.child("runs", run)
    windows, skipped = plan(manifest, cfg, only)
    results = [WindowResult(window=s.name, status="no history", reason=s.reason) for s in skipped]
    codes, todo = {}, []
    for task in (Task(window=w, seed=s) for w in windows for s in cfg.training.seeds):
        codes[task] = task_identity(cfg, manifest, task)
        about = read_about(folder, task.window.name, task.seed)
        if about and about["identity"] == codes[task]:
            results.append(from_about(about, "finished before"))
        else:
            todo.append(task)
    if todo:
        chains = cut_chains(codes, set(todo), cfg.resources.windows_per_run)
        results += _train_all(root, folder, cfg, manifest, chains, runner)
    summary = in_order(results)
    write_summary(folder, summary)
    return summary


def cut_chains(codes: dict[Task, str], todo: set[Task], size: int) -> list[Chain]:
    """Chains of `size` tasks that have something to do.

    They are cut from all tasks, finished ones too, and named after all of theirs: so a chain that
    was killed half way has the same name, and thereby its checkpoint, when the job comes again.
    """
    tasks = list(codes)
    chains = []
    for group in (tasks[i : i + size] for i in range(0, len(tasks), size)):
        digest = hashlib.sha256("/".join(codes[task] for task in group).encode()).hexdigest()
        name = f"{group[0].window.name}-seed-{group[0].seed}-{digest[:12]}"
        chains.append(Chain(name, tuple(task for task in group if task in todo)))
    return [chain for chain in chains if chain.todo]


def _train_all(
    root: Storage,
    folder: Storage,
    cfg: RunConfig,
    manifest: Manifest,
    chains: list[Chain],
    runner: ChainRunner,
) -> list[WindowResult]:
    with runtime.session(cfg):
        at_once = min(len(chains), concurrency(cfg))
        spread = at_once > 1 and runtime.nodes() > 1
        tasks = sum(len(chain.todo) for chain in chains)
        text = "train_start windows=%d ray_train_runs=%d at_once=%d workers_each=%d spread=%s"
        _logger.info(text, tasks, len(chains), at_once, cfg.resources.workers, spread)
        made_by = code_version()
        with ProgressLog(cfg, tasks, folder) as progress:

            def train(chain: Chain) -> list[WindowResult]:
                job = Job(
                    root=root,
                    run=folder,
                    cfg=cfg,
                    name=chain.name,
                    tasks=chain.todo,
                    progress=progress.board,
                    made_by=made_by,
                )
                results = runner(job, manifest, spread=spread)
                for task, result in zip(chain.todo, results, strict=True):
                    progress.finish(task.name, result)
                return results

            return [result for found in each(chains, train, at_once) for result in found]


def each(items: Sequence[A], work: Callable[[A], B], at_once: int) -> Iterator[B]:
    """Results of `work`, as they come, never more than `at_once` under way.

    By daemon threads: an interrupted driver ends at once, where a pool of `concurrent.futures`
    would first wait for whatever is under way, for hours perhaps. Nothing new begins then.
    """
    todo: queue.SimpleQueue[A] = queue.SimpleQueue()
    done: queue.SimpleQueue[B | BaseException] = queue.SimpleQueue()
    for item in items:
        todo.put(item)

    stopped = threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put(work(item))
            except BaseException as error:  # noqa: BLE001  # raised where it can be seen
                done.put(error)

    for _ in range(at_once):
        threading.Thread(target=serve, daemon=True).start()
    try:
        for _ in items:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stopped.set()


def concurrency(cfg: RunConfig) -> int:
    """Windows to train at once: what the cluster has room for, at most `max_concurrent`.

    On a cluster that grows (`wait_for_nodes_minutes`), `max_concurrent` itself if it is given:
    Ray's own queue of placement groups is what makes an autoscaler add nodes.

    Raises:
        ResourceError: Not even one ever fits.
    """
    size = cfg.resources
    ask = {"cpus": size.cpus_per_worker, "gpus": size.gpus_per_worker}
    least = size.min_workers or size.workers
    runtime.require("one window", workers=least, wait_minutes=size.wait_for_nodes_minutes, **ask)
    if size.wait_for_nodes_minutes and size.max_concurrent:
        return size.max_concurrent
    room = max(1, runtime.slots(**ask) // size.workers)
    return min(room, size.max_concurrent or room)
