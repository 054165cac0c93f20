"""Each vendor's export of one market gives one panel; the future of a factor changes no past."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gangru_dist.base.errors import BarsError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.store import read_block
from tests.bars import vendors

FEATURES = ("open", "close", "vwap", "volume", "amount", "turnover_rate", "daily_return")
CUT = dt.date(2019, 3, 29)


def build(
    root: Path,
    bars: Path,
    features: tuple[str, ...] = FEATURES,
    overwrite: bool = False,
    **settings: object,
) -> Manifest:
    cfg = RunConfig(
        bars=BarsConfig(price_limits="ashare", **settings),  # type: ignore[arg-type]
        panel=PanelConfig(features=features, buckets=16),  # some without a stock
    )
    return build_panel(str(bars), Storage(str(root)), cfg, overwrite=overwrite, runner=map_here)


def write_reference(folder: Path, market: pd.DataFrame, vendor: vendors.Vendor) -> None:
    """The same bars in our own names and units, without what the vendor lacks."""
    folder.mkdir()
    named = market.assign(code=market["code"].map(vendor.code))
    named.drop(columns=list(vendor.lacks)).to_parquet(folder / "all.parquet", index=False)


def features_of(vendor: vendors.Vendor) -> tuple[str, ...]:
    none = {"turnover_rate", "market_cap"} <= set(vendor.lacks)
    return tuple(name for name in FEATURES if not (none and name == "turnover_rate"))


def check_same_prices(folder: Path, *built: Manifest) -> None:
    """Features and adjusted closes of the panels in `a` and `b`, up to digits of a factor."""
    first, last = built[0].calendar[[0, -1]].astype(dt.date)
    a, b = (
        read_block(Storage(str(folder / name)), manifest, start=first, end=last)
        for name, manifest in zip("ab", built, strict=True)
    )
    np.testing.assert_array_equal(a.assets, b.assets)
    np.testing.assert_allclose(b.adj_close, a.adj_close, rtol=1e-6)
    np.testing.assert_allclose(b.features, a.features, rtol=1e-5, atol=1e-6)


class TestReference:
    @pytest.mark.parametrize("name", vendors.VENDORS)
    def test_every_export_gives_the_same_panel(self, tmp_path: Path, name: str) -> None:
        vendor, market = vendors.VENDORS[name], vendors.make_market()
        vendor.write(tmp_path / "bars", market)
        write_reference(tmp_path / "own", market, vendor)
        features = features_of(vendor)
        found = build(tmp_path / "a", tmp_path / "bars", features, format=vendor.format)
        expected = build(tmp_path / "b", tmp_path / "own", features)
        assert found.fingerprint == expected.fingerprint
        assert found.rows == len(market)

    def test_texts_with_a_title(self, tmp_path: Path) -> None:
        market = vendors.make_market()
        lacks = ("turnover_rate", "market_cap", "industry", "list_date", "is_st")
        named = vendors.Vendor("", vendors.write_texts, lacks, lambda c: f"{c[-2:]}#{c[:6]}")
        vendors.write_texts(tmp_path / "bars", market)
        write_reference(tmp_path / "own", market, named)
        features = features_of(named)
        told = {"format": "akshare", "scales": {"volume": 1.0}}
        found = build(tmp_path / "a", tmp_path / "bars", features, **told)
        assert found.fingerprint == build(tmp_path / "b", tmp_path / "own", features).fingerprint
        assert found.rows == len(market)

    def test_qlibs_binary_folder(self, tmp_path: Path) -> None:
        vendor, market = vendors.VENDORS["qlib csv"], vendors.make_market()
        vendors.write_qlib_folder(tmp_path / "bars", market)
        write_reference(tmp_path / "own", market, vendor)
        blocks = []
        for place, format_ in (("bars", "qlib"), ("own", "generic")):
            root = tmp_path / format_
            manifest = build(root, tmp_path / place, features_of(vendor), format=format_)
            start, end = manifest.calendar[[0, -1]].astype(dt.date)
            blocks.append(read_block(Storage(str(root)), manifest, start=start, end=end))
        assert (blocks[0].assets == blocks[1].assets).all()
        np.testing.assert_array_equal(blocks[0].listed_days, blocks[1].listed_days)
        for name in ("features", "adj_close"):  # the files are float32
            np.testing.assert_allclose(
                getattr(blocks[0], name), getattr(blocks[1], name), rtol=3e-6, atol=1e-6
            )

    def test_vwap_in_place_of_amount(self, tmp_path: Path) -> None:
        market = vendors.make_market()
        for place in ("a", "b"):
            (tmp_path / place).mkdir()
        vwap = market["amount"] / market["volume"]
        market.assign(vwap=vwap).drop(columns="amount").to_parquet(tmp_path / "a" / "a.parquet")
        exact = market.assign(amount=vwap * market["volume"])
        exact.to_parquet(tmp_path / "b" / "b.parquet")
        panels = [build(tmp_path / f"{p}-panel", tmp_path / p) for p in ("a", "b")]
        assert panels[0].fingerprint == panels[1].fingerprint


class TestProperties:
    @pytest.mark.parametrize("name", ["baostock", "akshare"])
    def test_later_factors_change_no_earlier_day(self, tmp_path: Path, name: str) -> None:
        vendor, market = vendors.VENDORS[name], vendors.make_market()
        rewritten = market.copy()
        later = (rewritten["date"] > pd.Timestamp(CUT)) & (rewritten["adj_factor"] > 1)
        rewritten.loc[later, "adj_factor"] *= 1.1
        built = []
        for place, bars in (("a", market), ("b", rewritten)):
            vendor.write(tmp_path / place, bars)
            folder = tmp_path / place
            panel = tmp_path / f"{place}-panel"
            built.append(build(panel, folder, features_of(vendor), format=vendor.format))
        assert built[0].fingerprint != built[1].fingerprint
        assert built[0].fingerprint_to(CUT) == built[1].fingerprint_to(CUT)

    def test_todays_row_of_a_daily_table_is_no_other_days(self, tmp_path: Path) -> None:
        market = vendors.make_market()
        vendors.VENDORS["tushare"].write(tmp_path / "bars", market)
        lost = sorted((tmp_path / "bars" / "adj_factor").iterdir())[40]
        lost.unlink()
        root = tmp_path / "panel"
        manifest = build(root, tmp_path / "bars", format="tushare", max_quarantined=0.05)
        spoilt = Storage(str(root)).child("panel").read_json("quality.json")["quarantined"]
        (reason,) = spoilt
        count = int((market["date"] == pd.Timestamp(lost.stem)).sum())
        assert reason.startswith("adj_factor missing")
        assert spoilt[reason]["rows"] == count
        assert spoilt[reason]["example"]["date"] == str(pd.Timestamp(lost.stem).date())
        assert manifest.rows == len(market) - count


class TestValidation:
    @pytest.mark.parametrize(
        ("name", "table", "match", "told"),
        [
            (
                "baostock",
                "adjust_factor",
                r"\(bs.query_adjust_factor\(start_date=.*adjust_factor/",
                r"adjustflag=3 in row 0 says that prices are as traded",
            ),
            (
                "akshare",
                "hfq_factor",
                r"adjust=\"hfq-factor\".*hfq_factor/.*bars.prices=adjusted and .*vwap",
                r"near a split's ratio.*--set bars.max_jumps=",
            ),
        ],
    )
    def test_raw_prices_need_a_factor(
        self, tmp_path: Path, name: str, table: str, match: str, told: str
    ) -> None:
        vendor, market = vendors.VENDORS[name], vendors.make_market()
        vendor.write(tmp_path / "bars", market)
        for file in (tmp_path / "bars" / table).iterdir():
            file.unlink()
        with pytest.raises(BarsError, match=match):
            build(tmp_path / "panel", tmp_path / "bars", format=vendor.format)
        features = tuple(name for name in features_of(vendor) if name != "vwap")
        with pytest.raises(BarsError, match=told):
            build(
                tmp_path / "panel",
                tmp_path / "bars",
                features,
                format=vendor.format,
                prices="adjusted",
            )

    def test_tushares_daily_bars_give_the_factor(self, tmp_path: Path) -> None:
        vendor, market = vendors.VENDORS["tushare"], vendors.make_market()
        vendor.write(tmp_path / "bars", market)
        expected = build(tmp_path / "a", tmp_path / "bars", format=vendor.format)
        for file in (tmp_path / "bars" / "adj_factor").iterdir():
            file.unlink()
        found = build(tmp_path / "b", tmp_path / "bars", format=vendor.format)
        check_same_prices(tmp_path, expected, found)

    def test_baostocks_bars_alone_give_the_factor(self, tmp_path: Path) -> None:
        vendor, market = vendors.VENDORS["baostock"], vendors.make_market()
        vendor.write(tmp_path / "bars", market)
        features = features_of(vendor)
        expected = build(tmp_path / "a", tmp_path / "bars", features, format=vendor.format)
        stated = vendors.find_pre_close(market)
        for code, rows in market.groupby("code"):
            (tmp_path / "bars" / "adjust_factor" / f"{code[:6]}.csv").unlink(missing_ok=True)
            path = tmp_path / "bars" / "k" / f"{code[:6]}.csv"
            frame = pd.read_csv(path, dtype="str", encoding="gbk").set_index("date")
            pre = pd.Series(stated[rows.index].to_numpy(), rows["date"].astype("str"))
            frame["preclose"] = pre.reindex(frame.index)
            frame.to_csv(path, encoding="gbk")
        found = build(tmp_path / "b", tmp_path / "bars", features, format=vendor.format)
        check_same_prices(tmp_path, expected, found)

    def test_yfinances_files(self, tmp_path: Path) -> None:
        """A file a ticker, adjusted forward to the last day, no amount."""
        market = vendors.make_market()
        last = market.groupby("code")["adj_factor"].transform("last")
        names = {name: name.title() for name in ("date", "open", "high", "low", "close", "volume")}
        theirs = market[["code", *names]].rename(columns=names)
        theirs["Adj Close"] = market["close"] * market["adj_factor"] / last
        theirs = theirs.assign(Dividends=0.0, **{"Stock Splits": 0.0})
        for place in ("a", "b"):
            (tmp_path / f"bars-{place}").mkdir()
        for code, rows in theirs.groupby("code"):
            path = tmp_path / "bars-b" / f"{code}.csv"
            rows.drop(columns="code").to_csv(path, index=False)
        market.to_parquet(tmp_path / "bars-a" / "a.parquet")
        features = ("open", "close", "volume", "daily_return", "volume_ratio", "volatility_5d")
        expected = build(tmp_path / "a", tmp_path / "bars-a", features)
        found = build(tmp_path / "b", tmp_path / "bars-b", features, format="yfinance")
        check_same_prices(tmp_path, expected, found)

    def test_the_word_and_a_factor_contradict_each_other(self, tmp_path: Path) -> None:
        vendors.VENDORS["tushare"].write(tmp_path / "bars", vendors.make_market())
        with pytest.raises(BarsError, match=r"bars.prices=adjusted says .* comes with one"):
            build(tmp_path / "panel", tmp_path / "bars", format="tushare", prices="adjusted")

    def test_factors_from_2015_on(self, tmp_path: Path) -> None:
        market = vendors.make_market()
        vendors.VENDORS["baostock"].write(tmp_path / "bars", market)
        path = tmp_path / "bars" / "adjust_factor" / "600000.csv"
        pd.read_csv(path).tail(1).to_csv(path, index=False)  # the earlier one is cut off
        match = r"adjust_factor/600000.csv: the factors of sh.600000 begin .* earlier rows are miss"
        with pytest.raises(BarsError, match=match):
            build(tmp_path / "panel", tmp_path / "bars", format="baostock")

    def test_two_rows_of_a_side_table(self, tmp_path: Path) -> None:
        vendors.VENDORS["tushare"].write(tmp_path / "bars", vendors.make_market())
        rows = pd.read_parquet(tmp_path / "bars" / "daily_basic" / "2019.parquet").head(1)
        rows.to_parquet(tmp_path / "bars" / "daily_basic" / "again.parquet")
        build(tmp_path / "panel", tmp_path / "bars", format="tushare")
        rows["total_mv"] *= 2
        rows.to_parquet(tmp_path / "bars" / "daily_basic" / "again.parquet")
        match = r"two rows of 2019-01-02 000001.SZ contradict .*market_cap=.*2019.parquet.*again"
        with pytest.raises(BarsError, match=match):
            build(tmp_path / "panel", tmp_path / "bars", format="tushare")

    def test_a_side_table_of_other_stocks(self, tmp_path: Path) -> None:
        vendors.VENDORS["tushare"].write(tmp_path / "bars", vendors.make_market())
        for path in (tmp_path / "bars" / "adj_factor").iterdir():
            path.write_text(path.read_text().replace(".S", ".B"))
        match = r"side table adj_factor has no stock of the bars: it has 000001.BZ, the bars 000001"
        with pytest.raises(BarsError, match=match):
            build(tmp_path / "panel", tmp_path / "bars", format="tushare")

    def test_a_side_table_without_its_column(self, tmp_path: Path) -> None:
        vendors.VENDORS["tushare"].write(tmp_path / "bars", vendors.make_market())
        path = tmp_path / "bars" / "daily_basic" / "2019.parquet"
        pd.read_parquet(path)[["ts_code", "trade_date", "close"]].to_parquet(path)
        match = r"lacks .*turnover_rate_f/turnover_rate.* of the side table 'daily_basic'"
        with pytest.raises(BarsError, match=match):
            build(tmp_path / "panel", tmp_path / "bars", format="tushare")

    def test_a_column_twice_over(self, tmp_path: Path) -> None:
        vendors.VENDORS["tushare"].write(tmp_path / "bars", vendors.make_market())
        path = tmp_path / "bars" / "daily" / "2019.csv"
        pd.read_csv(path, dtype="str").assign(adj_factor="1").to_csv(path, index=False)
        with pytest.raises(BarsError, match=r"the table beside the bars in adj_factor/ has it too"):
            build(tmp_path / "panel", tmp_path / "bars", format="tushare")

    @pytest.mark.parametrize(
        "other", ["600000.sh", " 600000.SH", "600000.SH\0", "sh600000", "600000", "600000.XSHG"]
    )
    def test_one_stock_spelt_two_ways(self, tmp_path: Path, other: str) -> None:
        market = vendors.make_market()
        late = (market["code"] == "600000.SH") & (market["date"] > pd.Timestamp(CUT))
        market.loc[late, "code"] = other
        (tmp_path / "bars").mkdir()
        market[~late].to_parquet(tmp_path / "bars" / "a.parquet")
        market[late].to_parquet(tmp_path / "bars" / "b.parquet")
        with pytest.raises(BarsError, match=r"one stock is spelt two ways: ") as caught:
            build(tmp_path / "panel", tmp_path / "bars")
        assert repr(other) in str(caught.value)
        assert "'600000.SH' in a.parquet" in str(caught.value)
