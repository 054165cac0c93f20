"""The factor against its steps done by hand with numpy and pandas."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from gangru_dist.config.settings import FactorConfig, GruConfig, SampleConfig
from gangru_dist.models.predictors import FactorNetwork
from gangru_dist.scoring import predictor
from gangru_dist.scoring.factor import to_factor
from tests.evaluation.worlds import random_block

DAYS, ASSETS = 5, 80


@pytest.fixture
def market():
    rng = np.random.default_rng(0)
    score = rng.standard_t(3, size=(DAYS, ASSETS)).astype(np.float32)
    score[rng.random(score.shape) < 0.2] = np.nan
    industry = rng.integers(0, 6, size=score.shape).astype(np.int16)
    return score, industry, np.exp(rng.normal(23, 1.2, size=score.shape))


def by_hand(score, industry, market_cap, mad=5.0):
    """One day, in pandas and with explicit dummies."""
    frame = pd.DataFrame({"y": score.astype(float), "g": industry, "c": market_cap}).dropna()
    middle = frame.y.median()
    reach = mad * 1.4826 * (frame.y - middle).abs().median()
    y = frame.y.clip(middle - reach, middle + reach)
    y = (y - y.mean()) / y.std(ddof=0)
    design = pd.get_dummies(frame.g, dtype=float).assign(size=np.log(frame.c)).to_numpy()
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    factor = (residual - residual.mean()) / residual.std(ddof=0)
    return factor.reindex(range(len(score))).to_numpy()


class TestReference:
    def test_equals_the_steps_by_hand(self, market):
        result = to_factor(*market, FactorConfig())
        for day, columns in enumerate(zip(*market, strict=True)):
            np.testing.assert_allclose(result.factor[day], by_hand(*columns), atol=1e-9)
        assert result.name_exposures(0) == "industry+size"

    def test_quantiles_have_equal_sizes_and_follow_the_factor(self, market):
        result = to_factor(*market, FactorConfig(quantiles=4))
        for factor, quantile in zip(result.factor, result.quantile, strict=True):
            sizes = np.bincount(quantile[quantile > 0])[1:]
            assert sizes.max() - sizes.min() <= 1
            order = np.argsort(factor[quantile > 0])
            assert (np.diff(quantile[quantile > 0][order]) >= 0).all()


class TestProperties:
    def test_factor_is_standardized_and_free_of_industry_and_size(self, market):
        factor = to_factor(*market, FactorConfig()).factor
        np.testing.assert_allclose(np.nanmean(factor, axis=1), 0, atol=1e-10)
        np.testing.assert_allclose(np.nanstd(factor, axis=1), 1, rtol=1e-10)
        for row, codes, cap in zip(factor, *market[1:], strict=True):
            by_group = pd.Series(row).groupby(codes).mean()
            np.testing.assert_allclose(by_group, 0, atol=1e-10)
            known = ~np.isnan(row)
            assert abs(np.corrcoef(row[known], np.log(cap[known]))[0, 1]) < 1e-10

    @pytest.mark.parametrize("absent", [None, "empty"])
    def test_missing_columns_leave_their_step_out_and_say_so(self, market, absent):
        score = market[0]
        none = None if absent is None else np.empty((DAYS, 0))
        codes = None if absent is None else np.empty((DAYS, 0), dtype=np.int16)
        result = to_factor(score, codes, none, FactorConfig())
        plain = to_factor(*market, FactorConfig(neutralize=()))
        np.testing.assert_array_equal(result.factor, plain.factor)
        assert {result.name_exposures(day) for day in range(DAYS)} == {""}
        np.testing.assert_array_equal(result.missing_industry, result.scored)
        np.testing.assert_array_equal(result.missing_market_cap, result.scored)

    def test_each_day_decides_for_itself(self, market):
        score, industry, cap = market
        cap[1] = np.nan
        industry[2] = -1
        result = to_factor(score, industry, cap, FactorConfig())
        said = [result.name_exposures(day) for day in range(4)]
        assert said == ["industry+size", "industry", "size", "industry+size"]

    def test_some_missing_are_counted_and_still_get_a_factor(self, market):
        score, industry, cap = market
        industry[0, :20], cap[0, 10:30] = -1, np.nan
        result = to_factor(score, industry, cap, FactorConfig())
        member = ~np.isnan(score[0])
        assert result.missing_industry[0] == member[:20].sum()
        assert result.missing_market_cap[0] == member[10:30].sum()
        np.testing.assert_array_equal(np.isnan(result.factor[0]), ~member)
        assert result.name_exposures(0) == "industry+size"

    def test_a_day_with_too_few_assets_has_scores_but_no_factor(self, market):
        score, industry, cap = market
        score[3, 9:] = np.nan
        result = to_factor(score, industry, cap, FactorConfig(min_assets=10))
        assert result.scored[3] < 10
        assert np.isnan(result.factor[3]).all()
        assert (result.quantile[3] == 0).all()
        assert result.name_exposures(3) == ""

    def test_scores_that_industry_explains_wholly_give_zero_and_no_noise(self, market):
        _, industry, cap = market
        result = to_factor(industry * 0.1, industry, cap, FactorConfig())
        assert (result.factor == 0).all()

    def test_scores_that_differ_by_rounding_alone_give_zero(self, market):
        _, industry, cap = market
        level = np.full(industry.shape, 0.3, dtype=np.float32)
        level[:, ::2] = np.nextafter(level[:, ::2], np.float32(1))
        assert (to_factor(level, industry, cap, FactorConfig()).factor == 0).all()

    def test_a_collapsed_seed_has_no_say_in_an_ensemble(self, market, monkeypatch):
        score = np.nan_to_num(market[0][0])
        level = np.full_like(score, 0.3)
        level[::2] = np.nextafter(level[::2], np.float32(1))
        made = iter((score, level))
        monkeypatch.setattr(predictor, "predict", lambda *_: next(made))
        network = FactorNetwork(1, GruConfig(hidden=1, layers=1, head=(1,)), None)
        block = dataclasses.replace(
            random_block(days=2, assets=ASSETS),
            feature_names=("close",),
            features=np.zeros((2, ASSETS, 1), dtype=np.float32),
        )
        members = np.ones((2, ASSETS), dtype=bool)
        cfg = SampleConfig(lookback=2)
        (mean,) = predictor.score_block([network, network], block, [1], members, cfg)
        z = (score - score.mean(dtype=float)) / score.std(dtype=float)
        np.testing.assert_allclose(mean, z / 2, atol=1e-6)

    def test_a_small_spread_that_is_no_rounding_stays(self, market):
        score, industry, cap = market
        shifted = (100 + score.astype(np.float64) * 1e-2).astype(np.float32)
        factor = to_factor(shifted, industry, cap, FactorConfig()).factor
        expected = to_factor(*market, FactorConfig()).factor
        np.testing.assert_allclose(factor, expected, atol=0.01)

    def test_days_are_independent(self, market):
        score, industry, cap = market
        whole = to_factor(score, industry, cap, FactorConfig())
        one = to_factor(score[2:3], industry[2:3], cap[2:3], FactorConfig())
        np.testing.assert_array_equal(whole.factor[2:3], one.factor)
        np.testing.assert_array_equal(whole.quantile[2:3], one.quantile)
