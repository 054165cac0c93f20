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
from dataclasses import replace
from typing import Protocol, TypeVar, runtime_checkable

from gangru_dist import runtime
from gangru_dist.config import RunConfig
from gangru_dist.errors import WindowError
from gangru_dist.lineage import code_version
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.runs.run import Run
from gangru_dist.runs.train_summary import TrainSummary, WindowResult, in_order, write_summary
from gangru_dist.splits import SkippedWindow, Window, make_windows, select_windows
from gangru_dist.training.chain import train_chain
from gangru_dist.training.progress import ProgressLog
from gangru_dist.training.worker import Chain, Task, task_identity

_logger = logging.getLogger(__name__)
A = TypeVar("A")
B = TypeVar("B")


@runtime_checkable
class ChainRunner(Protocol):
    """Trains one chain and says what became of its tasks: `train_chain`, or a stand-in of it."""

    def __call__(self, chain: Chain, manifest: Manifest, *, spread: bool) -> list[WindowResult]:
        """See `train_chain`."""
        ...


def choose_windows(
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
    run: Run,
    *,
    only: Sequence[str] | None = None,
    overwrite: bool = False,
    runner: ChainRunner = train_chain,
) -> TrainSummary:
    """Train what is not trained yet; finished models of the same identity are kept.

    Args:
        run: What to train, beside the panel; claimed as soon as its settings fit the panel.
        only: Refit days to train; None = all.
        overwrite: Take the run's name even if it has another configuration.
        runner: What trains a chain once the gate lets it through.

    Returns:
        What became of every window and seed; also in `summary.json`.

    Raises:
        ConfigError: The run's name is taken by another configuration.
        PanelError: There is no panel, or it lacks a feature.
        WindowError: A named window does not exist, or there is no refit day at all.
        ResourceError: The cluster can never run one window.
    """
    manifest = read_manifest(run.root)
    manifest.require_features(run.cfg.features)
    windows, skipped = choose_windows(manifest, run.cfg, only)
    run.claim(overwrite=overwrite)
    results = [WindowResult(window=s.name, status="no history", reason=s.reason) for s in skipped]
    identities, todo = {}, []
    for task in (Task(window=w, seed=s) for w in windows for s in run.cfg.training.seeds):
        identities[task] = task_identity(run.cfg, manifest, task)
        model = run.model(task.window.name, task.seed)
        if model is not None and model.identity == identities[task]:
            results.append(WindowResult.of(model, "finished before"))
        else:
            todo.append(task)
    if todo:
        results += _train_all(run, manifest, cut_chains(run, identities, set(todo)), runner)
    summary = in_order(results)
    write_summary(run, summary)
    return summary


def cut_chains(run: Run, identities: dict[Task, str], todo: set[Task]) -> list[Chain]:
    """Chains of `resources.windows_per_run` tasks that have something to do.

    They are cut from all tasks, finished ones too, and named after all of theirs: so a chain that
    was killed half way has the same name, and thereby its checkpoint, when the job comes again.
    """
    tasks, size = list(identities), run.cfg.resources.windows_per_run
    chains = []
    for group in (tasks[i : i + size] for i in range(0, len(tasks), size)):
        digest = hashlib.sha256("/".join(identities[task] for task in group).encode()).hexdigest()
        name = f"{group[0].window.name}-seed-{group[0].seed}-{digest[:12]}"
        left = tuple(task for task in group if task in todo)
        chains.append(Chain(run=run, name=name, tasks=left))
    return [chain for chain in chains if chain.tasks]


def _train_all(
    run: Run, manifest: Manifest, chains: list[Chain], runner: ChainRunner
) -> list[WindowResult]:
    with runtime.session(run.cfg):
        at_once = min(len(chains), concurrency(run.cfg))
        spread = at_once > 1 and runtime.nodes() > 1
        tasks = sum(len(chain.tasks) for chain in chains)
        text = "train_start windows=%d ray_train_runs=%d at_once=%d workers_each=%d spread=%s"
        _logger.info(text, tasks, len(chains), at_once, run.cfg.resources.workers, spread)
        made_by = code_version()
        with ProgressLog(run, tasks) as progress:

            def train(chain: Chain) -> list[WindowResult]:
                known = replace(chain, progress=progress.board, made_by=made_by)
                results = runner(known, manifest, spread=spread)
                for task, result in zip(chain.tasks, results, strict=True):
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
