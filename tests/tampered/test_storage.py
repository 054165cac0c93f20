"""Storages that somebody damaged: a job does as if nothing were, or names the file and the way out.

Never a traceback, never another result. Each case damages a copy of one small storage (panel,
models, factor table); then every score and report is asked for again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load, save

from gangru_dist.base.errors import GangruError
from gangru_dist.base.storage import Storage
from gangru_dist.scoring.reader import read_factor
from gangru_dist.scoring.table import FactorTable
from tests.scoring.market import RUN, make_world, run_of, score_here

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage that nobody damaged."""
    folder = tmp_path_factory.mktemp("whole")
    score_here(run_of(make_world(str(folder))))
    return folder


@pytest.fixture(scope="module")
def rows(whole: Path) -> pd.DataFrame:
    """Its factor."""
    return read_factor(str(whole), RUN)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "storage"))


def panel_file(folder: Path, bucket: int = 1, year: int = 2019) -> Path:
    (found,) = (folder / "panel" / f"bucket={bucket:02d}").glob(f"{year}-*.parquet")
    return found


def weights(folder: Path) -> Path:
    return min((folder / "runs" / RUN / "windows").rglob("model.safetensors"))


def record(folder: Path) -> Path:
    return weights(folder).with_name("model.json")


def log_file(folder: Path) -> Path:
    return max((folder / "runs" / RUN / "factor" / "_delta_log").glob("*.json"))


def data_file(folder: Path) -> Path:
    return min((folder / "runs" / RUN / "factor").rglob("month=*/*.parquet"))


def manifest(folder: Path) -> Path:
    return folder / "panel" / "manifest.json"


# what is done to a file
def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flipped(path: Path) -> None:
    """A byte in the first third: a page of a parquet file, a tensor of weights."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(bytes(data))


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content) and None


def edited(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """A parquet file with other rows, whole by the look of it."""

    def damage(path: Path) -> None:
        pq.write_table(change(pq.ParquetFile(path).read()), path)

    return damage


def doubled_close(rows: pa.Table) -> pa.Table:
    name = "close" if "close" in rows.column_names else "factor"
    doubled = pc.multiply(rows[name], pa.scalar(2, rows[name].type))
    return rows.set_column(rows.column_names.index(name), rows.field(name), doubled)


def key(name: str, value: Any = ...) -> Callable[[Path], None]:
    """A JSON file with a key replaced, or without it."""

    def damage(path: Path) -> None:
        values = json.loads(path.read_text())
        if value is ...:
            del values[name]
        else:
            values[name] = value(values[name]) if callable(value) else value
        path.write_text(json.dumps(values))

    return damage


def at(file: Callable[[Path], Path], damage: Callable[[Path], None]) -> Damage:
    return lambda folder: damage(file(folder))


def swapped(one: dict[str, int], other: dict[str, int]) -> Damage:
    """Two panel files, each under the other's name."""

    def damage(folder: Path) -> None:
        a, b = panel_file(folder, **one), panel_file(folder, **other)
        kept = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(kept)

    return damage


def with_hash(tensors: Callable[[dict[str, Any]], dict[str, Any]]) -> Damage:
    """Other weights, with the hash of them in model.json."""

    def damage(folder: Path) -> None:
        data = bytes(save(tensors(load(weights(folder).read_bytes()))))
        weights(folder).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        key("sha256", digest)(record(folder))
        key("model", digest[:12])(record(folder))

    return damage


def garbage(folder: Path) -> None:
    """No weights at all, with their hash in model.json."""
    data = b"\xff" * 64
    weights(folder).write_bytes(data)
    key("sha256", hashlib.sha256(data).hexdigest())(record(folder))
    key("model", hashlib.sha256(data).hexdigest()[:12])(record(folder))


PANEL_FILE: dict[str, Callable[[Path], None]] = {
    "removed": removed,
    "emptied": emptied,
    "halved": halved,
    "flipped": flipped,
    "text": text("no parquet"),
    "edited": edited(doubled_close),
    "one-row-less": edited(lambda rows: rows.slice(1)),
    "no-rows": edited(lambda rows: rows.slice(0, 0)),
    "column-less": edited(lambda rows: rows.drop_columns(["adj_close"])),
    "other-type": edited(lambda rows: rows.set_column(0, "date", rows["date"].cast(pa.string()))),
    "one-day-twice": edited(lambda rows: pa.concat_tables([rows, rows.slice(0, 1)])),
}
PANEL: dict[str, Damage] = {
    **{f"file-{name}": at(panel_file, damage) for name, damage in PANEL_FILE.items()},
    "buckets-swapped": swapped({"bucket": 1}, {"bucket": 2}),
    "years-swapped": swapped({"year": 2018}, {"year": 2019}),
}
MANIFEST: dict[str, Callable[[Path], None]] = {
    "emptied": emptied,
    "halved": halved,
    "list": text("[]"),
    "null": text("null"),
    "word": text('"panel"'),
    "number": text("1"),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00") and None,
    "deep": text("[" * 100_000),
    "digits": text("9" * 5_000),
    "version": key("version", "1"),
    "file-dropped": key("files", lambda files: files[1:]),
    "file-twice": key("files", lambda files: [*files, files[0]]),
    "file-elsewhere": key("files", lambda files: [["../../x", *files[0][1:]], *files[1:]]),
    "file-of-three": key("files", lambda files: [files[0][:3], *files[1:]]),
    "other-bucket": key(
        "files",
        lambda files: [[files[1][0], *files[0][1:]], [files[0][0], *files[1][1:]], *files[2:]],
    ),
    "other-rows": key(
        "files",
        lambda files: [
            [*files[0][:3], files[0][3] + 1],
            [*files[1][:3], files[1][3] - 1],
            *files[2:],
        ],
    ),
    "no-days": key("calendar", []),
    "days-back": key("calendar", lambda days: days[::-1]),
    "a-day-less": key("calendar", lambda days: days[1:]),
    "days-of-words": key("calendar", ["yesterday"]),
    "other-month": key("months", lambda months: dict.fromkeys(months, "0" * 64)),
    "months-null": key("months", None),
    "features-word": key("features", "close"),
    "features-swapped": key("features", lambda names: names[::-1]),
    "buckets-text": key("buckets", "4"),
    "folder": lambda path: path.unlink() or path.mkdir(),
    "delisted-more": key("delisted", {"600000.SH": "2019-03-01"}),
    "delisted-null": key("delisted", None),
    "facts-word": key("facts", "industry"),
    "incomplete-yes": key("incomplete", "2019-03-01"),
    "views-of-names": key("views", ["close"]),
    "buckets-more": key("buckets", 64),
    **{
        f"lacks-{name}": key(name)
        for name in ("version", "files", "calendar", "months", "features", "buckets", "rows")
    },
}
WEIGHTS: dict[str, Damage] = {
    "missing": at(weights, removed),
    "emptied": at(weights, emptied),
    "halved": at(weights, halved),
    "flipped": at(weights, flipped),
    "without-a-tensor": with_hash(lambda tensors: {}),
    "wrong-shapes": with_hash(lambda tensors: {name: torch.zeros(2, 3) for name in tensors}),
    "wrong-names": with_hash(lambda tensors: {f"x.{name}": t for name, t in tensors.items()}),
    "integers": with_hash(lambda tensors: {n: t.to(torch.int64) for n, t in tensors.items()}),
    "not-finite": with_hash(lambda tensors: {n: t * torch.nan for n, t in tensors.items()}),
    "garbage-behind-its-hash": garbage,
}


RECORD: dict[str, Callable[[Path], None]] = {
    "emptied": emptied,
    "halved": halved,
    "list": text("[]"),
    "null": text("null"),
    "deep": text("[" * 100_000),
    "digits": text('{"seed": ' + "9" * 5_000 + "}"),
    "lacks-sha256": key("sha256"),
    "architecture-list": key("architecture", []),
    "architecture-empty": key("architecture", {}),
    "architecture-huge": key("architecture", lambda a: a | {"features": -1}),
    "architecture-text": key("architecture", lambda a: a | {"features": "three"}),
    "architecture-gru": key("architecture", lambda a: a | {"gru": "none"}),
    "architecture-predictor": key("architecture", lambda a: a | {"predictor": "nobody's"}),
}
TABLE: dict[str, Damage] = {
    "log-missing": lambda folder: shutil.rmtree(log_file(folder).parent),
    "log-empty-folder": lambda folder: (
        [p.unlink() for p in log_file(folder).parent.iterdir()] and None
    ),
    "log-emptied": at(log_file, emptied),
    "log-halved": at(log_file, halved),
    "log-flipped": at(log_file, flipped),
    "log-words": at(log_file, text("no log")),
    "log-gap": lambda folder: (
        log_file(folder).rename(log_file(folder).with_name(f"{9:020d}.json")) and None
    ),
    "first-log-missing": lambda folder: min(log_file(folder).parent.glob("*.json")).unlink(),
    "file-missing": at(data_file, removed),
    "file-emptied": at(data_file, emptied),
    "file-halved": at(data_file, halved),
    "file-flipped": at(data_file, flipped),
    "file-column-less": at(data_file, edited(lambda rows: rows.drop_columns(["factor"]))),
    "file-other-type": at(
        data_file,
        edited(lambda rows: rows.set_column(0, "date", rows["date"].cast(pa.string()))),
    ),
    "file-no-rows": at(data_file, edited(lambda rows: rows.slice(0, 0))),
    "file-edited": at(data_file, edited(doubled_close)),
    "footer-list": at(data_file, edited(lambda rows: footer(rows, b"[[]]"))),
    "footer-null": at(data_file, edited(lambda rows: footer(rows, b"null"))),
    "footer-halved": at(data_file, edited(lambda rows: footer(rows, b'[{"date"'))),
    "footer-key": at(data_file, edited(lambda rows: footer(rows, b'[{"date": "2019-01-02"}]'))),
}


def footer(rows: pa.Table, content: bytes) -> pa.Table:
    return rows.replace_schema_metadata({b"gangru_dist.coverage": content})


CASES: dict[str, Damage] = {
    **{f"panel-{name}": damage for name, damage in PANEL.items()},
    **{f"manifest-{name}": at(manifest, damage) for name, damage in MANIFEST.items()},
    **{f"weights-{name}": damage for name, damage in WEIGHTS.items()},
    **{f"model-{name}": at(record, damage) for name, damage in RECORD.items()},
    **{f"factor-{name}": damage for name, damage in TABLE.items()},
}


def score_again(folder: Path) -> Any:
    """All days, whatever the table has; then its rows."""
    run = run_of(Storage(str(folder)))
    days = FactorTable(run.factor).read_coverage()
    score_here(run, **({"start": min(days), "end": max(days)} if days else {}))
    return read_factor(str(folder), RUN)


def score(folder: Path) -> Any:
    """What is not up to date."""
    score_here(run_of(Storage(str(folder))))
    return read_factor(str(folder), RUN)


def read(folder: Path) -> Any:
    FactorTable(run_of(Storage(str(folder))).factor).read_coverage()
    return read_factor(str(folder), RUN)


@pytest.mark.parametrize("job", [score_again, score, read])
@pytest.mark.parametrize("name", CASES)
def test_as_before_or_one_message(
    folder: Path, rows: pd.DataFrame, name: str, job: Callable[[Path], Any]
) -> None:
    CASES[name](folder)
    try:
        found = job(folder)
    except GangruError as error:
        says = str(error)
        assert "\n" not in says
        assert re.search(r"gangru \w+|run the job", says), says
        assert str(folder) in says or "windows/" in says, says
        assert len(says) < 1000, says
    else:
        pd.testing.assert_frame_equal(found, rows)
