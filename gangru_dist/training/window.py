"""One window's training from first to last epoch: GAN stage, then predictor stage.

The core that Ray Train's worker, a Tune trial and a plain test call alike: it reports
through an argument and does not use Ray.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from gangru_dist.config import RunConfig
from gangru_dist.errors import DivergedError, TrainingError
from gangru_dist.models.precision import arithmetic
from gangru_dist.runs.model import EpochResult, GanEpoch, PredictorEpoch, TimedEpoch, figures
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.collective import Alone, Collective
from gangru_dist.training.data import WindowData
from gangru_dist.training.loop import (
    GanTrainer,
    Inputs,
    RunningMean,
    Step,
    frozen_inputs,
    predictor_epoch,
    validation_ic,
    with_dropout,
)
from gangru_dist.training.torch_setup import require_precision

Report = Callable[[TimedEpoch, TrainingState], None]
"""Called by every worker after every epoch."""

_STAGE_NUMBER = {"gan": 0, "predictor": 1}


def _nothing() -> None:
    """After a step of weights that are not averaged."""


def silent(epoch: TimedEpoch, state: TrainingState) -> None:
    """Report nothing."""


def train_window(
    data: WindowData,
    state: TrainingState,
    cfg: RunConfig,
    *,
    seed: int,
    collective: Collective | None = None,
    report: Report = silent,
) -> TrainingState:
    """Train from wherever `state` stands to the end; the best epoch's predictor is in place.

    Raises:
        TrainingError: No usable day is left, or a worker's device lacks `training.precision`.
        DivergedError: A loss is no longer finite.
    """
    group = collective or Alone()
    _check(data)
    require_precision(cfg, data.panel.device, group)
    inputs: Inputs | None = None  # made once the generator is frozen
    while state.progress.stage != "done":
        started = time.perf_counter()
        stage, epoch = state.progress.stage, state.progress.epoch
        days = data.gan_days if stage == "gan" else data.train
        order = np.random.default_rng([seed, _STAGE_NUMBER[stage], epoch]).permutation(len(days))
        result: EpochResult
        if stage == "gan":
            result = _gan_epoch(data, state, cfg, order.tolist(), Step(seed, epoch), group)
        else:
            bf16 = arithmetic(cfg).bf16
            inputs = inputs or frozen_inputs(state.network, data, bf16=bf16)
            seen = with_dropout(inputs, data, cfg.training.dropout, Step(seed, epoch))
            result = _predictor_epoch(data, (seen, inputs), state, cfg, order.tolist(), group)
        seconds = time.perf_counter() - started
        _check_finite(result)
        samples = sum(day.total for day in days)
        state.progress.history.append(result)
        _advance(state, cfg, result)
        report(TimedEpoch(result, seconds, samples / seconds), state)
    state.use_best()
    return state


def _check(data: WindowData) -> None:
    for name, days in (("training", data.train), ("validation", data.valid)):
        if not days:
            raise TrainingError(
                f"no {name} day has enough assets with a label; left out: "
                f"{', '.join(data.dropped)}. See universe.min_assets, universe.min_listed_days."
            )


def _check_finite(result: EpochResult) -> None:
    for name, value in figures(result).items():
        if not math.isfinite(value):
            raise DivergedError(
                f"{name} is {value} in epoch {result.epoch} of the {result.stage} stage: the "
                "training diverged. Lower training.learning_rate or gan.learning_rate."
            )


def _gan_epoch(
    data: WindowData,
    state: TrainingState,
    cfg: RunConfig,
    order: list[int],
    step: Step,
    group: Collective,
) -> GanEpoch:
    assert state.network.generator is not None
    assert state.discriminator is not None
    trainer = GanTrainer(
        state.network.generator,
        state.discriminator,
        (state.optimizers["generator"], state.optimizers["discriminator"]),
        cfg.gan,
    )
    losses = trainer.epoch(data, order, step, group, bf16=arithmetic(cfg).bf16)
    return GanEpoch(
        epoch=step.epoch + 1,
        discriminator_loss=losses.discriminator,
        generator_loss=losses.generator,
        discriminator_accuracy=losses.accuracy,
        distance=losses.distance,
    )


def _predictor_epoch(
    data: WindowData,
    inputs: tuple[Inputs, Inputs],
    state: TrainingState,
    cfg: RunConfig,
    order: list[int],
    group: Collective,
) -> PredictorEpoch:
    """`inputs`: for training, for validation."""
    bf16 = arithmetic(cfg).bf16
    predictor, optimizer = state.network.predictor, state.optimizers["predictor"]
    averaged = state.averaged
    after_step: Callable[[], None] = _nothing
    if averaged is not None:
        after_step = RunningMean(
            averaged,
            predictor,
            steps=cfg.training.average_epochs * len(order),
            done=state.progress.epoch * len(order),
        )
    loss = predictor_epoch(
        predictor, optimizer, data, inputs[0], order, group, bf16=bf16, after_step=after_step
    )
    daily = validation_ic(state.judged, data, inputs[1], data.valid, group, bf16=bf16)
    valid_ic = sum(daily) / len(daily)
    return PredictorEpoch(epoch=state.progress.epoch + 1, train_loss=loss, valid_ic=valid_ic)


def _advance(state: TrainingState, cfg: RunConfig, result: EpochResult) -> None:
    """Count the epoch, keep the best, and decide whether the stage is over."""
    progress = state.progress
    progress.epoch += 1
    if isinstance(result, GanEpoch):
        if progress.epoch >= cfg.gan.epochs:
            progress.stage, progress.epoch = "predictor", 0
        return
    if progress.best_ic is None or result.valid_ic > progress.best_ic:
        progress.best_ic, progress.best_epoch = result.valid_ic, progress.epoch
        state.keep_best()
    waited = progress.epoch - progress.best_epoch
    if progress.epoch >= cfg.training.epochs or waited >= cfg.training.patience:
        progress.stage = "done"
