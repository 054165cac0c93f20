"""Where every window stands, told by the workers and read by the driver [Ray]."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gangru_dist import gauges
from gangru_dist.log import Rows
from gangru_dist.runs.model import EpochResult, GanEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.train_summary import WindowResult
from gangru_dist.training.tensorboard import tensorboard
from gangru_dist.training.window import TimedEpoch

_logger = logging.getLogger(__name__)
_POLL_SECONDS = 1.0


class ProgressBoard:
    """Collects events from workers; the driver fetches them in batches."""

    def __init__(self) -> None:
        self.events: list[tuple[str, TimedEpoch]] = []

    def update(self, task: str, epoch: TimedEpoch) -> None:
        """One epoch of one task is done."""
        self.events.append((task, epoch))

    def take(self) -> list[tuple[str, TimedEpoch]]:
        """Events since the last call."""
        events, self.events = self.events, []
        return events


class ProgressLog:
    """All windows in one display on a terminal, else a line an epoch; with the whole job's ETA."""

    def __init__(self, run: Run, tasks: int) -> None:
        self.cfg, self.tasks = run.cfg, tasks
        self.tensorboard = tensorboard(run)
        here = ray.get_runtime_context().get_node_id()  # must not go down with a worker's node
        strategy = NodeAffinitySchedulingStrategy(here, soft=False)
        remote = ray.remote(num_cpus=0, scheduling_strategy=strategy)(ProgressBoard)
        self.board = remote.remote()
        self.started: float | None = None
        self.done: dict[str, float] = {}
        self.rows = Rows("train", total=tasks)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self.rows.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        if not isinstance(error, KeyboardInterrupt):
            self._drain()
        self.rows.stop()
        if self.tensorboard:
            self.tensorboard.close()
        ray.kill(self.board)

    def finish(self, task: str, result: WindowResult) -> None:
        """A task is over, however it ended: none of its epochs are still to come."""
        with self._lock:
            self._drain()  # its last epochs come before its end
            self.done[task] = 1.0
            self.rows.finish(task)
        gauges.count(gauges.WINDOWS, status=result.status)
        _logger.info(
            "window_done window=%s status=%s valid_ic=%s %s",
            task,
            result.status,
            "none" if result.best_valid_ic is None else f"{result.best_valid_ic:+.4f}",
            result.reason,
        )

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            with self._lock:
                self._drain()

    def _drain(self) -> None:
        try:
            events = ray.get(self.board.take.remote(), timeout=10)
        except ray.exceptions.RayError:
            return  # the cluster is going down; the driver's own error says more
        for task, epoch in events:
            self._say(task, epoch)

    def _say(self, task: str, epoch: TimedEpoch) -> None:
        result, rate = epoch.result, epoch.samples_per_s
        gauges.show(gauges.SAMPLES_PER_SECOND, rate, window=task, stage=result.stage)
        if not isinstance(result, GanEpoch):
            gauges.show(gauges.VALID_IC, result.valid_ic, window=task)
        if self.tensorboard:
            self.tensorboard.epoch(task, epoch)
        done, total = self._epochs(result)
        self.done[task] = done / total
        if self.started is None:  # the pace of training, without Ray's start-up
            self.started = time.time() - epoch.seconds
        if self.rows.is_live:
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
    """What an epoch's line says of its losses."""
    if isinstance(result, GanEpoch):
        return (
            f"d_loss={result.discriminator_loss:.4f} g_loss={result.generator_loss:.4f} "
            f"d_accuracy={result.discriminator_accuracy:.2f}"
        )
    return f"train_loss={result.train_loss:+.4f} valid_ic={result.valid_ic:+.4f}"
