"""Universe membership against a slow count."""

import dataclasses

import numpy as np
import pytest

from gangru_dist.config.settings import UniverseConfig
from gangru_dist.panel.universe import count_traded_days, select_universe
from tests.training.worlds import block

CFG = UniverseConfig(min_listed_days=20, min_traded_days=6, min_assets=3)


class TestReference:
    @pytest.mark.parametrize("lookback", [1, 7, 200])
    def test_traded_days_counts_the_last_days(self, lookback: int) -> None:
        traded = block().traded
        expected = [
            traded[max(0, day - lookback + 1) : day + 1].sum(axis=0) for day in range(len(traded))
        ]
        np.testing.assert_array_equal(count_traded_days(traded, lookback), expected)

    def test_mask_is_the_rule_in_words(self) -> None:
        world = block()
        mask = select_universe(world, CFG, 8)
        for day in range(len(world.dates)):
            for asset in range(len(world.assets)):
                expected = (
                    world.traded[day, asset]
                    and not world.is_st[day, asset]
                    and world.listed_days[day, asset] >= 20
                    and world.traded[max(0, day - 7) : day + 1, asset].sum() >= 6
                )
                assert mask[day, asset] == expected


class TestProperties:
    def test_members_ignore_the_future(self) -> None:
        world, other = block(0), block(1)
        cut = 60
        fields = ("traded", "is_st", "listed_days")
        mixed = {
            name: np.concatenate([getattr(world, name)[:cut], getattr(other, name)[cut:]])
            for name in fields
        }
        tampered = dataclasses.replace(world, **mixed)
        before, after = select_universe(world, CFG, 8), select_universe(tampered, CFG, 8)
        np.testing.assert_array_equal(before[:cut], after[:cut])
        assert (before[cut:] != after[cut:]).any()

    def test_special_treatment_may_stay(self) -> None:
        world = block()
        loose = select_universe(world, dataclasses.replace(CFG, exclude_st=False), 8)
        strict = select_universe(world, CFG, 8)
        assert (loose & ~strict).sum() > 0
        assert (loose & ~strict & ~world.is_st).sum() == 0
