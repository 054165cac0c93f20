"""One Ray Train run of a chain of windows: started, started again, and turned into results [Ray].

Ray Train restarts workers by itself. What it cannot survive is the death of its own controller
(with the node it sits on); the same name continues from the same checkpoints, so we start it again.
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
from gangru_dist.runs.train_summary import WindowResult
from gangru_dist.training.ingest import BucketDataConfig, file_dataset
from gangru_dist.training.worker import Chain, Task, share_of, task_identity, train_worker

_logger = logging.getLogger(__name__)

_LOST = (RayActorError, WorkerCrashedError, ray.exceptions.NodeDiedError)
"""The run's controller is gone, not its training wrong."""

_STORAGE = (OSError, StorageError)
"""The store does not answer, or refuses."""

_PAUSE_SECONDS = 3.0
"""Before a lost run is continued: the cluster has noticed what died, and what held its CPUs."""


def train_chain(chain: Chain, manifest: Manifest, *, spread: bool = False) -> list[WindowResult]:
    """One Ray Train run; whatever happens to it becomes a result for each of its tasks.

    Args:
        chain: What to train.
        manifest: The panel's.
        spread: Run it from a task that asks for no CPU, on whichever node Ray likes, so that
            the controllers of many runs (0.7 GB each) do not pile up where the driver sits.
    """
    try:
        reasons = _fit_until_heard(chain, manifest, spread=spread)
    except (RayTrainError, RayError, *_STORAGE) as error:
        reasons = dict.fromkeys((task.name for task in chain.tasks), reason_of(error))
    results = [_result(chain, manifest, task, reasons.get(task.name)) for task in chain.tasks]
    if all(result.status != "failed" for result in results):
        _remove_checkpoints(chain)
    return results


def _fit_until_heard(chain: Chain, manifest: Manifest, *, spread: bool) -> dict[str, str]:
    """Reasons of failed tasks; a run whose controller died is continued, `max_failures` times."""
    for left in range(chain.run.cfg.resources.max_failures, -1, -1):
        try:
            if not spread:
                return _fit(chain, manifest)
            task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy="SPREAD")(_fit)
            return dict(ray.get(task.remote(chain, manifest)))
        except _LOST as error:
            time.sleep(_PAUSE_SECONDS)  # an interrupted driver is gone by then
            if left == 0 or not ray.is_initialized():
                raise
            text = "run_lost run=%s restarts_left=%d %s"
            _logger.warning(text, chain.name, left, reason_of(error))
    raise AssertionError("the last attempt returns or raises")


def _fit(chain: Chain, manifest: Manifest) -> dict[str, str]:
    """Run Ray Train; a failure of the training is data, so that a task need not raise it."""
    try:
        return dict(_trainer(chain, manifest).fit().return_value or {})
    except RayTrainError as error:
        return dict.fromkeys((task.name for task in chain.tasks), reason_of(error))


def _trainer(chain: Chain, manifest: Manifest) -> TorchTrainer:
    run, size = chain.run, chain.run.cfg.resources
    through_ray = chain.tasks if size.ingest == "ray" else ()
    shares = {task.window.name: share_of(run, manifest, task.window) for task in through_ray}
    per_worker = {"CPU": size.cpus_per_worker}
    if size.gpus_per_worker:
        per_worker["GPU"] = size.gpus_per_worker
    return TorchTrainer(
        train_worker,
        train_loop_config={"chain": chain},
        torch_config=TorchConfig(backend=_backend(size)),
        datasets={name: file_dataset([], share) for name, share in shares.items()},
        dataset_config=BucketDataConfig(shares),
        scaling_config=rt.ScalingConfig(
            num_workers=(size.min_workers, size.workers) if size.min_workers else size.workers,
            use_gpu=size.gpus_per_worker > 0,
            resources_per_worker=per_worker,
        ),
        run_config=rt.RunConfig(
            name=chain.name,
            storage_path=run.folder.full(CHECKPOINTS),
            storage_filesystem=run.folder.filesystem,
            failure_config=rt.FailureConfig(max_failures=size.max_failures),
            checkpoint_config=rt.CheckpointConfig(num_to_keep=1),
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


def _result(chain: Chain, manifest: Manifest, task: Task, reason: str | None) -> WindowResult:
    """Of the model that is there now; without one, why there is none."""
    cfg = chain.run.cfg
    try:
        model = chain.run.model(task.window.name, task.seed)
    except _STORAGE as error:
        return _failed(task, reason or reason_of(error))
    if model is not None and model.identity == task_identity(cfg, manifest, task):
        if cfg.resources.gpus_per_worker and model.device == "cpu":
            _logger.warning("no_gpu window=%s: trained on the CPU, torch sees no GPU", task.name)
        return WindowResult.of(model, "resumed" if model.resumed_epochs else "trained")
    return _failed(task, reason or "ended without a model and without an error")


def _failed(task: Task, reason: str) -> WindowResult:
    return WindowResult(window=task.window.name, seed=task.seed, status="failed", reason=reason)


def _remove_checkpoints(chain: Chain) -> None:
    """The models are there; checkpoints that stay cost room and nothing else."""
    try:
        chain.run.folder.delete_folder(chain.checkpoints)
    except _STORAGE as error:
        _logger.warning("checkpoints_left run=%s %s", chain.name, reason_of(error))
