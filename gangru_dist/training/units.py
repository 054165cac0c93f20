"""Units of training, each a window with its seeds, and how Ray runs them [Ray].

| `resources.workers` | what a unit is |
|---|---|
| 1 | a plain Ray task: nothing to form a group of, so no controller and no placement group |
| more | a Ray Train run, which forms the group and replaces workers that die |

Ray's own queue, placement and retries serve both. All plain tasks are submitted at once, so that
an autoscaler sees the demand; a Ray Train run waits until there is room, for its controller takes
0.7 GB. Whatever dies, a worker, Train's controller or the node under it, Ray runs the unit again,
as often as `resources.max_failures` allows. Models that are done stay, the others continue from
their checkpoints.

A unit that Ray keeps ending because a node's memory is short is submitted again with twice the
CPUs, so that fewer run beside it; it fails when it was alone on its node.

Workers report through one actor beside the driver. It carries news alone: whether a model is there,
storage says.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gangru_dist.base.errors import WindowError, extract_reason, format_flag
from gangru_dist.cluster import session
from gangru_dist.cluster.failures import describe_memory
from gangru_dist.cluster.map import get_value
from gangru_dist.config.identity import model_identity
from gangru_dist.config.settings import ResourcesConfig, RunConfig
from gangru_dist.maths.calendar import Window
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.runs.model import TimedEpoch
from gangru_dist.runs.run import CHECKPOINTS, Run

_logger = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
_MORE_MEMORY = (
    f"Take a node with more memory, fewer windows at once, as "
    f"{format_flag('resources.max_concurrent', 1)}, or more workers a window."
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One window and seed to train."""

    window: Window
    seed: int

    @property
    def name(self) -> str:
        """For logs and tables."""
        return f"{self.window.name}/seed-{self.seed}"


Unit = tuple[Task, ...]
"""Seeds of one window, trained one after the other by the same workers."""


@dataclass(frozen=True)
class UnitStarted:
    """Workers have begun a unit, perhaps not for the first time."""

    unit: Unit


@dataclass(frozen=True)
class EpochDone:
    """A worker trained an epoch."""

    task: Task
    epoch: TimedEpoch
    is_last: bool = False
    """Whether none follows: all are done, it stopped early, or the predictor is fitted by one."""


@dataclass(frozen=True)
class TaskFinished:
    """A task is over."""

    task: Task
    reason: str | None
    """Why there is no model; None if there should be one."""


@dataclass(frozen=True)
class UnitFinished:
    """No worker trains a unit any more."""

    unit: Unit
    reason: str | None
    """What ended its workers for good; None if they have done what they could."""


Event = UnitStarted | EpochDone | TaskFinished | UnitFinished
Report = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What all units have in common; sent to each of them."""

    run: Run
    panel: SharedPanel
    """As it was when the job was planned."""
    made_by: Mapping[str, str | None] = field(default_factory=dict)
    """The driver's `read_code_version`, for `model.json`."""
    spread: bool = False
    """Whether units go to all nodes in turn, Ray Train's controllers too."""


Train = Callable[[TrainingJob, Unit, Report], None]


def make_task_identity(cfg: RunConfig, manifest: Manifest, task: Task) -> str:
    """Hash of what determines the task's weights, with the panel up to its refit day.

    Raises:
        WindowError: The window is not of this panel's calendar, which changed under the job.
    """
    refit = task.window.refit
    if refit >= len(manifest.calendar) or str(manifest.calendar[refit]) != task.window.name:
        raise WindowError(
            f"window {task.window.name} is not day {refit} of the panel's calendar any more: the "
            "panel was built again while this job ran. Start `gangru train` again."
        )
    day: dt.date = manifest.calendar[refit].astype(dt.date)
    return model_identity(cfg, task.window.name, task.seed, manifest.fingerprint_to(day))


def make_units(tasks: Sequence[Task], slots: int) -> list[Unit]:
    """A unit a window, whose data its seeds share; a unit a task if there are more slots."""
    windows: dict[str, list[Task]] = {}
    for task in tasks:
        windows.setdefault(task.window.name, []).append(task)
    if len(windows) < slots:
        return [(task,) for task in tasks]
    return [tuple(unit) for unit in windows.values()]


def run_units(
    job: TrainingJob, units: Sequence[Unit], at_once: int, *, train: Train | None = None
) -> Iterator[Event]:
    """Run units on Ray; each ends with `UnitFinished`.

    Args:
        job: What they have in common.
        units: What is to be trained.
        at_once: Units that Ray is given at the same time.
        train: What a worker does; None = `worker.train_unit`.

    Yields:
        What happens, in the order in which it is heard of.
    """
    here = ray.get_runtime_context().get_node_id()  # must not go down with a worker's node
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    # where memory is short, Ray kills more than the process that takes it
    news = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=strategy)(News).remote()
    submit, size = _make_submit(job, news, train), job.run.cfg.resources
    waiting = deque((unit, size.cpus_per_worker) for unit in units)
    running: dict[Any, tuple[Unit, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                unit, cpus = waiting.popleft()
                running[submit(unit, cpus)] = unit, cpus
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=_POLL_SECONDS)
            with suppress(RayError):  # the news are lost; storage has what is trained
                yield from ray.get(news.drain.remote(), timeout=10)
            for reference in ended:
                unit, cpus = running.pop(reference)
                reason, is_memory = _find_reason(reference)
                more = find_more_cpus(size, cpus) if is_memory else None
                if more is None:
                    yield UnitFinished(unit, reason)
                    if size.workers > 1:  # what Ray Train wrote of its own
                        job.run.folder.discard(f"{CHECKPOINTS}/{_name_run(unit)}")
                else:
                    text = "window_restarted window=%s cpus_per_worker=%g: %s"
                    _logger.warning(text, unit[0].name, more, reason)
                    waiting.append((unit, more))
    finally:
        for reference in running:  # of a driver that stops early, in a session that goes on
            with suppress(RayError):
                ray.cancel(reference, force=True)
        ray.kill(news)


def _make_submit(job: TrainingJob, news: Any, train: Train | None) -> Callable[[Unit, float], Any]:
    """Gives Ray a unit, with a worker's CPUs: training itself, or a Ray Train run."""
    size, shared = job.run.cfg.resources, ray.put(job)  # once, with its references to the panel
    where: dict[str, Any] = {
        "max_retries": size.max_failures,
        "scheduling_strategy": "SPREAD" if job.spread else "DEFAULT",
    }
    if size.workers > 1:  # Train's workers have retries of their own; its controller dies too
        fit = ray.remote(num_cpus=0, retry_exceptions=[RayActorError], **where)(_fit)
        return lambda unit, cpus: fit.remote(shared, unit, news, train, cpus)
    task = ray.remote(
        num_gpus=size.gpus_per_worker,
        retry_exceptions=True,
        # 0: the process stays, with its imports, for whoever needs one like it
        max_calls=size.windows_per_run or (1 if size.gpus_per_worker else 0),
        **where,
    )(_train)
    return lambda unit, cpus: task.options(num_cpus=cpus).remote(shared, unit, news, train)


def _find_reason(reference: Any) -> tuple[str | None, bool]:
    """Why a unit has ended, if not by itself; and whether memory was short."""
    try:
        return ray.get(reference), False
    except OutOfMemoryError as error:
        return describe_memory(str(error), _MORE_MEMORY), True
    except RayError as error:
        return extract_reason(error), False


def find_more_cpus(size: ResourcesConfig, cpus: float) -> float | None:
    """CPUs of a worker for fewer to fit on a node; None if none fits with more."""
    more = min(2 * cpus, session.count_cpus())
    room = session.count_workers(replace(size, cpus_per_worker=more)) if more > cpus else 0
    return more if room >= (size.min_workers or size.workers) else None


def _name_run(unit: Unit) -> str:
    return f"ray-{unit[0].name.replace('/', '-')}"


class News:
    """An actor that keeps what workers report until the driver asks."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def append(self, event: Event) -> None:
        self._events.append(event)

    def drain(self) -> list[Event]:
        """What was reported since the last call."""
        events, self._events = self._events, []
        return events


def _train(job: TrainingJob, unit: Unit, news: Any, train: Train | None) -> None:
    """Train in this process, a worker of Ray's."""
    logging.getLogger().setLevel(logging.WARNING)
    if train is None:
        from gangru_dist.training.worker import train_unit  # torch: not for the driver

        train = train_unit

    def report(event: Event) -> None:
        sent = news.append.remote(event)
        if isinstance(event, TaskFinished):  # the driver hears of it before the unit's end
            with suppress(RayActorError):
                get_value(sent)

    train(job, unit, report)


def _fit(job: TrainingJob, unit: Unit, news: Any, train: Train | None, cpus: float) -> str | None:
    """Train in a group of workers; return why they could not go on."""
    import ray.train as rt  # with torch five seconds
    from ray.train.torch import TorchConfig, TorchTrainer

    run, size = job.run, job.run.cfg.resources
    per_worker = {"CPU": cpus}
    if size.gpus_per_worker:
        per_worker["GPU"] = size.gpus_per_worker
    trainer = TorchTrainer(
        lambda: _train(job, unit, news, train),
        # two ranks on one GPU cannot speak NCCL
        torch_config=TorchConfig(backend="nccl" if size.gpus_per_worker >= 1 else "gloo"),
        scaling_config=rt.ScalingConfig(
            num_workers=(size.min_workers, size.workers) if size.min_workers else size.workers,
            use_gpu=size.gpus_per_worker > 0,
            resources_per_worker=per_worker,
        ),
        run_config=rt.RunConfig(
            name=_name_run(unit),
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
        cause = next(iter(failures.values()), error)
        if "running low on memory" in str(cause):
            raise OutOfMemoryError(str(cause)) from error
        return extract_reason(cause)
    return None
