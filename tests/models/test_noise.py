"""Counter-based random numbers that belong to an asset."""

import numpy as np
import pytest
import torch
from scipy import stats

from gangru_dist.models.gan import asset_keys, normal, sample_keys, uniform

NAMES = [f"{i:06d}.SH" for i in range(500)]


def splitmix64(key: int, counter: int) -> int:
    """The published generator with Python's unbounded integers."""
    mask = 2**64 - 1
    x = (key + counter * 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


class TestReference:
    def test_uniform_is_the_top_of_splitmix64(self) -> None:
        keys = sample_keys(asset_keys(NAMES[:20]), seed=3, purpose="noise")
        found = uniform(keys, 7)
        for key, row in zip(keys.tolist(), found.tolist(), strict=True):
            expected = [((splitmix64(key % 2**64, c) >> 40) + 0.5) / 2**24 for c in range(1, 8)]
            np.testing.assert_allclose(row, expected, rtol=1e-7)


class TestProperties:
    def test_normal_is_normal(self) -> None:
        drawn = normal(sample_keys(asset_keys(NAMES), seed=0, purpose="x"), 200).numpy()
        assert stats.kstest(drawn.ravel()[:50_000], "norm").pvalue > 0.01
        assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.15
        assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.25

    @pytest.mark.parametrize(("seed", "purpose"), [(1, "x"), (0, "y")])
    def test_seed_and_purpose_change_everything(self, seed: int, purpose: str) -> None:
        keys = asset_keys(NAMES)
        first = normal(sample_keys(keys, seed=0, purpose="x"), 10)
        other = normal(sample_keys(keys, seed=seed, purpose=purpose), 10)
        assert abs(np.corrcoef(first.flatten(), other.flatten())[0, 1]) < 0.05

    def test_an_asset_draws_the_same_in_any_company(self) -> None:
        keys = asset_keys(NAMES)
        whole = normal(sample_keys(keys, seed=0, purpose="x"), 9)
        part = normal(sample_keys(asset_keys(NAMES[7::31]), seed=0, purpose="x"), 9)
        assert torch.equal(whole[7::31], part)

    def test_no_numbers_asked_none_drawn(self) -> None:
        """`gan.noise_channels` = 0 is in the search space."""
        assert normal(asset_keys(NAMES[:3]), 0).shape == (3, 0)

    def test_no_assets_no_numbers(self) -> None:
        assert normal(asset_keys([]), 5).shape == (0, 5)
