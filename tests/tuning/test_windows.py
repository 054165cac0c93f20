import datetime as dt

import numpy as np
import pytest

from gangru_dist.base.errors import WindowError
from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import first_day
from gangru_dist.runs.search import SearchRecord
from gangru_dist.tuning.queue import describe_search
from gangru_dist.tuning.space import apply, list_extremes, make_parameters
from gangru_dist.tuning.trial import choose_windows, find_panel_span, make_all_windows
from tests.tuning import store

CALENDAR = np.datetime64("2020-01-01") + np.arange(200)
ALL = ["2020-03-31", "2020-04-30", "2020-05-31"]


def describe(cfg: RunConfig, only: list[str] | None = None) -> SearchRecord:
    windows = choose_windows(CALENDAR, cfg, [cfg], only)
    return describe_search(cfg, make_parameters(cfg), CALENDAR, windows, "fingerprint")


class TestReference:
    def test_the_first_windows_by_default_and_reports_begin_after_them(self) -> None:
        cfg = store.config()
        assert list(make_all_windows(CALENDAR, cfg)) == ALL
        found = describe(cfg)
        assert found.windows == tuple(ALL[:2])
        assert (found.reported_first, found.overlap) == ("2020-05-31", ())

    def test_the_last_ones_before_the_reported_windows(self) -> None:
        cfg = store.config(windows={"first": "2020-05-31"}, tune={"max_windows": 1})
        found = describe(cfg)
        assert (found.windows, found.overlap) == ((ALL[1],), ())

    def test_what_is_named_counts_and_an_overlap_is_told(self) -> None:
        cfg = store.config(windows={"first": "2020-04-30"}, tune={"windows": ["2020-05-31"]})
        assert describe(cfg).overlap == ("2020-05-31",)
        found = describe(cfg, [ALL[0]])
        assert (found.windows, found.overlap) == ((ALL[0],), ())

    def test_the_span_covers_the_longest_lookback_and_ends_with_the_refit_day(self) -> None:
        cfg, longer = store.config(), store.config(samples={"lookback": 20})
        start, end = find_panel_span(CALENDAR, ALL[1], [cfg])
        assert end == dt.date(2020, 4, 30)
        assert find_panel_span(CALENDAR, ALL[1], [cfg, longer]) == (
            start - dt.timedelta(days=12),
            end,
        )

    @pytest.mark.parametrize("late", [0, 1, 2])
    def test_the_span_covers_every_trial(self, late: int) -> None:
        """Lookbacks between the ends too."""
        cfg = store.config(tune={"space": {"samples.lookback": {"low": 8, "high": 12}}})
        days = CALENDAR[late:]  # so that the first sampled day lies differently
        start, _ = find_panel_span(days, ALL[1], list_extremes(cfg, make_parameters(cfg)))
        for lookback in range(8, 13):
            trial = apply(cfg, {"samples.lookback": lookback})
            first = first_day(make_all_windows(days, trial)[ALL[1]], lookback)
            assert days[first].astype(dt.date) >= start


class TestProperties:
    def test_a_window_needs_history_for_every_trial(self) -> None:
        cfg = store.config()
        longer = store.config(samples={"lookback": 40})
        assert choose_windows(CALENDAR, cfg, [cfg, longer], None) == tuple(ALL[1:])

    def test_a_window_needs_history_for_both_ends_at_once(self) -> None:
        space = {
            "samples.lookback": {"low": 8, "high": 30},
            "windows.history_days": {"low": 60, "high": 80},
        }
        cfg = store.config(tune={"space": space})
        found = choose_windows(CALENDAR, cfg, list_extremes(cfg, make_parameters(cfg)), None)
        widest = apply(cfg, {"samples.lookback": 30, "windows.history_days": 80})
        assert found
        assert set(found) <= set(make_all_windows(CALENDAR, widest))


class TestValidation:
    def test_an_unknown_day_names_those_that_are(self) -> None:
        cfg = store.config()
        with pytest.raises(WindowError, match=r"'2020-06-30' is not a refit day.*2020-03-31"):
            choose_windows(CALENDAR, cfg, [cfg], ["2020-06-30"])

    def test_none_before_the_reported_windows(self) -> None:
        cfg = store.config(windows={"first": "2020-01-01"})
        with pytest.raises(WindowError, match=r"before windows.first=2020-01-01; there are 2020"):
            choose_windows(CALENDAR, cfg, [cfg], None)
