"""The store gives back what was written, as rows and as a block, and hashes rows only."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.panel.block import block_columns, finish_block, scatter
from gangru_dist.panel.manifest import (
    Manifest,
    assign_buckets,
    locate_listings,
    panel_schema,
    read_manifest,
)
from gangru_dist.panel.store import (
    read_asset_names,
    read_block,
    read_files,
    read_rows,
    select_files,
)
from gangru_dist.panel.writer import hash_row_groups, make_manifest, write_bucket

FEATURES = ("close", "volume")
DAYS = pd.bdate_range("2018-11-20", "2019-01-31")


def make_rows(assets: int = 9, seed: int = 0) -> pa.Table:
    """Panel rows with holes: assets that miss days, unknown industries, unknown market caps."""
    rng = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product(
        [[f"{i:06d}.SZ" for i in range(assets)], DAYS], names=["asset", "date"]
    )
    frame = grid.to_frame(index=False)[rng.random(len(grid)) < 0.9].reset_index(drop=True)
    count = len(frame)
    industry = np.array(["bank", "coal", None], dtype=object)[rng.integers(0, 3, count)]
    frame = frame.assign(
        close=rng.random(count),
        volume=np.where(rng.random(count) < 0.1, np.nan, rng.random(count)),
        is_st=rng.random(count) < 0.1,
        list_date=pd.Timestamp("2018-11-05"),
        adj_close=rng.random(count),
        market_cap=np.where(rng.random(count) < 0.1, np.nan, rng.random(count)),
        industry=industry,
        limit_up=rng.random(count) < 0.1,
        limit_down=rng.random(count) < 0.1,
    )
    schema = panel_schema(FEATURES)
    return pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)


def build(
    root: Storage, rows: pa.Table, buckets: int = 4, days: pd.DatetimeIndex = DAYS
) -> Manifest:
    """A whole panel store of these rows."""
    panel = root.child("panel")
    bucket = assign_buckets(rows["asset"].to_pylist(), buckets)
    written = []
    for number in range(buckets):
        part = rows.filter(pa.array(bucket == number))
        if len(part):
            written.append(write_bucket(panel, number, buckets, part))
    calendar = np.array(days, dtype="datetime64[D]")
    manifest = make_manifest(
        written, features=FEATURES, buckets=buckets, calendar=calendar, source={}
    )
    panel.write_json("manifest.json", manifest.to_json())
    return manifest


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


class TestReference:
    def test_rows_come_back(self, root: Storage) -> None:
        rows = make_rows()
        manifest = build(root, rows)
        found = read_rows(
            root, manifest, start=DAYS[0].date(), end=DAYS[-1].date(), columns=rows.column_names
        )
        order = ["asset", "date"]
        pd.testing.assert_frame_equal(
            found.to_pandas().astype({"asset": "str", "industry": "object"})
            .sort_values(order, ignore_index=True),
            rows.to_pandas().astype({"asset": "str", "industry": "object"})
            .sort_values(order, ignore_index=True),
        )  # fmt: skip

    @pytest.mark.parametrize("buckets", [None, [1, 3]])
    def test_block_matches_a_pandas_pivot(self, root: Storage, buckets: list[int] | None) -> None:
        rows = make_rows()
        manifest = build(root, rows)
        start, end = dt.date(2018, 12, 3), dt.date(2019, 1, 15)
        block = read_block(root, manifest, start=start, end=end, buckets=buckets, trading=True)
        frame = rows.to_pandas()
        frame["date"] = pd.to_datetime(frame["date"])
        if buckets is not None:
            frame = frame[np.isin(assign_buckets(frame["asset"].to_numpy(), 4), buckets)]
        frame = frame[frame["date"].between(str(start), str(end))]
        days = DAYS[(str(start) <= DAYS) & (str(end) >= DAYS)]

        def pivot(column: str) -> np.ndarray:
            wide = frame.pivot_table(
                index="date", columns="asset", values=column, dropna=False, observed=False
            )
            return wide.reindex(index=days, columns=block.assets).to_numpy()

        assert (
            block.dates.astype("datetime64[ns]").tolist() == days.astype("int64").tolist()
            or (block.dates == days.to_numpy().astype("datetime64[D]")).all()
        )
        assert block.assets.tolist() == sorted(set(frame["asset"]))
        for index, name in enumerate(FEATURES):
            np.testing.assert_array_equal(block.features[..., index], pivot(name))
        np.testing.assert_array_equal(block.adj_close, pivot("adj_close"))
        np.testing.assert_array_equal(block.market_cap, pivot("market_cap"))
        np.testing.assert_array_equal(block.traded, ~np.isnan(pivot("adj_close")))
        for name in ("is_st", "limit_up", "limit_down"):
            expected = np.nan_to_num(pivot(name).astype(float), nan=0.0).astype(bool)
            np.testing.assert_array_equal(getattr(block, name), expected)
        assert block.industries == ("bank", "coal")
        known = frame.dropna(subset="industry")
        for date, asset, name in known[["date", "asset", "industry"]].itertuples(index=False):
            code = block.industry[days.get_loc(date), block.assets.tolist().index(asset)]
            assert block.industries[code] == name
        assert (block.industry >= 0).sum() == len(known)

    @pytest.mark.parametrize("gone", [0, 4, 8], ids=["first", "middle", "last"])
    def test_span_without_an_asset_of_its_file(self, root: Storage, gone: int) -> None:
        """The year's file names an asset that has no row between the days asked for."""
        rows, name = make_rows(), f"{gone:06d}.SZ"
        start, end = dt.date(2018, 12, 3), dt.date(2018, 12, 14)
        absent = pa.compute.and_(
            pa.compute.equal(rows["asset"].cast(pa.string()), name),
            pa.compute.greater(rows["date"], pa.scalar(dt.date(2018, 11, 30))),
        )
        rows = rows.filter(pa.compute.invert(absent))
        manifest = build(root, rows, buckets=1)
        block = read_block(root, manifest, start=start, end=end)
        frame = rows.to_pandas().astype({"asset": "str"})
        frame = frame[pd.to_datetime(frame["date"]).between(str(start), str(end))]
        assert (
            block.assets.tolist()
            == sorted(set(frame["asset"]))
            == sorted(f"{i:06d}.SZ" for i in range(9) if i != gone)
        )
        wide = frame.pivot_table(index="date", columns="asset", values="close")
        np.testing.assert_array_equal(block.features[..., 0], wide.to_numpy())
        assert block.traded.sum() == len(frame)

    def test_asset_names_are_those_with_a_row_in_the_span(self, root: Storage) -> None:
        rows = make_rows()
        manifest = build(root, rows)
        for start, end in ((DAYS[3], DAYS[3]), (DAYS[0], DAYS[-1])):
            files = select_files(manifest, start.date(), end.date())
            found = read_asset_names(root, files, start.date(), end.date())
            frame = rows.to_pandas()
            inside = pd.to_datetime(frame["date"]).between(start, end)
            assert found.tolist() == sorted(set(frame["asset"][inside]))
            assert found.dtype.kind == "U"
        assert read_asset_names(root, [], DAYS[0].date(), DAYS[0].date()).tolist() == []

    def test_files_are_read_one_by_one_and_cut_to_the_days(self, root: Storage) -> None:
        rows = make_rows()
        manifest = build(root, rows)
        start, end = dt.date(2018, 12, 28), dt.date(2019, 1, 2)
        files = select_files(manifest, start, end)
        assert {file.year for file in files} == {2018, 2019}
        tables = list(read_files(root, files, start, end, ("close", "asset")))
        assert len(tables) == len(files)
        assert all(table.column_names == ["close", "asset"] for table in tables)
        dates = pd.to_datetime(rows["date"].to_pandas())
        expected = rows.to_pandas()[dates.between(str(start), str(end))]
        found = pd.concat([table.to_pandas().astype({"asset": "str"}) for table in tables])
        assert sorted(found["close"]) == sorted(expected["close"])

    def test_files_without_a_row_in_the_days_give_no_table(self, root: Storage) -> None:
        rows = make_rows(assets=1)
        manifest = build(root, rows)
        there = {day.date() for day in pd.to_datetime(rows["date"].to_pandas())}
        day = next(day.date() for day in DAYS if day.date() not in there)
        assert len(select_files(manifest, day, day)) == 1
        assert list(read_files(root, manifest.files, day, day, ("asset",))) == []

    def test_listed_days_count_trading_days(self) -> None:
        calendar = np.array(["2019-01-02", "2019-01-03", "2019-01-07"], dtype="datetime64[D]")
        listed = np.array(
            ["2019-01-03", "2019-01-04", "2018-12-31", "2018-12-28", "2019-02-01", "NaT"],
            dtype="datetime64[D]",
        )
        np.testing.assert_array_equal(locate_listings(calendar, listed), [1, 2, -2, -3, 3, 3])


class TestProperties:
    def test_scatter_does_not_see_the_order_of_rows(self) -> None:
        rows = make_rows()
        calendar = np.array(DAYS, dtype="datetime64[D]")
        assets = np.array(sorted(set(rows["asset"].to_pylist())))
        columns = block_columns(FEATURES, trading=True)
        shuffled = rows.take(np.random.default_rng(1).permutation(len(rows))).select(columns)
        blocks = [
            finish_block(
                scatter(
                    tables,
                    calendar=calendar,
                    dates=calendar,
                    assets=assets,
                    features=FEATURES,
                    trading=True,
                ),
                {},
            )
            for tables in ([rows.select(columns)], [shuffled[:100], shuffled[100:]])
        ]
        for name in ("features", "traded", "listed_days", "industry", "market_cap", "limit_up"):
            np.testing.assert_array_equal(getattr(blocks[0], name), getattr(blocks[1], name))

    def test_no_features_gives_an_empty_last_axis(self, root: Storage) -> None:
        manifest = build(root, make_rows())
        block = read_block(
            root, manifest, start=dt.date(2018, 12, 3), end=dt.date(2018, 12, 7), features=()
        )
        assert block.features.shape == (5, len(block.assets), 0)
        assert block.market_cap.shape == (5, 0)

    def test_buckets_and_features_in_any_order(self, root: Storage) -> None:
        manifest = build(root, make_rows())
        start, end = DAYS[0].date(), DAYS[-1].date()
        block = read_block(root, manifest, start=start, end=end, features=("volume", "close"))
        same = read_block(root, manifest, start=start, end=end)
        np.testing.assert_array_equal(block.features[..., ::-1], same.features)

    def test_hashes_depend_on_the_rows_only(self, tmp_path: Path) -> None:
        rows = make_rows()
        one = build(Storage(str(tmp_path / "a")), rows, buckets=1)
        many = build(Storage(str(tmp_path / "b")), rows, buckets=7)
        other = build(Storage(str(tmp_path / "c")), make_rows(seed=1), buckets=7)
        assert one.fingerprint == many.fingerprint != other.fingerprint

    def test_one_changed_value_changes_its_month_only(self) -> None:
        rows = make_rows()
        frame = rows.to_pandas()
        frame.loc[5, "close"] += 1e-3
        changed = pa.Table.from_pandas(frame, schema=rows.schema, preserve_index=False)
        before, after = hash_row_groups(rows), hash_row_groups(changed)
        assert {key for key in before if before[key] != after[key]} == {
            (frame.loc[5, "asset"], f"{frame.loc[5, 'date']:%Y-%m}")
        }

    def test_later_rows_leave_the_fingerprint_of_earlier_days(self, tmp_path: Path) -> None:
        rows = make_rows()
        before = pa.compute.less(rows["date"], pa.scalar(dt.date(2019, 1, 1)))
        days = DAYS[DAYS < "2019-01-01"]
        short = build(Storage(str(tmp_path / "a")), rows.filter(before), days=days)
        whole = build(Storage(str(tmp_path / "b")), rows)
        day = dt.date(2018, 12, 28)
        assert short.fingerprint_to(day) == whole.fingerprint_to(day) == short.fingerprint
        assert short.fingerprint != whole.fingerprint

    def test_buckets_are_the_same_in_another_process(self) -> None:
        names = [f"{i:06d}.SH" for i in range(50)]
        code = (
            "from gangru_dist.panel.manifest import assign_buckets;"
            "print(assign_buckets([f'{i:06d}.SH' for i in range(50)], 64).tolist())"
        )
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == str(assign_buckets(names, 64).tolist())
        assert set(assign_buckets([f"{i:06d}" for i in range(3000)], 64)) == set(range(64))

    def test_a_manifest_survives_json(self, root: Storage) -> None:
        manifest = build(root, make_rows())
        again = read_manifest(root)
        assert again.to_json() == manifest.to_json()


class TestValidation:
    def test_no_panel(self, root: Storage) -> None:
        with pytest.raises(PanelError, match=r"no finished panel at .*`?gangru panel --bars"):
            read_manifest(root)

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            (b"{", "not JSON"),
            (b'{"version": 0}', "version 0"),
            (b"{}", "version: field required"),
            (b'{"version": 1}', "features: field"),
        ],
    )
    def test_damaged_manifest(self, root: Storage, text: bytes, match: str) -> None:
        root.child("panel").write_bytes("manifest.json", text)
        with pytest.raises(PanelError, match=match):
            read_manifest(root)

    def test_unknown_feature_names_those_there_are(self, root: Storage) -> None:
        manifest = build(root, make_rows())
        day = DAYS[0].date()
        with pytest.raises(PanelError, match=r"lacks the feature.s. volumes; it holds .*volume"):
            read_block(root, manifest, start=day, end=day, features=("volumes",))

    def test_span_without_a_trading_day(self, root: Storage) -> None:
        manifest = build(root, make_rows())
        day = dt.date(2019, 1, 26)
        with pytest.raises(PanelError, match="no trading day from 2019-01-26"):
            read_block(root, manifest, start=day, end=day)

    def test_listed_file_is_gone(self, root: Storage) -> None:
        manifest = build(root, make_rows())
        root.child("panel").delete(manifest.files[0].name)
        with pytest.raises(
            PanelError, match=r"cannot be read: .* run the job again; .*--overwrite"
        ):
            read_block(root, manifest, start=DAYS[0].date(), end=DAYS[-1].date())

    def test_unknown_bucket(self, root: Storage) -> None:
        manifest = build(root, make_rows())
        with pytest.raises(PanelError, match=r"buckets \[4\] do not exist; the panel has 4"):
            read_block(root, manifest, start=DAYS[0].date(), end=DAYS[0].date(), buckets=[4])
