"""Prices that come adjusted, beside volume and amount as traded; and bars without an amount."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gangru_dist.base.errors import BarsError, ConfigError, GangruError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.config.sources import load
from gangru_dist.features.price_volume import FEATURES, NAMES
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import read_manifest
from tests.bars.corpus_market import DAYS, PRICES, Frame, market
from tests.made_bars import write
from tests.panel.test_headers import ways_out

MIXED = ("vwap", "close_to_vwap")
ADJUSTED = {"prices": "adjusted"}


def adjust(frame: Frame, end: pd.Timestamp | None = None, **more: Any) -> Frame:
    """Prices adjusted backward, or forward to an own end; all else as traded."""
    factor = frame["adj_factor"]
    if end is not None:
        frame, factor = frame[frame["date"] <= end], factor[frame["date"] <= end]
        factor = factor / factor.groupby(frame["code"]).transform("last")
    frame = frame.assign(**{name: frame[name] * factor for name in PRICES}, **more)
    return frame.drop(columns="adj_factor")


def build(
    root: Path, frame: Frame, features: tuple[str, ...] = NAMES, **bars: Any
) -> tuple[Frame, dict[str, Any]]:
    """Panel rows by asset and date, and quality.json."""
    write(root / "bars", frame)
    cfg = RunConfig(
        bars=BarsConfig(**{"price_limits": "ashare", **bars}),
        panel=PanelConfig(features=features, buckets=2),
    )
    storage = Storage(str(root / "storage"))
    build_panel(str(root / "bars"), storage, cfg, runner=map_here)
    files = [root / "storage" / "panel" / file.name for file in read_manifest(storage).files]
    rows = pd.concat([pd.read_parquet(file) for file in files]).sort_values(["asset", "date"])
    return rows.set_index(["asset", "date"]), storage.read_json("panel/quality.json")


def drop(*names: str) -> tuple[str, ...]:
    return tuple(name for name in NAMES if name not in names)


class TestReference:
    def test_a_vwap_in_the_same_adjustment_is_used_as_it_is(self, tmp_path: Path) -> None:
        frame = market()
        paid = frame["amount"] / frame["volume"] * frame["adj_factor"]
        found, _ = build(tmp_path / "a", adjust(frame, vwap=paid), **ADJUSTED)
        right, _ = build(tmp_path / "b", frame)
        for name in ("vwap", "close_to_vwap", "close", "daily_return", "amount"):
            np.testing.assert_allclose(found[name], right[name], rtol=1e-6, atol=1e-6)

    def test_without_an_amount_all_else_is_the_same(self, tmp_path: Path) -> None:
        frame = market()
        features = drop("amount", *MIXED)
        found, quality = build(tmp_path / "a", frame.drop(columns="amount"), features)
        right, _ = build(tmp_path / "b", frame, features)
        pd.testing.assert_frame_equal(found, right, check_exact=True)
        assert quality["optional_columns_missing"]["amount"]["files"] == 1
        assert quality["rows_quarantined"] == 0

    def test_shares_times_an_adjusted_price_are_no_market_cap(self, tmp_path: Path) -> None:
        frame = market().drop(columns="market_cap")
        shares = adjust(frame, total_shares=1e7)
        found, quality = build(tmp_path / "a", shares, drop(*MIXED), **ADJUSTED)
        assert found["market_cap"].isna().all()
        assert "market_cap" in quality["optional_columns_missing"]
        right, _ = build(tmp_path / "b", frame.assign(total_shares=1e7))
        traded = frame.set_index(["code", "date"])["close"]
        traded.index = traded.index.set_levels(traded.index.levels[1].date, level=1)
        np.testing.assert_allclose(right["market_cap"], traded.loc[right.index] * 1e7)

    def test_the_price_limits_of_an_adjusted_price_are_not_known(self, tmp_path: Path) -> None:
        frame = market()
        found, _ = build(tmp_path / "a", adjust(frame), drop(*MIXED), **ADJUSTED)
        assert not (found["limit_up"] | found["limit_down"]).any()


class TestProperties:
    def test_two_ends_of_a_forward_adjustment_change_no_past(self, tmp_path: Path) -> None:
        """As the past must not move when the future is rewritten, nor when it is adjusted in."""
        ends = DAYS[60], DAYS[-1]
        short, long = (
            build(tmp_path / str(i), adjust(market(), end), drop(*MIXED), **ADJUSTED)[0]
            for i, end in enumerate(ends)
        )
        long = long.loc[short.index]
        later = market().query("date >= @DAYS[60]").groupby("code")["adj_factor"].nunique()
        assert (later > 1).any()
        for name in drop(*MIXED):
            if FEATURES[name].level == "as_is":
                np.testing.assert_allclose(short[name], long[name], rtol=2e-4, atol=2e-6)
            elif FEATURES[name].level == "price":  # the sample takes its ratio to the last close
                ratio = (short[name] / long[name]).groupby("asset")
                assert (ratio.max() / ratio.min() < 1 + 1e-5).all()
            else:
                np.testing.assert_array_equal(short[name], long[name])


class TestValidation:
    def test_what_mixes_both_is_refused_with_the_way_out(self, tmp_path: Path) -> None:
        frame = adjust(market())
        with pytest.raises(BarsError, match="must come in their adjustment") as caught:
            build(tmp_path, frame, **ADJUSTED)
        told = load("default", None, ways_out(str(caught.value))).panel.features
        assert told == drop(*MIXED)
        build(tmp_path, frame, told, **ADJUSTED)

    def test_a_vwap_as_traded_is_refused(self, tmp_path: Path) -> None:
        frame = market()
        frame = adjust(frame, vwap=frame["amount"] / frame["volume"])
        with pytest.raises(BarsError, match="not in the adjustment of the prices") as caught:
            build(tmp_path, frame, max_quarantined=0.0, **ADJUSTED)
        told = load("default", None, [w for w in ways_out(str(caught.value)) if "panel" in w])
        assert told.panel.features == drop(*MIXED)

    def test_an_adjusted_vwap_times_shares_is_no_amount(self, tmp_path: Path) -> None:
        frame = market()
        paid = frame["amount"] / frame["volume"] * frame["adj_factor"]
        frame = adjust(frame, vwap=paid).drop(columns=["amount", "turnover_rate"])
        with pytest.raises(BarsError, match=r"lacks the column\(s\) amount"):
            build(tmp_path, frame, **ADJUSTED)
        with pytest.raises(GangruError, match="turnover_rate"):
            build(tmp_path, frame, drop("amount"), **ADJUSTED)
        build(tmp_path, frame, drop("amount", "turnover_rate"), **ADJUSTED)

    def test_shares_that_are_asked_for_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="are no market cap"):
            build(tmp_path, adjust(market()), columns={"total_shares": "n"}, **ADJUSTED)

    def test_no_amount_is_refused_with_one_setting(self, tmp_path: Path) -> None:
        frame = market().drop(columns=["amount", "turnover_rate", "market_cap"])
        with pytest.raises(BarsError, match=r"lacks the column\(s\) amount") as caught:
            build(tmp_path, frame)
        told = load("default", None, ways_out(str(caught.value))).panel.features
        assert told == drop("amount", "turnover_rate", *MIXED)
        build(tmp_path, frame, told)

    def test_a_missing_amount_among_others_is_set_aside(self, tmp_path: Path) -> None:
        frame = market()
        frame.loc[3, "amount"] = np.nan
        _, quality = build(tmp_path, frame)
        assert list(quality["quarantined"]) == ["amount missing, infinite or negative"]

    @pytest.mark.parametrize("ours", ["amount", "turnover_rate", "open"])
    def test_two_columns_of_one(self, tmp_path: Path, ours: str) -> None:
        frame = market().drop(columns=ours)
        with pytest.raises(
            BarsError, match=rf"volume.*for {ours}|for {ours} and for volume|volume"
        ):
            build(tmp_path, frame, columns={ours: "volume"})
