"""What the factor table costs at its largest: 20 years of 10,000 assets.

    python -m benchmarks.factor_table                                # five minutes, 3 GB of disk
    python -m benchmarks.factor_table --months 24 --assets 3000      # a first look

Files of random scores are written a month at a time and committed together, as a job's are. Then:
the table is opened anew and its coverage read, a day is added to it, and the newest month, the
newest year and the whole table are read.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa

from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig
from gangru_dist.runs.run import Run
from gangru_dist.runs.summaries import DayCoverage
from gangru_dist.scoring.files import FILE_SCHEMA, DataFile, write_file
from gangru_dist.scoring.reader import read_factor
from gangru_dist.scoring.table import FactorTable

_RUN = "bench"


def make_month(days: np.ndarray, assets: int) -> tuple[pa.Table, list[DayCoverage]]:
    """Random rows of a month's days and all assets."""
    rng = np.random.default_rng(int(days[0].astype(int)))
    count = len(days) * assets
    names = pa.array([f"{number:06d}.SZ" for number in range(assets)])
    codes = pa.array(np.tile(np.arange(assets, dtype=np.int32), len(days)))
    factor = rng.normal(size=count)
    columns = {
        "date": np.repeat(days, assets),
        "asset": pa.DictionaryArray.from_arrays(codes, names).cast(pa.string()),
        "score": factor.astype(np.float32),
        "factor": factor,
        "quantile": rng.integers(1, 11, count).astype(np.int16),
        "window": pa.repeat(str(days[0]), count),
        "model": pa.repeat("0" * 12, count),
    }
    covered = [
        DayCoverage(
            date=str(day),
            window=str(days[0]),
            model="0" * 12,
            basis="",
            traded=assets,
            universe=assets,
            ranked=assets,
        )
        for day in days
    ]
    return pa.table(columns, schema=FILE_SCHEMA), covered


def measure(months: int, assets: int) -> None:
    """Print the table."""
    days = pd.bdate_range("2001-01-01", periods=round(months * 20.25)).to_numpy("datetime64[D]")
    by_month = np.split(days, np.flatnonzero(np.diff(days.astype("datetime64[M]").astype(int))) + 1)
    with tempfile.TemporaryDirectory() as place:
        factor = Run(Storage(place), _RUN, RunConfig()).factor
        files: list[DataFile] = []
        print(f"{len(days)} days, {assets} assets, {len(by_month)} months")
        for month in by_month:
            files.append(write_file(factor, *make_month(month, assets)))
        print(f"files: {sum(file.size for file in files) / 1e9:.2f} GB")
        newest = by_month[-1]
        _measure_call("commit of all", lambda: FactorTable(factor).commit(files))
        _measure_call("open, read coverage", lambda: FactorTable(factor).read_coverage())
        rows, covered = make_month(newest[-1:], assets)
        last = write_file(factor, rows, covered)
        _measure_call("commit of one day", lambda: FactorTable(factor).commit([last]))
        first, year = str(newest[0]), str(newest[0] - 365)
        _measure_call("read a month", lambda: len(read_factor(place, _RUN, first)))
        _measure_call("read a year", lambda: len(read_factor(place, _RUN, year)))
        _measure_call("read all", lambda: len(read_factor(place, _RUN)))


def _measure_call(name: str, call: Callable[[], Any]) -> Any:
    """Call, and print what it took."""
    started, before = time.perf_counter(), time.process_time()
    result = call()
    took, cpu = time.perf_counter() - started, time.process_time() - before
    memory = psutil.Process().memory_info().rss / 1e9
    rows = f", {result:,} rows" if isinstance(result, int) and result > 1000 else ""
    print(f"{name:20s} {took:6.1f} s, {cpu:6.1f} CPU s, {memory:.1f} GB{rows}", flush=True)
    return result


def main() -> None:
    """Measure as much as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--months", type=int, default=240)
    parser.add_argument("--assets", type=int, default=10_000)
    args = parser.parse_args()
    measure(args.months, args.assets)


if __name__ == "__main__":
    main()
