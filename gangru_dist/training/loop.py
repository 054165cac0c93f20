"""One epoch of each stage, in plain torch. A batch is one day's whole cross-section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gangru_dist.config.settings import GanConfig, TrainingConfig
from gangru_dist.models import losses
from gangru_dist.models.gan import normal, sample_keys, uniform
from gangru_dist.models.predictors import FactorNetwork
from gangru_dist.runs.model import GanEpoch, PredictorEpoch
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import SINGLE, Collective, DayShare, TensorCache, WindowData

Inputs = Callable[[DayShare], Tensor]
"""A day as the predictor sees it: (M, T, C)."""


@dataclass(frozen=True)
class Step:
    """Seed and epoch: with the asset they determine an epoch's random numbers."""

    seed: int
    epoch: int


class Draws:
    """Random numbers of one day's step, functions of (seed, epoch, day, asset)."""

    def __init__(self, data: WindowData, day: DayShare, step: Step) -> None:
        self.keys, self.seed = data.keys[day.members], step.seed
        self.where = f"epoch={step.epoch}/day={day.date}"

    def noise(self, x: Float[Tensor, "M T F"], channels: int) -> Float[Tensor, "M T Z"]:
        keys = sample_keys(self.keys, seed=self.seed, purpose=f"noise/{self.where}")
        drawn = normal(keys, x.shape[1] * channels)
        return drawn.view(len(x), x.shape[1], channels).to(x.dtype)

    def dropout(self, which: str, count: int) -> Float[Tensor, "M C"]:
        purpose = f"dropout={which}/{self.where}"
        return uniform(sample_keys(self.keys, seed=self.seed, purpose=purpose), count)


def _call(network: Callable[..., Tensor], *inputs: Tensor, width: tuple[int, ...] = ()) -> Tensor:
    """Forward pass of a share that may be empty; an empty one costs nothing and has no gradient.

    `width`: shape of a sample's result.
    """
    if len(inputs[0]) == 0:
        return inputs[0].new_zeros(0, *width, requires_grad=True)
    output: Tensor = network(*inputs)
    return output.to(inputs[0].dtype)


def make_inputs(network: FactorNetwork, data: WindowData) -> Inputs:
    """The predictor's input: samples, or what the frozen generator makes of them."""
    if network.generator is None:
        return data.samples
    days = {day.row: day for day in (*data.train, *data.valid)}

    @torch.no_grad()
    def generate(row: int) -> Tensor:
        with data.autocast():
            return _call(network.inputs, data.samples(days[row])).detach()

    cache = TensorCache(generate, data.scratch)
    return lambda day: cache(day.row)


def _update(
    loss: Tensor,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    collective: Collective,
) -> None:
    """One step on the gradients' sum over the workers."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if collective.size > 1:  # one flat all-reduce
        trained = list(network.parameters())
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trained]
        flat = collective.all_sum(torch.cat([grad.flatten() for grad in grads]))
        for parameter, grad in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = grad.view_as(parameter)
    optimizer.step()


def drop_channels(inputs: Inputs, data: WindowData, rate: float, step: Step) -> Inputs:
    """Inputs without some channels of each asset, the others scaled up: an epoch's draw."""
    if rate == 0:
        return inputs

    def drop(day: DayShare) -> Tensor:
        x = inputs(day)
        if len(x) == 0:  # a share without assets
            return x
        stays = Draws(data, day, step).dropout("inputs", x.shape[2]) >= rate  # (M, C)
        return x * (stays / (1 - rate)).to(x.dtype)[:, None, :]

    return drop


@torch.no_grad()
def average_weights(mean: nn.Module, newest: nn.Module, *, step: int, steps: float) -> None:
    """Move an exponential mean over about `steps` steps, of all steps at first, to the newest."""
    share = 1 / min(step, max(steps, 1.0))
    torch._foreach_lerp_([*mean.parameters()], [*newest.parameters()], share)


@torch.no_grad()
def validate(
    predictor: nn.Module,
    data: WindowData,
    inputs: Inputs,
    collective: Collective = SINGLE,
) -> float:
    """Mean over the validation days of the IC of each whole cross-section."""
    found = []
    for day in data.valid:
        with data.autocast():
            score = _call(predictor, inputs(day))
        found.append(float(losses.correlation(score, day.label, collective.all_sum)))
    return sum(found) / len(found)


def train_predictor_epoch(
    state: TrainingState,
    data: WindowData,
    inputs: Inputs,
    cfg: TrainingConfig,
    order: Sequence[int],
    step: Step,
    collective: Collective = SINGLE,
) -> PredictorEpoch:
    """One pass over the training days, whose mean loss (-IC) is unweighted, and its validation."""
    predictor, found = state.network.predictor, []
    seen = drop_channels(inputs, data, cfg.dropout, step)
    for number, index in enumerate(order, start=step.epoch * len(order) + 1):
        day = data.train[index]
        with data.autocast():
            score = _call(predictor, seen(day))
        score = score.to(data.arithmetic.dtype)
        loss = losses.ic_loss(score, day.label, collective.all_sum)
        _update(loss * day.weight, predictor, state.optimizers["predictor"], collective)
        if state.averaged is not None:
            steps = cfg.average_epochs * len(order)
            average_weights(state.averaged, predictor, step=number, steps=steps)
        found.append(loss.detach())
    return PredictorEpoch(
        epoch=step.epoch + 1,
        train_loss=float(torch.stack(found).mean()),
        valid_ic=validate(state.validated, data, inputs, collective),
    )


def train_gan_epoch(
    state: TrainingState,
    data: WindowData,
    cfg: GanConfig,
    order: Sequence[int],
    step: Step,
    collective: Collective = SINGLE,
) -> GanEpoch:
    """One pass over the training days: a step of each player in turn, day by day [R]."""
    figures = [_train_gan_day(state, data, cfg, data.train[i], step, collective) for i in order]
    loss_d, loss_g, accuracy, distance = torch.stack(figures).mean(dim=0).tolist()
    return GanEpoch(
        epoch=step.epoch + 1,
        discriminator_loss=loss_d,
        generator_loss=loss_g,
        discriminator_accuracy=accuracy,
        distance=distance,
    )


def _train_gan_day(
    state: TrainingState,
    data: WindowData,
    cfg: GanConfig,
    day: DayShare,
    step: Step,
    collective: Collective,
) -> Float[Tensor, " figures"]:
    generator, discriminator = state.network.generator, state.discriminator
    assert generator is not None
    assert discriminator is not None
    x = data.samples(day)
    draws, maps = Draws(data, day, step), discriminator.mask_size
    noise = draws.noise(x, cfg.noise_channels)
    with data.autocast():
        fake = _call(generator, x, noise, width=x.shape[1:])
        both = torch.cat([x, fake.detach()])
        masks = torch.cat([draws.dropout(which, maps) for which in ("real", "fake")])
        real_logit, fake_logit = _call(discriminator, both, masks).chunk(2)
    loss_d = losses.discriminator_loss(real_logit, fake_logit, collective.all_sum)
    _update(loss_d, discriminator, state.optimizers["discriminator"], collective)
    discriminator.requires_grad_(False)  # its weights' gradient would be thrown away
    distance = (fake - x).abs().mean(dim=(1, 2))
    masks = draws.dropout("generator", maps)
    with data.autocast():
        logit = _call(discriminator, fake, masks)
    loss_g = losses.generator_loss(logit, distance, cfg.reconstruction_weight, collective.all_sum)
    _update(loss_g, generator, state.optimizers["generator"], collective)
    discriminator.requires_grad_(True)
    right = ((real_logit > 0).sum() + (fake_logit <= 0).sum()).double() / (2 * day.total)
    health = torch.stack([right, distance.detach().double().sum() / day.total])
    return torch.cat([torch.stack([loss_d.detach(), loss_g.detach()]), collective.all_sum(health)])
