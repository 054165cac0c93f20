"""Progress of all windows, reported by the workers and shown by the driver."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from gangru_dist.base.log import Rows, log_waiting
from gangru_dist.runs.model import EpochResult, GanEpoch, TimedEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.summaries import WindowResult
from gangru_dist.training.queue import EpochDone, RemoteTaskQueue, Task, TaskFinished

_logger = logging.getLogger(__name__)
_POLL_SECONDS = 1.0


@runtime_checkable
class Tell(Protocol):
    """Is told each epoch, by one thread."""

    def __call__(self, task: Task, epoch: TimedEpoch, *, share: float, seconds_left: float) -> None:
        """`share`: of the task's epochs that are done; `seconds_left`: of the whole job."""
        ...


class ProgressLog:
    """All windows in one display on a terminal, else a line an epoch; with the whole job's ETA.

    Starts the queue and turns its events into log lines, gauges and results.
    """

    def __init__(
        self,
        run: Run,
        tasks: Sequence[Task],
        result: Callable[[TaskFinished], WindowResult],
        tell: Tell,
    ) -> None:
        """`result` says what became of a task, once it is over; `tell` is told each epoch."""
        self.cfg, self.tasks, self._result, self._tell = run.cfg, len(tasks), result, tell
        self.queue = RemoteTaskQueue(tasks, run.cfg.resources.max_failures)
        self.started: float | None = None
        self.done: dict[str, float] = {}
        self.results: list[WindowResult] = []
        self.rows = Rows("train", total=len(tasks))
        self._silence = ExitStack()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self.rows.start()
        self._silence.enter_context(log_waiting("workers_and_first_epoch"))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._silence.close()
        self._stop.set()
        self._thread.join(timeout=10)
        if not isinstance(error, KeyboardInterrupt):
            self._drain()
        self.rows.stop()
        self.queue.close()

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self._drain()

    def _drain(self) -> None:
        for event in self.queue.drain_events():
            if isinstance(event, EpochDone):
                self._count(event.task, event.epoch)
                left, share = self.seconds_left, self.done[event.task.name]
                self._tell(event.task, event.epoch, share=share, seconds_left=left)
                self._say(event.task, event.epoch)
            else:
                self._finish(event)

    def _finish(self, event: TaskFinished) -> None:
        """A task is over, however it ended."""
        result, name = self._result(event), event.task.name
        self.results.append(result)
        self.done[name] = 1.0
        self.rows.finish(name)
        _logger.info(
            "window_done window=%s status=%s valid_ic=%s %s",
            name,
            result.status,
            "none" if result.best_valid_ic is None else f"{result.best_valid_ic:+.4f}",
            result.reason,
        )

    def _count(self, task: Task, epoch: TimedEpoch) -> None:
        done, total = self._epochs(epoch.result)
        self.done[task.name] = done / total
        self._silence.close()
        if self.started is None:  # the pace of training, without Ray's start-up
            self.started = time.time() - epoch.seconds

    def _say(self, told: Task, epoch: TimedEpoch) -> None:
        task, result, rate = told.name, epoch.result, epoch.samples_per_s
        if self.rows.is_live:
            done, total = self._epochs(result)
            note = f"{result.stage} {losses_of(result)} {rate:.0f}/s"
            self.rows.update(task, done=done, total=total, note=note)
            return
        _logger.info(
            "epoch_done window=%s stage=%s epoch=%d/%d %s samples_per_s=%.0f eta_min=%.1f",
            task,
            result.stage,
            result.epoch,
            self.cfg.gan.epochs if isinstance(result, GanEpoch) else self.cfg.training.epochs,
            losses_of(result),
            rate,
            self.seconds_left / 60,
        )

    def _epochs(self, result: EpochResult) -> tuple[int, int]:
        """Epochs of a window that are done, over both stages, and how many there are at most."""
        gan = self.cfg.gan.epochs if self.cfg.variant == "gan_gru" else 0
        before = 0 if isinstance(result, GanEpoch) else gan
        return before + result.epoch, gan + self.cfg.training.epochs

    @property
    def seconds_left(self) -> float:
        """For the whole job, at the pace so far, if no window stops early."""
        share = sum(self.done.values()) / self.tasks
        passed = time.time() - (self.started or time.time())
        return passed * (1 - share) / max(share, 1e-9)


def losses_of(result: EpochResult) -> str:
    """An epoch's losses, for its log line."""
    if isinstance(result, GanEpoch):
        return (
            f"d_loss={result.discriminator_loss:.4f} g_loss={result.generator_loss:.4f} "
            f"d_accuracy={result.discriminator_accuracy:.2f}"
        )
    return f"train_loss={result.train_loss:+.4f} valid_ic={result.valid_ic:+.4f}"
