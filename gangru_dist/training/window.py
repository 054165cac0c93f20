"""One window's training from first to last epoch: GAN stage, then predictor stage.

The core that Ray Train's worker, a Tune trial and a plain test call alike: it reports
through an argument and does not use Ray. `gan_samples` compares generated with real samples,
feature by feature, over one day's whole cross-section: any number of workers finds the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gangru_dist.base.errors import DivergedError, TrainingError
from gangru_dist.config.settings import RunConfig
from gangru_dist.models.gan import Generator
from gangru_dist.models.precision import arithmetic
from gangru_dist.runs.model import (
    EpochResult,
    FeatureFigures,
    GanEpoch,
    GanSamples,
    PredictorEpoch,
    TimedEpoch,
    get_figures,
)
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.collective import Alone, Collective, require_precision
from gangru_dist.training.data import WindowData
from gangru_dist.training.loop import (
    Draws,
    GanTrainer,
    Inputs,
    RunningMean,
    Step,
    autocast,
    frozen_inputs,
    predictor_epoch,
    validation_ic,
    with_dropout,
)

BINS = 41
"""Of a histogram; odd, so that the 0 of a missing day falls into the middle of one."""


@torch.no_grad()
def gan_samples(
    generator: Generator, data: WindowData, cfg: RunConfig, *, seed: int, collective: Collective
) -> GanSamples:
    """Distributions of x and G(x, z) over the assets and lags of the last training day.

    z is the noise of the last GAN epoch.
    """
    day = data.train[-1]
    real = generator.seen(data.samples(day))
    names = data.standardizer.channels[generator.place]
    draws = Draws(data.keys[day.members], day.date, Step(seed, cfg.gan.epochs - 1), mask_size=0)
    fake = real
    if len(real):
        noise = draws.noise(real, cfg.gan.noise_channels)
        with autocast(data, bf16=arithmetic(cfg).bf16):
            fake = generator(real, noise).to(real.dtype)
    reach = cfg.samples.z_clip
    return GanSamples(
        day=day.date,
        assets=day.total,
        bin_centers=tuple(torch.linspace(-reach, reach, BINS, dtype=torch.float64).tolist()),
        real=_by_feature(real, reach, names, collective),
        generated=_by_feature(fake, reach, names, collective),
    )


def _by_feature(
    x: Float[Tensor, "M T F"], reach: float, features: tuple[str, ...], collective: Collective
) -> dict[str, FeatureFigures]:
    """Moments and histogram of each feature over all workers' samples."""
    wide = x.double()
    sums = torch.stack([torch.ones_like(wide).sum(0), wide.sum(0), wide.square().sum(0)])
    count, first, second = collective.all_sum(sums)  # (T, F) each
    counts = collective.all_sum(_histogram(wide, reach))
    total = count.sum(0)
    mean = first.sum(0) / total
    std = _spread(second.sum(0) / total, mean)
    cs_std = _spread(second / count, first / count).square().mean(0).sqrt()
    return {
        name: FeatureFigures(
            mean=float(mean[place]),
            std=float(std[place]),
            cs_std=float(cs_std[place]),
            histogram=tuple(counts[place].tolist()),
        )
        for place, name in enumerate(features)
    }


def _spread(mean_square: Tensor, mean: Tensor) -> Tensor:
    """Standard deviation from moments; rounding must not make it the root of less than 0."""
    return (mean_square - mean.square()).clamp(min=0.0).sqrt()


def _histogram(x: Float[Tensor, "M T F"], reach: float) -> Int[Tensor, "F bins"]:
    """Values of each feature nearest to each of `BINS` centers from -reach to reach."""
    half = BINS // 2
    place = (x.clamp(-reach, reach) * (half / reach)).round().long() + half
    features = x.shape[2]
    place += BINS * torch.arange(features, device=x.device)
    return torch.bincount(place.flatten(), minlength=BINS * features).view(features, BINS)


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
    for name, value in get_figures(result).items():
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
