"""Every bad row is set aside under its reason, with an example, and no other row is."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gangru_dist.bars.formats import resolve_format
from gangru_dist.bars.quality import Finding, Quality, check_share, merge
from gangru_dist.bars.rows import (
    CHECKED,
    OUTSIDE,
    check_rows,
)
from gangru_dist.bars.values import CODED
from gangru_dist.base.errors import BarsError
from gangru_dist.config.settings import BarsConfig

GENERIC = resolve_format(BarsConfig())


def make_table(**changes: tuple[int, Any]) -> pa.Table:
    """Six good rows of one stock; `close=(2, nan)` changes one value."""
    columns: dict[str, list[Any]] = {
        "date": [dt.date(2019, 1, day) for day in (2, 3, 4, 7, 8, 9)],
        "code": ["x"] * 6,
        "open": [10.0] * 6,
        "high": [11.0] * 6,
        "low": [9.0] * 6,
        "close": [10.5] * 6,
        "volume": [100.0] * 6,
        "amount": [1000.0] * 6,
        "adj_factor": [1.0] * 6,
        "turnover_rate": [0.01] * 6,
        "market_cap": [2e5] * 6,
    }
    for name, (row, value) in changes.items():
        columns[name][row] = value
    types = {"date": pa.date32(), "code": CODED}
    return pa.table({k: pa.array(v, types.get(k, pa.float64())) for k, v in columns.items()})


def check(table: pa.Table) -> tuple[pa.Table, Quality]:
    return check_rows(table, GENERIC, file="a.csv", number=3, first_row=100)


class TestReference:
    def test_qlibs_empty_rows_are_suspended_days_and_nobody_elses(self) -> None:
        names = ("open", "high", "low", "close", "volume", "amount", "adj_factor")
        table = make_table(**dict.fromkeys(names, (2, np.nan)))
        qlib = resolve_format(BarsConfig(format="qlib"))
        rows, quality = check_rows(table, qlib, file="a.csv", number=0, first_row=0)
        assert (quality.suspended, quality.set_aside) == (1, 0)
        assert rows["suspended"].to_pylist() == [False, False, True, False, False, False]
        assert check(table)[1].set_aside == 1
        half = make_table(close=(2, np.nan))
        assert check_rows(half, qlib, file="a.csv", number=0, first_row=0)[1].set_aside == 1

    def test_good_rows_pass_unchanged(self) -> None:
        found, quality = check(make_table())
        assert found.schema.equals(CHECKED)
        assert quality == Quality(rows=6)
        assert set(found["file"].to_pylist()) == {3}

    def test_a_suspended_day_is_flagged_and_not_judged(self) -> None:
        table = make_table(volume=(2, 0.0), amount=(2, 0.0), close=(2, 0.0))
        found, quality = check(table)
        assert quality.suspended == 1
        assert not quality.quarantined
        assert found["suspended"].to_pylist() == [False, False, True, False, False, False]

    def test_absent_optional_columns(self) -> None:
        table = make_table().drop_columns(["adj_factor", "turnover_rate", "market_cap"])
        row = check(table)[0].to_pylist()[0]
        assert (row["adj_factor"], row["is_st"], row["industry"], row["list_date"]) == (
            1.0, False, None, None,
        )  # fmt: skip
        assert np.isnan([row["turnover_rate"], row["market_cap"]]).all()


def make_market(**scales: float) -> dict[str, np.ndarray]:
    """Numbers of 200 rows that agree with each other, multiplied by `scales`."""
    rng = np.random.default_rng(0)
    low = rng.uniform(2, 90, 200)
    high = low * rng.uniform(1, 1.2, 200)
    volume = np.round(rng.uniform(1e3, 1e7, 200))
    values = {
        "open": low,
        "high": high,
        "low": low,
        "close": high,
        "volume": volume,
        "amount": volume * rng.uniform(low, high),
        "adj_factor": rng.uniform(1.5, 8, 200),
        "turnover_rate": volume / 1e9,
        "market_cap": high * 2e9,
    }
    return {name: column * scales.get(name, 1.0) for name, column in values.items()}


def count(values: dict[str, np.ndarray], **settings: Any) -> dict[str, int]:
    """Reason -> rows of one day that are set aside."""
    form = resolve_format(BarsConfig(**settings))
    codes = pa.array([f"{number:06d}" for number in range(200)]).dictionary_encode()
    named = {"date": pa.array([dt.date(2019, 1, 2)] * 200), "code": codes.cast(CODED)}
    table = pa.table({**named, **values})
    quality = check_rows(table, form, file="a.csv", number=0, first_row=0)[1]
    return {name: found.count for name, found in quality.quarantined.items()}


class TestContradictions:
    """Columns of one row held against each other."""

    def test_good_rows(self) -> None:
        assert count(make_market()) == {}

    def test_rounding_to_lots_and_thousands_is_no_contradiction(self) -> None:
        values = make_market()
        values["volume"] = np.round(np.linspace(100, 3000, 200) / 100) * 100
        values["amount"] = np.round(np.linspace(100, 3000, 200) * values["low"] / 1e3) * 1e3
        values["turnover_rate"] = values["volume"] / 1e9
        assert OUTSIDE not in count(values, format="tushare")


class TestProperties:
    def test_each_row_counts_once(self) -> None:
        rows, quality = check(make_table(close=(2, -1.0), volume=(2, -1.0), amount=(2, -1.0)))
        (found,) = quality.quarantined.values()
        assert (len(rows), found.count) == (5, 1)
        assert (found.example["file"], found.example["row"]) == ("a.csv", 102)

    def test_merge_adds_up_and_keeps_the_first_example(self) -> None:
        one = Quality(rows=5, quarantined={"x": Finding(count=2, example={"file": "a"})})
        two = Quality(rows=7, suspended=1, quarantined={"x": Finding(count=1, example={})})
        both = merge([one, two])
        assert (both.rows, both.suspended, both.set_aside) == (12, 1, 3)
        assert both.quarantined["x"] == Finding(count=3, example={"file": "a"}, more=({},))


class TestValidation:
    bad = Quality(rows=100, quarantined={"high below low": Finding(count=2, example={"row": 7})})

    def test_too_many(self) -> None:
        match = r"2 of 100 rows \(2.00%\) .* allows 1.00%: 2 x high below low, e.g. row=7"
        with pytest.raises(BarsError, match=match):
            check_share(self.bad, allowed=0.01)

    def test_just_few_enough(self) -> None:
        check_share(self.bad, allowed=0.02)
