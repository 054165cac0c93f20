"""Names of stocks beside the panel: changes alone, never of a later day, and nobody's tricks."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from gangru_dist.bars.rows import CHECKED
from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.writer import (
    LONGEST_NAME,
    NAMES,
    clean,
    name_changes,
    names_on,
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
    found = name_changes(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
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
        assert clean(given) == shown


class TestProperties:
    def test_later_names_are_not_looked_at(self, tmp_path: Path) -> None:
        frame = named(make_bars())
        build(tmp_path / "s", frame)
        root, days = Storage(str(tmp_path / "s")), sorted(frame["date"].unique())
        traded = frame[frame["volume"] > 0]
        for cut in (0, len(days) // 2 - 1, len(days) // 2, len(days) - 1):
            before = traded[traded["date"] <= days[cut]]
            expected = before.groupby("code")["name"].last().to_dict()
            assert names_on(root, pd.Timestamp(days[cut]).date()) == expected
            assert expected
        assert names_on(root, pd.Timestamp(days[0]).date() - dt.timedelta(days=1)) == {}

    def test_rewriting_the_future_changes_no_name_before(self, tmp_path: Path) -> None:
        frame = named(make_bars())
        cut = sorted(frame["date"].unique())[len(frame["date"].unique()) // 3]
        other = frame.assign(name=frame["name"].where(frame["date"] <= cut, "Rewritten"))
        found = []
        for name, bars in (("a", frame), ("b", other)):
            build(tmp_path / name, bars)
            root = Storage(str(tmp_path / name))
            found.append(names_on(root, pd.Timestamp(cut).date()))
        assert found[0] == found[1]
        assert found[0]

    def test_names_decide_no_row_and_come_with_new_days(self, tmp_path: Path) -> None:
        frame = named(make_bars())
        days = sorted(frame["date"].unique())
        bare = build(tmp_path / "s", frame.drop(columns="name"))
        root = Storage(str(tmp_path / "s"))
        assert names_on(root, dt.date.max) == {}
        with_names = build(tmp_path / "s", frame)
        assert (with_names.fingerprint, with_names.files) == (bare.fingerprint, bare.files)
        assert set(names_on(root, dt.date.max).values()) == {f"{c} new" for c in frame["code"]}
        first = frame[frame["date"] < days[-1]].assign(name="Before")
        build(tmp_path / "t", first)
        last = frame.assign(name=first["name"].reindex(frame.index, fill_value="After"))
        build(tmp_path / "t", last)  # a day more
        root = Storage(str(tmp_path / "t"))
        assert set(names_on(root, pd.Timestamp(days[-2]).date()).values()) == {"Before"}
        assert "After" in names_on(root, pd.Timestamp(days[-1]).date()).values()

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
        assert names_on(root, first - dt.timedelta(days=1)) == dict.fromkeys(vendors.CODES, "平安")
        assert names_on(root, first) == {**dict.fromkeys(vendors.CODES, "平安"), code: "*ST某"}


class TestValidation:
    def test_a_damaged_file_is_one_message(self, tmp_path: Path) -> None:
        root = Storage(str(tmp_path))
        root.write_bytes(f"panel/{NAMES}", b"PAR1 no more")
        with pytest.raises(PanelError, match=r"names\.parquet is damaged .*Delete it"):
            names_on(root, dt.date(2020, 1, 2))

    def test_a_storage_without_names_has_none(self, tmp_path: Path) -> None:
        write_names(Storage(str(tmp_path)).child("panel"), [])
        assert names_on(Storage(str(tmp_path)), dt.date(2020, 1, 2)) == {}
