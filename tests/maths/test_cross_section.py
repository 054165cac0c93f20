"""Cross-section operations against pandas, scipy and least squares with explicit dummies."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gangru_dist.maths.cross_section import cs_neutralize, cs_quantile, cs_winsorize, cs_zscore

OPERATIONS = [
    lambda x: cs_winsorize(x, mad=3.0),
    cs_zscore,
    lambda x: cs_quantile(x, 5),
    cs_neutralize,
]
NAMES = ["winsorize", "zscore", "quantile", "neutralize"]


def cross_sections(seed=0, days=6, assets=40, missing=0.2, decimals=8):
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, size=(days, assets)).round(decimals)
    x[rng.random(x.shape) < missing] = np.nan
    return x


def residuals_of_dummies(score, groups, exposure):
    """The obvious way: one least-squares fit a day on explicit dummy columns."""
    result = np.full(score.shape, np.nan)
    for day in range(len(score)):
        rows = np.flatnonzero(~np.isnan(score[day]))
        codes = groups[day, rows]
        columns = [(codes == code).astype(float) for code in np.unique(codes)]
        if exposure is not None:
            value = pd.Series(exposure[day, rows])
            columns.append(value.fillna(value.groupby(codes).transform("mean")).fillna(0.0))
        design = np.column_stack(columns)
        weights = np.linalg.lstsq(design, score[day, rows], rcond=None)[0]
        result[day, rows] = score[day, rows] - design @ weights
    return result


class TestReference:
    @pytest.mark.parametrize("missing", [0.0, 0.3])
    def test_winsorize_clips_at_scipys_mad(self, missing):
        x = cross_sections(missing=missing)
        middle = np.nanmedian(x, axis=1, keepdims=True)
        reach = 2 * 1.4826 * stats.median_abs_deviation(x, axis=1, nan_policy="omit")[:, None]
        expected = pd.DataFrame(x).clip(middle - reach, middle + reach, axis=0)
        np.testing.assert_allclose(cs_winsorize(x, mad=2.0), expected, rtol=1e-12)

    @pytest.mark.parametrize("missing", [0.0, 0.3])
    def test_zscore_is_scipys(self, missing):
        x = cross_sections(missing=missing)
        expected = stats.zscore(x, axis=1, nan_policy="omit")
        np.testing.assert_allclose(cs_zscore(x), expected, rtol=1e-10, atol=1e-13)

    @pytest.mark.parametrize("decimals", [8, 1], ids=["distinct", "ties"])
    @pytest.mark.parametrize(("assets", "q"), [(40, 5), (41, 10), (201, 10), (30, 7)])
    def test_quantile_is_qcut(self, assets, q, decimals):
        x = cross_sections(assets=assets, decimals=decimals)
        for row, got in zip(x, cs_quantile(x, q), strict=True):
            known = ~np.isnan(row)
            edges = np.quantile(row[known], np.arange(q + 1) / q)
            if decimals == 8:
                expected = pd.qcut(row[known], q, labels=False) + 1
            else:  # qcut refuses equal edges: right-closed bins, spelled out
                expected = np.maximum(np.searchsorted(edges, row[known], side="left"), 1)
            np.testing.assert_array_equal(got[known], expected)

    @pytest.mark.parametrize("with_exposure", [True, False])
    @pytest.mark.parametrize("unknown", [0.0, 0.2])
    def test_neutralize_is_least_squares_on_dummies(self, with_exposure, unknown):
        rng = np.random.default_rng(1)
        score = cross_sections(seed=2, assets=60)
        groups = rng.integers(-1, 7, size=score.shape)  # -1: its own group
        groups[0] = np.arange(60)  # each alone in its industry
        groups[1] = 3
        exposure = rng.normal(22, 1.5, size=score.shape)
        exposure[rng.random(score.shape) < unknown] = np.nan
        exposure = exposure if with_exposure else None
        got = cs_neutralize(score, groups=groups, exposure=exposure)
        expected = residuals_of_dummies(score, groups, exposure)
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-9)


class TestProperties:
    @pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
    def test_missing_stays_missing_and_the_input_is_left_alone(self, operation):
        x = cross_sections(missing=0.4)
        before = x.copy()
        result = operation(x)
        np.testing.assert_array_equal(x, before)
        missing = result == 0 if result.dtype == np.int16 else np.isnan(result)
        np.testing.assert_array_equal(missing, np.isnan(x))

    @pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
    @given(cut=st.integers(0, 5), seed=st.integers(0, 2**16))
    @settings(max_examples=20, deadline=None)
    def test_a_day_does_not_depend_on_the_others(self, operation, cut, seed):
        x = cross_sections(seed=seed)
        tampered = x.copy()
        tampered[cut + 1 :] = cross_sections(seed=seed + 1)[cut + 1 :]
        past = slice(0, cut + 1)
        np.testing.assert_array_equal(operation(x)[past], operation(tampered)[past])

    @pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
    @pytest.mark.parametrize("row", [[np.nan] * 3, [2.0] * 3, [1.0, np.nan, np.nan]])
    def test_empty_constant_and_single_days_are_defined(self, operation, row):
        result = operation(np.array([row, [1.0, 2.0, 3.0]]))
        missing = result[0] == 0 if result.dtype == np.int16 else np.isnan(result[0])
        np.testing.assert_array_equal(missing, np.isnan(row))

    @pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
    @pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
    def test_no_days_or_no_assets(self, operation, shape):
        assert operation(np.empty(shape)).shape == shape

    @pytest.mark.parametrize("value", [0.1, 1e-300, 1e12])
    def test_a_constant_day_becomes_zero(self, value):
        assert (cs_zscore(np.full((1, 7), value)) == 0).all()

    @given(scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
    @settings(max_examples=20, deadline=None)
    def test_zscore_forgets_unit_and_level(self, scale, shift):
        x = cross_sections()
        np.testing.assert_allclose(cs_zscore(x * scale + shift), cs_zscore(x), atol=1e-6)

    def test_order_of_assets_does_not_matter(self):
        x = cross_sections()
        order = np.random.default_rng(3).permutation(x.shape[1])
        for operation in OPERATIONS:
            np.testing.assert_allclose(operation(x)[:, order], operation(x[:, order]), atol=1e-12)

    def test_residuals_are_orthogonal_to_what_was_removed(self):
        x = cross_sections(missing=0.0)
        rng = np.random.default_rng(4)
        groups, size = rng.integers(0, 4, x.shape), rng.normal(size=x.shape)
        residual = cs_neutralize(x, groups=groups, exposure=size)
        for code in range(4):
            np.testing.assert_allclose((residual * (groups == code)).sum(axis=1), 0, atol=1e-10)
        np.testing.assert_allclose((residual * size).sum(axis=1), 0, atol=1e-10)

    def test_exposure_without_spread_removes_the_group_mean_alone(self):
        x = cross_sections()
        flat = cs_neutralize(x, exposure=np.full(x.shape, 23.7))
        np.testing.assert_allclose(flat, cs_neutralize(x), rtol=1e-12)
