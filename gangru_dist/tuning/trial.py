"""One trial of a search: which refit days it trains, what it reports, and how it is validated.

A trial trains its windows one after another in one process, with the training core and without
Ray. Only validation days count, never test days.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch

from gangru_dist.base.errors import TrainingError, WindowError
from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import Window, first_day, make_windows
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.runs.model import GanEpoch, TimedEpoch
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import WindowData, open_scratch, prepare
from gangru_dist.training.loop import Inputs, make_inputs, validate
from gangru_dist.training.window import train_window

Report = Callable[[dict[str, Any]], None]
"""Called after every predictor epoch; does not return if the trial is stopped."""


def make_all_windows(calendar: np.ndarray, cfg: RunConfig) -> dict[str, Window]:
    """All windows with enough history, by name, ignoring `windows.first` and `windows.last`."""
    everywhere = dataclasses.replace(cfg.windows, first=None, last=None)
    made, _ = make_windows(calendar, everywhere, cfg.label, lookback=cfg.samples.lookback)
    return {window.name: window for window in made}


def choose_windows(
    calendar: np.ndarray, cfg: RunConfig, variants: Sequence[RunConfig], only: Sequence[str] | None
) -> tuple[str, ...]:
    """Every trial's refit days: those named, else the last before `windows.first`, else the first.

    Args:
        calendar: (D,) datetime64[D] of the panel.
        cfg: The search's configuration.
        variants: See `space.list_extremes`; a window must have enough history for all of them.
        only: Names of refit days; None = `tune.windows`, or by the rule above.

    Raises:
        WindowError: A named window does not exist, or none is left.
    """
    per_variant = [make_all_windows(calendar, variant) for variant in variants]
    common = [name for name in per_variant[0] if all(name in made for made in per_variant)]
    first = cfg.windows.first
    wanted = set(only if only is not None else map(str, cfg.tune.windows))
    if unknown := sorted(wanted - set(common)):
        raise WindowError(
            f"{unknown[0]!r} is not a refit day with enough history for every trial; there are "
            f"{', '.join(common) or 'none'}."
        )
    if wanted:
        names = [name for name in common if name in wanted]
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
    return tuple(names)


def find_panel_span(
    calendar: np.ndarray, name: str, variants: Sequence[RunConfig]
) -> tuple[dt.date, dt.date]:
    """First and last panel day that any trial reads for a window.

    Values between the variants' may reach a step further back than these: sampled days are counted
    from the newest.
    """
    made = [(make_all_windows(calendar, variant)[name], variant) for variant in variants]
    first = min(first_day(window, variant.samples.lookback) for window, variant in made)
    step = max(variant.windows.sample_every for _, variant in made) - 1
    days = calendar[max(first - step, 0)], calendar[made[0][0].refit]
    return days[0].astype(dt.date), days[1].astype(dt.date)


def list_features(variants: Sequence[RunConfig]) -> tuple[str, ...]:
    """Every feature that any trial reads."""
    return tuple(dict.fromkeys(name for variant in variants for name in variant.features))


def neutralizes(variants: Sequence[RunConfig]) -> bool:
    """Whether any trial's labels are neutralized, by industry or market cap."""
    return any(variant.label.neutralize for variant in variants)


def read_window(panel: SharedPanel, name: str, variants: Sequence[RunConfig]) -> PanelBlock:
    """The panel of a window, with all that any trial reads of it."""
    start, end = find_panel_span(panel.manifest.calendar, name, variants)
    features, trading = list_features(variants), neutralizes(variants)
    return panel.read(start=start, end=end, features=features, trading=trading)


def compute_objective(ics: Sequence[float], penalty: float) -> float:
    """Mean - penalty x population standard deviation of the windows' validation IC."""
    return fmean(ics) - penalty * pstdev(ics)


def make_validation_config(trial: RunConfig, base: RunConfig) -> RunConfig:
    """A trial's configuration with the label scale and universe of the base, for its validation.

    ICs against ranks and against returns are not comparable, nor are ICs of different universes.
    All trials are therefore validated on the same labels and universe.
    """
    label = dataclasses.replace(
        base.label, horizon=trial.label.horizon, entry_lag=trial.label.entry_lag
    )
    return dataclasses.replace(trial, label=label, universe=base.universe)


def run_trial(
    cfg: RunConfig,
    *,
    base: RunConfig,
    windows: Sequence[str],
    calendar: np.ndarray,
    read_block: Callable[[str], PanelBlock],
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
        read_block: Gives the panel of a window, up to its refit day.
        steps_per_window: Most predictor epochs of any trial.
        report: Receives step, mean_ic, window_ics, windows_done, epochs, gan_epochs and, with the
            last epoch, objective. Each window counts `steps_per_window` steps, so that the steps
            of trials compare; one that stops early skips to its last step.
        device: Where to train.

    Raises:
        DivergedError: A loss is no longer finite.
        TrainingError: A window has no usable day.
    """
    made, seed = make_all_windows(calendar, cfg), cfg.training.seeds[0]
    validated = make_validation_config(cfg, base)
    reporter = _Reporter(len(windows), steps_per_window, base.tune.spread_penalty, report)
    data = validation = None
    for name in windows:
        # the last window's caches go before the next one's come
        data = validation = reporter.validation = reporter.inputs = None
        block = select_features(read_block(name), cfg.features)
        scratch = open_scratch(cfg, torch.device(device))
        with warnings.catch_warnings():
            # blocks are shared between trials, hence read-only; nothing writes to them
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            data = prepare(block, made[name], calendar, cfg, device=device, scratch=scratch)
            if validated != cfg:
                without_training = dataclasses.replace(made[name], train_days=())
                validation = prepare(
                    block,
                    without_training,
                    calendar,
                    validated,
                    device=device,
                    scratch=scratch,
                )
        if validation is not None and not validation.valid:
            raise TrainingError(
                f"no validation day of {name} has enough assets in the search's own universe; "
                f"left out: {', '.join(validation.dropped)}. See universe.min_assets="
                f"{base.universe.min_assets}."
            )
        reporter.start_window(validation)
        state = TrainingState(cfg, seed, device)
        train_window(data, state, cfg, seed=seed, report=reporter.report_epoch)
    return reporter.ics


def select_features(block: PanelBlock, features: tuple[str, ...]) -> PanelBlock:
    """The block with these features in this order; the same object if nothing changes."""
    if block.feature_names == features:
        return block
    columns = [block.feature_names.index(name) for name in features]
    return dataclasses.replace(
        block, feature_names=features, features=block.features[:, :, columns]
    )


@dataclass
class _Reporter:
    """Turns the epochs of the training core into a trial's reports."""

    windows: int
    """How many the trial has."""
    steps: int
    """Of each."""
    penalty: float
    report: Report
    validation: WindowData | None = None
    """Validation data, if it differs from the trial's own."""
    inputs: Inputs | None = None
    """The predictor's input on the validation days, once the generator is frozen."""
    ics: list[float] = field(default_factory=list)
    """For each window started, the IC of its best epoch."""
    epoch_ics: list[float] = field(default_factory=list)
    """Of the window's epochs so far."""
    epochs: int = 0
    gan_epochs: int = 0

    def start_window(self, validation: WindowData | None) -> None:
        """Begin a new window."""
        self.validation, self.epoch_ics, self.inputs = validation, [], None
        self.ics.append(0.0)

    def report_epoch(self, epoch: TimedEpoch, state: TrainingState) -> None:
        """The `report` of `train_window`."""
        if isinstance(epoch.result, GanEpoch):
            self.gan_epochs += 1
            return
        self.epochs += 1
        ic = epoch.result.valid_ic
        if self.validation is not None:
            self.inputs = self.inputs or make_inputs(state.network, self.validation)
            ic = validate(state.validated, self.validation, self.inputs)
        self.epoch_ics.append(ic)
        progress = state.progress
        self.ics[-1] = self.epoch_ics[progress.best_epoch - 1]
        is_done = progress.stage == "done"
        done = len(self.ics) - (not is_done)
        is_over = done == self.windows
        self.report(
            {
                "step": self.steps * done + (0 if is_done else progress.epoch),
                "mean_ic": fmean(self.ics),
                "window_ics": tuple(self.ics),
                "windows_done": done,
                "epochs": self.epochs,
                "gan_epochs": self.gan_epochs,
                "objective": compute_objective(self.ics, self.penalty) if is_over else None,
            }
        )
