"""Where every window stands, told by the workers and read by the driver [Ray]."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Any, Self

import ray

from gangru_dist.config import RunConfig

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
    """A line an epoch in the driver's log, with the time left for the whole job."""

    def __init__(self, cfg: RunConfig, tasks: int) -> None:
        self.cfg, self.tasks = cfg, tasks
        self.board = ray.remote(num_cpus=0)(ProgressBoard).remote()
        self.started: float | None = None
        self.done: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
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
        self._drain()
        ray.kill(self.board)

    def finish(self, task: str) -> None:
        """A task is over, however it ended: none of its epochs are still to come."""
        self.done[task] = 1.0

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self._drain()

    def _drain(self) -> None:
        try:
            events = ray.get(self.board.take.remote(), timeout=10)
        except ray.exceptions.RayError:
            return  # the cluster is going down; the driver's own error says more
        for task, metrics in events:
            self._log(task, metrics)

    def _log(self, task: str, metrics: dict[str, Any]) -> None:
        cfg, is_gan = self.cfg, metrics["stage"] == "gan"
        gan_epochs = cfg.gan.epochs if cfg.variant == "gan_gru" else 0
        passed = metrics["epoch"] + (0 if is_gan else gan_epochs)
        self.done[task] = passed / (gan_epochs + cfg.training.epochs)
        share = sum(self.done.values()) / self.tasks
        if self.started is None:  # the pace of training, without Ray's start-up
            self.started = time.time() - metrics["seconds"]
        left = (time.time() - self.started) * (1 - share) / max(share, 1e-9)
        figures = (
            f"d_loss={metrics['discriminator_loss']:.4f} g_loss={metrics['generator_loss']:.4f} "
            f"d_accuracy={metrics['discriminator_accuracy']:.2f}"
            if is_gan
            else f"train_loss={metrics['train_loss']:+.4f} valid_ic={metrics['valid_ic']:+.4f}"
        )
        _logger.info(
            "epoch_done window=%s stage=%s epoch=%d/%d %s samples_per_s=%.0f eta_min=%.1f",
            task,
            metrics["stage"],
            metrics["epoch"],
            cfg.gan.epochs if is_gan else cfg.training.epochs,
            figures,
            metrics["samples_per_s"],
            left / 60,
        )
