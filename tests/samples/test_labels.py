"""Forward returns and training labels."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from gangru_dist.base.errors import ConfigError
from gangru_dist.config.settings import LABEL_TRANSFORMS, Exposure, LabelConfig
from gangru_dist.samples.labels import compute_forward_return, make_label


def label_of(
    returns: np.ndarray, cfg: LabelConfig, exposures: Mapping[Exposure, np.ndarray] | None = None
) -> np.ndarray:
    """Of one holding period."""
    return make_label(returns[None], cfg, exposures)


def market(seed: int = 0, days: int = 60, assets: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    traded = rng.random((days, assets)) > 0.2
    traded[40:, 2] = False  # delisted
    close = np.exp(np.cumsum(rng.normal(0, 0.02, (days, assets)), axis=0))
    return np.where(traded, close, np.nan), traded


class TestReference:
    @pytest.mark.parametrize(("horizon", "entry_lag"), [(20, 1), (5, 0), (1, 3)])
    def test_equals_a_walk_through_pandas(self, horizon: int, entry_lag: int) -> None:
        close, traded = market()
        price = pd.DataFrame(close).ffill()
        expected = price.shift(-entry_lag - horizon) / pd.DataFrame(close).shift(-entry_lag) - 1
        found = compute_forward_return(close, traded, horizon=horizon, entry_lag=entry_lag)
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    def test_rank_label_is_the_normal_score(self) -> None:
        returns = np.random.default_rng(1).normal(size=50)
        found = label_of(returns, LabelConfig(transform="rank"))
        scores = stats.norm.ppf((stats.rankdata(returns) - 0.5) / 50)
        np.testing.assert_allclose(found, stats.zscore(scores), rtol=1e-9)

    def test_zscore_label_is_scipys_when_nothing_is_clipped(self) -> None:
        returns = np.random.default_rng(1).uniform(-0.1, 0.1, size=50)
        np.testing.assert_allclose(
            label_of(returns, LabelConfig()), stats.zscore(returns), rtol=1e-9
        )

    @pytest.mark.parametrize("removed", [("industry",), ("size",), ("industry", "size")])
    def test_neutralized_label_is_the_residual_of_least_squares(
        self, removed: tuple[Exposure, ...]
    ) -> None:
        rng = np.random.default_rng(3)
        returns, size = rng.uniform(-0.1, 0.1, 60), rng.normal(22, 1, 60)
        industry = np.array(["Coal", "", "Banks"])[np.arange(60) % 3]
        returns += 0.02 * size + 0.05 * (industry == "Coal")
        returns[::7] = np.nan
        known = ~np.isnan(returns)
        cfg = LabelConfig(neutralize=removed, winsorize_mad=50)
        exposures: dict[Exposure, np.ndarray] = {"industry": industry, "size": size}
        label = label_of(returns, cfg, {name: exposures[name] for name in removed})
        dummies = pd.get_dummies(industry[known]).to_numpy(float)
        columns = [dummies if "industry" in removed else np.ones((known.sum(), 1))]
        columns += [size[known, None]] if "size" in removed else []
        design = np.hstack(columns)
        z = stats.zscore(returns[known])
        residual = z - design @ np.linalg.lstsq(design, z, rcond=None)[0]
        np.testing.assert_allclose(label[known], stats.zscore(residual), atol=1e-9)
        assert np.isnan(label[~known]).all()

    def test_a_users_transform_by_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(LABEL_TRANSFORMS, "sign", lambda values, cfg: np.sign(values))
        returns = np.array([0.1, np.nan, -0.2, 0.3, -0.1])
        found = label_of(returns, LabelConfig(transform="sign"))
        np.testing.assert_allclose(found, [1, np.nan, -1, 1, -1], rtol=1e-12)

    def test_several_periods_labels_are_averaged(self) -> None:
        returns = np.random.default_rng(1).uniform(-0.1, 0.1, size=(3, 50))
        returns[:, ::9] = np.nan
        known = ~np.isnan(returns[0])
        found = make_label(returns, LabelConfig(also=(5, 10), winsorize_mad=50))
        z = stats.zscore(returns[:, known], axis=1)
        np.testing.assert_allclose(found[known], stats.zscore(z.mean(axis=0)), rtol=1e-9)
        assert np.isnan(found[~known]).all()


class TestProperties:
    def test_suspended_on_entry_has_no_label(self) -> None:
        close, traded = market()
        found = compute_forward_return(close, traded, horizon=5, entry_lag=1)
        assert np.isnan(found[:-6][~traded[1:-5]]).all()

    def test_delisted_before_exit_keeps_its_last_price(self) -> None:
        close, traded = market()
        traded[39, 2], close[39, 2] = True, 7.0
        found = compute_forward_return(close, traded, horizon=10, entry_lag=1)
        entry = close[36, 2] if traded[36, 2] else np.nan
        np.testing.assert_allclose(found[35, 2], 7.0 / entry - 1)

    @settings(max_examples=30)
    @given(day=st.integers(0, 59), seed=st.integers(0, 99))
    def test_looks_exactly_as_far_ahead_as_it_says(self, day: int, seed: int) -> None:
        close, traded = market(seed)
        changed = np.where(traded, close * 1.5, np.nan)
        changed[: day + 1] = close[: day + 1]
        before = compute_forward_return(close, traded, horizon=6, entry_lag=1)
        after = compute_forward_return(changed, traded, horizon=6, entry_lag=1)
        ends_in_time = max(0, day + 1 - 7)
        np.testing.assert_array_equal(before[:ends_in_time], after[:ends_in_time])

    def test_label_has_mean_0_and_deviation_1(self) -> None:
        returns = np.random.default_rng(0).standard_t(2, size=100)
        returns[::9] = np.nan
        label = label_of(returns, LabelConfig())
        assert np.isnan(label).sum() == np.isnan(returns).sum()
        assert abs(np.nanmean(label)) < 1e-12
        assert np.nanstd(label) == pytest.approx(1, rel=1e-12)

    def test_outlier_is_clipped(self) -> None:
        returns = np.append(np.random.default_rng(0).normal(0, 0.05, 99), 30.0)
        assert label_of(returns, LabelConfig())[-1] < 6

    @pytest.mark.parametrize("transform", ["zscore", "rank"])
    def test_constant_returns_become_0_never_nan(self, transform: str) -> None:
        label = label_of(np.full(9, 0.03), LabelConfig(transform=transform))
        np.testing.assert_array_equal(label, 0.0)

    def test_what_industry_alone_explains_is_no_label(self) -> None:
        industry = np.array(["Coal", "Banks"] * 6)
        returns = np.where(industry == "Coal", 0.1, -0.1)
        exposures: dict[Exposure, np.ndarray] = {"industry": industry, "size": np.full(12, np.nan)}
        cfg = LabelConfig(neutralize=("industry", "size"))
        np.testing.assert_array_equal(label_of(returns, cfg, exposures), 0.0)

    def test_no_returns_no_labels(self) -> None:
        assert np.isnan(label_of(np.full(3, np.nan), LabelConfig())).all()

    def test_too_few_days_give_no_label(self) -> None:
        close, traded = market(days=5)
        found = compute_forward_return(close[:5], traded[:5], horizon=20, entry_lag=1)
        assert np.isnan(found).all()


class TestValidation:
    @pytest.mark.parametrize(
        ("also", "error", "reason"),
        [
            ((5, 20), ConfigError, "must be shorter than label.horizon=20"),
            ((5, 5), ValidationError, "unique"),
        ],
    )
    def test_further_periods_are_shorter_and_unique(
        self, also: tuple[int, ...], error: type[Exception], reason: str
    ) -> None:
        with pytest.raises(error, match=reason):
            LabelConfig(also=also)
