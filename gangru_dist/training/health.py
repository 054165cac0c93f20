"""Generated and real samples compared, feature by feature: is the GAN healthy?

Counts and sums over one day's whole cross-section, so that any number of workers finds the same.
Nothing here touches weights or the training's random numbers: the generator has been
frozen since its last epoch, and noise is a function of (seed, epoch, day, asset).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gangru_dist.config import RunConfig
from gangru_dist.models.generator import Generator
from gangru_dist.models.precision import arithmetic
from gangru_dist.runs.model import FeatureFigures, GanSamples
from gangru_dist.training.collective import Collective
from gangru_dist.training.data import WindowData
from gangru_dist.training.loop import Draws, Step, autocast

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
