"""Trading days: distinct, ascending."""

from __future__ import annotations

import numpy as np

from gangru_dist.maths.calendar import distinct_days

CALENDAR = np.array(["2019-01-02", "2019-01-03", "2019-01-07"], dtype="datetime64[D]")


class TestReference:
    def test_distinct_and_ascending(self) -> None:
        np.testing.assert_array_equal(distinct_days(CALENDAR[[2, 0, 1, 0]]), CALENDAR)
