"""A group's workers: started, started again, until no task is left for them [Ray].

| `resources.workers` | what the group is |
|---|---|
| 1 | a plain Ray task: nothing to form a group of, so no controller and no placement group |
| more | a Ray Train run, which forms the group and replaces workers that die |

Whatever dies, a worker, Train's controller or the node under it, we start again, and the queue
hands out the same task, which continues from its own checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import ray
from ray.exceptions import NodeDiedError, RayActorError, RayError, WorkerCrashedError

from gangru_dist.base.errors import ResourceError, StorageError, extract_reason
from gangru_dist.runs.run import CHECKPOINTS
from gangru_dist.training.queue import WorkerGroup

_logger = logging.getLogger(__name__)

_GONE = (RayActorError, WorkerCrashedError, NodeDiedError)
"""A process died before it took a task, which is not to blame."""


def run_workers(
    group: WorkerGroup,
    *,
    run_once: Callable[[WorkerGroup], Exception | None] | None = None,
    pause_seconds: float = 3.0,
) -> None:
    """Run a group's workers until the queue has no task for them; every task is finished.

    Args:
        group: What to run.
        run_once: Runs the workers; returns or raises why they could not go on. None = on Ray.
        pause_seconds: Before workers are started again, so that the cluster has noticed what
            died, and what held its CPUs.
    """
    tasks, number = group.tasks, group.number
    in_vain = 0  # times in a row that workers ended before they took a task
    while not tasks.is_done(number):
        takes = tasks.count_takes(number)
        try:
            error = (run_once or run_on_ray)(group)
        except (RayError, OSError, StorageError) as raised:
            error = raised
        if error is None:
            continue
        time.sleep(pause_seconds)  # an interrupted driver is gone by then
        if not ray.is_initialized():
            raise error
        _logger.warning("workers_ended group=%d reason=%r", number, extract_reason(error))
        if tasks.count_takes(number) > takes:
            in_vain = 0
            tasks.record_failure(number, extract_reason(error))  # counted when taken again
        elif isinstance(error, _GONE) and in_vain < group.run.cfg.resources.max_failures:
            in_vain += 1
        else:
            in_vain = 0
            tasks.give_up(number, extract_reason(error))
    try:  # what Ray Train wrote of its own: left over, it only uses disk
        group.run.folder.delete_folder(f"{CHECKPOINTS}/{group.name}")
    except (OSError, StorageError) as error:
        _logger.warning("traces_left run=%s %s", group.name, extract_reason(error))


def run_on_ray(group: WorkerGroup) -> Exception | None:
    """Run the workers once; return why they could not go on, None if they are through."""
    size = group.run.cfg.resources
    where = {"max_retries": 0, "scheduling_strategy": "SPREAD" if group.spread else "DEFAULT"}
    if size.workers == 1:
        work = ray.remote(
            num_cpus=size.cpus_per_worker,
            num_gpus=size.gpus_per_worker,
            # 0: the process stays, with its imports, for whoever needs one like it
            max_calls=1 if size.windows_per_run or size.gpus_per_worker else 0,
            **where,
        )(_run_worker)
    elif group.spread:
        work = ray.remote(num_cpus=0, **where)(_fit)
    else:
        return _fit(group)
    error: Exception | None = ray.get(work.remote(group))
    return error


def _run_worker(group: WorkerGroup) -> None:
    """Train in this process."""
    from gangru_dist.training.worker import train_worker  # torch: not for the driver

    train_worker({"workers": group})


def _fit(group: WorkerGroup) -> Exception | None:
    """Run Ray Train; return what failed first, so that a Ray task need not raise it."""
    import ray.train as rt  # with torch five seconds
    from ray.train.torch import TorchConfig, TorchTrainer

    from gangru_dist.training.worker import train_worker

    run, size = group.run, group.run.cfg.resources
    per_worker = {"CPU": size.cpus_per_worker}
    if size.gpus_per_worker:
        per_worker["GPU"] = size.gpus_per_worker
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"workers": group},
        # two ranks on one GPU cannot speak NCCL
        torch_config=TorchConfig(backend="nccl" if size.gpus_per_worker >= 1 else "gloo"),
        scaling_config=rt.ScalingConfig(
            num_workers=(size.min_workers, size.workers) if size.min_workers else size.workers,
            use_gpu=size.gpus_per_worker > 0,
            resources_per_worker=per_worker,
        ),
        run_config=rt.RunConfig(
            name=group.name,
            storage_path=run.folder.full_path(CHECKPOINTS),
            storage_filesystem=run.folder.filesystem,
            failure_config=rt.FailureConfig(max_failures=size.max_failures),
            logging_config=rt.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        trainer.fit()
    except rt.TrainingFailedError as error:
        failures: dict[int, Exception] = getattr(error, "worker_failures", {})
        return ResourceError(extract_reason(next(iter(failures.values()), error)))
    return None
