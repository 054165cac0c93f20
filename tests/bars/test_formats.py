"""Each vendor's export of the same two bars becomes the same bars in our units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gangru_dist.bars.files import list_files
from gangru_dist.bars.formats import FORMATS, BarsFormat, resolve_format
from gangru_dist.bars.headings import read_headings
from gangru_dist.bars.reader import read_part
from gangru_dist.bars.rows import check_rows
from gangru_dist.base.errors import ConfigError
from gangru_dist.config.settings import BarsConfig

OURS = {
    "open": [10.0, 11.0],
    "high": [10.5, 11.5],
    "low": [9.5, 10.5],
    "close": [10.2, 11.2],
    "volume": [1000.0, 2000.0],
    "amount": [10100.0, 22200.0],
}
EXTRA = {"adj_factor": [1.0, 2.0], "turnover_rate": [0.01, 0.02], "market_cap": [1e8, 2e8]}

EXPORTS = {
    "generic": {"date": ["2019-01-02", "2019-01-03"], "code": ["a", "a"], **OURS, **EXTRA},
    "ashare": {
        "date": ["2019-01-02", "2019-01-03"],
        "code": ["a", "a"],
        **OURS,
        "adj_factor": [1.0, 2.0],
        "turnover_rate": [1.0, 2.0],
        "total_shares": [1e8 / 10.2, 2e8 / 11.2],
    },
    "baostock": {
        "date": ["2019-01-02", "2019-01-03"],
        "code": ["a", "a"],
        **{name: [str(value) for value in values] for name, values in OURS.items()},
        "turn": ["1.0", "2.0"],
        "tradestatus": ["1", "1"],
        "isST": ["0", "0"],
        "backAdjustFactor": ["1.0", "2.0"],
        "market_cap": [1e8, 2e8],
    },
    "qlib": {
        "datetime": ["2019-01-02", "2019-01-03"],
        "instrument": ["a", "a"],
        **{
            f"${name}": [OURS[name][0], OURS[name][1] * 2]
            for name in ("open", "high", "low", "close")
        },
        "$volume": [1000.0, 1000.0],
        "$vwap": [10.1, 22.2],
        "$factor": [1.0, 2.0],
        **{name: EXTRA[name] for name in ("turnover_rate", "market_cap")},
    },
}


def read(folder: Path, columns: dict[str, object], config: BarsConfig) -> pd.DataFrame:
    pd.DataFrame(columns).to_csv(folder / "a.csv", index=False)
    form = resolve_format(config)
    (part,) = read_headings(str(folder), list_files(str(folder)), form)
    (table,) = read_part(str(folder), part, form)
    return check_rows(table, form, file="a.csv", number=0, first_row=0)[0].to_pandas()


class TestReference:
    @pytest.mark.parametrize("name", EXPORTS)
    def test_every_export_gives_the_same_bars(self, tmp_path: Path, name: str) -> None:
        found = read(tmp_path, EXPORTS[name], BarsConfig(format=name))
        for column, values in {**OURS, **EXTRA}.items():
            np.testing.assert_allclose(found[column], values, rtol=1e-12, err_msg=column)
        assert found["date"].astype("str").tolist() == ["2019-01-02", "2019-01-03"]

    def test_a_day_that_baostock_marks_as_suspended(self, tmp_path: Path) -> None:
        export = {**EXPORTS["baostock"], "tradestatus": ["1", "0"], "volume": ["1000", ""]}
        found = read(tmp_path, export, BarsConfig(format="baostock"))
        assert found["suspended"].tolist() == [False, True]

    def test_own_scale_on_top_of_a_format(self, tmp_path: Path) -> None:
        export = {**EXPORTS["ashare"], "turnover_rate": [0.01, 0.02]}
        config = BarsConfig(format="ashare", scales={"turnover_rate": 1.0})
        np.testing.assert_allclose(read(tmp_path, export, config)["turnover_rate"], [0.01, 0.02])

    @pytest.mark.parametrize(
        ("format_", "limits", "expected"),
        [
            ("generic", "auto", "none"),
            ("generic", "ashare", "ashare"),
            ("tushare", "auto", "ashare"),
            ("tushare", "none", "none"),
        ],
    )
    def test_price_limits(self, format_: str, limits: str, expected: str) -> None:
        config = BarsConfig(format=format_, price_limits=limits)  # type: ignore[arg-type]
        assert resolve_format(config).price_limits == expected


class TestValidation:
    def test_unknown_column_of_ours(self) -> None:
        with pytest.raises(ConfigError, match=r"bars.columns.volumes: no such .*\['volume'"):
            resolve_format(BarsConfig(columns={"volumes": "vol"}))

    def test_unknown_format(self) -> None:
        with pytest.raises(ConfigError, match=r"no bars format 'tushar'; nearest: \['tushare'"):
            resolve_format(BarsConfig(format="tushar"))

    def test_a_users_format_by_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(FORMATS, "mine", BarsFormat(columns={"close": ("last",)}))
        assert resolve_format(BarsConfig(format="mine")).names("close") == ("last",)

    def test_scale_of_a_text(self) -> None:
        with pytest.raises(ConfigError, match=r"bars.scales.industry: no such column"):
            resolve_format(BarsConfig(scales={"industry": 2.0}))
