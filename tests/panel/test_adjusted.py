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
from gangru_dist.panel.adjustment import LOST
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import read_manifest
from tests.bars import vendors
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
    root: Path, frame: Frame | None, features: tuple[str, ...] = NAMES, **bars: Any
) -> tuple[Frame, dict[str, Any]]:
    """Panel rows by asset and date, and quality.json; None = the bars are written already."""
    if frame is not None:
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


LONG = pd.bdate_range("2018-01-02", periods=400)
"""More than a year, with one year's end in between."""


def long_market(stocks: int = 14) -> Frame:
    """Stocks that pay 3 % in each year and split 2 : 1 once, a few suspended days, cents."""
    frames = []
    for number in range(stocks):
        rng = np.random.default_rng(number)
        step = np.ones(len(LONG))
        step[[110 + number, 330 + number]] = 1.03
        step[200 + 3 * number] = 2.0
        close = np.empty(len(LONG))
        pre = np.empty(len(LONG))
        last = 20.0 + number
        for day, by in enumerate(step):
            pre[day] = round(last / by, 2)
            last = close[day] = round(pre[day] * np.exp(rng.normal(0, 0.01)), 2)
        volume = rng.integers(1_000, 9_000, len(LONG)) * 100.0
        frame = pd.DataFrame({"date": LONG, "code": f"6000{number:02d}.SH", "close": close})
        frame = frame.assign(
            open=close, high=(close * 1.01).round(2), low=(close * 0.99).round(2), volume=volume,
            amount=volume * close, pre_close=pre, turnover_rate=volume / 1e9,
        )  # fmt: skip
        ratio = (frame["close"].shift() / frame["pre_close"]).fillna(1.0)
        frames.append(frame.assign(adj_factor=np.where(step > 1, ratio, 1.0).cumprod()))
    return pd.concat(frames, ignore_index=True)


def true_factor(found: Frame, frame: Frame) -> pd.Series:
    """adj_close / close of the panel's rows over the true factor: one number a stock."""
    true = frame.set_index(["code", "date"])
    true.index = pd.MultiIndex.from_arrays([true.index.get_level_values(0),
                                            true.index.get_level_values(1).date])  # fmt: skip
    true = true.loc[found.index]
    ratio = found["adj_close"].to_numpy() / (true["close"] * true["adj_factor"])
    spread = ratio.groupby(level=0)
    return spread.max() / spread.min() - 1


class TestDerivedFactor:
    """`adj_factor` from what vendors give in its place."""

    @pytest.mark.parametrize(
        ("column", "error"),
        [("pre_close", 1e-12), ("daily_change", 3e-4), ("adj_close", 1e-5)],
    )
    def test_is_the_true_one(self, tmp_path: Path, column: str, error: float) -> None:
        frame = long_market()
        last = frame.groupby("code")["adj_factor"].transform("last")
        frame = frame.assign(
            daily_change=(frame["close"] / frame["pre_close"] - 1).round(4),
            adj_close=frame["close"] * frame["adj_factor"] / last,
        )
        away = ["adj_factor", *({"pre_close", "daily_change", "adj_close"} - {column})]
        found, quality = build(tmp_path, frame.drop(columns=away))
        assert (true_factor(found, frame) < error).all()
        assert not quality["quarantined"]
        steps = (found["adj_close"] / found["close"]).groupby("asset").nunique()
        assert len(steps) == 14

    @pytest.mark.parametrize("place", ["table", "columns"])
    def test_of_dividends_and_new_shares(self, tmp_path: Path, place: str) -> None:
        """One of them on a suspended day, one before a stock's first row, one given twice."""
        frame = long_market()
        before = frame.groupby("code")["close"].shift()
        split = frame["adj_factor"] / frame.groupby("code")["adj_factor"].shift() > 1.5
        cash = (before - frame["pre_close"]).where(~split, 0.0).fillna(0.0).round(2)
        events = frame[["date", "code"]].assign(dividend=cash, bonus_shares=1.0 * split)
        bars = frame.drop(columns=["adj_factor", "pre_close"])
        if place == "columns":
            bars = bars.merge(events, on=["date", "code"])
        else:
            away = (frame["code"] == "600003.SH") & frame["date"].isin(LONG[113:116])
            bars, frame = bars[~away], frame[~away]
            events = events[(events["dividend"] > 0) | split]
            early = events.iloc[[0]].assign(date=pd.Timestamp("2017-06-01"), dividend=9.0)
            events = pd.concat([events, early, events.iloc[[3]]])
            (tmp_path / "bars" / "dividends").mkdir(parents=True)
            events.to_csv(tmp_path / "bars" / "dividends" / "all.csv", index=False)
        (tmp_path / "bars").mkdir(exist_ok=True)
        bars.to_parquet(tmp_path / "bars" / "a.parquet")
        found, quality = build(tmp_path, None)
        assert (true_factor(found, frame) < 1e-3).all()  # half a cent of a split's price
        assert not quality["quarantined"]

    def test_rounding_is_no_factor(self, tmp_path: Path) -> None:
        """Adjusted closes of two decimals, changes of two decimals of a per cent."""
        frame = long_market().query("date < @LONG[100]")  # nothing is paid yet
        for column, values in (
            ("daily_change", (frame["close"] / frame["pre_close"] - 1).round(4)),
            ("adj_close", (frame["close"] / 2.06).round(2)),
        ):
            given = frame.drop(columns=["adj_factor", "pre_close"]).assign(**{column: values})
            found, _ = build(tmp_path / column, given)
            np.testing.assert_array_equal(found["adj_close"], frame["close"])

    def test_days_and_stocks_to_come_change_no_earlier_one(self, tmp_path: Path) -> None:
        frame = long_market().drop(columns="adj_factor")
        few = frame[(frame["date"] < LONG[250]) & (frame["code"] > "600003.SH")]
        short, whole = (build(tmp_path / str(len(f)), f)[0] for f in (few, frame))
        whole = whole.loc[short.index]
        pd.testing.assert_frame_equal(short, whole, check_exact=True)

    def test_a_suspension_over_an_ex_date(self, tmp_path: Path) -> None:
        frame = long_market()
        frame = frame[~((frame["code"] == "600000.SH") & frame["date"].isin(LONG[105:114]))]
        stocks = frame.groupby("code")
        ratio = frame["adj_factor"] / stocks["adj_factor"].shift()
        pre = (stocks["close"].shift() / ratio).fillna(frame["pre_close"])
        found, _ = build(tmp_path, frame.assign(pre_close=pre).drop(columns="adj_factor"))
        assert (true_factor(found, frame) < 1e-9).all()

    def test_a_close_that_cannot_be_leaves_the_factor_alone(self, tmp_path: Path) -> None:
        frame = long_market()
        row = (frame["code"] == "600004.SH") & (frame["date"] == LONG[50])
        wrong = frame.drop(columns="adj_factor")
        for name in (*PRICES, "amount"):
            wrong.loc[row, name] *= 3
        found, quality = build(tmp_path, wrong)
        assert (true_factor(found, frame) < 1e-9).all()
        assert quality["rows_quarantined"] == 1

    def test_rows_that_are_lost_lose_no_return(self, tmp_path: Path) -> None:
        frame = long_market()
        lost = np.random.default_rng(1).random(len(frame)) < 0.01
        lost &= (frame["adj_factor"] == frame.groupby("code")["adj_factor"].shift()).to_numpy()
        kept = frame[~lost]
        ratio = kept["adj_factor"] / kept.groupby("code")["adj_factor"].shift()
        found, quality = build(tmp_path, kept.drop(columns="adj_factor"))
        assert (true_factor(found, kept) < 1e-9).all()
        assert quality["notes"][LOST]["count"] > 30
        assert (ratio > 1).sum() > 30

    def test_a_lost_day_is_refused(self, tmp_path: Path) -> None:
        frame = long_market().query("date != @LONG[50]").drop(columns="adj_factor")
        with pytest.raises(BarsError, match="rows of a day before are missing"):
            build(tmp_path, frame)

    def test_copies_of_the_day_before_are_no_ex_dates(self, tmp_path: Path) -> None:
        frame = long_market()
        row = frame.index[(frame["code"] == "600004.SH") & (frame["date"] == LONG[50])][0]
        copied = frame.drop(columns="adj_factor")
        columns = [name for name in copied if name not in ("date", "code")]
        copied.loc[row, columns] = copied.loc[row - 1, columns]
        copied.loc[row + 1, "pre_close"] = copied.loc[row, "close"]
        found, quality = build(tmp_path, copied)
        assert (true_factor(found, frame) < 1e-9).all()
        assert quality["rows_quarantined"] == 1

    def test_a_change_that_states_no_ex_date_is_refused(self, tmp_path: Path) -> None:
        frame = long_market()
        smooth = frame.groupby("code")["close"].shift().fillna(frame["open"])
        frame = frame.assign(pre_close=smooth).drop(columns="adj_factor")
        with pytest.raises(BarsError, match="pre_close states no ex-date in 5600 rows"):
            build(tmp_path, frame)

    def test_files_that_give_it_in_two_ways(self, tmp_path: Path) -> None:
        frame = long_market().drop(columns="adj_factor")
        write(tmp_path / "bars", frame)
        two = frame.drop(columns="pre_close").assign(adj_close=frame["close"])
        two.to_parquet(tmp_path / "bars" / "b.parquet")
        cfg = RunConfig(bars=BarsConfig(price_limits="ashare"))
        with pytest.raises(BarsError, match="must come from one column in all files"):
            build_panel(str(tmp_path / "bars"), Storage(str(tmp_path / "s")), cfg, runner=map_here)

    def test_most_rows_without_it(self, tmp_path: Path) -> None:
        frame = long_market().drop(columns="adj_factor")
        frame.loc[frame["date"] > LONG[300], "pre_close"] = np.nan
        with pytest.raises(BarsError, match="rows have no pre_close, from"):
            build(tmp_path, frame, max_jumps=1)


class TestEvidence:
    """Prices called adjusted are held against the file."""

    @pytest.mark.parametrize("by", ["pre_close", "daily_change", "adj_close"])
    def test_an_ex_date_that_a_column_states(self, tmp_path: Path, by: str) -> None:
        frame = long_market().query("date < @LONG[140]")  # no split, and less than a year
        frame = frame.assign(
            daily_change=frame["close"] / frame["pre_close"] - 1,
            adj_close=frame["close"] * frame["adj_factor"],
        )
        away = ["adj_factor", *({"pre_close", "daily_change", "adj_close"} - {by})]
        with pytest.raises(BarsError, match=rf"{by} states an ex-date on 14 of "):
            build(tmp_path, frame.drop(columns=away), drop(*MIXED), **ADJUSTED)

    @pytest.mark.parametrize("limits", ["ashare", "none"])
    def test_amounts_that_never_leave_the_prices(self, tmp_path: Path, limits: str) -> None:
        frame = long_market().drop(columns=["adj_factor", "pre_close"])
        with pytest.raises(BarsError, match="5600 of 5600 rows of stocks with a year of rows"):
            build(tmp_path, frame, drop(*MIXED), max_jumps=1, price_limits=limits, **ADJUSTED)

    def test_a_market_that_need_not_pay_is_warned_of(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        frame = long_market().drop(columns=["adj_factor", "pre_close"])
        frame["code"] = "COIN" + frame["code"].str[4:6]
        build(tmp_path, frame, drop(*MIXED), max_jumps=1, price_limits="none", **ADJUSTED)
        assert "prices_seem_as_traded rows=5600 outside=0" in caplog.text

    @pytest.mark.parametrize("end", [None, LONG[-1]])
    def test_adjusted_prices_are_taken(self, tmp_path: Path, end: pd.Timestamp | None) -> None:
        frame = adjust(long_market().drop(columns="pre_close"), end)
        _, quality = build(tmp_path, frame, drop(*MIXED), **ADJUSTED)
        assert quality["rows_quarantined"] == 0

    def test_a_volume_that_is_adjusted_as_well(self, tmp_path: Path) -> None:
        frame = long_market().drop(columns="pre_close")
        volume = frame["volume"] / frame["adj_factor"] / 1.37
        frame = adjust(frame, volume=volume, amount=frame["amount"] / 1.37)
        build(tmp_path, frame, drop(*MIXED), **ADJUSTED)

    def test_yearly_files_each_adjusted_to_its_end(self, tmp_path: Path) -> None:
        frame = long_market().drop(columns="pre_close")
        year = frame["date"].dt.year
        last = frame.groupby(["code", year])["adj_factor"].transform("last")
        frame = adjust(frame.assign(adj_factor=frame["adj_factor"] / last))
        with pytest.raises(BarsError, match=r"of 14 stocks leave .* exports of two days were put"):
            build(tmp_path, frame, drop(*MIXED), max_jumps=1, **ADJUSTED)

    @pytest.mark.parametrize(("flag", "prices"), [(3, "adjusted"), (2, "traded"), (1, "traded")])
    def test_baostocks_flag(self, tmp_path: Path, flag: int, prices: str) -> None:
        frame = long_market().assign(adjustflag=flag)
        frame = frame if prices == "traded" else frame.drop(columns="adj_factor")
        with pytest.raises(BarsError, match=rf"adjustflag={flag} in row 0 says"):
            build(tmp_path, frame, drop(*MIXED), prices=prices)


class TestStatedLimits:
    def test_are_taken_where_a_vendor_has_them(self, tmp_path: Path) -> None:
        frame = long_market()
        row = frame.index[(frame["code"] == "600001.SH") & (frame["date"] == LONG[30])]
        frame = frame.assign(up_limit=frame["pre_close"] * 1.1, down_limit=frame["pre_close"] * 0.9)
        plain, _ = build(tmp_path / "a", frame.drop(columns=["up_limit", "down_limit"]))
        frame.loc[row, ["up_limit", "high"]] = frame.loc[row, ["close", "close"]].to_numpy()
        frame.loc[row + 1, ["down_limit", "low"]] = frame.loc[
            row + 1, ["close", "close"]
        ].to_numpy()
        frame.loc[row + 2, "up_limit"] = 0.5  # of another unit: the board's rule holds
        found, _ = build(tmp_path / "b", frame)
        up, down = (found[name].reset_index() for name in ("limit_up", "limit_down"))
        assert up[up["limit_up"]]["date"].tolist() == [LONG[30].date()]
        assert down[down["limit_down"]]["date"].tolist() == [LONG[31].date()]
        assert not (plain["limit_up"] | plain["limit_down"]).any()

    def test_of_tushares_table(self, tmp_path: Path) -> None:
        market, vendor = vendors.make_market(), vendors.VENDORS["tushare"]
        table = pd.DataFrame({"ts_code": market["code"], "trade_date": market["date"]})
        table = table.assign(up_limit=market["close"] + 5, down_limit=market["close"] - 5)
        at_limit = market.index[[10, 70]]
        for name in ("open", "high"):
            market.loc[at_limit, name] = market.loc[at_limit, "close"]
        market["amount"] = (market["volume"] * market["close"] / 1000).round() * 1000
        table.loc[at_limit, "up_limit"] = market.loc[at_limit, "close"]
        vendor.write(tmp_path / "bars", market)
        (tmp_path / "bars" / "stk_limit").mkdir()
        rows = table.drop(index=market.index[20:40])  # of these days the board's rule holds
        rows.to_parquet(tmp_path / "bars" / "stk_limit" / "a.parquet")
        storage = Storage(str(tmp_path / "s"))
        cfg = RunConfig(bars=BarsConfig(format="tushare"), panel=PanelConfig(buckets=2))
        manifest = build_panel(str(tmp_path / "bars"), storage, cfg, runner=map_here)
        rows = pd.concat(
            pd.read_parquet(tmp_path / "s" / "panel" / file.name) for file in manifest.files
        )
        assert len(rows) == len(market)
        found = rows.set_index(["asset", "date"])["limit_up"]
        days = market.loc[at_limit, ["code", "date"]]
        expected = {(code, day.date()) for code, day in days.itertuples(index=False)}
        assert set(found[found].index) == expected
