"""Vendors' files: what is read, from where, and every refusal."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gangru_dist.bars.files import list_files
from gangru_dist.bars.formats import resolve_format
from gangru_dist.bars.headings import read_headings
from gangru_dist.bars.reader import group_units, read_part
from gangru_dist.base.errors import BarsError
from gangru_dist.config.settings import BarsConfig
from tests.bars.vendors import make_market, write_texts

GENERIC = resolve_format(BarsConfig())


def make_frame(days: int = 5, codes: tuple[str, ...] = ("000001.SZ", "600000.SH")) -> pd.DataFrame:
    """Generic bars, sorted by code and date."""
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [codes, pd.bdate_range("2019-01-02", periods=days)], names=["code", "date"]
    )
    frame = index.to_frame(index=False)
    frame["date"] = frame["date"].dt.date
    close = 10 + rng.random(len(frame))
    return frame.assign(
        open=close, high=close * 1.01, low=close * 0.99, close=close, volume=1000.0, amount=1e4,
        adj_factor=1.0,
    )  # fmt: skip


def write_parquet(frame: pd.DataFrame, path: Path, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, **options)


def read_all(folder: Path, config: BarsConfig | None = None) -> pa.Table:
    """Everything under a folder."""
    form = resolve_format(config or BarsConfig())
    parts = read_headings(str(folder), list_files(str(folder)), form)
    tables = [table for part in parts for table in read_part(str(folder), part, form)]
    return pa.concat_tables(tables).unify_dictionaries()


def assert_same(found: pa.Table, frame: pd.DataFrame) -> None:
    """Same rows, whatever the order of rows and columns."""
    columns, order = frame.columns.tolist(), ["code", "date"]
    text = {name: "str" for name in ("code", "industry") if name in columns}
    left = found.select(columns).to_pandas().astype(text)
    pd.testing.assert_frame_equal(
        left.sort_values(order, ignore_index=True),
        frame.astype({"code": "str"}).sort_values(order, ignore_index=True),
        check_exact=False,
        rtol=1e-15,
    )


class TestReference:
    def test_parquet_by_row_groups(self, tmp_path: Path) -> None:
        frame = make_frame()
        write_parquet(frame, tmp_path / "a.parquet", row_group_size=3)
        parts = read_headings(str(tmp_path), list_files(str(tmp_path)), GENERIC)
        assert [(part.row_groups, part.first_row) for part in parts] == [
            ((0,), 0), ((1,), 3), ((2,), 6), ((3,), 9),
        ]  # fmt: skip
        assert_same(read_all(tmp_path), frame)

    def test_one_file_is_enough(self, tmp_path: Path) -> None:
        frame = make_frame()
        write_parquet(frame, tmp_path / "a.parquet")
        assert_same(read_all(tmp_path / "a.parquet"), frame)

    def test_hive_folders_give_their_column(self, tmp_path: Path) -> None:
        frame = make_frame()
        for date, part in frame.groupby("date"):
            write_parquet(part.drop(columns="date"), tmp_path / f"date={date}" / "part-0.parquet")
        assert_same(read_all(tmp_path), frame)
        for code, part in frame.groupby("code"):
            write_parquet(part.drop(columns="code"), tmp_path / "x" / f"code={code}" / "0.parquet")
        assert_same(read_all(tmp_path / "x"), frame)

    def test_own_column_names(self, tmp_path: Path) -> None:
        frame = make_frame()
        write_parquet(frame.rename(columns={"volume": "Vol.", "code": "sym"}), tmp_path / "a.pq")
        config = BarsConfig(columns={"volume": "Vol.", "code": "sym"})
        assert_same(read_all(tmp_path, config), frame)

    @pytest.mark.parametrize("encoding", ["utf-8", "gbk", "gb18030", "utf-16", "utf-16-le"])
    @pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
    def test_encodings_are_told_apart(self, tmp_path: Path, encoding: str, suffix: str) -> None:
        frame = make_frame().assign(industry="银行")
        text = frame.rename(columns={"open": "开盘"}).to_csv(index=False).encode(encoding)
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
        config = BarsConfig(columns={"open": "开盘"})
        assert_same(read_all(tmp_path, config), frame)
        if encoding != "utf-16-le":  # its mark is the only sign that `auto` needs not
            assert_same(read_all(tmp_path, dataclasses.replace(config, encoding=encoding)), frame)

    @pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
    def test_every_end_of_line(self, tmp_path: Path, end: str) -> None:
        frame = make_frame(days=2000)
        text = frame.to_csv(index=False, lineterminator=end)
        (tmp_path / "a.csv").write_text(text, newline="")
        assert_same(read_all(tmp_path), frame)

    @pytest.mark.parametrize("name", ["600000.SH.csv", "sub/sh600000_daily.csv"])
    def test_the_code_is_in_the_files_name(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        make_frame(codes=("x",)).drop(columns="code").to_csv(path, index=False)
        found = read_all(tmp_path, BarsConfig(code_from_name=True))["code"].unique().to_pylist()
        assert found == ["600000.SH" if name.startswith("6") else "sh600000"]


class TestProperties:
    def test_markers_are_passed_over(self, tmp_path: Path) -> None:
        write_parquet(make_frame(), tmp_path / "a.parquet")
        for name in ("_SUCCESS", ".a.parquet.crc", "_metadata", f"b.parquet.{'0a' * 16}.part"):
            (tmp_path / name).write_bytes(b"")
        assert [file.name for file in list_files(str(tmp_path))] == ["a.parquet"]

    def test_units_hold_every_part_once(self, tmp_path: Path) -> None:
        for number in range(7):
            write_parquet(make_frame(), tmp_path / f"{number}.parquet")
        parts = read_headings(str(tmp_path), list_files(str(tmp_path)), GENERIC)
        units = group_units(parts, rows=25)
        assert [part for unit in units for part in unit] == parts
        assert [len(unit) for unit in units] == [2, 2, 2, 1]

    def test_a_unit_parses_a_footer_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame = make_frame(days=50)
        for name in ("a", "b"):
            write_parquet(frame, tmp_path / f"{name}.parquet", row_group_size=1)
        parts = read_headings(str(tmp_path), list_files(str(tmp_path)), GENERIC)
        units = group_units(parts, rows=150)
        assert [[(p.number, p.first_row, p.rows) for p in unit] for unit in units] == [
            [(0, 0, 100), (1, 0, 50)],
            [(1, 50, 50)],
        ]
        opened: list[object] = []
        parse = pq.read_metadata
        monkeypatch.setattr(pq, "read_metadata", lambda *a: opened.append(a) or parse(*a))
        tables = [t for unit in units for p in unit for t in read_part(str(tmp_path), p, GENERIC)]
        assert_same(pa.concat_tables(tables).unify_dictionaries(), pd.concat([frame, frame]))
        assert len(opened) == 3

    def test_a_parquet_file_without_rows_gives_an_empty_table(self, tmp_path: Path) -> None:
        write_parquet(make_frame().head(0), tmp_path / "none.parquet")
        write_parquet(make_frame(), tmp_path / "some.parquet")
        form, files = resolve_format(BarsConfig()), list_files(str(tmp_path))
        tables = [
            list(read_part(str(tmp_path), p, form))
            for p in read_headings(str(tmp_path), files, form)
        ]
        assert [[len(table) for table in one] for one in tables] == [[0], [10]]
        assert tables[0][0].column_names == tables[1][0].column_names

    def test_a_column_in_folder_and_file_is_the_files(self, tmp_path: Path) -> None:
        frame = make_frame()
        for day, rows in frame.groupby("date"):
            write_parquet(rows, tmp_path / f"date={day}" / "part.parquet")
            rows.to_csv(tmp_path / f"date={day}" / "part.csv", index=False)
        assert_same(read_all(tmp_path), pd.concat([frame, frame]))

    def test_a_mapping_that_one_file_answers_to_is_enough(self, tmp_path: Path) -> None:
        frame = make_frame()
        write_parquet(frame, tmp_path / "a.parquet")
        write_parquet(frame.assign(sw="bank"), tmp_path / "b.parquet")
        config = BarsConfig(columns={"industry": "sw"})
        form, files = resolve_format(config), list_files(str(tmp_path))
        tables = [
            list(read_part(str(tmp_path), p, form))
            for p in read_headings(str(tmp_path), files, form)
        ]
        assert ["industry" in one[0].column_names for one in tables] == [False, True]

    @pytest.mark.parametrize("blank", ["", " "])
    def test_blank_text_is_missing_in_parquet_as_in_csv(self, tmp_path: Path, blank: str) -> None:
        frame = make_frame(days=2).assign(industry=["bank", blank, None, "coal"])
        write_parquet(frame, tmp_path / "a.parquet")
        found = read_all(tmp_path)["industry"].to_pylist()
        assert found == ["bank", None, None, "coal"]

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_a_word_for_nothing_may_be_a_stock(self, tmp_path: Path, suffix: str) -> None:
        codes = ("NA", "NULL", "NaN", "nan", "None", "N/A")
        frame = make_frame(codes=codes).assign(industry="NA", market_cap="NaN", list_date="null")
        if suffix == "csv":
            frame.to_csv(tmp_path / "a.csv", index=False)
        else:
            write_parquet(frame, tmp_path / "a.parquet")
        found = read_all(tmp_path)
        assert found["code"].to_pylist() == frame["code"].tolist()
        assert found["industry"].null_count == found["list_date"].null_count == len(frame)
        assert np.isnan(found["market_cap"].to_numpy()).all()

    def test_leading_zeros_stay(self, tmp_path: Path) -> None:
        frame = make_frame(codes=("000001", "600000")).assign(industry=np.arange(10))
        write_parquet(frame, tmp_path / "a.parquet")
        frame.to_csv(tmp_path / "b.csv", index=False)
        found = read_all(tmp_path)
        assert found["code"].to_pylist() == frame["code"].tolist() * 2
        assert found["industry"].to_pylist() == [str(number) for number in range(10)] * 2

    @pytest.mark.parametrize("text", ["2019-03-04 15:00", "2019/3/4 09:30:00", "20190304,一",
                                      "2019-03-04 星期一", "2019-03-04/周一"])  # fmt: skip
    def test_a_fixed_time_and_a_weekday_are_no_part_of_the_day(
        self, tmp_path: Path, text: str
    ) -> None:
        make_frame().assign(date=text).to_csv(tmp_path / "a.csv", index=False)
        found = read_all(tmp_path)["date"].unique().to_pylist()
        assert found == [dt.date(2019, 3, 4)]

    @pytest.mark.parametrize("unit", ["s", "ns"])
    def test_a_fixed_time_of_timestamps(self, tmp_path: Path, unit: str) -> None:
        frame = make_frame()
        closes = pd.to_datetime(frame["date"]).astype(f"datetime64[{unit}]") + pd.Timedelta("15h")
        write_parquet(frame.assign(date=closes), tmp_path / "a.parquet")
        assert_same(read_all(tmp_path), frame)

    def test_lines_above_the_headings(self, tmp_path: Path) -> None:
        frame = make_frame()
        text = "Daily bars;\n\n" + frame.to_csv(index=False)
        (tmp_path / "a.csv").write_text(text)
        assert_same(read_all(tmp_path, BarsConfig(skip_rows=2)), frame)
        with pytest.raises(BarsError, match=r"Its line 3 has them: --set bars.skip_rows=2"):
            read_all(tmp_path)


class TestValidation:
    @pytest.mark.parametrize(
        "text", ["2019-03-04,二", "2019-03-04 16:00:00", "2019-03-04 25:00:00x"]
    )
    def test_days_that_are_none(self, tmp_path: Path, text: str) -> None:
        make_frame().assign(date=text).to_csv(tmp_path / "a.csv", index=False)
        with pytest.raises(BarsError, match=f"'date' has '{text}' in row 0"):
            read_all(tmp_path)

    def test_times_of_several_bars_a_day(self, tmp_path: Path) -> None:
        frame = make_frame()
        times = pd.to_datetime(frame["date"]) + pd.Timedelta("10h") * (1 + np.arange(10) % 2)
        write_parquet(frame.assign(date=times), tmp_path / "a.parquet")
        with pytest.raises(BarsError, match="intraday bars"):
            read_all(tmp_path)
        (tmp_path / "a.parquet").unlink()
        frame.assign(date=times).to_csv(tmp_path / "a.csv", index=False)
        with pytest.raises(BarsError, match="no day"):
            read_all(tmp_path)

    @pytest.mark.parametrize(
        ("index", "columns", "match"),
        [("date", "code", "a column a stock"), ("code", "date", "a column a day")],
    )
    def test_wide_tables_and_what_reshapes_them(
        self, tmp_path: Path, index: str, columns: str, match: str
    ) -> None:
        frame, folder = make_frame(), tmp_path / "bars"
        folder.mkdir()
        for name in frame.columns[2:]:
            wide = frame.pivot_table(index=index, columns=columns, values=name)
            wide.to_csv(folder / f"{name}.csv")
        with pytest.raises(BarsError, match=match) as caught:
            read_all(folder)
        line = re.search(r"pd\.concat.*\)", str(caught.value))
        assert line
        code = line[0].replace("f'{name}.csv'", f"f'{folder}/{{name}}.csv'")
        exec(code.replace("'bars.csv'", f"'{tmp_path}/bars.csv'"), {"pd": pd})
        found = read_all(tmp_path / "bars.csv")
        assert found["close"].to_pylist() == frame.sort_values(["date", "code"])["close"].tolist()

    def test_two_rows_of_headings_and_what_reshapes_them(self, tmp_path: Path) -> None:
        frame, file = make_frame(), tmp_path / "bars.csv"
        wide = frame.pivot_table(index="date", columns="code", values=list(frame.columns[2:]))
        wide.columns.names = ["Price", "Ticker"]
        wide.to_csv(file)
        with pytest.raises(BarsError, match="two rows of headings") as caught:
            read_all(file)
        line = re.search(r"rows = .*?to_csv\(OTHER\)", str(caught.value))
        assert line
        exec(line[0], {"pd": pd, "FILE": file, "OTHER": tmp_path / "other.csv"})
        found = read_all(tmp_path / "other.csv")
        assert found["close"].to_pylist() == frame.sort_values(["date", "code"])["close"].tolist()

    @pytest.mark.parametrize(
        ("headings", "told"),
        [
            ("Date,Open,High,Low,Close,Adj Close,Volume",
             ["date=Date", "open=Open", "high=High", "low=Low", "close=Close", "volume=Volume"]),
            ("Stkcd,Trddt,Opnprc,Hiprc,Loprc,Clsprc,Dnshrtrd,Dnvaltrd",
             ["date=Trddt", "code=Stkcd", "open=Opnprc", "high=Hiprc", "low=Loprc",
              "close=Clsprc", "volume=Dnshrtrd"]),
            ("ts_code,delist_date,open,high,low,close,volume,amount", ["code=ts_code"]),
            ("date,code,open,high,low,pre_close,volume,amount", []),
            ("date,code,open,high,low,close,volume,amount,复权因子", ["adj_factor=复权因子"]),
            ("date,code,open,high,low,close,volume,amount,factor", ["adj_factor=factor"]),
            ("date,code,open,high,low,close,volume,amount,TAFACTOR", ["adj_factor=TAFACTOR"]),
        ],
    )  # fmt: skip
    def test_guesses_are_names_that_exports_have(
        self, tmp_path: Path, headings: str, told: list[str]
    ) -> None:
        (tmp_path / "a.csv").write_text(headings + "\n")
        with pytest.raises(BarsError) as caught:
            read_all(tmp_path)
        assert re.findall(r"bars\.columns\.(\S+=[^\s']+)", str(caught.value)) == told

    @pytest.mark.parametrize(
        ("says", "prices", "match"),
        [("前复权", "traded", "title says 前复权.*bars.prices=adjusted"),
         ("不复权", "adjusted", "title says 不复权.*bars.prices=traded"),
         ("周线", "traded", "Export daily bars")],
    )  # fmt: skip
    def test_what_a_title_says(self, tmp_path: Path, says: str, prices: str, match: str) -> None:
        write_texts(tmp_path, make_market(), says=says)
        (tmp_path / "hfq_factor").rename(tmp_path / "_factors")
        config = BarsConfig(format="akshare", prices=prices)  # type: ignore[arg-type]
        with pytest.raises(BarsError, match=match):
            read_all(tmp_path, config)
        name = next(tmp_path.glob("*.txt"))
        name.rename(tmp_path / "SZ#000009.txt")
        with pytest.raises(BarsError, match=r"000009 in its name and .* in its title"):
            read_all(tmp_path, config)

    def test_a_page_that_its_checksum_denies(self, tmp_path: Path) -> None:
        """Without the check one bit gives another price in silence."""
        path = tmp_path / "a.parquet"
        frame = make_frame()
        plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(pa.Table.from_pandas(frame), path, write_page_checksum=True, **plain)
        data = bytearray(path.read_bytes())
        place = data.index(frame["close"].iloc[3].tobytes())
        data[place + 5] ^= 1
        path.write_bytes(data)
        with pytest.raises(BarsError, match=r"^a.parquet cannot be read as parquet: .*checksum"):
            read_all(tmp_path)

    def test_no_encoding_that_is_known(self, tmp_path: Path) -> None:
        text = make_frame().assign(industry="Bäcker").to_csv(index=False)
        (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
        with pytest.raises(BarsError, match=r"a.csv is neither UTF-8 nor .* bars.encoding=big5"):
            read_all(tmp_path)
        with pytest.raises(BarsError, match=r"bars.encoding=utf8000 is no encoding"):
            read_all(tmp_path, BarsConfig(encoding="utf8000"))

    @pytest.mark.parametrize("encoding", ["auto", "gb18030"])
    def test_another_encoding_further_down(self, tmp_path: Path, encoding: str) -> None:
        text = make_frame(days=9000).assign(industry="a").to_csv(index=False).encode()
        (tmp_path / "a.csv").write_bytes(text + text.split(b"\n")[1][:-1] + b"\xff\xff\n")
        with pytest.raises(BarsError, match=r"a.csv is not in the encoding of its first bytes"):
            read_all(tmp_path, BarsConfig(encoding=encoding))

    @pytest.mark.parametrize("value", ["1.234,5", "1,23", "12,345"])
    def test_a_comma_that_may_be_a_decimal_point(self, tmp_path: Path, value: str) -> None:
        make_frame().assign(volume=value).to_csv(tmp_path / "a.csv", index=False, sep=";")
        with pytest.raises(BarsError, match=rf"'volume' has '{value}' in row 0"):
            read_all(tmp_path)

    def test_missing_column_by_the_name_it_should_have(self, tmp_path: Path) -> None:
        write_parquet(make_frame(), tmp_path / "a.parquet")
        with pytest.raises(
            BarsError,
            match=r"date \(there: trade_date\), code \(there: ts_code\).*bars.format=generic",
        ):
            read_all(tmp_path, BarsConfig(format="tushare"))

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_mapping_that_no_file_answers_to(self, tmp_path: Path, suffix: str) -> None:
        frame = make_frame().assign(backfactor=2.0, st=False)
        if suffix == "csv":
            frame.to_csv(tmp_path / "a.csv", index=False)
        else:
            write_parquet(frame, tmp_path / "a.parquet")
        config = BarsConfig(columns={"adj_factor": "bakcfactor", "is_st": "xyz", "code": "code"})
        with pytest.raises(
            BarsError,
            match=r"bars.columns.adj_factor=bakcfactor \(nearest: backfactor.*\), "
            r"bars.columns.is_st=xyz \(nearest: none\); there are code, date, .*backfactor, st\.",
        ):
            read_all(tmp_path, config)
