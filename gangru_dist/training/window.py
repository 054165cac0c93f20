"""Train one window from the first to the last epoch: the GAN stage, then the predictor stage.

This is the core that Ray Train's worker, a Tune trial and a plain test all call: it reports through
an argument and does not use Ray. `gan_samples` compares generated with real samples, feature by
feature, over one day's whole cross-section: any number of workers finds the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gangru_dist.base.errors import DivergedError, TrainingError
from gangru_dist.config.settings import PREDICTORS, RunConfig
from gangru_dist.models.estimators import FitData, FitDay
from gangru_dist.models.gan import Generator
from gangru_dist.models.precision import require_precision
from gangru_dist.models.predictors import is_random
from gangru_dist.runs.model import (
    EpochResult,
    FeatureFigures,
    GanEpoch,
    GanSamples,
    PredictorEpoch,
    TimedEpoch,
    get_figures,
)
from gangru_dist.training import loop
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import SINGLE, Collective, WindowData

BINS = 41
"""Of a histogram; odd, so that the 0 of a missing day falls into the middle of one."""


@torch.no_grad()
def gan_samples(
    generator: Generator,
    data: WindowData,
    cfg: RunConfig,
    *,
    seed: int,
    collective: Collective = SINGLE,
) -> GanSamples:
    """Distributions of x and G(x, z) over the assets and lags of the last training day.

    z is the noise of the last GAN epoch.
    """
    day = data.train[-1]
    real = data.samples(day)
    names = data.standardizer.channels
    draws = loop.Draws(data, day, loop.Step(seed, cfg.gan.epochs - 1))
    fake = real
    if len(real):
        noise = draws.noise(real, cfg.gan.noise_channels)
        with data.autocast():
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
            mean=float(mean[index]),
            std=float(std[index]),
            cs_std=float(cs_std[index]),
            histogram=tuple(counts[index].tolist()),
        )
        for index, name in enumerate(features)
    }


def _spread(mean_square: Tensor, mean: Tensor) -> Tensor:
    """Standard deviation from moments; rounding must not make it the root of less than 0."""
    return (mean_square - mean.square()).clamp(min=0.0).sqrt()


def _histogram(x: Float[Tensor, "M T F"], reach: float) -> Int[Tensor, "F bins"]:
    """Values of each feature nearest to each of `BINS` centers from -reach to reach."""
    half = BINS // 2
    bins = (x.clamp(-reach, reach) * (half / reach)).round().long() + half
    features = x.shape[2]
    bins += BINS * torch.arange(features, device=x.device)
    return torch.bincount(bins.flatten(), minlength=BINS * features).view(features, BINS)


Report = Callable[[TimedEpoch, TrainingState], None]
"""Called by every worker after every epoch."""


def train_window(
    data: WindowData,
    state: TrainingState,
    cfg: RunConfig,
    *,
    seed: int,
    collective: Collective = SINGLE,
    report: Report = lambda epoch, state: None,
) -> TrainingState:
    """Train from wherever `state` stands to the end; the best epoch's predictor is in place.

    Raises:
        TrainingError: No usable day is left, or a worker's device lacks `training.precision`.
        DivergedError: A loss is no longer finite.
    """
    _check_days(data)
    require_precision(cfg, data.panel.device, collective.gather)
    inputs: loop.Inputs | None = None  # made once the generator is frozen
    while state.progress.stage != "done":
        started = time.perf_counter()
        is_gan, step = state.progress.stage == "gan", loop.Step(seed, state.progress.epoch)
        rng = np.random.default_rng([seed, 0 if is_gan else 1, step.epoch])
        order = rng.permutation(len(data.train)).tolist()
        result: EpochResult
        if is_gan:
            result = loop.train_gan_epoch(state, data, cfg.gan, order, step, collective)
        else:
            if inputs is None:
                inputs = loop.make_inputs(state.network, data)
                _check_predictor(state, data, inputs, cfg, collective)
            if state.network.is_fitted:
                result = fit_predictor(state, data, inputs, seed, collective)
            else:
                result = loop.train_predictor_epoch(
                    state, data, inputs, cfg.training, order, step, collective
                )
        seconds = time.perf_counter() - started
        _check_finite(result)
        samples = sum(day.total for day in data.train)
        _advance(state, cfg, result)
        report(TimedEpoch(result, seconds, samples / seconds), state)
    state.network.predictor.load_state_dict(state.best)
    return state


def fit_predictor(
    state: TrainingState, data: WindowData, inputs: loop.Inputs, seed: int, collective: Collective
) -> PredictorEpoch:
    """Call the predictor's own `fit` once, in place of the epochs; IC on both kinds of days."""
    predictor, channels = state.network.predictor, len(data.standardizer.channels)
    fit: Callable[[FitData], None] = predictor.fit  # type: ignore[assignment]
    lookback = data.standardizer.cfg.lookback
    days = (
        FitDay(
            x=inputs(day).reshape(len(day.members), lookback, channels),  # also of an empty share
            label=day.label,
            keys=data.keys[day.members],
            weight=day.weight,
        )
        for day in data.train
    )
    fit(
        FitData(
            days=days,
            samples=sum(day.total for day in data.train),
            seed=seed,
            rank=collective.rank,
            all_sum=collective.all_sum,
            gather=collective.gather,
        )
    )
    train, valid = (
        loop.validate(predictor, replace(data, valid=of), inputs, collective)
        for of in (data.train, data.valid)
    )
    return PredictorEpoch(epoch=1, train_loss=-train, valid_ic=valid)


def _check_predictor(
    state: TrainingState,
    data: WindowData,
    inputs: loop.Inputs,
    cfg: RunConfig,
    collective: Collective,
) -> None:
    """Check that a user's own predictor draws nothing at random in training, as dropout does.

    Its draws would be another process's: a resumed run, or one with more workers, would train
    another model.
    """
    if not PREDICTORS.hash_user_code(cfg.predictor) or state.network.is_fitted:
        return
    some = inputs(data.train[0])[:16]
    if any(collective.gather(len(some) > 0 and is_random(state.network.predictor, some))):
        raise TrainingError(
            f"predictor={cfg.predictor} draws at random while it trains (dropout?), so neither "
            "resumed runs nor more workers would train the same model. Leave it out, and give "
            "training.dropout, whose draws are the same everywhere."
        )


def _check_days(data: WindowData) -> None:
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


def _advance(state: TrainingState, cfg: RunConfig, result: EpochResult) -> None:
    """Count the epoch, keep the best, and decide whether the stage is over."""
    progress = state.progress
    progress.history.append(result)
    progress.epoch += 1
    if isinstance(result, GanEpoch):
        if progress.epoch >= cfg.gan.epochs:
            progress.stage, progress.epoch = "predictor", 0
        return
    if progress.best_ic is None or result.valid_ic > progress.best_ic:
        progress.best_ic, progress.best_epoch = result.valid_ic, progress.epoch
        state.best = deepcopy(state.validated.state_dict())
    waited = progress.epoch - progress.best_epoch
    epochs = 1 if state.network.is_fitted else cfg.training.epochs
    if progress.epoch >= epochs or waited >= cfg.training.patience:
        progress.stage = "done"
