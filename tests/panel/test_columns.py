"""Further columns of the bars as features: `column:NAME`, and functions that read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gangru_dist.base.errors import BarsError, ConfigError, PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.commands.check_plugin import check
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.features.price_volume import FEATURES, AdjustedBars, Feature, adjust_bars
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.store import read_block
from tests.bars import vendors
from tests.made_bars import make_bars, write

NAME = "column:pe_ttm"


def configuration(*features: str, buckets: int = 2, **bars: object) -> RunConfig:
    panel = PanelConfig(features=features or ("close", NAME), buckets=buckets)
    return RunConfig(panel=panel, bars=BarsConfig(**bars))  # type: ignore[arg-type]


def with_pe(seed: int = 0) -> pd.DataFrame:
    frame = make_bars()
    return frame.assign(pe_ttm=np.random.default_rng(seed).normal(20, 5, len(frame)))


def build(root: Path, frame: pd.DataFrame, cfg: RunConfig | None = None) -> pd.DataFrame:
    """The panel's values of the last feature; traded days x assets."""
    write(root / "bars", frame)
    storage = Storage(str(root / "s"))
    build_panel(str(root / "bars"), storage, cfg or configuration(), runner=map_here)
    return values(storage)


def values(storage: Storage) -> pd.DataFrame:
    manifest = read_manifest(storage)
    days = manifest.calendar
    block = read_block(storage, manifest, start=days[0].item(), end=days[-1].item())
    return pd.DataFrame(block.features[:, :, -1], block.dates, block.assets)


def expected(frame: pd.DataFrame) -> pd.DataFrame:
    traded = frame[frame["volume"] > 0]
    return traded.pivot_table(index="date", columns="code", values="pe_ttm").astype("float32")


def same(found: pd.DataFrame, given: pd.DataFrame) -> bool:
    given = given.reindex(index=found.index, columns=found.columns)
    return np.array_equal(found.to_numpy(np.float32), given.to_numpy(np.float32), equal_nan=True)


class TestReference:
    def test_values_come_as_they_are(self, tmp_path: Path) -> None:
        frame = with_pe()
        found = build(tmp_path, frame)
        assert found.notna().to_numpy().any()
        assert same(found, expected(frame))

    def test_a_function_reads_the_column_that_it_names(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def earnings(bars: AdjustedBars) -> np.ndarray:
            return bars.close / bars.columns["pe_ttm"]

        item = Feature(compute=earnings, inputs=("close", NAME))
        monkeypatch.setitem(FEATURES, "earnings", item)
        assert check("earnings") == []
        frame = with_pe()
        found = build(tmp_path, frame, configuration("close", "earnings"))
        closes = frame.assign(pe_ttm=frame["close"] * frame["adj_factor"] / frame["pe_ttm"])
        given = expected(closes).reindex(index=found.index, columns=found.columns)
        np.testing.assert_allclose(found, given, rtol=1e-6)

    def test_under_the_vendors_own_name_and_unit(self, tmp_path: Path) -> None:
        frame = with_pe()
        theirs = frame.assign(市盈率=frame["pe_ttm"] * 100).drop(columns="pe_ttm")
        cfg = configuration(columns={"pe_ttm": "市盈率"}, scales={"pe_ttm": 0.01})
        found = build(tmp_path, theirs, cfg)
        given = expected(frame).reindex(index=found.index, columns=found.columns)
        np.testing.assert_allclose(found, given, rtol=1e-6)

    def test_of_tushares_table_by_day(self, tmp_path: Path) -> None:
        vendor, market = vendors.VENDORS["tushare"], vendors.make_market()
        vendor.write(tmp_path / "bars", market)
        file = tmp_path / "bars" / "daily_basic" / "2019.parquet"
        table = pd.read_parquet(file)
        table["pe_ttm"] = table["trade_date"].astype(int) / 1e6
        traded = table.index[market["volume"].to_numpy() > 0]
        table.loc[traded[[5, 6, 7]], "pe_ttm"] = [np.inf, -np.inf, np.nan]
        table.drop(index=traded[8]).to_parquet(file, index=False)
        storage = Storage(str(tmp_path / "s"))
        cfg = configuration(format="tushare")
        build_panel(str(tmp_path / "bars"), storage, cfg, runner=map_here)
        found = values(storage)
        assert np.isinf(found.to_numpy()).sum() == 0
        quality = storage.read_json("panel/quality.json")
        note = quality["notes"]["pe_ttm missing or infinite"]
        assert note["count"] == 4
        assert note["example"]["code"] in set(market["code"])
        assert quality["rows_quarantined"] == 0
        day = pd.DatetimeIndex(found.index).strftime("%Y%m%d").astype(int).to_numpy() / 1e6
        there = found.notna().to_numpy()
        assert there.any()
        np.testing.assert_allclose(
            found.to_numpy()[there], np.broadcast_to(day[:, None], there.shape)[there], rtol=1e-6
        )

    @pytest.mark.parametrize(
        "write_qlib", [vendors.VENDORS["qlib csv"].write, vendors.write_qlib_folder]
    )
    def test_of_qlib(
        self,
        write_qlib: Callable[[Path, pd.DataFrame], None],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        plain = vendors.qlib_fields
        market = vendors.make_market()
        market["pe_ttm"] = np.arange(len(market)) % 97 + 1.0
        monkeypatch.setattr(
            vendors, "qlib_fields", lambda rows: plain(rows) | {"pe_ttm": rows["pe_ttm"]}
        )
        write_qlib(tmp_path / "bars", market)
        storage = Storage(str(tmp_path / "s"))
        cfg = configuration(format="qlib")
        build_panel(str(tmp_path / "bars"), storage, cfg, runner=map_here)
        found = values(storage)
        codes = {vendors.qlib_code(code): code for code in market["code"]}
        found.columns = pd.Index([codes[name.upper()] for name in found.columns])
        assert found.notna().to_numpy().any()
        assert same(found, expected(market))


class TestProperties:
    def test_rewriting_the_future_changes_nothing_before(self, tmp_path: Path) -> None:
        frame, other = with_pe(), with_pe(1)
        cut = sorted(frame["date"].unique())[50]
        later = frame["date"] > cut
        rewritten = frame.assign(pe_ttm=frame["pe_ttm"].where(~later, other["pe_ttm"]))
        found = [build(tmp_path / n, f) for n, f in (("a", frame), ("b", rewritten))]
        assert same(found[0].loc[:cut], found[1].loc[:cut])
        assert not same(found[0], found[1])

    def test_buckets_and_files_change_nothing(self, tmp_path: Path) -> None:
        frame = with_pe()
        one, five = (build(tmp_path / str(n), frame, configuration(buckets=n)) for n in (1, 5))
        assert same(one, five)

    def test_another_value_is_another_panel(self, tmp_path: Path) -> None:
        frame = with_pe()
        build(tmp_path / "a", frame)
        build(tmp_path / "b", with_pe(1))
        prints = {read_manifest(Storage(str(tmp_path / n / "s"))).fingerprint for n in "ab"}
        assert len(prints) == 2

    def test_columns_that_nobody_names_decide_nothing(self, tmp_path: Path) -> None:
        cfg = configuration("close")
        build(tmp_path / "a", with_pe(), cfg)
        build(tmp_path / "b", make_bars(), cfg)
        prints = {read_manifest(Storage(str(tmp_path / n / "s"))).fingerprint for n in "ab"}
        assert len(prints) == 1


class TestValidation:
    def test_missing_and_infinite_are_undefined_and_counted(self, tmp_path: Path) -> None:
        frame = with_pe()
        rows = np.flatnonzero(frame["volume"] > 0)[[3, 4, 5]]
        frame.loc[frame.index[rows[:2]], "pe_ttm"] = np.nan
        frame.loc[frame.index[rows[2]], "pe_ttm"] = np.inf
        found = build(tmp_path, frame)
        assert same(found, expected(frame.replace(np.inf, np.nan)))
        quality = Storage(str(tmp_path / "s")).read_json("panel/quality.json")
        assert quality["notes"]["pe_ttm missing or infinite"]["count"] == 3

    def test_a_file_without_it(self, tmp_path: Path) -> None:
        with pytest.raises(BarsError, match=r"no column pe_ttm.*--set bars\.columns\.pe_ttm="):
            build(tmp_path, make_bars())

    def test_two_values_for_one_day(self, tmp_path: Path) -> None:
        frame = with_pe()
        row = frame[frame["volume"] > 0].iloc[[7]]
        with pytest.raises(BarsError, match="pe_ttm"):
            build(tmp_path, pd.concat([frame, row.assign(pe_ttm=0.0)]))

    @pytest.mark.parametrize("column", ["close", "adj_factor", "suspended", "file", ""])
    def test_a_name_that_has_a_meaning_here(self, column: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="has a meaning here"):
            build(tmp_path, with_pe(), configuration("close", f"column:{column}"))

    def test_a_function_that_does_not_name_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def hidden(bars: AdjustedBars) -> np.ndarray:
            return bars.close / bars.columns["pe_ttm"]

        monkeypatch.setitem(FEATURES, "hidden", Feature(compute=hidden, inputs=("close",)))
        with pytest.raises(PanelError, match=r'@feature\("column:pe_ttm"\)'):
            check("hidden")
        bars = {name: np.ones((3, 2)) for name in ("open", "high", "low", "close", "volume")}
        bars |= {name: np.ones((3, 2)) for name in ("amount", "adj_factor", "turnover_rate")}
        with pytest.raises(PanelError, match="without naming it"):
            hidden(adjust_bars(bars, has_turnover_rate=True))

    def test_the_plugin_check_of_a_column(self) -> None:
        assert check(NAME) == []
