"""A file in another unit is refused, with the setting that mends it."""

from __future__ import annotations

import pytest

from gangru_dist.bars.formats import BarsFormat, resolve_format
from gangru_dist.bars.quality import Finding, Quality
from gangru_dist.bars.rows import OUTSIDE, TIMES_PRICE, find_suspects
from gangru_dist.base.errors import BarsError
from gangru_dist.config.settings import BarsConfig
from gangru_dist.panel.scales import check_suspects

GENERIC = resolve_format(BarsConfig())
TUSHARE = resolve_format(BarsConfig(format="tushare"))
TIMES = {power: reason for reason, power in TIMES_PRICE.items()}


class TestValidation:
    @pytest.mark.parametrize(
        ("power", "form", "setting"),
        [
            (2, GENERIC, "--set bars.scales.volume=100"),
            (-2, GENERIC, "--set bars.scales.close=0.01"),
            (-3, GENERIC, "--set bars.scales.amount=1000"),
            (-4, GENERIC, "--set bars.scales.amount=10000"),
            (-2, TUSHARE, "--set bars.scales.volume=1"),
            (3, TUSHARE, "--set bars.scales.amount=1"),
        ],
    )
    def test_the_setting(self, power: int, form: BarsFormat, setting: str) -> None:
        finding = Finding(count=90, example={"row": 3})
        quality = Quality(rows=100, quarantined={TIMES[power]: finding})
        quality = Quality(rows=100, suspects=find_suspects(quality, "a.csv"))
        with pytest.raises(BarsError, match=rf"^a.csv: 90 of 100 .*row=3.*{setting}( |$)"):
            check_suspects(quality, ["a.csv"], form)
        with pytest.raises(BarsError, match="1 of 2 files are not so, and a setting holds for all"):
            check_suspects(quality, ["a.csv", "b.csv"], form)

    def test_a_few_rows_are_no_system(self) -> None:
        quality = Quality(rows=100, quarantined={OUTSIDE: Finding(count=49, example={})})
        assert find_suspects(quality, "a.csv") == ()
