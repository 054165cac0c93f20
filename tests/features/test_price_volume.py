"""Each feature against SQLite or pandas, and against a rewritten future."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gangru_dist.base.errors import PanelError
from gangru_dist.features import price_volume
from gangru_dist.features.price_volume import (
    FEATURES,
    NAMES,
    AdjustedBars,
    adjust_bars,
    ago,
    check_turnover_rate,
    compute_features,
    feature,
)

Feature = Callable[[AdjustedBars], np.ndarray]
FUNCTIONS = [FEATURES[name].compute for name in NAMES]
SPECIFIED = """open high low close vwap volume amount turnover_rate daily_return overnight_return
    intraday_return amplitude upper_shadow lower_shadow close_to_vwap volume_ratio return_5d
    volatility_5d"""
"""The eighteen features, in the order that models know."""


def make_bars(days: int = 40, assets: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Raw bars (K, N) with a split; the first asset has fewer days."""
    rng = np.random.default_rng(seed)
    shape = (days, assets)
    close = 10 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=0))
    opened = close * np.exp(rng.normal(0, 0.01, shape))
    volume = rng.integers(1_000, 1_000_000, shape).astype(float)
    bars = {
        "open": opened,
        "close": close,
        "high": np.maximum(opened, close) * (1 + rng.random(shape) / 50),
        "low": np.minimum(opened, close) * (1 - rng.random(shape) / 50),
        "volume": volume,
        "amount": volume * close * np.exp(rng.normal(0, 0.003, shape)),
        "adj_factor": np.where(np.arange(days)[:, None] < days // 2, 1.0, 1.7) * np.ones(shape),
        "turnover_rate": np.where(rng.random(shape) < 0.05, np.nan, rng.random(shape) / 10),
        "market_cap": close * 1e8,
    }
    for values in bars.values():
        values[days - 7 :, 0] = np.nan
    return bars


def to_frame(bars: dict[str, np.ndarray]) -> pd.DataFrame:
    """Long adjusted bars, one line a traded day, the way a user would have them."""
    frame = pd.concat(
        [
            pd.DataFrame({name: values[:, n] for name, values in bars.items()}).assign(asset=n)
            for n in range(bars["close"].shape[1])
        ]
    ).rename_axis("k")
    frame = frame[frame["close"].notna()].reset_index()
    for name in ("open", "high", "low", "close"):
        frame[name] = frame[name] * frame["adj_factor"]
    frame["vwap"] = frame["amount"] / frame["volume"] * frame["adj_factor"]
    frame["volume"] = frame["volume"] / frame["adj_factor"]
    return frame


PER_ROW = {
    **{name: name for name in ("open", "high", "low", "close", "vwap", "turnover_rate")},
    "volume": "ln(1 + volume)",
    "amount": "ln(1 + amount)",
    "daily_return": "close / before - 1",
    "overnight_return": "open / before - 1",
    "intraday_return": "close / open - 1",
    "amplitude": "(high - low) / before",
    "upper_shadow": "(high - max(open, close)) / before",
    "lower_shadow": "(min(open, close) - low) / before",
    "close_to_vwap": "close / vwap - 1",
    "return_5d": "close / before_5 - 1",
    "volume_ratio": "case when seen = 5 then volume / mean_5 end",
}


def oracle(frame: pd.DataFrame, feature: str) -> pd.Series:
    """The feature of every line: by SQLite's window functions, volatility by pandas."""
    if feature == "volatility_5d":
        change = frame.groupby("asset")["close"].pct_change(fill_method=None)
        return change.groupby(frame["asset"]).rolling(5).std().droplevel(0)
    with sqlite3.connect(":memory:") as connection:
        frame.to_sql("bars", connection, index=False)
        found = pd.read_sql(
            f"""with lagged as (select *,
                lag(close) over w as before, lag(close, 5) over w as before_5,
                avg(volume) over (w rows 4 preceding) as mean_5,
                count(*) over (w rows 4 preceding) as seen
                from bars window w as (partition by asset order by k))
            select {PER_ROW[feature]} as value from lagged order by asset, k""",
            connection,
        )
    connection.close()
    return found["value"].astype(float)


class TestReference:
    @pytest.mark.parametrize("feature", FUNCTIONS, ids=lambda f: f.__name__)
    def test_matches_sqlite_or_pandas(self, feature: Feature) -> None:
        bars = make_bars()
        frame = to_frame(bars)
        found = feature(adjust_bars(bars, has_turnover_rate=True))
        lines = found[frame["k"], frame["asset"]]
        expected = oracle(frame, feature.__name__)
        np.testing.assert_allclose(lines, expected, rtol=1e-9, atol=1e-12)
        assert np.isfinite(expected).sum() > 100  # and not all of it undefined

    def test_the_registry_is_the_specified_list(self) -> None:
        assert tuple(SPECIFIED.split()) == NAMES

    def test_turnover_without_the_column_is_amount_over_market_cap(self) -> None:
        bars = make_bars()
        found = adjust_bars(bars, has_turnover_rate=False).turnover_rate
        np.testing.assert_array_equal(found, bars["amount"] / bars["market_cap"])


class TestProperties:
    @pytest.mark.parametrize("feature", FUNCTIONS, ids=lambda f: f.__name__)
    @settings(max_examples=15, deadline=None)
    @given(cut=st.integers(0, 38), seed=st.integers(0, 2**16))
    def test_ignores_the_future(self, feature: Feature, cut: int, seed: int) -> None:
        check_past(feature, cut, seed)

    @pytest.mark.parametrize(
        "leak",
        [
            lambda bars: ago(bars.close[::-1], 1)[::-1],
            lambda bars: bars.close - np.nanmean(bars.close, axis=0),
            lambda bars: bars.close / bars.close[-1:] - 1,
        ],
        ids=["tomorrow", "mean of all days", "last day's base"],
    )
    def test_the_check_has_teeth(self, leak: Any) -> None:
        with pytest.raises(AssertionError):
            check_past(leak, cut=20, seed=1)

    @pytest.mark.parametrize("feature", FUNCTIONS, ids=lambda f: f.__name__)
    def test_one_asset_alone_has_the_same_values(self, feature: Feature) -> None:
        bars = make_bars()
        alone = adjust_bars({name: v[:, 2] for name, v in bars.items()}, has_turnover_rate=True)
        together = feature(adjust_bars(bars, has_turnover_rate=True))
        np.testing.assert_array_equal(feature(alone), together[:, 2])

    @pytest.mark.parametrize("feature", FUNCTIONS, ids=lambda f: f.__name__)
    def test_defined_after_six_days(self, feature: Feature) -> None:
        bars = make_bars()
        bars["turnover_rate"] = np.nan_to_num(bars["turnover_rate"])
        assert np.isfinite(feature(adjust_bars(bars, has_turnover_rate=True))[5:, 1:]).all()

    @pytest.mark.parametrize("feature", FUNCTIONS, ids=lambda f: f.__name__)
    def test_fewer_days_than_the_feature_needs(self, feature: Feature) -> None:
        bars = {name: values[:1] for name, values in make_bars().items()}
        assert feature(adjust_bars(bars, has_turnover_rate=True)).shape == (1, 4)

    def test_a_split_moves_no_return_and_no_volume(self) -> None:
        bars = make_bars()
        split = np.where(np.arange(40)[:, None] < 10, 1.0, 2.0)
        halved = {
            **bars,
            **{name: bars[name] / split for name in ("open", "high", "low", "close")},
            "volume": bars["volume"] * split,
            "adj_factor": bars["adj_factor"] * split,
        }
        plain, after = (adjust_bars(b, has_turnover_rate=True) for b in (bars, halved))
        for function in FUNCTIONS:
            np.testing.assert_allclose(function(plain), function(after), rtol=1e-9, atol=1e-12)

    def test_nothing_paid_gives_no_average_price(self) -> None:
        bars = make_bars()
        bars["amount"][3, 1] = 0
        paid = adjust_bars(bars, has_turnover_rate=True)
        assert np.isnan(FEATURES["close_to_vwap"].compute(paid)[3, 1])

    @pytest.mark.parametrize("name", NAMES)
    def test_reads_the_inputs_it_declares_and_no_others(self, name: str) -> None:
        bars = adjust_bars(make_bars(), has_turnover_rate=True)
        for field in dataclasses.fields(AdjustedBars):
            if field.name == "columns":  # see panel/test_columns.py
                continue
            twisted = getattr(bars, field.name) * np.arange(1.0, 41.0)[:, None]
            changed = dataclasses.replace(bars, **{field.name: twisted})
            found = (FEATURES[name].compute(one) for one in (bars, changed))
            same = np.array_equal(*found, equal_nan=True)
            assert same == (field.name not in FEATURES[name].inputs), field.name

    def test_bars_are_not_changed(self) -> None:
        bars = make_bars()
        before = {name: values.copy() for name, values in bars.items()}
        compute_features(adjust_bars(bars, has_turnover_rate=True), NAMES)
        for name, values in bars.items():
            np.testing.assert_array_equal(values, before[name])


def check_past(feature: Feature, cut: int, seed: int) -> None:
    """Rewrite every bar after row `cut`; no row up to it may move, not by one bit."""
    bars, other = make_bars(seed=seed), make_bars(seed=seed + 1)
    tampered = {
        name: np.concatenate([values[: cut + 1], 3 * other[name][cut + 1 :]])
        for name, values in bars.items()
    }
    found, again = (feature(adjust_bars(b, has_turnover_rate=True)) for b in (bars, tampered))
    np.testing.assert_array_equal(found[: cut + 1], again[: cut + 1])


class TestValidation:
    def test_unknown_feature(self) -> None:
        with pytest.raises(PanelError, match=r"no feature 'volatility_5'; nearest: \['volat"):
            FEATURES["volatility_5"]

    def test_no_turnover_rate_at_all(self) -> None:
        with pytest.raises(
            PanelError, match=r"Leave it out: --set 'panel.without=\[\"turnover_rate\"\]'"
        ):
            check_turnover_rate(("open", "turnover_rate"), {"date", "close"})

    def test_another_feature_of_the_turnover_rate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(price_volume, "FEATURES", copy(FEATURES))

        @feature("turnover_rate", "close")
        def turned(bars: AdjustedBars) -> np.ndarray:
            return bars.turnover_rate * bars.close

        with pytest.raises(
            PanelError, match=r"'turned' needs .*--set 'panel.without=\[\"turned\"\]'"
        ):
            check_turnover_rate(("open", "turned"), {"date", "close"})
        check_turnover_rate(("open", "turned"), {"market_cap", "amount"})
        bars = adjust_bars(make_bars(), has_turnover_rate=True)
        expected = (bars.turnover_rate * bars.close).astype(np.float32)
        np.testing.assert_array_equal(compute_features(bars, ["open", "turned"])[..., 1], expected)

    def test_an_input_that_bars_do_not_have(self) -> None:
        with pytest.raises(PanelError, match=r"no input 'closed' of a feature; nearest: \['close'"):
            feature("closed")(price_volume.daily_return)

    @pytest.mark.parametrize("column", ["turnover_rate", "market_cap"])
    def test_one_of_both_is_enough(self, column: str) -> None:
        check_turnover_rate(("turnover_rate",), {column, "amount"})

    def test_market_cap_needs_an_amount(self) -> None:
        with pytest.raises(PanelError, match="needs the column turnover_rate, or amount with mark"):
            check_turnover_rate(("turnover_rate",), {"market_cap"})
