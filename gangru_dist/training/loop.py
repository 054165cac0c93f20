"""One epoch of each stage, plain torch. A batch is one day's whole cross-section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gangru_dist.config.settings import GanConfig
from gangru_dist.models.gan import CHUNK, Discriminator, Generator, normal, sample_keys, uniform
from gangru_dist.models.losses import (
    correlation,
    discriminator_loss,
    feature_distance,
    generator_loss,
    ic_loss,
)
from gangru_dist.models.predictors import FactorNetwork
from gangru_dist.training.collective import Collective
from gangru_dist.training.data import DayShare, Kept, WindowData

Inputs = Callable[[DayShare], Tensor]
"""What the predictor sees of a day: (M, T, C)."""


@dataclass(frozen=True)
class Step:
    """Seed and epoch: with the asset they determine an epoch's random numbers."""

    seed: int
    epoch: int


def autocast(data: WindowData, *, bf16: bool) -> torch.autocast:
    """bf16 arithmetic inside the networks; losses and weights stay as they are."""
    return torch.autocast(data.panel.device.type, torch.bfloat16, enabled=bf16)


def _call(network: Callable[..., Tensor], *inputs: Tensor, width: tuple[int, ...] = ()) -> Tensor:
    """Forward pass of a share that may be empty; an empty one costs nothing and has no gradient.

    `width`: shape of a sample's result.
    """
    if len(inputs[0]) == 0:
        return inputs[0].new_zeros(0, *width, requires_grad=True)
    output: Tensor = network(*inputs)
    return output.to(inputs[0].dtype)


def frozen_inputs(network: FactorNetwork, data: WindowData, *, bf16: bool) -> Inputs:
    """What the predictor is trained on: samples, or what the frozen generator makes of them."""
    if network.generator is None:
        return data.samples
    days = {day.row: day for day in (*data.train, *data.valid)}

    @torch.no_grad()
    def generate(row: int) -> Tensor:
        with autocast(data, bf16=bf16):
            return _call(network.inputs, data.samples(days[row])).detach()

    kept = Kept(generate, data.scratch)
    return lambda day: kept(day.row)


def sum_gradients(parameters: Iterable[nn.Parameter], collective: Collective) -> None:
    """Replace each gradient by its sum over the workers: one flat all-reduce."""
    if collective.size == 1:
        return
    kept = list(parameters)
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in kept]
    flat = collective.all_sum(torch.cat([grad.flatten() for grad in grads]))
    for parameter, piece in zip(kept, flat.split([p.numel() for p in kept]), strict=True):
        parameter.grad = piece.view_as(parameter)


def _update(
    loss: Tensor,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    collective: Collective,
    also: Callable[[], None] = lambda: None,
) -> None:
    """One step; `also` adds to the gradients of this worker's share."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    also()
    sum_gradients(network.parameters(), collective)
    optimizer.step()


AfterStep = Callable[[], None]
"""Called after each step of the optimizer."""


def predictor_epoch(
    predictor: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: WindowData,
    inputs: Inputs,
    order: Sequence[int],
    collective: Collective,
    *,
    bf16: bool = False,
    after_step: AfterStep = lambda: None,
) -> float:
    """One pass over the training days; returns the mean loss (-IC), unweighted."""
    losses = []
    for index in order:
        day = data.train[index]
        with autocast(data, bf16=bf16):
            score = _call(predictor, inputs(day))
        loss = ic_loss(score.to(data.dtype), day.label, collective.all_sum)
        _update(loss * day.weight, predictor, optimizer, collective)
        after_step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def with_dropout(inputs: Inputs, data: WindowData, share: float, step: Step) -> Inputs:
    """Inputs without some channels of each asset, the others scaled up: an epoch's draw."""
    if share == 0:
        return inputs

    def dropped(day: DayShare) -> Tensor:
        x = inputs(day)
        if len(x) == 0:  # a share without assets
            return x
        purpose = f"dropout=inputs/epoch={step.epoch}/day={day.date}"
        keys = sample_keys(data.keys[day.members], seed=step.seed, purpose=purpose)
        kept = uniform(keys, x.shape[2]) >= share  # (M, C)
        return x * (kept / (1 - share)).to(x.dtype)[:, None, :]

    return dropped


class RunningMean:
    """Exponential mean of a network's weights over about so many steps; of all steps at first."""

    def __init__(self, mean: nn.Module, newest: nn.Module, *, steps: float, done: int) -> None:
        """`mean` is changed in place; `done`: steps it has seen."""
        self.mean: list[Tensor] = [*mean.parameters()]
        self.newest: list[Tensor] = [*newest.parameters()]
        self.steps, self.done = max(steps, 1.0), done

    @torch.no_grad()
    def __call__(self) -> None:
        """Update the mean with the newest weights."""
        self.done += 1
        torch._foreach_lerp_(self.mean, self.newest, 1 / min(self.done, self.steps))


@torch.no_grad()
def validation_ic(
    predictor: nn.Module,
    data: WindowData,
    inputs: Inputs,
    days: Sequence[DayShare],
    collective: Collective,
    *,
    bf16: bool = False,
) -> list[float]:
    """IC of each day's whole cross-section."""
    found = []
    for day in days:
        with autocast(data, bf16=bf16):
            score = _call(predictor, inputs(day))
        found.append(float(correlation(score, day.label, collective.all_sum)))
    return found


@dataclass(frozen=True)
class GanLosses:
    """Means over an epoch. Accuracy: share of logits on the right side of 0, real and fake."""

    discriminator: float
    generator: float
    accuracy: float
    distance: float
    """Mean |G - x|, in standard deviations of a feature."""


class GanTrainer:
    """One discriminator step and one generator step in turn, day by day [R]."""

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
        cfg: GanConfig,
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.generator_optimizer, self.discriminator_optimizer = optimizers
        self.cfg = cfg

    def epoch(
        self,
        data: WindowData,
        order: Sequence[int],
        step: Step,
        collective: Collective,
        *,
        bf16: bool = False,
    ) -> GanLosses:
        """One pass over the GAN's training days."""
        days = [data.gan_days[index] for index in order]
        sums = [self._day(data, day, step, collective, bf16=bf16) for day in days]
        means = torch.stack(sums).mean(dim=0).tolist()
        return GanLosses(*means)

    def _day(
        self, data: WindowData, day: DayShare, step: Step, collective: Collective, *, bf16: bool
    ) -> Float[Tensor, " figures"]:
        x = self.generator.seen(data.samples(day))
        draws = Draws(data.keys[day.members], day.date, step, self.discriminator.mask_size)
        noise = draws.noise(x, self.cfg.noise_channels)
        with autocast(data, bf16=bf16):
            fake = self._generate(x, noise)
            both = torch.cat([x, fake.detach()])
            real_masks = draws.dropout("real")
            masks = torch.cat([real_masks, draws.dropout("fake")])
            real_logit, fake_logit = _call(self.discriminator, both, masks).chunk(2)
        loss_d = discriminator_loss(real_logit, fake_logit, collective.all_sum)
        _update(
            loss_d,
            self.discriminator,
            self.discriminator_optimizer,
            collective,
            also=lambda: self._penalize(data, x, real_masks, day.total, bf16=bf16),
        )
        self.discriminator.requires_grad_(False)  # its weights' gradient would be thrown away
        distance = (fake - x).abs().mean(dim=(1, 2))
        masks = draws.dropout("generator")
        with autocast(data, bf16=bf16):
            logit = _call(self.discriminator, fake, masks)
        loss_g = generator_loss(logit, distance, self.cfg.reconstruction_weight, collective.all_sum)
        if self.cfg.feature_matching:
            with autocast(data, bf16=bf16):
                real, made = (self._features(of, masks) for of in (x, fake))
            gap = feature_distance(real, made, collective.all_sum)
            loss_g = loss_g + self.cfg.feature_matching * gap
        _update(loss_g, self.generator, self.generator_optimizer, collective)
        self.discriminator.requires_grad_(True)
        right = ((real_logit > 0).sum() + (fake_logit <= 0).sum()).double() / (2 * day.total)
        health = torch.stack([right, distance.detach().double().sum() / day.total])
        return torch.cat(
            [torch.stack([loss_d.detach(), loss_g.detach()]), collective.all_sum(health)]
        )

    def _penalize(
        self, data: WindowData, x: Tensor, masks: Tensor, total: int, *, bf16: bool
    ) -> None:
        """Add the gradient of R1's share.

        A chunk at a time: its graph is that of a forward and a backward pass. Source: Mescheder et
        al., "Which training methods for GANs do actually converge?" (ICML 2018), 4.
        """
        weight = self.cfg.gradient_penalty / (2 * total)
        if weight == 0 or len(x) == 0:
            return
        for part, share in zip(x.split(CHUNK), masks.split(CHUNK), strict=True):
            with autocast(data, bf16=bf16):
                steepness = self.discriminator.steepness(part, share)
            (weight * steepness.to(data.dtype).sum()).backward()

    def _features(self, x: Tensor, masks: Tensor) -> Tensor:
        width = (self.discriminator.logit.in_features,)
        return _call(self.discriminator.features, x, masks, width=width)

    def _generate(self, x: Tensor, noise: Tensor) -> Tensor:
        if len(x) == 0:
            return torch.zeros_like(x, requires_grad=True)
        return self.generator(x, noise).to(x.dtype)  # type: ignore[no-any-return]


class Draws:
    """Random numbers of one day's step, functions of (seed, epoch, day, asset)."""

    def __init__(self, keys: Tensor, date: str, step: Step, mask_size: int) -> None:
        self.keys, self.where = keys, f"epoch={step.epoch}/day={date}"
        self.seed, self.mask_size = step.seed, mask_size

    def noise(self, x: Float[Tensor, "M T F"], channels: int) -> Float[Tensor, "M T Z"]:
        keys = sample_keys(self.keys, seed=self.seed, purpose=f"noise/{self.where}")
        drawn = normal(keys, x.shape[1] * channels)
        return drawn.view(len(x), x.shape[1], channels).to(x.dtype)

    def dropout(self, which: str) -> Float[Tensor, "M C"]:
        purpose = f"dropout={which}/{self.where}"
        return uniform(sample_keys(self.keys, seed=self.seed, purpose=purpose), self.mask_size)
