"""One trial: trains its windows one after another in one process, without Ray."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from gangru_dist.config import RunConfig
from gangru_dist.errors import TrainingError
from gangru_dist.models.precision import arithmetic
from gangru_dist.panel.block import PanelBlock
from gangru_dist.runs.model import GanEpoch, PredictorEpoch, TimedEpoch
from gangru_dist.splits import Window
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.collective import Alone
from gangru_dist.training.data import WindowData, prepare
from gangru_dist.training.loop import Inputs, frozen_inputs, validation_ic
from gangru_dist.training.window import train_window
from gangru_dist.tuning import objective
from gangru_dist.tuning.windows import all_windows

Report = Callable[[dict[str, Any]], None]
"""Called after every predictor epoch; does not return if the trial is stopped."""


def run_trial(
    cfg: RunConfig,
    *,
    base: RunConfig,
    windows: Sequence[str],
    calendar: np.ndarray,
    block_of: Callable[[str], PanelBlock],
    steps_per_window: int,
    report: Report,
    device: torch.device | str = "cpu",
) -> list[float]:
    """Train every window with the first seed; return the validation IC of each.

    Args:
        cfg: The trial's configuration.
        base: The search's configuration; its label scale and universe are used for validation.
        windows: Refit days, in order.
        calendar: (D,) datetime64[D] of the panel.
        block_of: Gives the panel of a window, up to its refit day.
        steps_per_window: Most predictor epochs of any trial; see `objective.step`.
        report: Receives step, mean_ic, objective, window_ics, epochs, gan_epochs.
        device: Where to train.

    Raises:
        DivergedError: A loss is no longer finite.
        TrainingError: A window has no usable day.
    """
    made = all_windows(calendar, cfg)
    seed = cfg.training.seeds[0]
    reports = _TrialReport(cfg, base, steps_per_window, report)
    for name in windows:
        block = with_features(block_of(name), cfg.features)
        data, judged = _data(block, made[name], calendar, cfg, base, device)
        reports.start_window(judged)
        state = TrainingState(cfg, seed, device)
        train_window(data, state, cfg, seed=seed, report=reports.after_epoch)
    return reports.ics


def with_features(block: PanelBlock, features: tuple[str, ...]) -> PanelBlock:
    """The block with these features in this order; the same object if nothing changes."""
    if block.feature_names == features:
        return block
    columns = [block.feature_names.index(name) for name in features]
    return dataclasses.replace(
        block, feature_names=features, features=block.features[:, :, columns]
    )


def _data(
    block: PanelBlock,
    window: Window,
    calendar: np.ndarray,
    cfg: RunConfig,
    base: RunConfig,
    device: torch.device | str,
) -> tuple[WindowData, WindowData | None]:
    """Training data of the trial, and its validation data if that is not the same."""
    yardstick = objective.yardstick(cfg, base)
    with warnings.catch_warnings():
        # blocks are shared between trials, hence read-only; nothing writes to them
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        data = prepare(block, window, calendar, cfg, Alone(), device)
        if yardstick == cfg:
            return data, None
        without_training = dataclasses.replace(window, train_days=(), older_days=())
        judged = prepare(block, without_training, calendar, yardstick, Alone(), device)
    if not judged.valid:
        raise TrainingError(
            f"no validation day of {window.name} has enough assets in the search's own universe; "
            f"left out: {', '.join(judged.dropped)}. See universe.min_assets="
            f"{base.universe.min_assets}."
        )
    return data, judged


class _TrialReport:
    """Turns the epochs of the training core into a trial's reports."""

    def __init__(self, cfg: RunConfig, base: RunConfig, steps: int, report: Report) -> None:
        self.cfg, self.base, self.steps, self.report = cfg, base, steps, report
        self.judged: WindowData | None = None
        """Validation data, if it differs from the trial's own."""
        self.inputs: Inputs | None = None
        """The predictor's input on the validation days, once the generator is frozen."""
        self.ics: list[float] = []
        """For each window started, the IC of its best epoch."""
        self.epochs = self.gan_epochs = 0
        self._own: list[float] = []

    def start_window(self, judged: WindowData | None) -> None:
        """Begin a new window."""
        self.judged, self._own, self.inputs = judged, [], None

    def after_epoch(self, epoch: TimedEpoch, state: TrainingState) -> None:
        """The `report` of `train_window`."""
        if isinstance(epoch.result, GanEpoch):
            self.gan_epochs += 1
            return
        self.epochs += 1
        self._own.append(self._judge(epoch.result, state))
        if len(self._own) == 1:
            self.ics.append(0.0)
        progress = state.progress
        self.ics[-1] = self._own[progress.best_epoch - 1]
        done = progress.stage == "done"
        self.report(
            {
                "step": objective.step(
                    len(self.ics) - 1, progress.epoch, done=done, epochs=self.steps
                ),
                "mean_ic": objective.mean(self.ics),
                "objective": objective.objective(self.ics, self.base.tune.spread_penalty),
                "window_ics": list(self.ics),
                "windows_done": len(self.ics) - (not done),
                "epochs": self.epochs,
                "gan_epochs": self.gan_epochs,
            }
        )

    def _judge(self, result: PredictorEpoch, state: TrainingState) -> float:
        if self.judged is None:
            return result.valid_ic
        bf16 = arithmetic(self.cfg).bf16
        judged, predictor = self.judged, state.judged
        self.inputs = self.inputs or frozen_inputs(state.network, judged, bf16=bf16)
        days = validation_ic(predictor, judged, self.inputs, judged.valid, Alone(), bf16=bf16)
        return sum(days) / len(days)
