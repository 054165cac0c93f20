"""Estimate how long a model takes to train: time a day's steps on made-up samples, and multiply."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import Window
from gangru_dist.models.estimators import Estimator, estimate_bytes
from gangru_dist.models.precision import choose_device, find_arithmetic, prepare_torch
from gangru_dist.samples.standardize import Standardizer
from gangru_dist.training import loop
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import SINGLE, DayShare, TensorCache, WindowData, open_scratch
from gangru_dist.training.window import fit_predictor

_MOST_SAMPLES = 512
"""Of a day that is timed; larger days take longer in proportion."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one model."""

    seconds: float
    """Of all its epochs, without an early stop, without reading and standardizing."""
    gathered: int
    """Bytes of samples that an estimator gathers on the first worker."""


def estimate_training(cfg: RunConfig, window: Window, assets: int) -> Cost:
    """Time the steps of a window's epochs on this machine, a second or two long.

    Args:
        cfg: Its networks, epochs and device.
        window: Its days count.
        assets: Samples of a day that a worker has.
    """
    prepare_torch(cfg)
    device, few = choose_device(cfg), max(2, min(assets, _MOST_SAMPLES))
    state = TrainingState(cfg, 0, device)
    data = _make_data(cfg, few, device)
    train, valid = len(window.train_days), len(window.valid_days)
    step, inputs, seconds = loop.Step(0, 0), loop.make_inputs(state.network, data), 0.0
    if state.discriminator is not None:
        one = _time(lambda: loop.train_gan_epoch(state, data, cfg.gan, [0], step))
        seconds += one * cfg.gan.epochs * train
    gathered = 0
    predictor = state.network.predictor
    if state.network.is_fitted:
        seconds += _time(lambda: fit_predictor(state, data, inputs, 0, SINGLE)) * train
        if isinstance(predictor, Estimator):
            values = cfg.samples.lookback * len(data.standardizer.channels)
            samples = assets * cfg.resources.workers * train
            gathered = estimate_bytes(predictor.model, samples, values)
    else:
        validated = _time(lambda: loop.validate(state.validated, data, inputs))
        both = _time(
            lambda: loop.train_predictor_epoch(state, data, inputs, cfg.training, [0], step)
        )
        trained = max(both - validated, 0.0)
        seconds += cfg.training.epochs * (trained * train + validated * valid)
    return Cost(seconds=seconds * assets / few, gathered=gathered)


def _time(call: Callable[[], object]) -> float:
    """Seconds of a call, the shorter of two: the first one also sets things up."""
    found = []
    for _ in range(2):
        started = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found)


def _make_data(cfg: RunConfig, assets: int, device: torch.device) -> WindowData:
    """A training day and the same as validation day, of random samples."""
    standardizer, arithmetic = Standardizer(cfg.samples, cfg.features), find_arithmetic(cfg)
    shape = (assets, cfg.samples.lookback, len(standardizer.channels))
    x = torch.randn(shape, dtype=arithmetic.dtype, device=device)
    day = DayShare(
        date="2000-01-03",
        row=0,
        members=torch.arange(assets, device=device),
        label=torch.randn(assets, dtype=arithmetic.dtype, device=device),
        statistics=(),
        total=assets,
    )
    scratch = open_scratch(cfg, device)
    return WindowData(
        panel=x.transpose(0, 1),
        keys=torch.arange(assets, device=device),
        train=(day,),
        valid=(day,),
        dropped=(),
        standardizer=standardizer,
        arithmetic=arithmetic,
        cache=TensorCache(lambda row: x.clone(), scratch),
        scratch=scratch,
    )
