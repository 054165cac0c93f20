"""The board: hands out the windows and seeds of a job, one at a time, to slots that are free.

A slot is a long-lived group of workers: it takes a task, trains it, settles it, takes the next.
When its workers are lost they come back and are given the same task again, as often as
`resources.max_failures` allows; then only that task fails, and the slot goes on. Plain
Python: `progress` runs it as an actor beside the driver.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from gangru_dist.base.errors import WindowError
from gangru_dist.config.identity import model_identity
from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import Window
from gangru_dist.panel.manifest import Manifest
from gangru_dist.runs.model import TimedEpoch
from gangru_dist.runs.run import Run


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
class TaskSettled:
    """A task is over."""

    task: Task
    reason: str | None
    """Why there is no model; None if there should be one."""


Event = EpochDone | TaskSettled


@runtime_checkable
class Tasks(Protocol):
    """The board as workers see it, in this process or another."""

    def take(self, slot: int) -> Task | None:
        """The next task; the same again if the slot has not settled it; None if none is left."""
        ...

    def tell(self, task: Task, epoch: TimedEpoch) -> None:
        """An epoch is done."""
        ...

    def settle(self, slot: int, reason: str | None = None) -> None:
        """The slot's task is over: trained, or failed in a way that another attempt would too."""
        ...

    def trouble(self, slot: int, reason: str) -> None:
        """Remember why the slot's workers are about to end; they may come back."""
        ...


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Resources for one group of workers; sent to each of them."""

    run: Run
    number: int
    tasks: Tasks
    """Where it takes its tasks from."""
    made_by: Mapping[str, str | None] = field(default_factory=dict)
    """The driver's `code_version`, for `model.json`."""
    through_ray: bool = False
    """Whether Ray Data reads the panel; else the workers do."""

    @property
    def name(self) -> str:
        """Of its Ray Train run."""
        return f"slot-{self.number}"


@runtime_checkable
class Driven(Tasks, Protocol):
    """The board as the driver sees it."""

    def give_up(self, slot: int, reason: str) -> None:
        """The slot's workers cannot be started: fail its task, or the next one."""
        ...

    def is_done(self, slot: int) -> bool:
        """Whether nothing is left that the slot could train."""
        ...

    def taken(self, slot: int) -> int:
        """How often the slot's workers took a task, repeats included."""
        ...

    def events(self) -> list[Event]:
        """What happened since the last call."""
        ...


def task_identity(cfg: RunConfig, manifest: Manifest, task: Task) -> str:
    """What decides the task's weights, the panel up to its refit day included.

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


class Board:
    """Waiting and running tasks, and the events since the driver last asked."""

    def __init__(self, tasks: Sequence[Task], max_failures: int) -> None:
        self._waiting = list(tasks)
        self._max_failures = max_failures
        self._under_way: dict[int, Task] = {}
        self._last: dict[int, Window] = {}
        self._taken: Counter[int] = Counter()
        self._losses: Counter[Task] = Counter()
        self._reasons: dict[Task, str] = {}
        self._events: list[Event] = []

    def take(self, slot: int) -> Task | None:
        """See `Tasks`; a window that the slot has in memory comes first."""
        self._taken[slot] += 1
        if slot in self._under_way:
            self._lost(slot)
        if slot not in self._under_way and self._waiting:
            known = [task for task in self._waiting if task.window == self._last.get(slot)]
            task = (known or self._waiting)[0]
            self._waiting.remove(task)
            self._under_way[slot] = task
        return self._under_way.get(slot)

    def _lost(self, slot: int) -> None:
        task = self._under_way[slot]
        self._losses[task] += 1
        if self._losses[task] > self._max_failures:
            self.settle(slot, self._reasons.get(task, "its workers died"))

    def tell(self, task: Task, epoch: TimedEpoch) -> None:
        """See `Tasks`."""
        self._events.append(EpochDone(task, epoch))

    def settle(self, slot: int, reason: str | None = None) -> None:
        """See `Tasks`."""
        task = self._under_way.pop(slot)
        self._last[slot] = task.window
        self._events.append(TaskSettled(task, reason))

    def trouble(self, slot: int, reason: str) -> None:
        """See `Tasks`."""
        if slot in self._under_way:
            self._reasons[self._under_way[slot]] = reason

    def give_up(self, slot: int, reason: str) -> None:
        """See `Driven`."""
        if slot in self._under_way or self.take(slot) is not None:
            task = self._under_way[slot]
            self.settle(slot, self._reasons.get(task, reason))

    def is_done(self, slot: int) -> bool:
        """See `Driven`."""
        return not self._waiting and slot not in self._under_way

    def taken(self, slot: int) -> int:
        """See `Driven`."""
        return self._taken[slot]

    def events(self) -> list[Event]:
        """See `Driven`."""
        events, self._events = self._events, []
        return events
