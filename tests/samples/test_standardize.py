"""Cutting and standardizing samples against a slow reference in plain numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gangru_dist.config.settings import SampleConfig
from gangru_dist.samples.standardize import (
    Standardizer,
    compute_statistics,
    cs_standardize,
    cs_sums,
    cut_samples,
    ts_standardize,
)

CFG = SampleConfig(lookback=10)
NAMES = ("close", "volume", "daily_return")


def cross_section_samples(
    values: torch.Tensor, day: int, members: torch.Tensor, cfg: SampleConfig
) -> torch.Tensor:
    return Standardizer(cfg, NAMES).standardize_day(values, day, members, values.dtype)


def panel(seed: int = 0, days: int = 30, assets: int = 9, missing: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.standard_t(2, size=(days, assets, 3)) * [1, 100, 0.01] + [0, 5000, 0]
    values[rng.random((days, assets)) < missing] = np.nan
    values[:, 4, 1] = 7.0  # a constant series
    values[:, 5] = np.nan  # an asset without any value
    return values


def reference(values: np.ndarray, day: int, members: list[int], cfg: SampleConfig) -> np.ndarray:
    """The definition word by word: loops, numpy's own nan functions, float64. (M, T, F)."""
    block = values[day - cfg.lookback + 1 : day + 1][:, members].transpose(1, 0, 2)
    z = np.zeros_like(block)
    for i, sample in enumerate(block):
        for f, series in enumerate(sample.T):
            known = series[~np.isnan(series)]
            if known.size == 0:
                continue
            middle = np.median(known)
            mad = np.median(np.abs(known - middle))
            reach = cfg.mad_clip * 1.4826 * mad
            clipped = np.clip(known, middle - reach, middle + reach)
            spread = clipped.std()
            if spread > 1e-6 * abs(middle):
                z[i, ~np.isnan(series), f] = (clipped - clipped.mean()) / spread
    result = np.zeros_like(z)
    for t in range(z.shape[1]):
        for f in range(z.shape[2]):
            known = ~np.isnan(block[:, t, f])
            column = z[known, t, f]
            if column.size and column.std() > 1e-6:
                scored = (column - column.mean()) / column.std()
                result[known, t, f] = np.clip(scored, -cfg.z_clip, cfg.z_clip)
    return result


class TestReference:
    @pytest.mark.parametrize("missing", [0.0, 0.2, 0.8])
    @pytest.mark.parametrize("lookback", [10, 9])
    def test_equals_the_specification_in_loops(self, missing: float, lookback: int) -> None:
        values = panel(missing=missing)
        cfg = SampleConfig(lookback=lookback, mad_clip=2.0, z_clip=1.5)  # both clips bite
        members = [0, 1, 2, 4, 5, 7, 8]
        found = cross_section_samples(torch.from_numpy(values), 20, torch.tensor(members), cfg)
        np.testing.assert_allclose(found, reference(values, 20, members, cfg), atol=1e-9)

    def test_float32_agrees(self) -> None:
        values = panel()
        members = torch.arange(9)
        found = cross_section_samples(torch.from_numpy(values).float(), 25, members, CFG)
        np.testing.assert_allclose(found, reference(values, 25, list(range(9)), CFG), atol=2e-3)


class TestProperties:
    def test_cut_is_the_lookback_up_to_the_day(self) -> None:
        values = torch.from_numpy(panel())
        found = cut_samples(values, 20, torch.tensor([2, 0]), 10)
        assert torch.equal(found[0].nan_to_num(), values[11:21, 2].nan_to_num())
        assert torch.equal(found[1].nan_to_num(), values[11:21, 0].nan_to_num())

    @settings(max_examples=25, deadline=None)
    @given(day=st.integers(9, 28), seed=st.integers(0, 999))
    def test_sample_ignores_the_future(self, day: int, seed: int) -> None:
        values = panel(seed)
        tampered = panel(seed + 1)
        tampered[: day + 1] = values[: day + 1]
        members = torch.arange(9)
        before = cross_section_samples(torch.from_numpy(values), day, members, CFG)
        after = cross_section_samples(torch.from_numpy(tampered), day, members, CFG)
        assert torch.equal(before, after)

    def test_the_check_has_teeth(self) -> None:
        values = panel()
        tampered = values.copy()
        tampered[21] += 1.0
        members = torch.arange(9)
        before = cross_section_samples(torch.from_numpy(values), 21, members, CFG)
        after = cross_section_samples(torch.from_numpy(tampered), 21, members, CFG)
        assert not torch.equal(before, after)

    @settings(max_examples=25, deadline=None)
    @given(scale=st.floats(0.1, 50), shift=st.floats(-5, 5), seed=st.integers(0, 99))
    def test_unit_of_a_feature_does_not_matter(self, scale: float, shift: float, seed: int) -> None:
        values = torch.from_numpy(panel(seed))
        members = torch.arange(9)
        before = cross_section_samples(values, 20, members, CFG)
        after = cross_section_samples(values * scale + shift, 20, members, CFG)
        torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)

    def test_order_of_assets_does_not_matter(self) -> None:
        values = torch.from_numpy(panel())
        order = torch.tensor([3, 1, 8, 0, 7, 2])
        straight = cross_section_samples(values, 20, order.sort().values, CFG)
        shuffled = cross_section_samples(values, 20, order, CFG)
        torch.testing.assert_close(straight[order.argsort().argsort()], shuffled)

    def test_shares_add_up_to_the_whole(self) -> None:
        values = torch.from_numpy(panel())
        whole = cs_sums(*ts_standardize(cut_samples(values, 20, torch.arange(9), 10), CFG))
        parts = [
            cs_sums(*ts_standardize(cut_samples(values, 20, torch.tensor(m), 10), CFG))
            for m in ([0, 3, 5], [1], [2, 4, 6, 7, 8])
        ]
        torch.testing.assert_close(sum(parts), whole, rtol=1e-14, atol=1e-14)

    def test_constant_and_empty_series_become_0(self) -> None:
        z, _ = ts_standardize(cut_samples(torch.from_numpy(panel()), 20, torch.arange(9), 10), CFG)
        assert not z.isnan().any()
        assert (z[4, :, 1] == 0).all()
        assert (z[5] == 0).all()

    def test_empty_share_has_sums_of_0(self) -> None:
        raw = torch.empty(0, 10, 3)
        z, known = ts_standardize(raw, CFG)
        assert cs_sums(z, known).abs().sum() == 0
        day = compute_statistics(cs_sums(z, known))
        assert cs_standardize(z, known, day, CFG).shape == (0, 10, 3)

    def test_input_is_left_alone(self) -> None:
        values = torch.from_numpy(panel())
        copy = values.clone()
        cross_section_samples(values, 20, torch.arange(9), CFG)
        assert torch.equal(values.nan_to_num(), copy.nan_to_num())
