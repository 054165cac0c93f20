"""Trading days: thin ones go, decisions stay when days are added, and what a rule refuses."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from gangru_dist.bars.days import (  # fmt: skip
    FEW,
    HOLE,
    INCOMPLETE,
    NO_ROW,
    WEEKEND,
    DayRule,
    check_shifted,
    check_span,
    find_market_days,
    is_weekend,
    read_day_rule,
)
from gangru_dist.bars.formats import resolve_format
from gangru_dist.bars.quality import Finding, Quality
from gangru_dist.bars.values import Origin
from gangru_dist.base.errors import BarsError
from gangru_dist.config.settings import BarsConfig

DAYS = np.array(pd.bdate_range("2019-01-02", periods=150), dtype="datetime64[D]")
ORIGIN = Origin(file="a.csv", column="date", ours="date", first_row=10)


class TestReference:
    def test_weekends_by_pandas(self) -> None:
        days = np.arange(np.datetime64("1899-12-25"), np.datetime64("2030-01-01"))
        found = is_weekend(np.append(days, np.datetime64("NaT")))
        np.testing.assert_array_equal(found[:-1], pd.DatetimeIndex(days).day_of_week >= 5)
        assert not found[-1]

    def test_thin_days_by_a_loop(self) -> None:
        rng = np.random.default_rng(0)
        count = np.round(1000 * np.exp(np.cumsum(rng.normal(0, 0.02, len(DAYS)))))
        count[rng.choice(len(DAYS), 20, replace=False)] = rng.integers(0, 20, 20)
        found = find_market_days(DAYS, count, DayRule())
        expected = []
        for day in range(len(DAYS)):
            before = count[:60] if day < 60 else count[day - 60 : day]
            if count[day] < 0.01 * np.median(before):
                expected.append(DAYS[day])
        assert found.closed.tolist() == expected
        assert sorted([*found.calendar, *found.closed]) == DAYS.tolist()
        assert 5 < len(expected) < 20


class TestProperties:
    @pytest.mark.parametrize("cut", [60, 61, 100, 149])
    def test_added_days_change_no_earlier_one(self, cut: int) -> None:
        count = np.full(150, 500.0)
        count[[3, 59, 61, 99, 120]] = 4
        whole = find_market_days(DAYS, count, DayRule()).calendar
        some = find_market_days(DAYS[:cut], count[:cut], DayRule()).calendar
        np.testing.assert_array_equal(whole[whole <= DAYS[cut - 1]], some)

    def test_a_growing_market_keeps_its_first_days(self) -> None:
        count = np.round(np.geomspace(8, 4000, 150))
        assert len(find_market_days(DAYS, count, DayRule()).closed) == 0

    def test_an_explicit_calendar_knows_better(self) -> None:
        count = np.full(150, 500.0)
        count[70] = 1
        assert len(find_market_days(DAYS, count, DayRule(calendar=DAYS)).closed) == 0

    def test_notes(self) -> None:
        count = np.full(150, 500.0)
        count[-1] = 200
        count[70] = 200
        days = np.where(np.arange(150) < 100, DAYS, DAYS + 42)
        notes = find_market_days(days, count, DayRule()).quality.notes
        assert set(notes) == {HOLE, INCOMPLETE, FEW, NO_ROW}
        assert notes[FEW].example == {"date": str(DAYS[70]), "stocks": "200"}
        assert notes[NO_ROW].count == 30  # six weeks

    def test_today_bounds_the_rule(self) -> None:
        form = resolve_format(BarsConfig(price_limits="ashare"))
        rule = read_day_rule(BarsConfig(), form, today=dt.date(2020, 3, 4))
        days = np.array(["1990-12-01", "2020-03-05", "NaT"], dtype="datetime64[D]")
        check_span(days, rule, ORIGIN)
        days = np.array(["1990-11-30", "2020-03-06", "1970-01-01"], dtype="datetime64[D]")
        for day in days:
            with pytest.raises(BarsError, match=f"has {day} in row 10"):
                check_span(np.array([day]), rule, ORIGIN)


class TestValidation:
    def test_a_date_outside(self) -> None:
        days = np.array(["2019-01-02", "2081-01-02"], dtype="datetime64[D]")
        rule = DayRule(last=np.datetime64("2020-01-01"))
        with pytest.raises(BarsError, match=r"^a.csv: column 'date' has 2081-01-02 in row 11 \(1 "):
            check_span(days, rule, ORIGIN)
        rule = DayRule(first=np.datetime64("2019-02-01"))
        with pytest.raises(BarsError, match=r"--set bars\.first_day=2019-01-02 if meant"):
            check_span(days[:1], rule, ORIGIN)

    @pytest.mark.parametrize("day", ["1970-01-01", "1899-12-30", "-5877641-06-23", "2081-01-02"])
    def test_a_setting_that_would_not_help_is_not_told(self, day: str) -> None:
        rule = DayRule(first=np.datetime64("1990-12-01"), last=np.datetime64("2020-01-01"))
        with pytest.raises(BarsError, match=f"has {day} in row .* Correct the row$"):
            check_span(np.array([day], dtype="datetime64[D]"), rule, ORIGIN)

    @pytest.mark.parametrize(("missing", "words"), [(4, "a day early"), (0, "a day late")])
    def test_shifted_dates(self, missing: int, words: str) -> None:
        found = Quality(rows=100, quarantined={WEEKEND: Finding(count=20, example={})})
        days = DAYS[pd.DatetimeIndex(DAYS).day_of_week != missing]
        with pytest.raises(BarsError, match=rf"20 of 100 rows fall on .* {words}"):
            check_shifted(found, days)
        check_shifted(Quality(rows=1000, quarantined=found.quarantined), days)
