"""Losses and their gradients against numpy, scipy and torch's own functions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from gangru_dist.models.losses import (
    correlation,
    discriminator_loss,
    generator_loss,
    ic_loss,
)


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of a scalar function, in float64."""
    leaf = x.clone().requires_grad_()
    function(leaf).backward()
    assert leaf.grad is not None
    return leaf.grad


class TestReference:
    def test_ic_is_pearsons(self) -> None:
        score, label = torch.randn(2, 40, dtype=torch.float64)
        found = correlation(score, label)
        assert float(found) == pytest.approx(stats.pearsonr(score, label).statistic, rel=1e-12)

    def test_ic_gradient_is_that_of_the_formula(self) -> None:
        score, label = torch.randn(2, 40, dtype=torch.float64)
        expected = gradient(lambda s: -torch.corrcoef(torch.stack([s, label]))[0, 1], score)
        found = gradient(lambda s: ic_loss(s, label), score)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)

    def test_gan_losses_are_binary_cross_entropies(self) -> None:
        real, fake = torch.randn(2, 40, dtype=torch.float64) * 5
        ones, zeros = torch.ones_like(real), torch.zeros_like(real)
        expected = F.binary_cross_entropy_with_logits(
            real, ones
        ) + F.binary_cross_entropy_with_logits(fake, zeros)
        torch.testing.assert_close(discriminator_loss(real, fake), expected)
        distance = torch.rand(40, dtype=torch.float64)
        torch.testing.assert_close(
            generator_loss(fake, distance, 3.0),
            F.binary_cross_entropy_with_logits(fake, ones) + 3.0 * distance.mean(),
        )


class TestProperties:
    @pytest.mark.parametrize("cuts", [[13, 27], [0, 27], [1, 40]])
    def test_shares_give_the_whole_loss_and_gradient(self, cuts: list[int]) -> None:
        """Three workers played one after another: the other shares enter as constants."""
        score, label = torch.randn(2, 40, dtype=torch.float64)
        pieces = list(zip(score.tensor_split(cuts), label.tensor_split(cuts), strict=True))
        whole = gradient(lambda s: ic_loss(s, label), score)
        found = []
        for own, (part, of_part) in enumerate(pieces):
            found.append(gradient(_loss_of_share(of_part, _sums_of_others(pieces, own)), part))
        torch.testing.assert_close(torch.cat(found), whole, rtol=1e-10, atol=1e-14)

    def test_scale_and_shift_do_not_matter(self) -> None:
        score, label = torch.randn(2, 40)
        torch.testing.assert_close(correlation(3 * score + 7, label), correlation(score, label))

    def test_constant_has_correlation_0_and_no_nan_gradient(self) -> None:
        label = torch.randn(10)
        assert float(correlation(torch.ones(10), label)) == 0
        assert gradient(lambda s: ic_loss(s, label), torch.ones(10)).isfinite().all()
        assert gradient(lambda s: ic_loss(s, torch.zeros(10)), torch.randn(10)).abs().sum() == 0

    def test_extreme_logits_stay_finite(self) -> None:
        far = torch.tensor([-1e4, 1e4])
        assert discriminator_loss(far, far).isfinite()
        assert np.isfinite(float(generator_loss(far, torch.zeros(2), 0.0)))


def _loss_of_share(label: Tensor, others: list[Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda score: ic_loss(score, label, lambda x: x + others.pop(0))


def _sums_of_others(pieces: list[tuple[Tensor, Tensor]], own: int) -> list[Tensor]:
    """What the other workers would add, call by call, from the formula."""
    score = torch.cat([s for s, _ in pieces])
    label = torch.cat([y for _, y in pieces])
    rest = [(s, y) for i, (s, y) in enumerate(pieces) if i != own]
    sums = torch.stack(
        [
            torch.stack(
                [
                    torch.stack([v.sum(), v.square().sum(), torch.tensor(float(len(v)))]).double()
                    for v in pair
                ],
                dim=1,
            )
            for pair in rest
        ]
    ).sum(dim=0)
    parts = [
        torch.stack(
            [
                ((s - score.mean()) * (y - label.mean())).sum(),
                (s - score.mean()).square().sum(),
                (y - label.mean()).square().sum(),
            ]
        )
        for s, y in rest
    ]
    return [sums, torch.stack(parts).sum(dim=0)]
