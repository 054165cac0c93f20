"""A training job on the console: one display of all models on a terminal, else a line per epoch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gangru_dist.base.log import TaskBars, log_waiting, subscribe
from gangru_dist.config.settings import RunConfig
from gangru_dist.events.events import EpochTrained, WindowDone
from gangru_dist.runs.model import EpochResult, GanEpoch
from gangru_dist.runs.summaries import WindowResult

_logger = logging.getLogger(__name__)


class TrainingConsole:
    """A sink that shows epochs and finished models, inside `with console.show()`."""

    def __init__(self, cfg: RunConfig, models: int) -> None:
        """`models` is the number of models that the job trains."""
        self._cfg, self._rows, self._waiting = cfg, TaskBars("train", total=models), ExitStack()

    @contextmanager
    def show(self) -> Iterator[None]:
        """Receive events until the block ends."""
        with self._rows, self._waiting, subscribe(self):
            self._waiting.enter_context(log_waiting("workers_and_first_epoch"))
            yield

    def __call__(self, event: object) -> None:
        """Show an event."""
        match event:
            case EpochTrained():
                self._waiting.close()
                self._show_epoch(event)
            case WindowDone(result=result):
                self._rows.finish(event.name)
                _log_window(event.name, result)

    def _show_epoch(self, event: EpochTrained) -> None:
        result, rate = event.epoch.result, event.epoch.samples_per_s
        if self._rows.is_live:
            note = f"{result.stage} {_format_losses(result)} {rate:.0f}/s"
            self._rows.update(event.name, done=event.done, total=event.total, note=note)
            return
        is_gan = isinstance(result, GanEpoch)
        epochs = self._cfg.gan.epochs if is_gan else event.total - event.done + result.epoch
        _logger.info(
            "epoch_done window=%s stage=%s epoch=%d/%d %s samples_per_s=%.0f eta_min=%.1f",
            event.name,
            result.stage,
            result.epoch,
            epochs,
            _format_losses(result),
            rate,
            event.seconds_left / 60,
        )


def _log_window(name: str, result: WindowResult) -> None:
    ic = "none" if result.best_valid_ic is None else f"{result.best_valid_ic:+.4f}"
    reason = f" {result.reason}" if result.reason else ""
    _logger.info("window_done window=%s status=%s valid_ic=%s%s", name, result.status, ic, reason)


def _format_losses(result: EpochResult) -> str:
    if isinstance(result, GanEpoch):
        return (
            f"d_loss={result.discriminator_loss:.4f} g_loss={result.generator_loss:.4f} "
            f"d_accuracy={result.discriminator_accuracy:.2f}"
        )
    return f"train_loss={result.train_loss:+.4f} valid_ic={result.valid_ic:+.4f}"
