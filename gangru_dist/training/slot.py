"""One slot's Ray Train run: started, started again, until no task is left for it [Ray].

Ray Train restarts workers by itself. What it cannot survive is the death of its own controller
(with the node it sits on): then we start another run, and the board hands it the same task.
"""

from __future__ import annotations

import logging
import time

import ray
import ray.train as rt
from ray.exceptions import RayActorError, RayError, WorkerCrashedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import RayTrainError, TrainingFailedError

from gangru_dist.config import ResourcesConfig
from gangru_dist.errors import StorageError
from gangru_dist.panel.manifest import Manifest
from gangru_dist.runs.run import CHECKPOINTS
from gangru_dist.splits import Window
from gangru_dist.training.board import Driven
from gangru_dist.training.ingest import BucketDataConfig, file_dataset
from gangru_dist.training.worker import Slot, share_of, train_worker

_logger = logging.getLogger(__name__)

_LOST = (RayActorError, WorkerCrashedError, ray.exceptions.NodeDiedError)
"""The run's controller is gone, not its training wrong."""

_PAUSE_SECONDS = 3.0
"""Before a lost run is continued: the cluster has noticed what died, and what held its CPUs."""


def serve_slot(
    slot: Slot,
    board: Driven,
    manifest: Manifest,
    windows: tuple[Window, ...],
    *,
    spread: bool = False,
) -> None:
    """Run Ray Train on a slot until the board has no task for it; every task is settled.

    Args:
        slot: Which one, and what it trains.
        board: The driver's side of the slot's tasks.
        manifest: The panel's.
        windows: All that may come, for Ray Data to read.
        spread: Run it from a task that asks for no CPU, on whichever node Ray likes, so that
            the controllers of many runs (0.7 GB each) do not pile up where the driver sits.
    """
    lost = 0
    while not board.is_done(slot.number):
        try:
            reason = _fit_somewhere(slot, manifest, windows, spread=spread)
        except _LOST as error:
            time.sleep(_PAUSE_SECONDS)  # an interrupted driver is gone by then
            if not ray.is_initialized():
                raise
            lost += 1
            reason = reason_of(error)
            _logger.warning("run_lost run=%s times=%d %s", slot.name, lost, reason)
            if lost <= slot.run.cfg.resources.max_failures:
                continue
        except (RayError, OSError, StorageError) as error:
            reason = reason_of(error)
        if reason is not None:
            lost = 0
            board.give_up(slot.number, reason)
    _remove_traces(slot)


def _fit_somewhere(
    slot: Slot, manifest: Manifest, windows: tuple[Window, ...], *, spread: bool
) -> str | None:
    if not spread:
        return _fit(slot, manifest, windows)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy="SPREAD")(_fit)
    reason: str | None = ray.get(task.remote(slot, manifest, windows))
    return reason


def _fit(slot: Slot, manifest: Manifest, windows: tuple[Window, ...]) -> str | None:
    """Run Ray Train; why its workers could not go on, or None if they ended by themselves.

    A failure of the training is data, so that a Ray task need not raise it.
    """
    try:
        _trainer(slot, manifest, windows).fit()
    except RayTrainError as error:
        return reason_of(error)
    return None


def _trainer(slot: Slot, manifest: Manifest, windows: tuple[Window, ...]) -> TorchTrainer:
    run, size = slot.run, slot.run.cfg.resources
    through_ray = windows if slot.through_ray else ()
    shares = {window.name: share_of(run, manifest, window) for window in through_ray}
    per_worker = {"CPU": size.cpus_per_worker}
    if size.gpus_per_worker:
        per_worker["GPU"] = size.gpus_per_worker
    return TorchTrainer(
        train_worker,
        train_loop_config={"slot": slot},
        torch_config=TorchConfig(backend=_backend(size)),
        datasets={name: file_dataset([], share) for name, share in shares.items()},
        dataset_config=BucketDataConfig(shares),
        scaling_config=rt.ScalingConfig(
            num_workers=(size.min_workers, size.workers) if size.min_workers else size.workers,
            use_gpu=size.gpus_per_worker > 0,
            resources_per_worker=per_worker,
        ),
        run_config=rt.RunConfig(
            name=slot.name,
            storage_path=run.folder.full(CHECKPOINTS),
            storage_filesystem=run.folder.filesystem,
            # of all tasks together; the board counts them by task
            failure_config=rt.FailureConfig(
                max_failures=size.max_failures * len(windows) * len(run.cfg.training.seeds)
            ),
            logging_config=rt.LoggingConfig(log_level="ERROR"),
        ),
    )


def _backend(size: ResourcesConfig) -> str:
    """NCCL between whole GPUs; two ranks on one GPU cannot speak it, and one rank need not."""
    return "nccl" if size.gpus_per_worker >= 1 and size.workers > 1 else "gloo"


def reason_of(error: Exception) -> str:
    """The last line of what went wrong in the first worker that failed."""
    cause: BaseException = error
    if isinstance(error, TrainingFailedError):
        failures = getattr(error, "worker_failures", {})
        cause = next(iter(failures.values()), error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[-1] if lines else type(cause).__name__)[:500]


def _remove_traces(slot: Slot) -> None:
    """What Ray Train wrote of its own; left over, it only uses disk."""
    try:
        slot.run.folder.delete_folder(f"{CHECKPOINTS}/{slot.name}")
    except (OSError, StorageError) as error:
        _logger.warning("traces_left run=%s %s", slot.name, reason_of(error))
