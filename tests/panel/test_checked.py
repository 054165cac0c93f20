"""What is read is what was written: the panel's files, also of versions that wrote fewer hashes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.panel.block import MOST_INDUSTRIES, scatter
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import MANIFEST, Manifest, PanelFile, panel_schema, read_manifest
from gangru_dist.panel.store import read_block, read_rows
from tests.made_bars import DAYS, make_bars, write

CFG = RunConfig(
    bars=BarsConfig(price_limits="ashare"), panel=PanelConfig(features=("close",), buckets=3)
)


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    write(tmp_path / "bars", make_bars())
    root = Storage(str(tmp_path / "storage"))
    build(root, tmp_path)
    return root


def build(root: Storage, folder: Path, *, overwrite: bool = False) -> Manifest:
    return build_panel(str(folder / "bars"), root, CFG, overwrite=overwrite, runner=map_here)


def rows_of(root: Storage) -> pd.DataFrame:
    manifest = read_manifest(root)
    names = panel_schema(manifest.features).names
    days = {"start": DAYS[0].date(), "end": DAYS[-1].date()}
    return read_rows(root, manifest, columns=names, **days).to_pandas()


def as_before(root: Storage) -> None:
    """The panel as versions up to 0d2b8c2 wrote it."""
    panel = root.child("panel")
    manifest = read_manifest(root)
    old = []
    for file in manifest.files:
        folder, _, name = file.name.partition("/")
        year, rows, _ = name.split("-")
        old.append(file._replace(name=f"{folder}/{year}-{rows}.parquet"))
        panel.write_bytes(old[-1].name, panel.read_bytes(file.name))
        panel.delete(file.name)
    values: dict[str, Any] = dataclasses.replace(manifest, files=tuple(old)).to_json()
    del values["checksum"]
    del values["source"]["rows_version"], values["source"]["users_code"]
    values["source"] |= {"rows_code": "of another version"}
    panel.write_json(MANIFEST, values)


def edit(path: str) -> None:
    """Another price in the last row; the file is whole by the look of it."""
    rows = pq.ParquetFile(path).read()
    values = rows["close"].to_pylist()
    values[-1] *= 1.01
    pq.write_table(rows.set_column(2, rows.field("close"), pa.array(values, pa.float32())), path)


class TestEarlierVersions:
    def test_their_panels_are_read(self, root: Storage) -> None:
        new = rows_of(root)
        as_before(root)
        assert {file.digest for file in read_manifest(root).files} == {None}
        pd.testing.assert_frame_equal(rows_of(root), new)

    def test_and_checked(self, root: Storage) -> None:
        as_before(root)
        file = read_manifest(root).files[1]
        edit(root.child("panel").full_path(file.name))
        with pytest.raises(PanelError, match=rf"{file.name} is damaged: its rows are not those"):
            rows_of(root)

    def test_the_next_build_brings_them_up_to_date(self, root: Storage, tmp_path: Path) -> None:
        before = read_manifest(root)
        as_before(root)
        again = build(root, tmp_path)
        assert again.to_json() == before.to_json()
        assert again.rewritten == {}
        assert all(file.digest for file in again.files)


class TestMended:
    def test_overwrite_writes_the_damaged_file_again(self, root: Storage, tmp_path: Path) -> None:
        whole, manifest = rows_of(root), read_manifest(root)
        edit(root.child("panel").full_path(manifest.files[0].name))
        with pytest.raises(PanelError, match="its bytes are not those that were written"):
            rows_of(root)
        again = build(root, tmp_path, overwrite=True)
        assert again.to_json() == manifest.to_json()  # so no score is outdated
        pd.testing.assert_frame_equal(rows_of(root), whole)

    def test_an_appended_day_does_not_hide_the_damage(self, root: Storage, tmp_path: Path) -> None:
        file = next(file for file in read_manifest(root).files if file.year == 2018)
        edit(root.child("panel").full_path(file.name))
        frame = make_bars()
        extra = frame[frame["date"] == frame["date"].max()]
        extra.assign(date=extra["date"] + pd.Timedelta(days=1)).to_parquet(
            tmp_path / "bars" / "more.parquet"
        )
        build(root, tmp_path)
        with pytest.raises(PanelError, match=rf"{file.name} is damaged"):
            rows_of(root)


def test_names_of_assets_that_a_checked_file_lacks(root: Storage) -> None:
    """The first pass over the files believes them; the second does not."""
    manifest = read_manifest(root)
    path = root.child("panel").full_path(manifest.files[0].name)
    pq.write_table(pq.ParquetFile(path).read().slice(0, 3), path)
    days = {"start": DAYS[0].date(), "end": DAYS[-1].date()}
    with pytest.raises(PanelError, match=r"is damaged: its bytes .* .gangru panel --overwrite"):
        read_block(root, manifest, **days)


def test_more_industries_than_codes() -> None:
    count = MOST_INDUSTRIES + 1
    assets = [f"{n:06d}" for n in range(count)]
    day = pd.Timestamp("2019-01-02").date()
    columns = {
        "date": [day] * count,
        "asset": assets,
        "is_st": [False] * count,
        "is_delisting": [False] * count,
        "list_date": [day] * count,
        "adj_close": [1.0] * count,
        "market_cap": [1.0] * count,
        "industry": [f"i{n}" for n in range(count)],
        "limit_up": [False] * count,
        "limit_down": [False] * count,
    }
    rows = pa.table(columns, schema=panel_schema(()))
    calendar = pd.DatetimeIndex([day]).to_numpy().astype("datetime64[D]")
    match = r"names more than 32767 industries, e.g. 'i0': .*bars.columns.industry"
    with pytest.raises(PanelError, match=match):
        scatter(
            [rows],
            calendar=calendar,
            dates=calendar,
            assets=rows["asset"].to_numpy().astype(str),
            features=(),
            trading=True,
        )


@pytest.mark.parametrize("name", ["../x", "bucket=0/x", "bucket=00/2018-zz.parquet", "x" * 9])
def test_a_file_of_another_name_is_none_of_a_panel(root: Storage, name: str) -> None:
    panel = root.child("panel")
    values = json.loads(panel.read_bytes(MANIFEST))
    values["files"][0][0] = name
    panel.write_json(MANIFEST, values)
    with pytest.raises(PanelError, match="files are not one per bucket and year"):
        read_manifest(root)
    assert not PanelFile(name=name, bucket=0, year=2018, rows=1).is_named_so(3)
