"""One trial: trains its windows one after another in one process, without Ray.

The objective of a search; it uses validation days only, never test days.

Refit days used for tuning, and the first refit day to report.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gangru_dist.base.errors import TrainingError, WindowError
from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import Window, make_windows
from gangru_dist.models.precision import arithmetic
from gangru_dist.panel.store import PanelBlock
from gangru_dist.runs.model import GanEpoch, PredictorEpoch, TimedEpoch
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.collective import Alone
from gangru_dist.training.data import WindowData, first_day, prepare
from gangru_dist.training.loop import Inputs, frozen_inputs, validation_ic
from gangru_dist.training.window import train_window


def mean(ics: Sequence[float]) -> float:
    """Mean validation IC of the windows started so far; pruning compares it."""
    return math.fsum(ics) / len(ics)


def spread(ics: Sequence[float]) -> float:
    """Population standard deviation over the windows; 0 for one window."""
    center = mean(ics)
    return math.sqrt(math.fsum((ic - center) ** 2 for ic in ics) / len(ics))


def objective(ics: Sequence[float], penalty: float) -> float:
    """Mean - penalty x spread of the windows' validation IC."""
    return mean(ics) - penalty * spread(ics)


def judging_config(trial: RunConfig, base: RunConfig) -> RunConfig:
    """A trial's configuration with the label scale and universe of the base, for its validation.

    ICs against ranks and against returns are not comparable, nor are ICs of different universes.
    All trials are therefore validated on the same labels and universe.
    """
    label = dataclasses.replace(
        base.label, horizon=trial.label.horizon, entry_lag=trial.label.entry_lag
    )
    return dataclasses.replace(trial, label=label, universe=base.universe)


def step(window: int, epoch: int, *, done: bool, epochs: int) -> int:
    """Progress of a trial, comparable between trials: each window counts `epochs` steps.

    A window that stops early skips to its last step:

        epochs=10   window 0, epoch 3 -> 3   window 0 done at 7 -> 10   window 1, epoch 1 -> 11
    """
    return window * epochs + (epochs if done else epoch)


@dataclass(frozen=True, kw_only=True)
class TuningWindows:
    """The windows of every trial."""

    names: tuple[str, ...]
    """Refit days, ascending."""
    reported_first: dt.date
    """Windows from this refit day on are not used for tuning, except those in `overlap`."""
    overlap: tuple[str, ...]
    """Tuning windows that are also reported, by `windows.first`."""


def all_windows(calendar: np.ndarray, cfg: RunConfig) -> dict[str, Window]:
    """All windows with enough history, by name, ignoring `windows.first` and `windows.last`."""
    everywhere = dataclasses.replace(cfg.windows, first=None, last=None)
    made, _ = make_windows(
        calendar,
        everywhere,
        cfg.label,
        lookback=cfg.samples.lookback,
        gan_history=cfg.gan_history,
    )
    return {window.name: window for window in made}


def choose(
    calendar: np.ndarray, cfg: RunConfig, variants: Sequence[RunConfig], only: Sequence[str] | None
) -> TuningWindows:
    """Tuning windows: the named ones, else the last before `windows.first`, else the first.

    Args:
        calendar: (D,) datetime64[D] of the panel.
        cfg: The search's configuration.
        variants: See `space.extremes`; a window must have enough history for all of them.
        only: Names of refit days; None = `tune.windows`, or by the rule above.

    Raises:
        WindowError: A named window does not exist, or none is left.
    """
    per_variant = [all_windows(calendar, variant) for variant in variants]
    common = [name for name in per_variant[0] if all(name in made for made in per_variant)]
    first = cfg.windows.first
    wanted = list(only) if only is not None else [str(day) for day in cfg.tune.windows]
    if wanted:
        names = _named(wanted, common)
    elif first:
        names = [name for name in common if name < str(first)][-cfg.tune.max_windows :]
    else:
        names = common[: cfg.tune.max_windows]
    if not names:
        before = f" before windows.first={first}" if first else ""
        raise WindowError(
            f"no refit day with enough history for every trial{before}; there are "
            f"{', '.join(common) or 'none'}. Name some with --windows, or search a shorter "
            "samples.lookback."
        )
    after = [name for name in per_variant[0] if name > names[-1]]
    next_day = dt.date.fromisoformat(names[-1]) + dt.timedelta(days=1)
    following = dt.date.fromisoformat(after[0]) if after else next_day
    return TuningWindows(
        names=tuple(names),
        reported_first=first or following,
        overlap=tuple(name for name in names if first and name >= str(first)),
    )


def _named(wanted: Sequence[str], common: Sequence[str]) -> list[str]:
    for name in wanted:
        if name not in common:
            raise WindowError(
                f"{name!r} is not a refit day with enough history for every trial; there are "
                f"{', '.join(common) or 'none'}."
            )
    return [name for name in common if name in set(wanted)]


def span(calendar: np.ndarray, name: str, variants: Sequence[RunConfig]) -> tuple[dt.date, dt.date]:
    """First and last panel day that any trial reads for a window.

    Values between the variants' may reach a step further back than these: sampled days are counted
    from the newest.
    """
    made = [(all_windows(calendar, variant)[name], variant) for variant in variants]
    first = min(first_day(window, variant.samples.lookback) for window, variant in made)
    step = max(variant.windows.sample_every for _, variant in made) - 1
    days = calendar[max(first - step, 0)], calendar[made[0][0].refit]
    return days[0].astype(dt.date), days[1].astype(dt.date)


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
    yardstick = judging_config(cfg, base)
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
                "step": step(len(self.ics) - 1, progress.epoch, done=done, epochs=self.steps),
                "mean_ic": mean(self.ics),
                "objective": objective(self.ics, self.base.tune.spread_penalty),
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
