"""One slot's workers: started, started again, until no task is left for them [Ray].

| `resources.workers` | what serves the slot |
|---|---|
| 1 | a plain Ray task: nothing to form a group of, so no controller and no placement group |
| more | a Ray Train run, which forms the group and replaces workers that die |

Whatever dies, a worker, Train's controller or the node under it, we start again, and the board
hands out the same task, which continues from its own checkpoint.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import ray
from ray.exceptions import NodeDiedError, RayActorError, RayError, WorkerCrashedError

from gangru_dist.base.errors import ResourceError, StorageError, reason_of
from gangru_dist.config.settings import ResourcesConfig
from gangru_dist.runs.run import CHECKPOINTS
from gangru_dist.training.queue import Driven, Slot

_logger = logging.getLogger(__name__)

_GONE = (RayActorError, WorkerCrashedError, NodeDiedError)
"""A process died before it took a task, which is not to blame."""

_PAUSE_SECONDS = 3.0
"""Before workers are started again: the cluster has noticed what died, and what held its CPUs."""


def serve_slot(slot: Slot, board: Driven, *, spread: bool = False) -> None:
    """Run workers for a slot until the board has no task for it; every task is settled.

    Args:
        slot: Which one, and what it trains.
        board: The driver's side of the slot's tasks.
        spread: Let Ray place the slot on whichever node it likes, so that the controllers of many
            Train runs (0.7 GB each) do not pile up where the driver sits.
    """
    in_vain = 0  # times in a row that workers ended before they took a task
    while not board.is_done(slot.number):
        taken = board.taken(slot.number)
        try:
            error = _work(slot, spread=spread)
        except (RayError, OSError, StorageError) as raised:
            error = raised
        if error is None:
            continue
        time.sleep(_PAUSE_SECONDS)  # an interrupted driver is gone by then
        if not ray.is_initialized():
            raise error
        _logger.warning("workers_ended slot=%s reason=%r", slot.name, reason_of(error))
        if board.taken(slot.number) > taken:
            in_vain = 0
            board.trouble(slot.number, reason_of(error))  # counted when the task is taken again
        elif isinstance(error, _GONE) and in_vain < slot.run.cfg.resources.max_failures:
            in_vain += 1
        else:
            in_vain = 0
            board.give_up(slot.number, reason_of(error))
    _remove_traces(slot)


def _work(slot: Slot, *, spread: bool) -> Exception | None:
    """Workers for the slot's tasks, once; why they could not go on, None if they are through."""
    size = slot.run.cfg.resources
    where = {"max_retries": 0, "scheduling_strategy": "SPREAD" if spread else "DEFAULT"}
    if size.workers == 1:
        work = ray.remote(
            num_cpus=size.cpus_per_worker,
            num_gpus=size.gpus_per_worker,
            # 0: the process stays, with its imports, for whoever needs one like it
            max_calls=1 if size.windows_per_run or size.gpus_per_worker else 0,
            **where,
        )(_alone)
    elif spread:
        work = ray.remote(num_cpus=0, **where)(_fit)
    else:
        return _fit(slot)
    error: Exception | None = ray.get(work.remote(slot))
    return error


def _alone(slot: Slot) -> None:
    """Train in this process."""
    from gangru_dist.training.worker import train_worker  # torch: not for the driver

    train_worker({"slot": slot})


def _fit(slot: Slot) -> Exception | None:
    """Run Ray Train; return its failure, so that a Ray task need not raise it."""
    from ray.train import TrainingFailedError  # with torch five seconds

    try:
        _trainer(slot).fit()
    except TrainingFailedError as error:
        return ResourceError(reason_of(_first_cause(error)))
    return None


def _first_cause(error: Exception) -> Exception:
    """What went wrong in the first worker that failed."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    return next(iter(failures.values()), error)


def _trainer(slot: Slot) -> Any:
    import ray.train as rt  # with torch five seconds
    from ray.train.torch import TorchConfig, TorchTrainer

    from gangru_dist.training.worker import train_worker

    run, size = slot.run, slot.run.cfg.resources
    per_worker = {"CPU": size.cpus_per_worker}
    if size.gpus_per_worker:
        per_worker["GPU"] = size.gpus_per_worker
    return TorchTrainer(
        train_worker,
        train_loop_config={"slot": slot},
        torch_config=TorchConfig(backend=_backend(size)),
        scaling_config=rt.ScalingConfig(
            num_workers=(size.min_workers, size.workers) if size.min_workers else size.workers,
            use_gpu=size.gpus_per_worker > 0,
            resources_per_worker=per_worker,
        ),
        run_config=rt.RunConfig(
            name=slot.name,
            storage_path=run.folder.full(CHECKPOINTS),
            storage_filesystem=run.folder.filesystem,
            failure_config=rt.FailureConfig(max_failures=size.max_failures),
            logging_config=rt.LoggingConfig(log_level="ERROR"),
        ),
    )


def _backend(size: ResourcesConfig) -> str:
    """NCCL between whole GPUs; two ranks on one GPU cannot speak it."""
    return "nccl" if size.gpus_per_worker >= 1 else "gloo"


def _remove_traces(slot: Slot) -> None:
    """What Ray Train wrote of its own; left over, it only uses disk."""
    try:
        slot.run.folder.delete_folder(f"{CHECKPOINTS}/{slot.name}")
    except (OSError, StorageError) as error:
        _logger.warning("traces_left run=%s %s", slot.name, reason_of(error))
