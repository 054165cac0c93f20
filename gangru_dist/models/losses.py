"""Losses as functions of one worker's share and a sum over all shares.

Every function takes `all_sum`, which adds a tensor over the workers. Gradients flow through a
worker's own share only; the caller then sums parameter gradients over the workers, which is
the gradient of the whole cross-section's loss. A single process passes `own_share`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_FLAT = 1e-13
"""Deviations below this share of the squares are rounding of float32: a constant."""

AllSum = Callable[[Tensor], Tensor]


def own_share(x: Tensor) -> Tensor:
    """Return a share as it is: the sum over all workers if there is one."""
    return x


def sum_shares(x: Tensor, all_sum: AllSum) -> Tensor:
    """Sum x over all workers; its gradient flows through this worker's share alone."""
    detached = x.detach()
    return all_sum(detached.clone()) + (x - detached)


def correlation(
    a: Float[Tensor, " M"], b: Float[Tensor, " M"], all_sum: AllSum = own_share
) -> Float[Tensor, ""]:
    """Pearson correlation over the whole cross-section; 0 if either is constant.

    `a` and `b` are this worker's share, possibly empty. Means are taken out of the graph: the
    deviations sum to zero, so their gradient is exact without it. Sums are float64.
    """
    both = torch.stack([a.double(), b.double()])  # (2, M)
    fixed = both.detach()
    sizes = torch.full_like(fixed[:, :1].sum(dim=1), fixed.shape[1])
    sums = all_sum(torch.stack([fixed.sum(dim=1), fixed.square().sum(dim=1), sizes]))
    x, y = both - (sums[0] / sums[2].clamp(min=1.0))[:, None]
    parts = torch.stack([(x * y).sum(), x.square().sum(), y.square().sum()])
    xy, xx, yy = sum_shares(parts, all_sum).unbind()
    flat = (torch.stack([xx, yy]).detach() <= _FLAT * sums[1]).any()  # no branch: no GPU sync
    return torch.where(flat, 0.0, xy) / torch.where(flat, 1.0, xx * yy).sqrt()


def ic_loss(
    score: Float[Tensor, " M"], label: Float[Tensor, " M"], all_sum: AllSum = own_share
) -> Float[Tensor, ""]:
    """Minus the IC of one day's whole cross-section [R]."""
    return -correlation(score, label, all_sum)


def _mean(x: Float[Tensor, "M *K"], all_sum: AllSum) -> Float[Tensor, "*K"]:  # noqa: F821, UP037
    count = all_sum(torch.tensor(float(len(x)), dtype=torch.float64, device=x.device))
    return sum_shares(x.double().sum(dim=0), all_sum) / count.clamp(min=1.0)


def discriminator_loss(
    real: Float[Tensor, " M"], fake: Float[Tensor, " M"], all_sum: AllSum = own_share
) -> Float[Tensor, ""]:
    """-E[log D(x)] - E[log(1 - D(G(z)))] from logits [R]; softplus keeps it finite."""
    return _mean(F.softplus(-real) + F.softplus(fake), all_sum)


def generator_loss(
    fake: Float[Tensor, " M"],
    distance: Float[Tensor, " M"],
    weight: float,
    all_sum: AllSum = own_share,
) -> Float[Tensor, ""]:
    """-E[log D(G(z))] [R] + weight x E|G - x| [D]; `distance` is the mean |G - x| per sample."""
    return _mean(F.softplus(-fake) + weight * distance, all_sum)
