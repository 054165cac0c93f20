"""The Delta table: whole days, no duplicates, whoever writes when; and what readers get."""

import datetime as dt
import os
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from gangru_dist.base.errors import FactorError
from gangru_dist.base.storage import Storage
from gangru_dist.panel.block import PanelBlock
from gangru_dist.runs.run import run_folder
from gangru_dist.runs.summaries import DayCoverage
from gangru_dist.scoring import table
from gangru_dist.scoring.files import write_file
from gangru_dist.scoring.reader import read_factor, to_alphalens
from gangru_dist.scoring.table import FactorTable

ASSETS = ["000001.SZ", "600000.SH", "688001.SH"]


@pytest.fixture
def root(tmp_path):
    return Storage(str(tmp_path))


@pytest.fixture
def factor(root):
    return run_folder(root, "r").child("factor")


def days_between(first, last):
    return [day.date() for day in pd.bdate_range(first, last)]


def rows_of(days, model, assets=ASSETS):
    values = [
        zlib.crc32(f"{day} {asset} {model}".encode()) % 997 / 997
        for day in days
        for asset in assets
    ]
    return pa.table(
        {
            "date": pa.array([day for day in days for _ in assets], pa.date32()),
            "asset": assets * len(days),
            "score": pa.array(values, pa.float32()),
            "factor": pa.array([None if v > 0.7 else v for v in values], pa.float64()),
            "quantile": pa.array([1] * len(values), pa.int16()),
            "window": ["2018-12-28"] * len(values),
            "model": [model] * len(values),
        }
    )


def write(factor, first, last, model="m1", basis="b"):
    """One file a month, as scoring does."""
    months = {}
    for day in days_between(first, last):
        months.setdefault(f"{day:%Y-%m}", []).append(day)
    return [
        write_file(
            factor,
            rows_of(days, model),
            [
                DayCoverage(date=str(d), window="2018-12-28", model=model, basis=basis, universe=3)
                for d in days
            ],
        )
        for days in months.values()
    ]


def content(root):
    return read_factor(root.uri, "r")[["date", "asset", "model"]]


def by_pandas(path, version):
    return DeltaTable(path, version=version).to_pandas()


def by_polars(path, version):
    return polars.scan_delta(path, version=version).collect().to_pandas()


def by_duckdb(path, version):
    factor = DeltaTable(path, version=version).to_pyarrow_dataset()
    with duckdb.connect() as connection:
        connection.register("factor", factor)
        return connection.sql("SELECT date, asset, model FROM factor").df()


def in_order(read):
    def rows(path, version):
        frame = read(path, version)[["date", "asset", "model"]]
        frame["date"] = pd.to_datetime(frame["date"])
        return frame.sort_values(["date", "asset"], ignore_index=True)

    return rows


READERS = {
    name: in_order(read)
    for name, read in (("pandas", by_pandas), ("polars", by_polars), ("duckdb", by_duckdb))
}


class TestReference:
    def test_reads_back_what_was_written_sorted(self, root, factor):
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-03-15"))
        got = read_factor(root.uri, "r")
        expected = rows_of(days_between("2019-01-02", "2019-03-15"), "m1").to_pandas()
        expected["date"] = pd.to_datetime(expected["date"])
        pd.testing.assert_frame_equal(got, expected, check_dtype=False)
        assert list(got.columns) == [
            "date", "asset", "score", "factor", "quantile", "window", "model",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("start", "end"),
        [("2019-01-10", "2019-02-05"), ("2019-02-01", None), (None, "2019-01-31"), (None, None)],
    )
    def test_reads_the_days_asked_for(self, root, factor, start, end):
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-03-15"))
        bounds = [None if day is None else dt.date.fromisoformat(day) for day in (start, end)]
        got = read_factor(root.uri, "r", *bounds)["date"].dt.date.unique()
        everything = days_between("2019-01-02", "2019-03-15")
        low, high = bounds[0] or everything[0], bounds[1] or everything[-1]
        assert list(got) == [day for day in everything if low <= day <= high]

    def test_other_readers_see_the_same(self, root, factor):
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-02-15"))
        FactorTable(factor).commit(write(factor, "2019-02-11", "2019-02-12", model="m2"))
        ours = read_factor(root.uri, "r")
        theirs = polars.scan_delta(factor.path).sort("date", "asset").collect()
        assert theirs["score"].to_list() == ours["score"].tolist()
        by_delta = DeltaTable(factor.path).to_pandas()
        assert len(by_delta) == len(ours)

    @pytest.mark.parametrize("reader", ["pandas", "polars", "duckdb"])
    def test_readers_read_it_as_it_was(self, root, factor, reader):
        first = FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-10"))
        FactorTable(factor).commit(write(factor, "2019-01-08", "2019-01-20", model="m2"))
        ours = read_factor(root.uri, "r", as_of=first)
        pd.testing.assert_frame_equal(
            READERS[reader](factor.path, first).reset_index(drop=True),
            ours[["date", "asset", "model"]],
            check_dtype=False,
        )

    def test_alphalens_inputs(self, root, factor):
        days = days_between("2019-01-02", "2019-01-08")
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-08"))
        frame = read_factor(root.uri, "r")
        shape = (len(days), 3)
        industry = np.arange(15, dtype=np.int16).reshape(shape) % 3 - 1
        block = PanelBlock(
            dates=np.array(days, dtype="datetime64[D]"),
            assets=np.array(ASSETS),
            feature_names=(),
            features=np.empty((*shape, 0), dtype=np.float32),
            traded=np.ones(shape, dtype=bool),
            is_st=np.zeros(shape, dtype=bool),
            listed_days=np.zeros(shape, dtype=np.int32),
            adj_close=np.arange(15.0).reshape(shape),
            market_cap=np.ones(shape),
            industry=industry,
            industries=("banks", "mines"),
            limit_up=np.zeros(shape, dtype=bool),
            limit_down=np.zeros(shape, dtype=bool),
        )
        series, prices, groups = to_alphalens(frame, block)
        known = frame.dropna(subset=["factor"])
        assert series.index.names == ["date", "asset"]
        assert len(series) == len(known) < len(frame)
        for (date, asset), value in series.items():
            day, column = days.index(date.date()), ASSETS.index(asset)
            row = known[(known["date"] == date) & (known["asset"] == asset)]
            assert value == row["factor"].item()
            assert prices.loc[date, asset] == 3 * day + column
            name = {-1: "unknown", 0: "banks", 1: "mines"}[industry[day, column]]
            assert groups[(date, asset)] == name
        late = frame.assign(date=frame["date"] + pd.DateOffset(days=7))
        with pytest.raises(FactorError, match=r"outside the block of .*, first 2019-"):
            to_alphalens(late, block)


class TestProperties:
    def test_written_files_are_invisible_until_the_commit(self, root, factor):
        files = write(factor, "2019-01-02", "2019-01-10")
        assert FactorTable(factor).read_coverage() == {}
        FactorTable(factor).commit(files)
        before = content(root)
        write(factor, "2019-01-11", "2019-02-10")  # a job killed before its commit
        pd.testing.assert_frame_equal(content(root), before)

    def test_rescored_days_are_replaced_and_the_others_kept(self, root, factor):
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-02-28"))
        FactorTable(factor).commit(write(factor, "2019-01-30", "2019-02-04", model="m2"))
        got = content(root)
        assert not got.duplicated(["date", "asset"]).any()
        again = set(days_between("2019-01-30", "2019-02-04"))
        by_day = got.groupby(got["date"].dt.date)["model"].agg(set)
        assert {day: next(iter(models)) for day, models in by_day.items()} == {
            day: "m2" if day in again else "m1" for day in days_between("2019-01-02", "2019-02-28")
        }
        assert {day: info.model for day, info in FactorTable(factor).read_coverage().items()} == {
            day: next(iter(models)) for day, models in by_day.items()
        }

    def test_a_month_stays_one_file(self, factor):
        for day in days_between("2019-01-02", "2019-01-10"):
            FactorTable(factor).commit(write(factor, day, day))
        assert [len(paths) for paths in FactorTable(factor).list_files().values()] == [1]
        assert len(factor.list_files("month=2019-01")) == 7  # one a version, no unmerged ones

    def test_doing_it_twice_changes_nothing(self, root, factor):
        for _ in range(2):
            FactorTable(factor).commit(write(factor, "2019-01-02", "2019-02-28"))
        assert len(read_factor(root.uri, "r")) == 3 * len(days_between("2019-01-02", "2019-02-28"))

    def test_a_day_without_rows_is_covered(self, root, factor):
        empty = rows_of([], "m1")
        day = DayCoverage(date="2019-05-06", window="w", model="m1", basis="b")
        FactorTable(factor).commit([write_file(factor, empty, [day])])
        assert FactorTable(factor).read_coverage() == {dt.date(2019, 5, 6): day}
        assert read_factor(root.uri, "r").empty
        FactorTable(factor).commit(write(factor, "2019-05-07", "2019-05-07"))
        assert set(FactorTable(factor).read_coverage()) == {
            dt.date(2019, 5, 6),
            dt.date(2019, 5, 7),
        }

    def test_reads_the_table_as_it_was(self, root, factor):
        first = FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-10"))
        time.sleep(0.01)
        between = dt.datetime.now(dt.UTC)
        time.sleep(0.01)
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-20", model="m2"))
        for as_of in (first, between):
            assert set(read_factor(root.uri, "r", as_of=as_of)["model"]) == {"m1"}
        assert set(read_factor(root.uri, "r")["model"]) == {"m2"}

    def test_days_of_files_that_another_tool_rewrote_are_stale(self, root, factor):
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-04"))
        before = read_factor(root.uri, "r")
        rows = pa.Table.from_pandas(before.assign(month="2019-01"), preserve_index=False)
        from deltalake import write_deltalake

        rows = rows.set_column(0, "date", rows["date"].cast(pa.date32()))
        write_deltalake(factor.path, rows, mode="overwrite")
        found = FactorTable(factor).read_coverage()
        assert sorted(found) == days_between("2019-01-02", "2019-01-04")
        assert {info.basis for info in found.values()} == {""}
        FactorTable(factor).commit(write(factor, "2019-01-03", "2019-01-03", model="m2"))
        assert len(read_factor(root.uri, "r")) == len(before)

    def test_racing_jobs_lose_and_double_nothing(self, root, factor):
        barrier = threading.Barrier(4)

        def job(number):
            own = Storage(root.uri).child("runs", "r", "factor")
            barrier.wait()
            for step in range(3):
                first = dt.date(2019, 1, 2 + 7 * number)  # overlaps the next job's days
                last = first + dt.timedelta(days=13 + step)
                FactorTable(own).commit(write(own, first, last, model=f"m{number}"))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(job, range(4)))
        got = content(root)
        assert not got.duplicated(["date", "asset"]).any()
        expected = days_between("2019-01-02", "2019-02-07")
        assert sorted(set(got["date"].dt.date)) == expected
        assert got.groupby("date")["model"].nunique().max() == 1  # whole days of one job
        # two jobs may both create the table: the second creation is a version without rows
        done = [entry["operation"] for entry in FactorTable(factor).require().history()]
        assert len([name for name in done if name != "CREATE TABLE"]) == 12

    def test_readers_see_whole_commits_only(self, root, factor):
        """Three readers read without pause while days are scored again and again."""
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-02-28", model="m0"))
        days = len(days_between("2019-01-02", "2019-02-28"))
        done, seen = threading.Event(), {name: [] for name in READERS}

        def read(name):
            while not done.is_set():
                seen[name].append(READERS[name](factor.path, None))

        with ThreadPoolExecutor(len(READERS)) as pool:
            found = [pool.submit(read, name) for name in READERS]
            for number in range(1, 9):
                FactorTable(factor).commit(
                    write(factor, "2019-01-02", "2019-02-28", model=f"m{number}")
                )
            done.set()
            for future in found:
                future.result()
        for name, frames in seen.items():
            assert frames, name
            for frame in frames:
                assert len(frame) == days * len(ASSETS)
                assert not frame.duplicated(["date", "asset"]).any()
                assert len(set(frame["model"])) == 1

    def test_a_lost_answer_is_not_committed_twice(self, root, factor, monkeypatch):
        real, calls = DeltaTable.create_write_transaction, []

        def landed_but_lost(self, *args, **kwargs):
            real(self, *args, **kwargs)
            calls.append(1)
            raise OSError("connection reset")

        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-04"))
        monkeypatch.setattr(DeltaTable, "create_write_transaction", landed_but_lost)
        version = FactorTable(factor).commit(write(factor, "2019-01-03", "2019-01-08", model="m2"))
        assert len(calls) == 1
        assert version == 2
        assert not content(root).duplicated(["date", "asset"]).any()

    def test_a_store_that_fails_for_good_leaves_the_table_as_it_was(
        self, root, factor, monkeypatch
    ):
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-04"))
        before = content(root)

        def broken(self, *args, **kwargs):
            raise OSError("no space left")

        monkeypatch.setattr(table, "LONGEST_PAUSE_S", 0.0)
        monkeypatch.setattr(DeltaTable, "create_write_transaction", broken)
        with pytest.raises(FactorError, match=r"is unchanged.*no space left"):
            FactorTable(factor).commit(write(factor, "2019-01-03", "2019-01-08", model="m2"))
        pd.testing.assert_frame_equal(content(root), before)

    def test_a_file_that_cannot_be_read_at_once_keeps_its_days(self, root, factor, monkeypatch):
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-04"))
        real, failures = table.read_days, [OSError(5, "input/output error")]

        def read(*where):
            if failures:
                raise failures.pop()
            return real(*where)

        monkeypatch.setattr(table, "read_days", read)
        FactorTable(factor).commit(write(factor, "2019-01-07", "2019-01-08", model="m2"))
        assert not failures
        days = days_between("2019-01-02", "2019-01-08")
        assert sorted(FactorTable(factor).read_coverage()) == days
        assert sorted(set(read_factor(root.uri, "r")["date"].dt.date)) == days

    def test_log_is_checkpointed(self, factor):
        for _ in range(11):
            FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-02"))
        assert "_delta_log/_last_checkpoint" in factor.list_files("_delta_log")

    def test_vacuum_spares_what_is_young_or_listed(self, root, factor):
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-31"))
        write(factor, "2019-02-01", "2019-02-20")  # of a job that is running, or was killed
        assert FactorTable(factor).vacuum() == []
        assert len(FactorTable(factor).vacuum(retention_hours=0)) == 1
        assert len(factor.list_files("month=2019-02")) == 0
        assert len(read_factor(root.uri, "r")) > 0

    def test_vacuum_finds_orphans_of_long_ago(self, root, factor):
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-31"))
        orphan = write(factor, "2019-02-01", "2019-02-20")[0]
        long_ago = time.time() - 8 * 86400
        os.utime(factor.full_path(orphan.path), (long_ago, long_ago))
        assert FactorTable(factor).vacuum() == [orphan.path]

    def test_reader_needs_neither_torch_nor_ray(self):
        code = "import sys, gangru_dist.scoring.reader; print({'torch', 'ray'} & set(sys.modules))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "set()"


class TestValidation:
    def test_no_table(self, root):
        with pytest.raises(FactorError, match=r"no factor table at .*`?gangru score"):
            read_factor(root.uri, "r")

    @pytest.mark.parametrize("as_of", [7, dt.datetime(2001, 1, 1), dt.date(2020, 1, 1), "newest"])
    def test_no_such_version(self, root, factor, as_of):
        FactorTable(factor).commit(write(factor, "2019-01-02", "2019-01-04"))
        with pytest.raises(FactorError, match="no version as of"):
            read_factor(root.uri, "r", as_of=as_of)

    @pytest.mark.parametrize(
        ("first", "last", "day"),
        [("2019-01-04", "2019-01-07", "2019-01-04"), ("2019-01-30", "2019-02-04", "2019-02-01")],
        ids=["in two files", "of another month"],
    )
    def test_a_day_belongs_to_one_file_of_its_month(self, factor, first, last, day):
        ours = FactorTable(factor)
        ours.commit(write(factor, "2019-01-02", "2019-01-04"))
        before = ours.read_coverage()
        days = days_between(first, last)
        covered = [DayCoverage(date=str(d), window="w", model="m1", basis="b") for d in days]
        odd = write_file(factor, rows_of(days, "m1"), covered)
        with pytest.raises(FactorError, match=f"{day} is in .*each day must be in one file"):
            ours.commit([*write(factor, "2019-01-02", "2019-01-04"), odd])
        assert FactorTable(factor).read_coverage() == before

    def test_options_hold_no_keys(self, monkeypatch):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hush")
        uri = "s3://bucket/prefix?endpoint_override=127.0.0.1:9000&scheme=http&region=eu-west-1"
        assert run_folder(Storage(uri), "r").child("factor").find_delta_address() == (
            "s3://bucket/prefix/runs/r/factor",
            {
                "AWS_REGION": "eu-west-1",
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
                "AWS_ALLOW_HTTP": "true",
            },
        )
