"""Read Qlib's own folder: calendars/day.txt, instruments/all.txt, features/<code>/<field>.day.bin.

A field's file is little-endian float32: first the index of its first value in the calendar, then
one value per trading day, NaN where the stock was suspended. `D.features` shows a stock only within
its spans in instruments/all.txt, and so does this module. Source: qlib's scripts/dump_bin.py.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from gangru_dist.bars.files import BarsFile
from gangru_dist.base.errors import BarsError


def read_instrument(
    filesystem: pafs.FileSystem, file: BarsFile, wanted: Sequence[str]
) -> Iterator[pa.Table]:
    """The days of one instrument as one table.

    Raises:
        BarsError: A file's place in the calendar is none, or the instrument is not listed, or not
            with a first and a last day.
    """
    base = file.path.removesuffix(f"/{file.name}")
    calendar = _parse_calendar(_read_text(filesystem, f"{base}/calendars/day.txt"))
    listed = _parse_instruments(_read_text(filesystem, f"{base}/instruments/all.txt"))
    code, spans = _find_spans(listed, file)
    inside = np.zeros(len(calendar), dtype=bool)
    for first, last in spans:
        inside |= (calendar >= first) & (calendar <= last)
    values = {
        name: _read_field(filesystem, f"{file.path}/{name[1:]}.day.bin", file, len(calendar))
        for name in wanted
        if name.startswith("$")
    }
    there = inside & np.any([there for _, there in values.values()], axis=0)
    columns = {"date": pa.array(calendar[there], pa.date32())}
    columns["instrument"] = pa.repeat(pa.scalar(code), int(there.sum()))
    columns |= {name: pa.array(numbers[there]) for name, (numbers, _) in values.items()}
    yield pa.table({name: columns[name] for name in wanted})


@lru_cache(maxsize=2)
def _parse_calendar(text: str) -> np.ndarray:
    """(days,) datetime64[D] of calendars/day.txt."""
    try:
        lines = [_parse_day(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise BarsError(f"calendars/day.txt has a line that is no day: {error}.") from error
    days = np.array(lines, "datetime64[D]")
    if (np.diff(days.astype(np.int64)) <= 0).any():
        raise BarsError("calendars/day.txt is not in order, or has a day twice. Dump it again.")
    return days


@lru_cache(maxsize=2)
def _parse_instruments(text: str) -> dict[str, list[list[str]]]:
    """Folder's name -> the lines of instruments/all.txt: code, first day, last day."""
    result: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        if line.strip():
            fields = line.split("\t")
            result.setdefault(fields[0].lower(), []).append(fields)
    return result


def _find_spans(
    listed: Mapping[str, list[list[str]]], file: BarsFile
) -> tuple[str, list[tuple[dt.date, dt.date]]]:
    """The instrument's code as instruments/all.txt spells it, and its first and last days."""
    own = listed.get(file.name.rpartition("/")[2].lower(), [])
    if not own or any(len(line) != 3 for line in own):
        raise BarsError(
            f"{file.name} is not in instruments/all.txt as code, first and last day. Dump it "
            "again, or move the folder away."
        )
    spans = []
    for code, *days in own:
        try:
            first, last = map(_parse_day, days)
            if last < first:
                raise ValueError("the last day is earlier than the first")
        except ValueError as error:
            raise BarsError(
                f"instruments/all.txt has the line {' '.join([code, *days])!r}: it must give a "
                "code, its first day as 2019-01-02, and its last day, which is no earlier. Dump it "
                "again."
            ) from error
        spans.append((first, last))
    return own[0][0], spans


def _read_field(
    filesystem: pafs.FileSystem, path: str, file: BarsFile, days: int
) -> tuple[np.ndarray, np.ndarray]:
    """(days,) float64 values, NaN outside the file; and where the file has any."""
    with filesystem.open_input_file(path) as source:
        data = source.read()
    name = f"{file.name}/{path.rpartition('/')[2]}"
    raw = np.frombuffer(data[: len(data) // 4 * 4], dtype="<f4").astype(np.float64)
    start = raw[0] if len(raw) else np.nan
    if len(data) % 4 or not (start >= 0 and start == np.floor(start)):
        raise BarsError(
            f"{name} is not one of Qlib's files: it does not begin with a place in the calendar. "
            "Dump it again."
        )
    end = int(start) + len(raw) - 1
    if end > days:
        raise BarsError(
            f"{name} has values of {len(raw) - 1} days from day {int(start)} of the calendar on, "
            f"and calendars/day.txt ends after {days}. They come from different dumps."
        )
    values = np.full(days, np.nan)
    values[int(start) : end] = raw[1:]
    there = np.zeros(days, dtype=bool)
    there[int(start) : end] = True
    return values, there


def _parse_day(text: str) -> dt.date:
    """Day of 2018-12-28, 20181228 or either with a time behind; ValueError if it is none."""
    day = text.strip()[:10]
    return dt.date.fromisoformat(day[:8] if day[:8].isdigit() else day)


def _read_text(filesystem: pafs.FileSystem, path: str) -> str:
    with filesystem.open_input_file(path) as source:
        return bytes(source.read()).decode("utf-8-sig")
