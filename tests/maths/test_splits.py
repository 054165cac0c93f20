"""Refit days, training and validation days."""

import dataclasses
import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gangru_dist.base.errors import ConfigError, WindowError
from gangru_dist.config.settings import LabelConfig, WindowConfig
from gangru_dist.maths.calendar import find_refit_days, make_windows, select_windows


def weekdays(first: str, last: str) -> np.ndarray:
    days = np.arange(first, np.datetime64(last) + 1, dtype="datetime64[D]")
    return days[np.is_busday(days)]


CALENDAR = weekdays("2017-01-03", "2020-12-31")
CFG, LABEL = WindowConfig(), LabelConfig()


class TestReference:
    def test_refit_days_are_the_last_of_june_and_december(self) -> None:
        found = [str(CALENDAR[i]) for i in find_refit_days(CALENDAR, CFG)]
        assert found == [
            "2017-06-30", "2017-12-29", "2018-06-29", "2018-12-31",
            "2019-06-28", "2019-12-31", "2020-06-30", "2020-12-31",
        ]  # fmt: skip

    def test_days_of_the_docstring(self) -> None:
        windows, _ = make_windows(CALENDAR, CFG, LABEL, lookback=40)
        window = windows[0]
        sampled = list(range(window.refit - 21, window.refit - 400, -5))[::-1]
        assert len(sampled) == 76
        assert list(window.valid_days) == sampled[-15:]
        assert window.train_days == tuple(
            day for day in sampled[:-15] if day + 21 <= window.valid_days[0]
        )
        assert (window.score_first, window.score_last) == (window.refit + 1, windows[1].refit)

    def test_month_still_running_has_no_refit(self) -> None:
        assert str(CALENDAR[find_refit_days(CALENDAR[:-1], CFG)[-1]]) == "2020-06-30"

    def test_month_without_a_trading_day_has_no_refit(self) -> None:
        """January and March refit; a February of 28 days, or 29, has no day."""
        cfg = WindowConfig(refit_months=(1, 2, 3))
        for year, january in ((2018, "2018-01-31"), (2020, "2020-01-31")):
            days = weekdays(f"{year}-01-02", f"{year}-04-10")
            days = days[days.astype("datetime64[M]") != np.datetime64(f"{year}-02")]
            found = [str(days[i]) for i in find_refit_days(days, cfg)]
            assert found == [january, str(days[days < np.datetime64(f"{year}-04")][-1])]

    def test_month_end_on_a_weekend_counts_on_friday(self) -> None:
        until = weekdays("2017-01-03", "2019-06-28")  # 30 June 2019 was a Sunday
        assert str(until[find_refit_days(until, CFG)[-1]]) == "2019-06-28"

    def test_where_weekends_are_traded_friday_is_not_the_last_day(self) -> None:
        every = np.arange("2017-01-03", "2019-07-01", dtype="datetime64[D]")
        for until in ("2019-06-28", "2019-06-29"):
            days = every[every <= np.datetime64(until)]
            assert str(days[find_refit_days(days, CFG)[-1]]) == "2018-12-31"
        assert str(every[find_refit_days(every, CFG)[-1]]) == "2019-06-30"


class TestHistory:
    def test_window_takes_what_history_there_is(self) -> None:
        cfg = WindowConfig(history_days=800, min_history_days=300)
        windows, skipped = make_windows(CALENDAR, cfg, LABEL, lookback=40)
        assert [s.name for s in skipped] == ["2017-06-30", "2017-12-29"]
        assert "min_history_days=300" in skipped[0].reason
        first, last = windows[0], windows[-1]
        assert 39 <= first.train_days[0] < 39 + 5
        assert last.train_days[0] > last.refit - 800

    def test_long_enough_history_is_as_without_a_minimum(self) -> None:
        plain, _ = make_windows(CALENDAR, CFG, LABEL, lookback=40)
        least = dataclasses.replace(CFG, min_history_days=400)
        assert make_windows(CALENDAR, least, LABEL, lookback=40)[0] == plain

    def test_a_minimum_above_the_most_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"min_history_days=500 is more than .*=400"):
            WindowConfig(min_history_days=500)


class TestProperties:
    @settings(max_examples=60, deadline=None)
    @given(
        history=st.integers(60, 500),
        every=st.integers(1, 10),
        fraction=st.floats(0.05, 0.9),
        horizon=st.integers(1, 30),
        lag=st.integers(0, 5),
    )
    def test_no_label_ends_after_the_refit_day(
        self, history: int, every: int, fraction: float, horizon: int, lag: int
    ) -> None:
        cfg = dataclasses.replace(
            CFG, history_days=history, sample_every=every, validation_fraction=fraction
        )
        label = LabelConfig(horizon=horizon, entry_lag=lag)
        windows, _ = make_windows(CALENDAR, cfg, label, lookback=40)
        for window in windows:
            assert max(window.valid_days) + label.reach <= window.refit
            assert max(window.train_days) + label.reach <= min(window.valid_days)
            assert min(window.train_days) > window.refit - history
            assert min(window.train_days) >= 39
            assert window.score_first > window.refit

    def test_every_day_is_scored_by_one_window(self) -> None:
        windows, _ = make_windows(CALENDAR, CFG, LABEL, lookback=40)
        scored = [d for w in windows for d in range(w.score_first, w.score_last + 1)]
        assert scored == list(range(windows[0].refit + 1, len(CALENDAR)))

    def test_later_days_do_not_move_a_window(self) -> None:
        until, _ = make_windows(CALENDAR[:800], CFG, LABEL, lookback=40)
        whole, _ = make_windows(CALENDAR, CFG, LABEL, lookback=40)
        for early, late in zip(until, whole, strict=False):
            assert (early.train_days, early.valid_days) == (late.train_days, late.valid_days)

    def test_without_embargo_more_days_train(self) -> None:
        loose = dataclasses.replace(CFG, embargo=False)
        strict, _ = make_windows(CALENDAR, CFG, LABEL, lookback=40)
        free, _ = make_windows(CALENDAR, loose, LABEL, lookback=40)
        assert len(free[0].train_days) == len(strict[0].train_days) + 4

    def test_first_and_last_choose_refit_days(self) -> None:
        cfg = dataclasses.replace(CFG, first=dt.date(2019, 1, 1), last=dt.date(2019, 12, 31))
        windows, skipped = make_windows(CALENDAR, cfg, LABEL, lookback=40)
        assert [w.name for w in windows] == ["2019-06-28", "2019-12-31"]
        assert not skipped
        assert windows[-1].score_last == find_refit_days(CALENDAR, CFG)[-2]


class TestValidation:
    def test_short_history_says_how_much_is_missing(self) -> None:
        _, skipped = make_windows(CALENDAR, CFG, LABEL, lookback=40)
        assert [s.name for s in skipped] == ["2017-06-30", "2017-12-29", "2018-06-29"]
        assert "439 needed" in skipped[0].reason

    def test_unknown_refit_day_names_those_that_are(self) -> None:
        windows, _ = make_windows(CALENDAR, CFG, LABEL, lookback=40)
        with pytest.raises(WindowError, match=r"'2019-06-30' is not a refit day.*2019-06-28"):
            select_windows(windows, ["2019-06-30"])

    def test_selected_windows_keep_calendar_order(self) -> None:
        windows, _ = make_windows(CALENDAR, CFG, LABEL, lookback=40)
        names = ["2019-12-31", "2018-12-31"]
        assert [w.name for w in select_windows(windows, names)] == names[::-1]
