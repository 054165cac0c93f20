"""The queue of a job's tasks: it hands out windows and seeds, one at a time, to groups of workers.

A group takes a task, trains it, finishes it, takes the next. When its workers are lost they come
back and are given the same task again, as often as `resources.max_failures` allows; then only that
task fails, and the group goes on. The queue is an actor beside the driver, which publishes what it
reports [Ray].
"""

from __future__ import annotations

import datetime as dt
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gangru_dist.base.errors import ResourceError, WindowError
from gangru_dist.base.log import publish
from gangru_dist.config.identity import model_identity
from gangru_dist.config.settings import RunConfig
from gangru_dist.events.events import EpochTrained
from gangru_dist.maths.calendar import Window
from gangru_dist.panel.manifest import Manifest
from gangru_dist.runs.model import GanEpoch, TimedEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.summaries import WindowResult

_POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One window and seed to train."""

    window: Window
    seed: int

    @property
    def name(self) -> str:
        """For logs and tables."""
        return f"{self.window.name}/seed-{self.seed}"


@dataclass(frozen=True)
class EpochDone:
    """A worker trained an epoch."""

    task: Task
    epoch: TimedEpoch


@dataclass(frozen=True)
class TaskFinished:
    """A task is over."""

    task: Task
    reason: str | None
    """Why there is no model; None if there should be one."""


Event = EpochDone | TaskFinished


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


class TaskQueue:
    """Waiting and running tasks, and the events since the driver last asked."""

    def __init__(self, tasks: Sequence[Task], max_failures: int) -> None:
        self._waiting = list(tasks)
        self._max_failures = max_failures
        self._running: dict[int, Task] = {}
        self._last: dict[int, Window] = {}
        self._takes: Counter[int] = Counter()
        self._losses: Counter[Task] = Counter()
        self._reasons: dict[Task, str] = {}
        self._events: list[Event] = []

    def take(self, group: int) -> Task | None:
        """Give a group its next task; None if none is left.

        It is the same again if the group has not finished it; else one of the window that the group
        has in memory comes first.
        """
        self._takes[group] += 1
        if group in self._running:
            task = self._running[group]
            self._losses[task] += 1
            if self._losses[task] > self._max_failures:
                self.finish(group, self._reasons.get(task, "its workers died"))
        if group not in self._running and self._waiting:
            same = [task for task in self._waiting if task.window == self._last.get(group)]
            task = (same or self._waiting)[0]
            self._waiting.remove(task)
            self._running[group] = task
        return self._running.get(group)

    def report_epoch(self, task: Task, epoch: TimedEpoch) -> None:
        """Record that an epoch is done."""
        self._events.append(EpochDone(task, epoch))

    def finish(self, group: int, reason: str | None = None) -> None:
        """End the group's task: trained, or failed in a way that another attempt would too."""
        task = self._running.pop(group)
        self._last[group] = task.window
        self._events.append(TaskFinished(task, reason))

    def record_failure(self, group: int, reason: str) -> None:
        """Record the error that ends the group's workers; new ones may follow."""
        if group in self._running:
            self._reasons[self._running[group]] = reason

    def give_up(self, group: int, reason: str) -> None:
        """Fail the group's task, or the next one: its workers cannot be started."""
        if group in self._running or self.take(group) is not None:
            self.finish(group, self._reasons.get(self._running[group], reason))

    def is_done(self, group: int) -> bool:
        """Whether nothing is left that the group could train."""
        return not self._waiting and group not in self._running

    def count_takes(self, group: int) -> int:
        """How often the group took a task, repeats included."""
        return self._takes[group]

    def drain_events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """End it: there is nothing to end in this process."""


_OF_WORKERS = ("take", "finish", "record_failure")
"""Methods that workers call."""


class RemoteTaskQueue:
    """A `TaskQueue` as an actor that asks for no CPU, on the driver's node; the handle travels.

    Where the actor is gone, workers find no task any more, and end; the driver says why.
    """

    def __init__(self, tasks: Sequence[Task], max_failures: int) -> None:
        here = ray.get_runtime_context().get_node_id()  # must not go down with a worker's node
        strategy = NodeAffinitySchedulingStrategy(here, soft=False)
        actor = ray.remote(num_cpus=0, scheduling_strategy=strategy)(TaskQueue)
        self.actor = actor.remote(tasks, max_failures)

    def __getattr__(self, method: str) -> Any:
        """A method of the queue, which waits for its answer."""
        if method.startswith("_"):  # looked for while this is unpickled
            raise AttributeError(method)
        return partial(self._ask, method)

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            return ray.get(getattr(self.actor, method).remote(*args))
        except RayActorError as error:
            if method in _OF_WORKERS:
                return None
            raise ResourceError(
                "the process that hands out the windows died; was this node short of memory? "
                "Run the same command again to continue."
            ) from error

    def report_epoch(self, task: Task, epoch: TimedEpoch) -> None:
        """Record that an epoch is done; nobody waits for it."""
        self.actor.report_epoch.remote(task, epoch)

    def drain_events(self) -> list[Event]:
        """What happened since the last call; nothing where the cluster is going down."""
        events: list[Event] = []
        with suppress(RayError):
            events = ray.get(self.actor.drain_events.remote(), timeout=10)
        return events

    def close(self) -> None:
        """End the actor."""
        ray.kill(self.actor)


class QueueReader:
    """Publishes what a queue's workers report, in a thread of its own."""

    def __init__(
        self,
        task_queue: TaskQueue | RemoteTaskQueue,
        cfg: RunConfig,
        identities: Mapping[Task, str],
        publish_end: Callable[[TaskFinished], WindowResult],
    ) -> None:
        """Read nothing yet.

        Args:
            task_queue: The job's queue.
            cfg: The job's configuration.
            identities: Of all models of the job.
            publish_end: Publishes what became of a task that is over, and returns it.
        """
        self.results: list[WindowResult] = []
        self._queue, self._cfg, self._identities = task_queue, cfg, identities
        self._publish_end = publish_end
        self._started: float | None = None
        self._shares: dict[Task, float] = {}

    @contextmanager
    def run(self) -> Iterator[None]:
        """Read until the block ends, and what is left then; not after an interrupt."""
        over = threading.Event()

        def follow() -> None:
            while not over.wait(_POLL_SECONDS):
                self._read()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=10)
            if not isinstance(sys.exception(), KeyboardInterrupt):
                self._read()

    def _read(self) -> None:
        for event in self._queue.drain_events():
            if isinstance(event, EpochDone):
                self._publish_epoch(event.task, event.epoch)
            else:
                self._shares[event.task] = 1.0
                self.results.append(self._publish_end(event))

    def _publish_epoch(self, task: Task, epoch: TimedEpoch) -> None:
        if self._started is None:  # the pace of training, without Ray's start-up
            self._started = time.time() - epoch.seconds
        gan = self._cfg.gan.epochs if self._cfg.variant == "gan_gru" else 0
        done = epoch.result.epoch + (0 if isinstance(epoch.result, GanEpoch) else gan)
        total = gan + self._cfg.training.epochs
        self._shares[task] = done / total
        share = sum(self._shares.values()) / len(self._identities)
        event = EpochTrained(
            name=task.name,
            identity=self._identities[task],
            epoch=epoch,
            done=done,
            total=total,
            seconds_left=(time.time() - self._started) * (1 - share) / share,
        )
        publish(event)


@dataclass(frozen=True, kw_only=True)
class WorkerGroup:
    """One group of workers and what it trains; sent to each of them."""

    run: Run
    number: int
    tasks: TaskQueue | RemoteTaskQueue
    """Where it takes its tasks from."""
    made_by: Mapping[str, str | None] = field(default_factory=dict)
    """The driver's `read_code_version`, for `model.json`."""
    through_ray: bool = False
    """Whether Ray Data reads the panel; else the workers do."""
    spread: bool = False
    """Whether Ray may place the group's controller (0.7 GB) on another node than the driver's."""

    @property
    def name(self) -> str:
        """Of its Ray Train run, and of that run's folder in storage."""
        return f"group-{self.number}"
