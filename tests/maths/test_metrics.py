from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gangru_dist.maths import metrics


def _scores(decimals: int, missing: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    score, earned = rng.normal(size=(2, 50, 30)).round(decimals)
    score[rng.random(score.shape) < missing] = np.nan
    earned[rng.random(score.shape) < missing] = np.nan
    return score, earned


def _hac_by_matrices(values: np.ndarray, lags: int) -> float:
    """Sandwich estimator of a regression on a constant, written with full matrices."""
    count = len(values)
    ones = np.ones((count, 1))
    residual = values - values.mean()
    distance = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    weights = np.clip(1 - distance / (lags + 1), 0, None)
    meat = ones.T @ (weights * np.outer(residual, residual)) @ ones
    bread = np.linalg.inv(ones.T @ ones)
    return float(values.mean() / np.sqrt((bread @ meat @ bread)[0, 0]))


class TestReference:
    @pytest.mark.parametrize("decimals", [8, 1], ids=["distinct", "ties"])
    @pytest.mark.parametrize("missing", [0.0, 0.3])
    def test_ic_and_rank_ic_match_scipy(self, decimals, missing):
        score, earned = _scores(decimals, missing)
        for ours, theirs in ((metrics.rank_ic, stats.spearmanr), (metrics.ic, stats.pearsonr)):
            expected = []
            for s, r in zip(score, earned, strict=True):
                both = np.isfinite(s) & np.isfinite(r)
                expected.append(theirs(s[both], r[both]).statistic)
            np.testing.assert_allclose(ours(score, earned), expected, rtol=1e-12, atol=1e-14)

    def test_t_test_matches_scipy(self):
        values = np.random.default_rng(1).normal(0.05, 0.1, 40)
        ours, theirs = metrics.t_test(values), stats.ttest_1samp(values, 0)
        assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-12)
        assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-10)
        assert ours.count == 40

    @pytest.mark.parametrize("lags", [0, 1, 3, 11])
    def test_newey_west_matches_the_sandwich_matrices(self, lags):
        values = np.cumsum(np.random.default_rng(2).normal(0.1, 1, 60))
        expected = _hac_by_matrices(values, lags)
        assert metrics.newey_west_t(values, lags=lags) == pytest.approx(expected, rel=1e-10)

    def test_max_drawdown_matches_all_pairs(self):
        value = np.cumprod(1 + np.random.default_rng(3).normal(0, 0.02, 80))
        pairs = [1 - value[j] / value[i] for i in range(80) for j in range(i, 80)]
        assert metrics.max_drawdown(value) == pytest.approx(max(pairs), rel=1e-12)

    def test_one_year_of_constant_growth(self):
        value = 1.1 ** (np.arange(253) / 252)
        assert metrics.annualized_return(value) == pytest.approx(0.1, rel=1e-12)
        assert metrics.annualized_volatility(value) == pytest.approx(0, abs=1e-12)

    def test_volatility_matches_the_definition(self):
        value = np.cumprod(1 + np.random.default_rng(4).normal(0, 0.02, 80))
        returns = [value[i] / value[i - 1] - 1 for i in range(1, 80)]
        expected = np.sqrt(sum((r - np.mean(returns)) ** 2 for r in returns) / 78 * 252)
        assert metrics.annualized_volatility(value) == pytest.approx(expected, rel=1e-12)

    def test_turnover_of_swapping_half(self):
        before, after = np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.0, 0.5])
        assert metrics.turnover(before, after) == 0.5


class TestProperties:
    @given(seed=st.integers(0, 2**16), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
    def test_ic_ignores_scale_shift_and_order(self, seed, scale, shift):
        rng = np.random.default_rng(seed)
        score, earned = rng.normal(size=(2, 3, 12))
        order = rng.permutation(12)
        for figure in (metrics.ic, metrics.rank_ic):
            base = figure(score, earned)
            np.testing.assert_allclose(figure(score * scale + shift, earned), base, atol=1e-9)
            np.testing.assert_allclose(figure(score[:, order], earned[:, order]), base, atol=1e-9)
            np.testing.assert_allclose(figure(-score, earned), -base, atol=1e-12)

    def test_rank_ic_ignores_monotone_transforms(self):
        score, earned = _scores(8, 0.2)
        np.testing.assert_array_equal(
            metrics.rank_ic(np.exp(score), earned), metrics.rank_ic(score, earned)
        )

    def test_undefined_is_nan_without_a_warning(self):
        score = np.array([[1.0, 1.0, 1.0, 1.0], [1, 2, np.nan, np.nan], [np.nan] * 4])
        earned = np.array([[1.0, 2.0, 3.0, 4.0]] * 3)
        assert np.isnan(metrics.ic(score, earned)).all()
        assert np.isnan(metrics.rank_ic(score, earned)).all()
        for values in (np.array([]), np.array([np.nan]), np.array([0.1]), np.array([0.1, 0.1])):
            assert np.isnan(metrics.icir(values))
            assert np.isnan(metrics.t_test(values).p_value)
            assert np.isnan(metrics.newey_west_t(values, lags=2))
        assert np.isnan(metrics.mean(np.array([np.nan])))
        assert np.isnan(metrics.annualized_return(np.array([1.0])))
        assert np.isnan(metrics.information_ratio(np.array([1.0, 1.0, 1.0])))

    def test_a_large_constant_row_is_not_rounding_noise(self):
        score = np.full((1, 7), 0.1)
        assert np.isnan(metrics.ic(score, np.arange(7.0)[None]))

    @pytest.mark.parametrize(
        ("p", "expected"), [(0.2, ""), (0.07, "*"), (0.03, "**"), (0.001, "***"), (np.nan, "")]
    )
    def test_stars(self, p, expected):
        assert metrics.mark_significance(p) == expected

    def test_inputs_are_left_alone(self):
        score, earned = _scores(8, 0.2)
        copies = score.copy(), earned.copy()
        metrics.rank_ic(score, earned)
        np.testing.assert_array_equal(score, copies[0])
        np.testing.assert_array_equal(earned, copies[1])
