"""Deflated ICIRs of a study against the paper's example, draws and the t-test."""

import numpy as np
import pytest
from scipy import stats

from gangru_dist.maths import metrics
from studies import significance


class TestDeflated:
    def test_the_papers_example(self):
        """Bailey and López de Prado (2014), "A numerical example": daily values of five years."""
        year = 250
        ratio, spread = 2.5 / np.sqrt(year), np.sqrt(0.5 / year)
        icirs = spread * np.sqrt(99 / 100) * np.repeat([-1.0, 1.0], 50)  # of this deviation
        benchmark = significance.expect_best_icir(icirs)
        assert benchmark == pytest.approx(0.1132, abs=5e-5)
        found = significance.deflate(
            ratio, benchmark=benchmark, count=5 * year, skewness=-3, kurtosis=10
        )
        assert found == pytest.approx(0.9004, abs=5e-5)

    def test_expected_best_is_that_of_many_draws(self):
        rng = np.random.default_rng(0)
        best = rng.normal(size=(20_000, 30)).max(axis=1).mean()
        scaled = stats.zscore(rng.normal(size=30), ddof=1)
        assert significance.expect_best_icir(scaled) == pytest.approx(best, rel=0.02)

    def test_one_normal_trial_is_nearly_the_t_test(self):
        values = np.random.default_rng(1).normal(0.3, 1, size=2_000)
        found = significance.deflate_icir(values, np.array([metrics.icir(values)]))
        one_sided = 1 - metrics.t_test(values).p_value / 2
        assert found == pytest.approx(one_sided, abs=1e-4)

    def test_more_trials_leave_less(self):
        values = np.random.default_rng(1).normal(0.3, 1, size=12)
        few, many = np.array([0.1, 0.3]), np.tile([0.1, 0.3], 50)
        assert significance.deflate_icir(values, few) > significance.deflate_icir(values, many)
