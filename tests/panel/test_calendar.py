"""Trading days: positions, and what to say of a day that is none."""

from __future__ import annotations

import numpy as np
import pytest

from gangru_dist.errors import PanelError
from gangru_dist.panel.calendar import last_on_or_before, position, trading_days

CALENDAR = np.array(["2019-01-02", "2019-01-03", "2019-01-07"], dtype="datetime64[D]")


class TestReference:
    def test_distinct_and_ascending(self) -> None:
        np.testing.assert_array_equal(trading_days(CALENDAR[[2, 0, 1, 0]]), CALENDAR)

    def test_position(self) -> None:
        assert [position(CALENDAR, day) for day in CALENDAR] == [0, 1, 2]

    @pytest.mark.parametrize(
        ("day", "expected"),
        [("2019-01-03", "2019-01-03"), ("2019-01-06", "2019-01-03"), ("2020-01-01", "2019-01-07")],
    )
    def test_last_on_or_before(self, day: str, expected: str) -> None:
        assert last_on_or_before(CALENDAR, np.datetime64(day)) == np.datetime64(expected)

    def test_nothing_before_the_first(self) -> None:
        assert last_on_or_before(CALENDAR, np.datetime64("2019-01-01")) is None


class TestValidation:
    def test_no_trading_day_names_its_neighbors(self) -> None:
        with pytest.raises(PanelError, match=r"2019-01-05 is no .* 2019-01-03 and 2019-01-07"):
            position(CALENDAR, np.datetime64("2019-01-05"))
