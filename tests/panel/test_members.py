"""A point-in-time universe: who is marked, what it restricts, and no day knows a later list."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gangru_dist.bars.indices import read_members
from gangru_dist.base.errors import BarsError, PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.identity import model_identity
from gangru_dist.config.settings import PanelConfig, RunConfig, UniverseConfig
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.store import read_block
from gangru_dist.panel.universe import select_universe
from tests.made_bars import DAYS, make_bars, write

RULE = UniverseConfig(exclude_st=False, min_listed_days=0, min_traded_days=1, min_assets=3)
LISTS = {
    "2018-11-20": ("600000.SH", "600001.SH", "600002.SH"),
    "2019-01-31": ("600001.SH", "600002.SH", "600003.SH"),
    "2019-03-15": ("600003.SH", "600004.SH", "999999.SH"),
}


def rows(lists: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    return pd.DataFrame([(day, code) for day, codes in lists.items() for code in codes],
                        columns=["date", "code"])  # fmt: skip


def build(
    folder: Path,
    lists: pd.DataFrame | None,
    *,
    overwrite: bool = False,
    members: Path | None = None,
) -> Manifest:
    if not (folder / "bars").exists():
        write(folder / "bars", make_bars())
    path = None if members is None else str(members)
    if lists is not None:
        path = str(folder / "members.csv")
        lists.to_csv(path, index=False)
    panel = PanelConfig(features=("close", "daily_return"), buckets=3, members=path)
    cfg = RunConfig(panel=panel)
    root = Storage(str(folder / "storage"))
    return build_panel(str(folder / "bars"), root, cfg, overwrite=overwrite, runner=map_here)


def block_of(folder: Path, manifest: Manifest) -> PanelBlock:
    root = Storage(str(folder / "storage"))
    return read_block(root, manifest, start=DAYS[0].date(), end=DAYS[-1].date())


class TestReference:
    def test_each_day_has_the_newest_list_by_a_loop(self, tmp_path: Path) -> None:
        block = block_of(tmp_path, build(tmp_path, rows(LISTS)))
        for row, day in enumerate(block.dates):
            known = [codes for first, codes in LISTS.items() if np.datetime64(first) <= day]
            listed = known[-1] if known else ()
            for column, asset in enumerate(block.assets):
                expected = asset in listed and block.traded[row, column]
                assert block.member[row, column] == expected
        assert block.member.any()

    def test_one_list_a_day_is_read_alike(self, tmp_path: Path) -> None:
        daily = {
            f"{day:%Y-%m-%d}": [codes for first, codes in LISTS.items() if first <= str(day)][-1]
            for day in DAYS
            if str(day) >= "2018-11-20"
        }
        one = build(tmp_path, rows(LISTS))
        two = build(tmp_path, rows(daily))
        assert one.fingerprint == two.fingerprint

    def test_vendors_headings_and_spellings(self, tmp_path: Path) -> None:
        one = build(tmp_path, rows(LISTS))
        renamed = rows(LISTS).set_axis(["updateDate", "code"], axis=1)
        renamed["code"] = "sh." + renamed["code"].str[:6]
        assert build(tmp_path, renamed).fingerprint == one.fingerprint

    def test_lists_that_spell_a_stock_in_two_ways_are_united(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = build(tmp_path, rows(LISTS))
        mixed = rows(LISTS)
        late = mixed["date"] > "2019-01-01"
        mixed["code"] = mixed["code"].where(~late, "sh." + mixed["code"].str[:6])
        mixed.loc[mixed["date"] > "2019-03-01", "code"] += " "
        with caplog.at_level("INFO"):
            assert build(tmp_path, mixed).fingerprint == one.fingerprint
        assert "stocks=5 without_bars=1" in caplog.text

    def test_spans_of_days(self, tmp_path: Path) -> None:
        """Qlib's list, Tushare's index_member and a loop over days mark the same."""
        one = build(tmp_path, rows(LISTS))
        spans = [
            ("600000.SH", "2018-11-20", "2019-01-30"), ("600001.SH", "2018-11-20", "2019-03-14"),
            ("600002.SH", "2018-11-20", "2019-03-14"), ("600003.SH", "2019-01-31", "2020-01-02"),
            ("600004.SH", "2019-03-15", "2020-01-02"),
        ]  # fmt: skip
        qlib = tmp_path / "csi300.txt"
        text = ("\t".join([f"SH{code[:6]}", *days]) + "\n" for code, *days in spans)
        qlib.write_text("".join(text))
        assert build(tmp_path, None, members=qlib).fingerprint == one.fingerprint
        table = pd.DataFrame(spans, columns=["con_code", "in_date", "out_date"])
        after = pd.to_datetime(table["out_date"]) + pd.Timedelta(days=1)
        table["out_date"] = after.dt.strftime("%Y%m%d").where(after < "2020-01-01")
        table["index_code"] = "000300.SH"
        assert build(tmp_path, table).fingerprint == one.fingerprint

    @pytest.mark.parametrize("flag", ["in_index", "is_member", "hs300"])
    def test_a_column_says_yes_or_no(self, tmp_path: Path, flag: str) -> None:
        """Of all stocks on each date; on the last one nobody is a member."""
        one = build(tmp_path, rows({**LISTS, "2019-04-01": ("999999.SH",)}))
        codes = sorted({code for codes in LISTS.values() for code in codes})
        table = rows(dict.fromkeys([*LISTS, "2019-04-01"], tuple(codes)))
        table[flag] = [int(code in LISTS.get(day, ())) for day, code in table.to_numpy()]
        table.insert(0, "index", range(len(table)))  # pandas' own
        assert build(tmp_path, table).fingerprint == one.fingerprint
        spans = pd.DataFrame(
            [(code, "2018-11-20", "", 1 - number % 2) for number, code in enumerate(codes)],
            columns=["code", "start", "end", flag],
        )
        two = build(tmp_path, rows({"2018-11-20": tuple(codes[::2])}), overwrite=True)
        assert build(tmp_path, spans).fingerprint == two.fingerprint

    def test_a_folder_of_lists_is_one_index(self, tmp_path: Path) -> None:
        one = build(tmp_path, rows(LISTS))
        folder = tmp_path / "lists"
        folder.mkdir()
        for day, codes in LISTS.items():
            for copy in ("", " (1)"):
                rows({day: codes}).to_csv(folder / f"{day}{copy}.csv", index=False)
        assert build(tmp_path, None, members=folder).fingerprint == one.fingerprint


class TestProperties:
    def test_no_day_knows_a_later_list(self, tmp_path: Path) -> None:
        before = build(tmp_path, rows(LISTS))
        old = block_of(tmp_path, before)
        lists = {**LISTS, "2019-03-15": ("600000.SH",), "2019-04-01": ("600005.SH",)}
        with pytest.raises(PanelError, match="these bars rewrite history"):
            build(tmp_path, rows(lists))
        after = build(tmp_path, rows(lists), overwrite=True)
        new = block_of(tmp_path, after)
        past = old.dates < np.datetime64("2019-03-15")
        np.testing.assert_array_equal(old.member[past], new.member[past])
        assert (old.member[~past] != new.member[~past]).any()
        end = pd.Timestamp("2019-02-28").date()
        assert before.fingerprint_to(end) == after.fingerprint_to(end)

    def test_lists_to_come_are_an_append(self, tmp_path: Path) -> None:
        short = build(tmp_path, rows(LISTS))
        more = build(tmp_path, rows({**LISTS, "2019-06-30": ("600005.SH",)}))
        assert more.fingerprint == short.fingerprint
        assert not more.rewritten

    def test_other_lists_make_other_models(self, tmp_path: Path) -> None:
        plain = build(tmp_path, None)
        marked = build(tmp_path, rows(LISTS))
        other = build(tmp_path, rows({"2018-11-20": LISTS["2018-11-20"]}), overwrite=True)
        day = DAYS[-1].date()
        names = {
            model_identity(RunConfig(), "2019-04-18", 0, manifest.fingerprint_to(day))
            for manifest in (plain, marked, other)
        }
        assert len(names) == 3
        assert not plain.has_members

    def test_the_mask_is_of_members_as_told(self, tmp_path: Path) -> None:
        block = block_of(tmp_path, build(tmp_path, rows(LISTS)))
        told = select_universe(block, RULE, 8)
        everyone = select_universe(block, dataclasses.replace(RULE, members=False), 8)
        np.testing.assert_array_equal(told, everyone & block.member)
        assert told.sum() < everyone.sum()


class TestValidation:
    @pytest.mark.parametrize(
        ("lists", "match"),
        [
            (rows({"2018-11-20": ("1.XX",)}), "panel.members names no stock of the bars: it has 1"),
            (rows({"2030-01-01": ("600000.SH",)}), "begins on 2030-01-01, after the bars' last"),
            (rows(LISTS).drop(columns="code"), r"members.csv lacks the column code \(or con_code"),
            (rows(LISTS).assign(date="x"), "column 'date'"),
            (rows(LISTS).assign(code=None), "column 'code' is empty in row 0"),
            (rows({}), "has no row"),
            (
                pd.concat([rows(LISTS).assign(index_code=name) for name in ("300", "905")]),
                "has members of 2 indices .300, 905. and they would be united",
            ),
            (
                pd.concat([rows(LISTS).assign(benchmark=name) for name in ("300", "905")]),
                "has members of 2 indices .300, 905. and they would be united",
            ),
            (rows(LISTS).assign(hs300=1, zz500=0), "members .hs300, zz500.. Leave one"),
            (rows(LISTS).assign(is_member="0.3"), "has '0.3' in row 0, which is no yes or no"),
            (
                pd.DataFrame(
                    [("600000.SH", "2019-02-01", "2019-03-01")], columns=["code", "start", "end"]
                ),
                f"has spans up to 2019-03-01, and the bars go on to {DAYS[-1].date()}",
            ),
            (
                pd.DataFrame(
                    [("600000.SH", "2019-02-01", "2019-01-01")], columns=["code", "start", "end"]
                ),
                "the span of 600000.SH ends before it begins on 2019-02-01",
            ),
            (
                pd.DataFrame(
                    [("600000.SH", "2019-01-02", "2019-12-31", 0)],
                    columns=["code", "start", "end", "hs300"],
                ),
                "is_member is false in all rows",
            ),
        ],
    )
    def test_lists_that_cannot_be_meant(
        self, tmp_path: Path, lists: pd.DataFrame, match: str
    ) -> None:
        with pytest.raises(BarsError, match=match):
            build(tmp_path, lists)

    @pytest.mark.parametrize(
        ("texts", "match"),
        [
            (
                ("date,code\n2019-01-31,600000\n", "date,code\n2019-01-31,600001\n"),
                "other stocks for 2019-01-31 in 300.csv than in 905.csv: of two indices",
            ),
            (
                ("SH600000\t2019-01-02\t2019-02-01\n", "SH600001\t2019-01-02\t2019-02-01\n"),
                "spans of days in 2 files, .* of several indices",
            ),
        ],
    )
    def test_files_of_two_indices(self, tmp_path: Path, texts: tuple[str, str], match: str) -> None:
        for name, text in zip(("300.csv", "905.csv"), texts, strict=True):
            (tmp_path / name).write_text(text)
        with pytest.raises(BarsError, match=match):
            read_members(str(tmp_path))

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(BarsError, match="no files at"):
            read_members(str(tmp_path / "none.csv"))
