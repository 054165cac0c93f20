"""Train every window and seed that has no model yet: one Ray Train run a chain, many at once.

Driver threads call `fit()` behind our own gate, for Ray itself would wait for ever on a request
that the cluster cannot meet (RAY.md). One window's failure does not stop the others. [Ray]
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import ray.train as rt
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import RayTrainError, TrainingFailedError

from gangru_dist import runtime
from gangru_dist.config import RunConfig
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.splits import SkippedWindow, Window, make_windows, select_windows
from gangru_dist.storage import Storage
from gangru_dist.training.artifact import read_about
from gangru_dist.training.ingest import BucketDataConfig, file_dataset
from gangru_dist.training.progress import ProgressLog
from gangru_dist.training.summary import (
    TrainSummary,
    WindowResult,
    from_about,
    in_order,
    write_summary,
)
from gangru_dist.training.worker import Job, Task, share_of, task_identity, train_worker

_logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""Folder of the run where Ray Train keeps its state until a chain is done."""


def plan(
    manifest: Manifest, cfg: RunConfig, only: Sequence[str] | None
) -> tuple[list[Window], list[SkippedWindow]]:
    """Windows of the panel's calendar, all or the named ones, and those without history.

    Raises:
        WindowError: A named window does not exist.
    """
    windows, skipped = make_windows(
        manifest.calendar, cfg.windows, cfg.label, lookback=cfg.samples.lookback
    )
    if only is None:
        return windows, skipped
    wanted = [window for window in skipped if window.name in only]
    left = [name for name in only if name not in {window.name for window in wanted}]
    return select_windows(windows, left), wanted


def train_windows(
    root: Storage, run: str, cfg: RunConfig, *, only: Sequence[str] | None = None
) -> TrainSummary:
    """Train what is not trained yet; finished models of the same identity are kept.

    Args:
        root: Storage root with the panel.
        run: Name of the run; its models go to `runs/<run>/windows`.
        cfg: The run's configuration.
        only: Refit days to train; None = all.

    Returns:
        What became of every window and seed; also in `summary.json`.

    Raises:
        PanelError: There is no panel, or it lacks a feature.
        WindowError: A named window does not exist.
        ResourceError: The cluster can never run one window.
    """
    manifest = read_manifest(root)
    manifest.require_features(cfg.panel.features)
    folder = root.child("runs", run)
    windows, skipped = plan(manifest, cfg, only)
    results = [WindowResult(window=s.name, status="no history", reason=s.reason) for s in skipped]
    tasks = [Task(window=w, seed=s) for w in windows for s in cfg.training.seeds]
    todo = []
    for task in tasks:
        about = read_about(folder, task.window.name, task.seed)
        if about and about["identity"] == task_identity(cfg, manifest, task):
            results.append(from_about(about, "finished before"))
        else:
            todo.append(task)
    if todo:
        results += _train_all(root, folder, cfg, manifest, todo)
    summary = in_order(results)
    write_summary(folder, summary)
    return summary


def _train_all(
    root: Storage, folder: Storage, cfg: RunConfig, manifest: Manifest, todo: list[Task]
) -> list[WindowResult]:
    size = cfg.resources.windows_per_run
    chains = [tuple(todo[i : i + size]) for i in range(0, len(todo), size)]
    with runtime.session(cfg):
        at_once = min(len(chains), concurrency(cfg))
        _logger.info(
            "train_start windows=%d ray_train_runs=%d at_once=%d workers_each=%d",
            len(todo),
            len(chains),
            at_once,
            cfg.resources.workers,
        )
        with ProgressLog(cfg, len(todo)) as progress, ThreadPoolExecutor(at_once) as pool:
            jobs = [
                Job(root=root, run=folder, cfg=cfg, tasks=chain, progress=progress.board)
                for chain in chains
            ]
            found = pool.map(lambda job: _train_chain(job, manifest, progress), jobs)
            return [result for results in found for result in results]


def concurrency(cfg: RunConfig) -> int:
    """Windows that fit on the cluster at once, at most `resources.max_concurrent`.

    Raises:
        ResourceError: Not even one ever fits.
    """
    size = cfg.resources
    ask = {"cpus": size.cpus_per_worker, "gpus": size.gpus_per_worker}
    least = size.min_workers or size.workers
    runtime.require("one window", workers=least, **ask)
    room = max(1, runtime.slots(**ask) // size.workers)
    return min(room, size.max_concurrent or room)


def _train_chain(job: Job, manifest: Manifest, progress: ProgressLog) -> list[WindowResult]:
    """One Ray Train run; whatever happens to it becomes a result for each of its tasks."""
    name = _chain_name(job, manifest)
    reasons: dict[str, str] = {}
    try:
        outcome = _trainer(job, manifest, name).fit()
        reasons = dict(outcome.return_value or {})
    except (RayTrainError, RayError) as error:
        reasons = dict.fromkeys((task.name for task in job.tasks), reason_of(error))
    results = [_result(job, manifest, task, reasons) for task in job.tasks]
    for task, result in zip(job.tasks, results, strict=True):
        progress.finish(task.name)
        _logger.info(
            "window_done window=%s status=%s valid_ic=%s %s",
            task.name,
            result.status,
            "none" if result.best_valid_ic is None else f"{result.best_valid_ic:+.4f}",
            result.reason,
        )
    if all(result.status != "failed" for result in results):
        job.run.delete_folder(f"{CHECKPOINTS}/{name}")  # the models are there
    return results


def _chain_name(job: Job, manifest: Manifest) -> str:
    """The same tasks with the same identities resume under the same name; no timestamp."""
    codes = [task_identity(job.cfg, manifest, task) for task in job.tasks]
    digest = hashlib.sha256("/".join(codes).encode()).hexdigest()[:12]
    first = job.tasks[0]
    return f"{first.window.name}-seed-{first.seed}-{digest}"


def _trainer(job: Job, manifest: Manifest, name: str) -> TorchTrainer:
    size = job.cfg.resources
    through_ray = job.tasks if size.ingest == "ray" else ()
    shares = {
        task.window.name: share_of(job.root, job.cfg, manifest, task.window) for task in through_ray
    }
    per_worker = {"CPU": size.cpus_per_worker}
    if size.gpus_per_worker:
        per_worker["GPU"] = size.gpus_per_worker
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        # two ranks on one GPU cannot speak NCCL
        torch_config=TorchConfig(backend="nccl" if size.gpus_per_worker >= 1 else "gloo"),
        datasets={name: file_dataset([], share) for name, share in shares.items()},
        dataset_config=BucketDataConfig(shares),
        scaling_config=rt.ScalingConfig(
            num_workers=(size.min_workers, size.workers) if size.min_workers else size.workers,
            use_gpu=size.gpus_per_worker > 0,
            resources_per_worker=per_worker,
        ),
        run_config=rt.RunConfig(
            name=name,
            storage_path=job.run.full(CHECKPOINTS),
            storage_filesystem=job.run.filesystem,
            failure_config=rt.FailureConfig(max_failures=size.max_failures),
            checkpoint_config=rt.CheckpointConfig(num_to_keep=1),
            logging_config=rt.LoggingConfig(log_level="ERROR"),
        ),
    )


def reason_of(error: Exception) -> str:
    """The last line of what went wrong in the first worker that failed."""
    cause: BaseException = error
    if isinstance(error, TrainingFailedError):
        failures = getattr(error, "worker_failures", {})
        cause = next(iter(failures.values()), error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[-1] if lines else type(cause).__name__)[:500]


def _result(job: Job, manifest: Manifest, task: Task, reasons: dict[str, str]) -> WindowResult:
    about = read_about(job.run, task.window.name, task.seed)
    if about and about["identity"] == task_identity(job.cfg, manifest, task):
        return from_about(about, "resumed" if about["resumed_epochs"] else "trained")
    return WindowResult(
        window=task.window.name,
        seed=task.seed,
        status="failed",
        reason=reasons.get(task.name, "ended without a model and without an error"),
    )
