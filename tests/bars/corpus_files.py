"""Cases: files that are no bars, layouts, duplicates, headers, ragged rows."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable, Iterator

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bars.corpus_case import Case, case, files
from tests.bars.corpus_market import (
    CODES,
    CUT,
    DAY,
    Files,
    Frame,
    at,
    by_stock,
    csv,
    one_file,
    parquet,
    parquet_of,
    two_files,
)  # fmt: skip

_NEEDED = ("date", "code", "open", "high", "low", "close", "volume")


def _text(change):  # type: ignore[no-untyped-def]
    """The CSV file's text, changed."""
    return lambda frame: {"bars.csv": change(csv(frame).decode()).encode()}


def _named(name: str, make=csv):  # type: ignore[no-untyped-def]
    return lambda frame: {name: make(frame)}


def _beside(name: str, data: bytes):  # type: ignore[no-untyped-def]
    return lambda frame: one_file(frame) | {name: data}


def rubbish() -> Iterator[Case]:
    """Files that are something else."""
    yield files("no file at all", lambda f: {}, "refused", "no files at")
    yield files("only hidden files", _named("_SUCCESS"), "refused", "no files at")
    yield files("a file of 0 bytes", _beside("more.csv", b""), "refused", "is empty (0 bytes)")
    yield files("a parquet file of 0 bytes", _beside("x.parquet", b""), "refused", "is empty")
    for name in ("bars.xlsx", "bars.json", "bars.feather", "bars.zip", "bars.csv.part",
                 "bars", "bars.csv~", "bars.csv.bak"):  # fmt: skip
        yield files(f"a file called {name}", _named(name), "refused", "neither parquet nor CSV")
    yield files("a readme beside the bars", _beside("README.md", b"x"), "refused",
                "neither parquet nor CSV")  # fmt: skip
    yield files("hidden files beside the bars", _beside(".bars.csv.crc", b"crc"), "same panel")
    yield files("a marker beside the bars", _beside("_SUCCESS", b""), "same panel")
    yield files("a CSV file called parquet", _named("bars.parquet"), "refused",
                "cannot be read as parquet")  # fmt: skip
    yield files("a parquet file called CSV", _named("bars.csv", parquet), "refused", "is parquet")
    yield files("a zip file called CSV", _named("bars.csv", _zip), "refused",
                "is a zip archive or an Excel workbook")  # fmt: skip
    yield files("a gzip file called CSV", _named("bars.csv", lambda f: gzip.compress(csv(f))),
                "refused", "is packed with gzip")  # fmt: skip
    yield files("a CSV file called gzip", _named("bars.csv.gz"), "refused", "cannot be read as CSV")
    for share in (0.1, 0.5, 0.99):
        cut = _cut(parquet, share)
        yield files(f"a parquet file cut off at {share:.0%}", _named("a.parquet", cut), "refused",
                    "cannot be read as parquet")  # fmt: skip
    yield files("a parquet file with 40 bytes overwritten", _named("a.parquet", _overwritten),
                "refused", "a.parquet")  # fmt: skip
    yield files("a parquet file with a bit turned, its pages with checksums", _checksums,
                "refused", "checksum")  # fmt: skip
    yield files("a gzip file cut off", _named("a.csv.gz", _cut(lambda f: gzip.compress(csv(f)))),
                "refused", "cannot be read as CSV")  # fmt: skip
    yield files("a bz2 file cut off", _named("a.csv.bz2", _cut(lambda f: bz2.compress(csv(f)))),
                "refused", "cannot be read as CSV")  # fmt: skip
    yield files("1 KB of zeros called CSV", _beside("x.csv", bytes(1024)), "refused", "x.csv")
    yield files("an HTML error page called CSV", _beside("x.csv", b"<html>\n<p>403</p>\n</html>\n"),
                "refused", "is a web page")  # fmt: skip
    yield files("a JSON error called CSV", _beside("x.csv", b'{"code": 40203, "msg": "limit"}\n'),
                "refused", "is JSON")  # fmt: skip
    yield files("random bytes called CSV", _beside("x.csv", bytes(range(256)) * 8), "refused",
                "x.csv")  # fmt: skip
    yield files(
        "a bad byte in one row", _named("bars.csv", _bad_byte), "refused", "is neither UTF-8 nor"
    )


def _checksums(frame: Frame) -> Files:
    """Plain pages with a checksum each, one bit of a close turned."""
    sink = io.BytesIO()
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, sink, write_page_checksum=True, **plain)
    data = bytearray(sink.getvalue())
    data[data.index(frame["close"].iloc[500:502].to_numpy().tobytes())] ^= 1
    return {"a.parquet": bytes(data)}


def layouts() -> Iterator[Case]:
    """Ways to write the same bars down."""
    yield files("one file a stock", by_stock, "same panel")
    yield files("one file a day", _by_day, "same panel")
    yield files("two parquet files", two_files, "same panel")
    yield files("Hive folders by date", _hive, "same panel")
    yield files("files in folders in folders", lambda f: {"a/b/c/bars.csv": csv(f)}, "same panel")
    yield files("gzip", _named("bars.csv.gz", lambda f: gzip.compress(csv(f))), "same panel")
    yield files("a file called bars.txt", _named("bars.txt"), "same panel")
    yield files("name in capitals", _named("BARS.CSV"), "same panel")
    for name, separator in (("semicolons", ";"), ("tabs", "\t"), ("bars", "|")):
        yield files(f"{name} for commas", lambda f, s=separator: {"bars.csv": csv(f, sep=s)},
                    "same panel")  # fmt: skip
    yield files("CR LF line ends", _named("bars.csv", lambda f: csv(f, lineterminator="\r\n")),
                "same panel")  # fmt: skip
    yield files("Excel's byte order mark", _text(lambda t: "\ufeff" + t), "same panel")
    yield files("Excel's byte order mark in one of two files", _pair("utf-8", "utf-8-sig"),
                "same panel")  # fmt: skip
    yield files("UTF-8 and UTF-16 in one folder", _pair("utf-8", "utf-16"), "same panel")
    yield files("UTF-8 and GBK in one folder", _pair("utf-8", "gbk"), "same panel")
    yield files("two byte order marks", _text(lambda t: "\ufeff\ufeff" + t), "refused",
                "lacks the column(s)")  # fmt: skip
    yield files("thousands apart in one of two files", _pair("utf-8", "utf-8", _thousands),
                "same panel")  # fmt: skip
    yield files("decimal commas in one of two files", _pair("utf-8", "utf-8", _commas), "refused",
                "which is no number")  # fmt: skip
    yield files("columns in another order in one of two files",
                _pair("utf-8", "utf-8", lambda f: f[f.columns[::-1]]), "same panel")  # fmt: skip
    yield files(
        "a comma at every line's end",
        _text(lambda t: "".join(f"{line},\n" for line in t.splitlines())),
        "same panel",
    )
    yield files("quotes around everything", _named("bars.csv", lambda f: csv(f, quoting=1)),
                "same panel")  # fmt: skip
    yield files("an industry with a comma, quoted",
                lambda f: one_file(f.replace({"industry": {"bank": "bank, retail"}})),
                "accepted", "another industry name")  # fmt: skip
    yield files("no line end at the end", _text(str.rstrip), "same panel")
    yield files("blank lines at the end", _text(lambda t: t + "\n\n"), "same panel")
    yield case("columns in another order", lambda f: f[f.columns[::-1]], "same panel")
    yield case("columns that nobody asked for", lambda f: f.assign(note="x", y=1.0), "same panel")
    yield files(
        "pandas' index as a nameless first column",
        lambda f: {"bars.csv": f.to_csv(date_format="%Y-%m-%d").encode()},
        "same panel",
    )
    yield case("newest first", lambda f: f[::-1], "noted",
               "batch not sorted by date, nor by code and date")  # fmt: skip
    yield case("rows in random order", lambda f: f.sample(frac=1, random_state=0), "noted",
               "batch not sorted by date, nor by code and date")  # fmt: skip
    yield case("the column called asset", lambda f: f.rename(columns={"code": "asset"}),
               "same panel")  # fmt: skip
    yield case("close called price, mapped", lambda f: f.rename(columns={"close": "price"}),
               "same panel", columns={"close": "price"})  # fmt: skip
    yield case("close mapped to a column that is not there", lambda f: f, "refused",
               "bars.columns.close=closing", columns={"close": "closing"})  # fmt: skip
    yield case("volume in lots, scaled", lambda f: f.assign(volume=f["volume"] / 100),
               "same panel", scales={"volume": 100.0})  # fmt: skip


def headers() -> Iterator[Case]:
    """Missing, doubled and misspelt columns; lines that are no rows."""
    yield case("no column amount, and no feature of it", lambda f: f.drop(columns="amount"),
               "noted", "amount")  # fmt: skip
    for column in _NEEDED:
        yield case(f"no column {column}", lambda f, c=column: f.drop(columns=c), "refused",
                   f"lacks the column(s) {column}")  # fmt: skip
    for column in ("close", "date", "adj_factor"):
        yield files(f"column {column} twice", _twice(column), "refused", "twice")
    yield case("Close for close", lambda f: f.rename(columns={"close": "Close"}), "refused",
               "lacks the column(s) close")  # fmt: skip
    yield case("blanks around a column's name", lambda f: f.rename(columns={"close": " close "}),
               "refused", "lacks the column(s) close")  # fmt: skip
    yield files("no header", _text(lambda t: t.split("\n", 1)[1]), "refused", "lacks the column(s)")
    yield files("a title above the header", _text(lambda t: "Daily bars\n" + t), "refused",
                "lacks the column(s)")  # fmt: skip
    yield files("a title above the header, bars.skip_rows", _text(lambda t: "Daily bars\n" + t),
                "same panel", skip_rows=1)  # fmt: skip
    yield files("a title with the stock's code above, a source below", _titled, "same panel")
    yield files("a title with another stock's code than the file's name", _titled_wrongly,
                "refused", "in its name and 600001 in its title")  # fmt: skip
    yield files("a column a stock", lambda f: _wide(f, "date", "code"), "refused",
                "is a wide table, a column a stock")  # fmt: skip
    yield files("a column a day", lambda f: _wide(f, "code", "date"), "refused",
                "is a wide table, a column a day")  # fmt: skip
    yield files("a blank line above the header", _text(lambda t: "\n" + t), "refused",
                "lacks the column(s)")  # fmt: skip
    yield files("the header twice at the top", _text(lambda t: t.split("\n", 1)[0] + "\n" + t),
                "refused", "'date'")  # fmt: skip
    yield files("blanks after the commas", _text(lambda t: t.replace(",", ", ")), "refused",
                "lacks the column(s)")  # fmt: skip
    yield files("sums in the last line", _text(lambda t: t + "Total," + "9," * 11 + "9\n"),
                "refused", "in row 960")  # fmt: skip
    yield files("the header again in the middle", _text(_header_again), "refused", "'date'")
    yield files("units in a line below the header", _text(_units_line), "refused", "in row 0")
    yield files("a total in the last line", _text(lambda t: t + "Total" + "," * 12 + "\n"),
                "set aside", "date missing")  # fmt: skip
    yield files("a comment in the last line", _text(lambda t: t + "# end of data\n"), "refused",
                "cannot be read as CSV")  # fmt: skip
    yield files("a row with a field too many", _text(_line(lambda s: s + ",9")), "refused",
                "cannot be read as CSV")  # fmt: skip
    yield files("a row with a field too few", _text(_line(lambda s: s.rsplit(",", 1)[0])),
                "refused", "cannot be read as CSV")  # fmt: skip
    yield files("an industry with a comma, not quoted", _text(_line(lambda s: s + ", retail")),
                "refused", "cannot be read as CSV")  # fmt: skip
    yield files("a last row cut off", _text(lambda t: t[:-60]), "refused", "cannot be read as CSV")
    yield files("a quote that never closes", _text(_line(lambda s: '"' + s)), "refused", "bars.csv")
    yield files("decimal commas with semicolons",
                lambda f: {"bars.csv": csv(f, sep=";", decimal=",")}, "refused",
                "which is no number")  # fmt: skip
    yield files("a header and no rows, alone", _named("bars.csv", lambda f: csv(f[:0])), "refused",
                "no rows at all")  # fmt: skip
    yield files(
        "a header and no rows, beside others",
        lambda f: one_file(f) | {"empty.csv": csv(f[:0])},
        "noted",
        "file without rows",
    )
    yield files("a parquet file without rows, beside others",
                lambda f: two_files(f) | {"c.parquet": parquet(f[:0])}, "noted",
                "file without rows")  # fmt: skip
    yield files("a parquet file without columns", _beside("x.parquet", parquet_of(pa.table({}))),
                "refused", "lacks the column(s)")  # fmt: skip


def doubles() -> Iterator[Case]:
    """The same row, file or column more than once, or in some files only."""
    yield case("one row twice", lambda f: pd.concat([f, f[at(f)]]), "set aside",
               "identical duplicate")  # fmt: skip
    for column in ("close", "volume", "adj_factor", "market_cap", "turnover_rate"):
        yield case(f"one row twice with another {column}",
                   lambda f, c=column: pd.concat([f, f[at(f)].assign(**{c: f[c] * 1.002})]),
                   "refused", f"contradict each other: {column}=")  # fmt: skip
    yield case("one row twice with another industry",
               lambda f: pd.concat([f, f[at(f)].assign(industry="tea")]), "refused",
               "contradict each other: industry=")  # fmt: skip
    yield files("a whole file twice", lambda f: {"a.csv": csv(f), "a (1).csv": csv(f)}, "refused",
                "identical duplicate")  # fmt: skip
    yield files("two vendors' files in one folder",
                lambda f: {"a.csv": csv(f), "b.csv": csv(f.assign(open=f["open"] * 1.001))},
                "refused", "contradict each other")  # fmt: skip
    for column, words in (("adj_factor", "has no adjustment factor"),
                          ("turnover_rate", "has no column turnover_rate")):  # fmt: skip
        yield files(f"{column} in one of two files", _some_files(column), "refused", words)
    for column in ("industry", "market_cap"):
        yield files(f"{column} in one of two files", _some_files(column), "noted", column)
        yield files(f"{column} empty in one of two files", _some_empty(column), "noted", column)
    yield files("turnover_rate empty in one of two files", _some_empty("turnover_rate"), "refused",
                "has no column turnover_rate, or an empty one")  # fmt: skip
    yield files("the same, with a table of industries beside them",
                _with_industries(_some_empty("turnover_rate")), "refused",
                "has no column turnover_rate, or an empty one")  # fmt: skip
    yield case("neither turnover_rate nor market_cap",
               lambda f: f.drop(columns=["turnover_rate", "market_cap"]), "refused",
               "turnover_rate")  # fmt: skip
    yield case("only suspended rows", lambda f: f.assign(volume=0.0, amount=0.0), "refused",
               "no traded row is left")  # fmt: skip
    yield case("one row in all", lambda f: f[at(f)], "accepted", "a market of one stock and day")
    yield case("one stock", lambda f: f[f["code"] == CODES[0]], "accepted", "a market of one stock")
    yield case("one day", lambda f: f[f["date"] == DAY], "accepted", "a market of one day")
    yield case("nine bad rows: more than 1 %", _nine_bad, "refused", "would be set aside")


def cases() -> Iterator[Case]:
    """All of them."""
    yield from rubbish()
    yield from layouts()
    yield from headers()
    yield from doubles()


def _with_industries(make: Callable[[Frame], Files]) -> Callable[[Frame], Files]:
    def write(frame: Frame) -> Files:
        table = pd.DataFrame({"code": CODES, "industry": "bank"})
        return {**make(frame.drop(columns="industry")), "stock_basic.csv": csv(table)}

    return write


def _zip(frame: Frame) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("bars.csv", csv(frame))
    return sink.getvalue()


def _cut(make, share: float = 0.5):  # type: ignore[no-untyped-def]
    def cut(frame: Frame) -> bytes:
        data = make(frame)
        return data[: int(len(data) * share)]

    return cut


def _overwritten(frame: Frame) -> bytes:
    data = bytearray(parquet(frame))
    data[1000:1040] = b"\xff" * 40
    return bytes(data)


def _bad_byte(frame: Frame) -> bytes:
    return csv(frame).replace(b"coal", b"co\xffl", 1)


def _by_day(frame: Frame) -> Files:
    return {f"{day:%Y%m%d}.csv": csv(rows) for day, rows in frame.groupby("date")}


def _hive(frame: Frame) -> Files:
    return {
        f"date={day:%Y-%m-%d}/part-0.csv": csv(rows.drop(columns="date"))
        for day, rows in frame.groupby("date")
    }


def _twice(column: str):  # type: ignore[no-untyped-def]
    def write(frame: Frame) -> Files:
        return {"bars.csv": csv(pd.concat([frame, frame[[column]]], axis=1))}

    return write


def _titled(frame: Frame) -> Files:
    texts = {
        f"SH#{code[:6]}.txt": f"{code[:6]} bank\n{csv(rows, sep=chr(9)).decode()}数据来源:x\n"
        for code, rows in frame.groupby("code")
    }
    return {name: text.encode("gbk") for name, text in texts.items()}


def _titled_wrongly(frame: Frame) -> Files:
    titled = _titled(frame)
    name = next(iter(titled))
    text = titled[name].replace(b"600000 bank", b"600001 bank").replace(b"code", b"x", 1)
    return {**titled, name: text}


def _wide(frame: Frame, index: str, columns: str) -> Files:
    wide = frame.pivot_table(index=index, columns=columns, values="close")
    return {"close.csv": wide.to_csv(date_format="%Y-%m-%d").encode()}


def _header_again(text: str) -> str:
    lines = text.split("\n")
    return "\n".join([*lines[:50], lines[0], *lines[50:]])


def _units_line(text: str) -> str:
    header, rest = text.split("\n", 1)
    return f"{header}\n{','.join('unit' for _ in header.split(','))}\n{rest}"


def _line(change):  # type: ignore[no-untyped-def]
    """Change the tenth row."""

    def whole(text: str) -> str:
        lines = text.split("\n")
        return "\n".join([*lines[:10], change(lines[10]), *lines[11:]])

    return whole


def _pair(one: str, two: str, change=lambda f: f):  # type: ignore[no-untyped-def]
    """Two CSV files of two encodings, the second one changed; Chinese names of industries."""

    def write(frame: Frame) -> Files:
        early = frame["date"] < CUT
        frame = frame.assign(note="银行")
        texts = csv(frame[early]).decode(), csv(change(frame[~early])).decode()
        return {"a.csv": texts[0].encode(one), "b.csv": texts[1].encode(two)}

    return write


def _thousands(frame: Frame) -> Frame:
    return frame.assign(
        **{name: frame[name].map("{:,.4f}".format) for name in ("volume", "amount")}
    )


def _commas(frame: Frame) -> Frame:
    return frame.assign(close=frame["close"].map("{:.2f}".format).str.replace(".", ","))


def _some_empty(column: str):  # type: ignore[no-untyped-def]
    def write(frame: Frame) -> Files:
        return two_files(frame.assign(**{column: frame[column].where(frame["date"] < CUT)}))

    return write


def _some_files(column: str):  # type: ignore[no-untyped-def]
    def write(frame: Frame) -> Files:
        early = frame["date"] < CUT
        return {
            "a.parquet": parquet(frame[early].drop(columns=column)),
            "b.parquet": parquet(frame[~early]),
        }

    return write


def _nine_bad(frame: Frame) -> Frame:
    frame.loc[frame.index[: 9 + len(frame) // 960], "high"] = 0.01
    return frame
