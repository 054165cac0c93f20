"""The files that were listed are the files that are read; what cannot be read is an error."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from gangru_dist.bars.files import check_apart, list_files
from gangru_dist.bars.formats import resolve_format
from gangru_dist.bars.headings import read_headings
from gangru_dist.bars.reader import read_part
from gangru_dist.base.errors import BarsError
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import BarsConfig
from tests.bars.vendors import make_market, write_qlib_folder

GENERIC = resolve_format(BarsConfig())


def save(frame: pd.DataFrame, path: Path, **options: int) -> None:
    """By its suffix."""
    if path.suffix == ".parquet":
        table = pa.Table.from_pandas(frame, preserve_index=False)
        pq.write_table(table, path, **options)
    else:
        frame.to_csv(path, index=False)


def read(
    folder: Path, between: Callable[[], object] = lambda: None, format_: str = "generic"
) -> int:
    """Rows that come; `between` is called after listing and footers, before rows."""
    form = resolve_format(BarsConfig(format=format_))  # type: ignore[arg-type]
    parts = read_headings(str(folder), list_files(str(folder)), form)
    between()
    return sum(len(table) for part in parts for table in read_part(str(folder), part, form))


class TestReference:
    def test_links_lead_to_files_and_folders(self, tmp_path: Path) -> None:
        there, bars = tmp_path / "there", tmp_path / "bars"
        (there / "below").mkdir(parents=True)
        bars.mkdir()
        market = make_market()
        save(market, there / "a.parquet")
        save(market, there / "below" / "b.parquet")
        (bars / "c.parquet").symlink_to(there / "a.parquet")
        (bars / "d").symlink_to(there / "below")
        assert read(bars) == 2 * len(market)

    def test_hidden_things_are_no_bars_whatever_they_are(self, tmp_path: Path) -> None:
        save(make_market(), tmp_path / "a.parquet")
        (tmp_path / ".old").symlink_to("/nowhere")
        os.mkfifo(tmp_path / "_pipe")
        assert read(tmp_path) == len(make_market())

    def test_a_delta_table_without_its_deleted_rows(self, tmp_path: Path) -> None:
        bars, market = tmp_path / "bars", make_market()
        write_deltalake(bars, market, partition_by=["code"])
        write_deltalake(bars, market[market["code"] == "000001.SZ"].head(3), mode="append")
        DeltaTable(bars).delete("date >= '2019-03-01' or code = '600000.SH'")
        expected = DeltaTable(bars).to_pandas()
        parts = read_headings(str(bars), list_files(str(bars)), GENERIC)
        tables = [table for part in parts for table in read_part(str(bars), part, GENERIC)]
        found = pa.concat_tables(tables).select(["date", "code", "close"]).to_pandas()
        keys = [
            sorted(zip(rows["date"].astype(str).str[:10], rows["code"], rows["close"], strict=True))
            for rows in (found, expected)
        ]
        assert keys[0] == keys[1]
        assert len(found) < len(market)


class TestValidation:
    @pytest.mark.parametrize(
        ("mark", "kind"),
        [("part/_delta_log/0.json", "Delta"), (".hoodie/hoodie.properties", "Hudi"),
         ("date=2019-01-02/.hoodie_partition_metadata", "Hudi"),
         ("metadata/00000-0.metadata.json", "Iceberg"), ("metadata/version-hint.text", "Iceberg")],
    )  # fmt: skip
    def test_tables_that_only_their_own_readers_know(
        self, tmp_path: Path, mark: str, kind: str
    ) -> None:
        below = {"Delta": "part/code=1", "Hudi": "date=2019-01-02", "Iceberg": "data"}[kind]
        for name in (mark, f"{below}/a.parquet"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("{}")
        paths = (tmp_path, tmp_path / below, tmp_path / below / "a.parquet")
        for path in paths[: 3 - mark.endswith("n_metadata")]:
            with pytest.raises(BarsError, match=f"is a {kind} table"):
                list_files(str(path))

    def test_rows_that_a_delta_log_alone_marks_as_deleted(self, tmp_path: Path) -> None:
        write_deltalake(tmp_path, make_market())
        log = tmp_path / "_delta_log" / f"{0:020d}.json"
        text = log.read_text()
        found = re.search(r'"protocol":\{.*?\}', text)
        assert found
        names = '["deletionVectors","timestampNtz"]'
        features = f'"readerFeatures":{names},"writerFeatures":{names}'
        versions = '"minReaderVersion":3,"minWriterVersion":7'
        log.write_text(text.replace(found[0], f'"protocol":{{{versions},{features}}}'))
        with pytest.raises(BarsError, match="deleted rows are still in its files"):
            list_files(str(tmp_path))

    def test_a_folder_of_data_beside_metadata(self, tmp_path: Path) -> None:
        (tmp_path / "metadata").mkdir()
        (tmp_path / "metadata" / "readme.json").write_text("{}")
        (tmp_path / "data").mkdir()
        save(make_market(), tmp_path / "data" / "a.parquet")
        assert read(tmp_path / "data") == len(make_market())

    @pytest.mark.parametrize("suffix", ["parquet", "csv"])
    @pytest.mark.parametrize("rows", [10, 400])
    def test_replaced_between_listing_and_rows(
        self, tmp_path: Path, suffix: str, rows: int
    ) -> None:
        path, market = tmp_path / f"a.{suffix}", make_market()
        save(market, path, **({"row_group_size": 100} if suffix == "parquet" else {}))

        def replace() -> None:
            save(market.head(rows), tmp_path / f"x.{suffix}")
            (tmp_path / f"x.{suffix}").rename(path)

        with pytest.raises(
            BarsError, match=rf"^a\.{suffix}( changed while|: \d+ bytes| cannot be)"
        ):
            read(tmp_path, replace)

    def test_replaced_by_another_of_its_size(self, tmp_path: Path) -> None:
        path, market = tmp_path / "a.csv", make_market()
        save(market, path)
        path_time = path.stat().st_mtime_ns

        def replace() -> None:
            text = path.read_text().replace("000001.SZ", "000009.SZ")
            path.write_text(text)
            os.utime(path, ns=(path_time, path_time + 1))

        with pytest.raises(BarsError, match=r"^a.csv changed while it was read"):
            read(tmp_path, replace)

    def test_gone(self, tmp_path: Path) -> None:
        save(make_market(), tmp_path / "a.csv")
        with pytest.raises(BarsError, match=r"^a.csv cannot be read as CSV: .*No such file"):
            read(tmp_path, (tmp_path / "a.csv").unlink)

    def test_other_rows_or_columns_than_the_footer_promised(self, tmp_path: Path) -> None:
        """As `_read_parquet` would see a file whose storage tells no modification times."""
        market = make_market()
        save(market, tmp_path / "a.parquet", row_group_size=100)
        files = list_files(str(tmp_path))
        parts = read_headings(str(tmp_path), files, GENERIC)
        save(market.head(250), tmp_path / "a.parquet", row_group_size=50)
        with pytest.raises(BarsError, match=r"a.parquet changed .* 50 of 100 rows were read"):
            list(read_part(str(tmp_path), parts[0], GENERIC))
        save(market.drop(columns="close"), tmp_path / "a.parquet")
        with pytest.raises(BarsError, match=r"a.parquet changed .* it has other columns now"):
            list(read_part(str(tmp_path), parts[0], GENERIC))

    def test_a_cut_off_download(self, tmp_path: Path) -> None:
        data = gzip.compress(make_market().to_csv(index=False).encode())
        (tmp_path / "a.csv.gz").write_bytes(data[: len(data) // 2])
        with pytest.raises(BarsError, match=r"^a.csv.gz cannot be read as CSV"):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("uri", "match"),
        [
            ("/tmp/none/*.parquet", "Patterns are not expanded; name the folder: /tmp/none$"),
            ("/tmp/none/20[12]/**/x.csv", "name the folder: /tmp/none$"),
            ("/tmp/none/x.csv", "a file, of parquet or CSV.$"),
            ("file:///", "--bars file:/// is the root of this machine"),
        ],
    )
    def test_no_folder_of_bars(self, uri: str, match: str) -> None:
        with pytest.raises(BarsError, match=match):
            list_files(uri)

    def test_a_link_that_leads_nowhere(self, tmp_path: Path) -> None:
        save(make_market(), tmp_path / "a.parquet")
        (tmp_path / "b.parquet").symlink_to("/nowhere/b.parquet")
        with pytest.raises(BarsError, match=r"^b.parquet is a broken link"):
            list_files(str(tmp_path))

    def test_a_pipe(self, tmp_path: Path) -> None:
        save(make_market(), tmp_path / "a.parquet")
        os.mkfifo(tmp_path / "b.csv")
        with pytest.raises(BarsError, match=r"^b.csv is neither a file nor a folder"):
            list_files(str(tmp_path))

    def test_a_name_that_is_not_utf8(self, tmp_path: Path) -> None:
        save(make_market(), tmp_path / "a.parquet")
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb9\xc9.csv")).write_text("x")
        with pytest.raises(BarsError, match=r"the file name .* is not UTF-8. Rename"):
            list_files(str(tmp_path))

    @pytest.mark.parametrize(
        "column", ["date", "code", "close", "is_st", "list_date", "industry", "adj_factor"]
    )
    def test_list_columns(self, tmp_path: Path, column: str) -> None:
        market = make_market()
        market[column] = [[value] for value in market[column]]
        save(market, tmp_path / "a.parquet")
        with pytest.raises(BarsError, match=r"^a.parquet"):
            read(tmp_path)


class TestQlib:
    def folder(self, tmp_path: Path) -> Path:
        write_qlib_folder(tmp_path / "bars", make_market())
        return tmp_path / "bars"

    def test_an_index_is_no_stock(self, tmp_path: Path) -> None:
        bars = self.folder(tmp_path)
        before = read(bars, format_="qlib")
        (bars / "features" / "sh600000").rename(bars / "features" / "sh000300")
        assert 0 < read(bars, format_="qlib") < before

    def test_a_field_of_another_calendar(self, tmp_path: Path) -> None:
        bars = self.folder(tmp_path)
        days = (bars / "calendars" / "day.txt").read_text().split()
        (bars / "calendars" / "day.txt").write_text("\n".join(days[:-5]))
        with pytest.raises(
            BarsError, match=r"day.txt ends after 85. They come from different dumps"
        ):
            read(bars, format_="qlib")

    @pytest.mark.parametrize("text", ["2019-01-02\n2019-13-02\n", "2019-01-03\n2019-01-02\n"])
    def test_a_calendar_that_is_none(self, tmp_path: Path, text: str) -> None:
        bars = self.folder(tmp_path)
        (bars / "calendars" / "day.txt").write_text(text)
        with pytest.raises(BarsError, match=r"calendars/day.txt"):
            read(bars, format_="qlib")

    def test_a_stock_that_is_not_listed(self, tmp_path: Path) -> None:
        bars = self.folder(tmp_path)
        (bars / "instruments" / "all.txt").write_text("SH600001\t2019-01-02\t2019-02-01\n")
        with pytest.raises(BarsError, match=r"is not in instruments/all.txt"):
            read(bars, format_="qlib")

    @pytest.mark.parametrize(
        "days",
        [
            "2019/01/02\t2019-02-01",
            "2019-01-02\t",
            "NaT\t2019-02-01",
            "2019\t2019-02-01",
            "2019-02-01\t2019-01-02",
        ],
    )
    def test_a_stock_listed_with_days_that_are_none(self, tmp_path: Path, days: str) -> None:
        bars = self.folder(tmp_path)
        listed = bars / "instruments" / "all.txt"
        other = [line for line in listed.read_text().splitlines() if "SH600000" not in line]
        listed.write_text("\n".join([*other, f"SH600000\t{days}"]) + "\n")
        line = re.escape(f"SH600000 {days}".replace("\t", " "))
        with pytest.raises(BarsError, match=rf"instruments/all.txt.*'{line}'"):
            read(bars, format_="qlib")

    def test_float64_is_not_qlibs(self, tmp_path: Path) -> None:
        write_qlib_folder(tmp_path / "bars", make_market(), dtype="<f8")
        with pytest.raises(BarsError, match=r"is not one of Qlib's|different dumps"):
            read(tmp_path / "bars", format_="qlib")

    def test_a_field_that_is_missing(self, tmp_path: Path) -> None:
        bars = self.folder(tmp_path)
        (bars / "features" / "sh600000" / "factor.day.bin").unlink()
        with pytest.raises(BarsError, match=r"^features/sh600000 has no adjustment factor"):
            read(bars, format_="qlib")

    def test_something_else_among_them(self, tmp_path: Path) -> None:
        bars = self.folder(tmp_path)
        save(make_market(), bars / "a.csv")
        with pytest.raises(BarsError, match=r"^a.csv lies in a folder of Qlib's"):
            list_files(str(bars))

    def test_a_dump_while_it_is_read(self, tmp_path: Path) -> None:
        bars = self.folder(tmp_path)

        def dump() -> None:
            path = bars / "features" / "sh600000" / "close.day.bin"
            path.write_bytes(path.read_bytes()[:-4])

        with pytest.raises(BarsError, match=r"^features/sh600000 changed while it was read"):
            read(bars, dump, "qlib")


class TestApart:
    """Our own files are parquet too, and must not be read as bars."""

    @pytest.mark.parametrize(
        ("bars", "storage"),
        [
            ("store", "store"),
            ("store/panel", "store"),
            ("store/vendor", "store"),
            ("store/barsx", "store"),
            ("data", "data/store"),
            ("file://{}/store/runs", "store"),
        ],
    )
    def test_one_in_the_other_is_refused(self, tmp_path: Path, bars: str, storage: str) -> None:
        uri = bars.format(tmp_path) if "{" in bars else str(tmp_path / bars)
        with pytest.raises(BarsError, match=r"lie inside one another.*Move the bars out"):
            check_apart(uri, Storage(str(tmp_path / storage)))

    @pytest.mark.parametrize("bars", ["bars", "stores", "store/bars", "store/bars/2019.csv"])
    def test_beside_is_allowed(self, tmp_path: Path, bars: str) -> None:
        check_apart(str(tmp_path / bars), Storage(str(tmp_path / "store")))
