"""One trial: the training core on its windows, one after another, in one process. Knows no Ray."""

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
"""Called after every predictor epoch; may not return, when the trial is stopped."""


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
    """Train every window with the first seed; returns each one's validation IC.

    Args:
        cfg: The trial's configuration.
        base: The search's; its label scale and universe are the yardstick.
        windows: Refit days, in order.
        calendar: (D,) datetime64[D] of the panel.
        block_of: The panel of a window, up to its refit day and no later.
        steps_per_window: Most predictor epochs of any trial; see `objective.step`.
        report: Gets step, mean_ic, objective, window_ics, epochs, gan_epochs.
        device: Where to train.

    Raises:
        DivergedError: A loss is no longer finite.
        TrainingError: A window has no usable day.
    """
    made = all_windows(calendar, cfg)
    teller = _Teller(cfg, base, steps_per_window, report)
    for name in windows:
        block = with_features(block_of(name), cfg.features)
        teller.begin(*_data(block, made[name], calendar, cfg, base, device))
        state = TrainingState(cfg, cfg.training.seeds[0], device)
        assert teller.data is not None
        train_window(teller.data, state, cfg, seed=cfg.training.seeds[0], report=teller.after_epoch)
    return teller.ics


def with_features(block: PanelBlock, features: tuple[str, ...]) -> PanelBlock:
    """The block with these features in this order; the same object if they are its own."""
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
    """What the trial trains on, and what it is judged on if that differs."""
    ruler = objective.yardstick(cfg, base)
    with warnings.catch_warnings():
        # blocks are shared between trials, hence read-only; nothing writes to them
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        data = prepare(block, window, calendar, cfg, Alone(), device)
        if ruler == cfg:
            return data, None
        judged = dataclasses.replace(window, train_days=())
        measure = prepare(block, judged, calendar, ruler, Alone(), device)
    if not measure.valid:
        raise TrainingError(
            f"no validation day of {window.name} has enough assets in the search's own universe; "
            f"left out: {', '.join(measure.dropped)}. See universe.min_assets="
            f"{base.universe.min_assets}."
        )
    return data, measure


class _Teller:
    """Turns the training core's reports of epochs into a trial's."""

    def __init__(self, cfg: RunConfig, base: RunConfig, steps: int, report: Report) -> None:
        self.cfg, self.base, self.steps, self.report = cfg, base, steps, report
        self.data: WindowData | None = None
        self.judged: WindowData | None = None
        self.inputs: Inputs | None = None
        """What the predictor sees of the judged days, once the generator is frozen."""
        self.ics: list[float] = []
        """Of each window begun: the IC of the epoch that is kept."""
        self.epochs = self.gan_epochs = 0
        self._own: list[float] = []

    def begin(self, data: WindowData, judged: WindowData | None) -> None:
        """A new window."""
        self.data, self.judged, self._own = data, judged, []
        self.inputs = None

    def after_epoch(self, epoch: TimedEpoch, state: TrainingState) -> None:
        """The training core's `report`."""
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
        judged, predictor = self.judged, state.network.predictor
        self.inputs = self.inputs or frozen_inputs(state.network, judged, bf16=bf16)
        days = validation_ic(predictor, judged, self.inputs, judged.valid, Alone(), bf16=bf16)
        return sum(days) / len(days)
