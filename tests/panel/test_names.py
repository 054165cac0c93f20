"""Names of stocks beside the panel: changes alone, never of a later day, and nobody's tricks."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gangru_dist.bars.rows import CHECKED
from gangru_dist.bars.values import is_delisting_name, is_st_name
from gangru_dist.base.errors import BarsError, PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import BASE_COLUMNS, Manifest
from gangru_dist.panel.price_limits import find_limits
from gangru_dist.panel.store import read_rows
from gangru_dist.panel.writer import (
    LONGEST_NAME,
    NAMES,
    clean_name,
    find_name_changes,
    read_names,
    write_names,
)
from tests.bars import vendors
from tests.made_bars import make_bars, write

CFG = RunConfig(panel=PanelConfig(features=("close",), buckets=2))


def changes(*rows: tuple[str, str, str | None]) -> list[tuple[str, str, str]]:
    """Of (code, day, name), in order."""
    frame = pd.DataFrame(rows, columns=["code", "date", "name"])
    frame["date"] = pd.to_datetime(frame["date"])
    schema = pa.schema([CHECKED.field(name) for name in frame.columns])
    found = find_name_changes(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
    return [(row["asset"], str(row["since"]), row["name"]) for row in found.to_pylist()]


def build(root: Path, frame: pd.DataFrame, *, overwrite: bool = False) -> Manifest:
    bars = root.with_name(f"{root.name}-bars")
    write(bars, frame)
    return build_panel(str(bars), Storage(str(root)), CFG, runner=map_here, overwrite=overwrite)


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """Each stock has one name in the first half of the days and another one in the second."""
    days = sorted(frame["date"].unique())
    later = frame["date"] >= days[len(days) // 2]
    return frame.assign(name=frame["code"] + later.map({False: " old", True: " new"}))


@pytest.mark.parametrize(
    ("name", "st", "leaving"),
    [
        *[(name, True, False) for name in ("ST康美", "*ST康美", "S*ST前锋", "SST华新", "XDST康美")],
        *[
            (name, True, False)
            for name in (
                "\uff0a\uff33\uff34康美",
                "XR*ST康美",
                "NST康美",
                "st康美",
                " *ST长油",
                "* S T 长油",
            )
        ],
        *[(name, False, True) for name in ("退市长油", "康得退", "长生退", "退 市 海 润")],
        *[(name, False, False) for name in ("平安银行", "N康美", "XD平安银", "stone", "BEST", "")],
        ("*ST退", True, True),
    ],
)
def test_marks_in_names(name: str, st: bool, leaving: bool) -> None:
    names = pa.chunked_array([pa.array([name]).dictionary_encode()])
    assert is_st_name(names).to_pylist() == [st]
    assert is_delisting_name(names).to_pylist() == [leaving]


class TestLeaving:
    """A stock whose *ST leaves its name with the first day of its delisting period."""

    def build(self, root: Path, *, by: str, first: str = "2019-04-01") -> pd.DataFrame:
        """Its panel rows of 2019-03-29 on, the period's first day."""
        frame = make_bars(assets=3).assign(is_st=False)
        frame = frame[frame["volume"] > 0].drop(columns="industry")
        own = frame["code"] == "600001.SH"
        leaving = own & (frame["date"] >= first)
        st = own & ~leaving
        if by == "is_delisting":
            frame = frame.assign(is_st=st, is_delisting=leaving)
        else:
            name = np.where(leaving, "康美退", np.where(st, "*ST康美", "平安银行"))
            frame = frame.assign(name=name)
        if by == "name alone":
            frame = frame.drop(columns="is_st")
        elif by == "name beside is_st":
            frame = frame.assign(is_st=st)
        manifest = build(root, frame)
        days = {"start": dt.date(2019, 1, 1), "end": dt.date(2019, 12, 31)}
        columns = [*BASE_COLUMNS, "limit_up", "limit_down"]
        rows = read_rows(Storage(str(root)), manifest, **days, columns=columns).to_pandas()
        rows["leaving"] = (rows["asset"] == "600001.SH") & (rows["date"] >= dt.date(2019, 4, 1))
        return rows

    @pytest.mark.parametrize("by", ["is_delisting", "name alone", "name beside is_st"])
    def test_it_stays_out_of_the_universe(self, tmp_path: Path, by: str) -> None:
        rows = self.build(tmp_path / "s", by=by)
        assert rows["leaving"].sum() > 5
        assert (rows["is_st"] == (rows["asset"] == "600001.SH")).all()

    def test_rewriting_its_end_changes_no_day_before(self, tmp_path: Path) -> None:
        one, other = (
            self.build(tmp_path / first, by="name alone", first=first)
            for first in ("2019-04-01", "2019-04-09")
        )
        pd.testing.assert_frame_equal(one[~one["leaving"]], other[~other["leaving"]])

    def test_the_boards_limit_holds_and_none_on_the_first_day(self) -> None:
        days = np.array(["2020-12-31", "2021-01-04", "2021-01-05", "2020-12-30"], "datetime64[D]")
        rows = pa.table(
            {
                "code": pa.array(["600001.SH"] * 3 + ["600002.SH"]).dictionary_encode(),
                "is_st": [True] * 4,
                "is_delisting": [False, True, True, True],  # the last one: whole in its period
            }
        )
        assert find_limits(rows, days, np.full(4, 500)).tolist() == [0.05, np.inf, 0.10, 0.10]


class TestReference:
    def test_a_row_a_change(self) -> None:
        found = changes(
            ("a", "2020-01-02", None),
            ("a", "2020-01-03", "One"),
            ("a", "2020-01-06", "One"),
            ("a", "2020-01-07", None),
            ("a", "2020-01-08", "One"),
            ("a", "2020-01-09", "*ST One"),
            ("a", "2020-01-10", "One"),
            ("b", "2020-01-10", "One"),
            ("c", "2020-01-10", "\u202e"),
        )
        assert found == [
            ("a", "2020-01-03", "One"),
            ("a", "2020-01-09", "*ST One"),
            ("a", "2020-01-10", "One"),
            ("b", "2020-01-10", "One"),
        ]

    def test_of_nothing(self) -> None:
        assert changes() == []
        assert changes(("a", "2020-01-02", None)) == []

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("万  科Ａ", "万 科Ａ"),
            (" a\r\nb\tc\0 ", "a b c"),
            ("\u202egnp.exe\u200b", "gnp.exe"),
            ("x" * 500, "x" * LONGEST_NAME),
            ("<b>&", "<b>&"),  # whoever shows it escapes it
        ],
    )
    def test_what_moves_or_hides_text_goes(self, given: str, shown: str) -> None:
        assert clean_name(given) == shown


class TestProperties:
    def test_later_names_are_not_looked_at(self, tmp_path: Path) -> None:
        frame = named(make_bars())
        build(tmp_path / "s", frame)
        root, days = Storage(str(tmp_path / "s")), sorted(frame["date"].unique())
        traded = frame[frame["volume"] > 0]
        for cut in (0, len(days) // 2 - 1, len(days) // 2, len(days) - 1):
            before = traded[traded["date"] <= days[cut]]
            expected = before.groupby("code")["name"].last().to_dict()
            assert read_names(root, pd.Timestamp(days[cut]).date()) == expected
            assert expected
        assert read_names(root, pd.Timestamp(days[0]).date() - dt.timedelta(days=1)) == {}

    def test_rewriting_the_future_changes_no_name_before(self, tmp_path: Path) -> None:
        frame = named(make_bars())
        cut = sorted(frame["date"].unique())[len(frame["date"].unique()) // 3]
        other = frame.assign(name=frame["name"].where(frame["date"] <= cut, "Rewritten"))
        found = []
        for name, bars in (("a", frame), ("b", other)):
            build(tmp_path / name, bars)
            root = Storage(str(tmp_path / name))
            found.append(read_names(root, pd.Timestamp(cut).date()))
        assert found[0] == found[1]
        assert found[0]

    def test_names_decide_no_row_and_come_with_new_days(self, tmp_path: Path) -> None:
        frame = named(make_bars())
        days = sorted(frame["date"].unique())
        bare = build(tmp_path / "s", frame.drop(columns="name"))
        root = Storage(str(tmp_path / "s"))
        assert read_names(root, dt.date.max) == {}
        with_names = build(tmp_path / "s", frame)
        assert (with_names.fingerprint, with_names.files) == (bare.fingerprint, bare.files)
        assert set(read_names(root, dt.date.max).values()) == {f"{c} new" for c in frame["code"]}
        first = frame[frame["date"] < days[-1]].assign(name="Before")
        build(tmp_path / "t", first)
        last = frame.assign(name=first["name"].reindex(frame.index, fill_value="After"))
        build(tmp_path / "t", last)  # a day more
        root = Storage(str(tmp_path / "t"))
        assert set(read_names(root, pd.Timestamp(days[-2]).date()).values()) == {"Before"}
        assert "After" in read_names(root, pd.Timestamp(days[-1]).date()).values()

    def test_names_that_go_from_the_bars_go_from_the_panel(self, tmp_path: Path) -> None:
        frame = named(make_bars())
        build(tmp_path / "s", frame)
        build(tmp_path / "s", frame.drop(columns="name"))
        assert not Storage(str(tmp_path / "s")).exists(f"panel/{NAMES}")

    def test_names_of_a_side_table_hold_from_their_day_on(self, tmp_path: Path) -> None:
        vendor, market = vendors.VENDORS["tushare"], vendors.make_market()
        vendor.write(tmp_path / "bars", market)
        cfg = replace(CFG, bars=BarsConfig(format="tushare"))
        build_panel(str(tmp_path / "bars"), Storage(str(tmp_path / "s")), cfg, runner=map_here)
        special = market[market["is_st"]]
        first, code = special["date"].min().date(), special["code"].iloc[0]
        root = Storage(str(tmp_path / "s"))
        assert read_names(root, first - dt.timedelta(days=1)) == dict.fromkeys(
            vendors.CODES, "平安"
        )
        assert read_names(root, first) == {**dict.fromkeys(vendors.CODES, "平安"), code: "*ST某"}


class TestValidation:
    def test_a_damaged_file_is_one_message(self, tmp_path: Path) -> None:
        root = Storage(str(tmp_path))
        root.write_bytes(f"panel/{NAMES}", b"PAR1 no more")
        with pytest.raises(PanelError, match=r"names\.parquet is damaged .*Delete it"):
            read_names(root, dt.date(2020, 1, 2))

    def test_a_storage_without_names_has_none(self, tmp_path: Path) -> None:
        write_names(Storage(str(tmp_path)).child("panel"), [])
        assert read_names(Storage(str(tmp_path)), dt.date(2020, 1, 2)) == {}


def test_marks_that_contradict_the_names_are_refused(tmp_path: Path) -> None:
    frame = make_bars()
    names = frame["code"].map(lambda code: ("ST" if code.endswith("1.SH") else "") + code)
    right = frame.assign(name=names, is_st=names.str.startswith("ST"))
    build(tmp_path / "right", right)
    with pytest.raises(BarsError, match=r"is_st is not what the mark in the name says.*inverted"):
        build(tmp_path / "inverted", right.assign(is_st=~right["is_st"]))
