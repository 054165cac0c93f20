"""Factor tables of any layout."""

import pandas as pd
import pytest

from gangru_dist.base.errors import EvaluationError
from gangru_dist.evaluation.factor import to_factor_table

DAYS = pd.to_datetime(["2019-01-02", "2019-07-01", "2019-12-31"])


def test_days_of_a_zone_with_summer_time_are_those_of_the_zone():
    days = DAYS.tz_localize("America/New_York").astype(str)
    table = pd.DataFrame({"date": days, "asset": "600000.SH", "factor": 1.0})
    assert to_factor_table(table)["date"].tolist() == DAYS.tolist()


@pytest.mark.parametrize("given", [{"wind_code": "600000.SH", "factor": 1.0}, {"factor": 1.0}])
def test_a_long_table_without_assets_is_no_wide_one(given):
    with pytest.raises(EvaluationError, match=r"lacks the columns \['asset'\]; it has \['date'"):
        to_factor_table(pd.DataFrame({"date": DAYS, **given}))


def test_a_column_of_a_wide_table_may_be_empty():
    wide = pd.DataFrame({"date": DAYS, "600000.SH": [1.0, 2.0, 3.0], "600004.SH": None})
    assert len(to_factor_table(wide).dropna()) == 3
