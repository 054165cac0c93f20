"""Where every window stands, told by the workers and read by the driver [Ray]."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gangru_dist import gauges
from gangru_dist.config import RunConfig
from gangru_dist.log import Rows, waiting
from gangru_dist.storage import Storage
from gangru_dist.training.summary import WindowResult
from gangru_dist.training.tensorboard import tensorboard

_logger = logging.getLogger(__name__)
_POLL_SECONDS = 1.0


class ProgressBoard:
    """Collects events from workers; the driver fetches them in batches."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def update(self, task: str, metrics: dict[str, Any]) -> None:
        """One epoch of one task is done."""
        self.events.append((task, metrics))

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """Events since the last call."""
        events, self.events = self.events, []
        return events


class ProgressLog:
    """All windows in one display on a terminal, else a line an epoch; with the whole job's ETA."""

    def __init__(self, cfg: RunConfig, tasks: int, run: Storage) -> None:
        self.cfg, self.tasks = cfg, tasks
        self.tensorboard = tensorboard(cfg, run)
        here = ray.get_runtime_context().get_node_id()  # must not go down with a worker's node
        strategy = NodeAffinitySchedulingStrategy(here, soft=False)
        remote = ray.remote(num_cpus=0, scheduling_strategy=strategy)(ProgressBoard)
        self.board = remote.remote()
        self.started: float | None = None
        self.done: dict[str, float] = {}
        self.rows = Rows("train", total=tasks)
        self._silence = ExitStack()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self.rows.start()
        self._silence.enter_context(waiting("workers_and_first_epoch"))
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
        for task, metrics in events:
            self._say(task, metrics)

    def _say(self, task: str, metrics: dict[str, Any]) -> None:
        rate, stage = metrics["samples_per_s"], metrics["stage"]
        gauges.show(gauges.SAMPLES_PER_SECOND, rate, window=task, stage=stage)
        if stage != "gan":
            gauges.show(gauges.VALID_IC, metrics["valid_ic"], window=task)
        if self.tensorboard:
            self.tensorboard.epoch(task, metrics)
        done, total = self._epochs(metrics)
        self.done[task] = done / total
        self._silence.close()
        if self.started is None:  # the pace of training, without Ray's start-up
            self.started = time.time() - metrics["seconds"]
        if self.rows.is_live:
            note = f"{metrics['stage']} {figures_of(metrics)} {metrics['samples_per_s']:.0f}/s"
            self.rows.update(task, done=done, total=total, note=note)
            return
        _logger.info(
            "epoch_done window=%s stage=%s epoch=%d/%d %s samples_per_s=%.0f eta_min=%.1f",
            task,
            metrics["stage"],
            metrics["epoch"],
            self.cfg.gan.epochs if metrics["stage"] == "gan" else self.cfg.training.epochs,
            figures_of(metrics),
            metrics["samples_per_s"],
            self.seconds_left / 60,
        )

    def _epochs(self, metrics: dict[str, Any]) -> tuple[int, int]:
        """Epochs of a window that are done, over both stages, and how many there are at most."""
        gan = self.cfg.gan.epochs if self.cfg.variant == "gan_gru" else 0
        before = 0 if metrics["stage"] == "gan" else gan
        return before + metrics["epoch"], gan + self.cfg.training.epochs

    @property
    def seconds_left(self) -> float:
        """For the whole job, at the pace so far, if no window stops early."""
        share = sum(self.done.values()) / self.tasks
        passed = time.time() - (self.started or time.time())
        return passed * (1 - share) / max(share, 1e-9)


def figures_of(metrics: dict[str, Any]) -> str:
    """What an epoch's line says of its losses."""
    if metrics["stage"] == "gan":
        return (
            f"d_loss={metrics['discriminator_loss']:.4f} g_loss={metrics['generator_loss']:.4f} "
            f"d_accuracy={metrics['discriminator_accuracy']:.2f}"
        )
    return f"train_loss={metrics['train_loss']:+.4f} valid_ic={metrics['valid_ic']:+.4f}"
