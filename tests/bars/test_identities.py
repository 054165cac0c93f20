"""Identities of a row, and the setting that mends a whole file."""

from __future__ import annotations

import numpy as np
import pytest

from gangru_dist.bars.formats import bars_format
from gangru_dist.bars.identities import (  # fmt: skip
    ADJUSTED_TWICE,
    EXCHANGED,
    OUTSIDE,
    check_suspects,
    contradictions,
    suspects,
    times_price,
)
from gangru_dist.bars.quality import Finding, Quality
from gangru_dist.base.errors import BarsError
from gangru_dist.config.settings import BarsConfig

GENERIC = bars_format(BarsConfig())
TUSHARE = bars_format(BarsConfig(format="tushare"))


def rows(count: int = 200, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows that keep every identity."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(2, 90, count)
    high = low * rng.uniform(1, 1.2, count)
    volume = np.round(rng.uniform(1e3, 1e7, count))
    return {
        "low": low,
        "high": high,
        "open": low,
        "close": high,
        "volume": volume,
        "amount": volume * rng.uniform(low, high),
        "adj_factor": rng.uniform(1.5, 8, count),
        "turnover_rate": volume / 1e9,
        "market_cap": high * 2e9,
    }


def found(values: dict[str, np.ndarray]) -> dict[str, int]:
    wrong = contradictions(values, GENERIC, as_traded=True)
    return {name: int(there.sum()) for name, there in wrong.items() if there.any()}


class TestReference:
    def test_good_rows(self) -> None:
        assert found(rows()) == {}

    @pytest.mark.parametrize("power", [-8, -4, -3, -2, 2, 3, 4])
    def test_a_power_of_ten(self, power: int) -> None:
        values = rows()
        values["amount"] *= 10.0**power
        wrong = found(values)
        assert wrong[times_price(power)] == wrong[OUTSIDE] == 200

    def test_rounding_to_lots_and_thousands_is_no_contradiction(self) -> None:
        values = rows()
        values["volume"] = np.round(np.linspace(100, 3000, 200) / 100) * 100
        values["amount"] = np.round(np.linspace(100, 3000, 200) * values["low"] / 1e3) * 1e3
        wrong = contradictions(values, TUSHARE, as_traded=True)
        assert not wrong[OUTSIDE].any()

    def test_exchanged_and_adjusted_twice(self) -> None:
        values = rows()
        values["volume"], values["amount"] = values["amount"], values["volume"]
        assert found(values)[EXCHANGED] == 200
        values = rows()
        for name in ("open", "high", "low", "close"):
            values[name] = values[name] * values["adj_factor"]
        assert found(values)[ADJUSTED_TWICE] == 200


class TestProperties:
    def test_adjusted_prices_are_not_held_against_amounts(self) -> None:
        values = rows()
        values["close"] = values["close"] * 0.01
        values["low"] = values["low"] * 0.01
        wrong = contradictions(values, GENERIC, as_traded=False)
        assert not any(there.any() for there in wrong.values())

    def test_input_is_left_alone(self) -> None:
        values = rows()
        before = {name: column.copy() for name, column in values.items()}
        values["amount"] *= 100
        before["amount"] *= 100
        found(values)
        for name in values:
            np.testing.assert_array_equal(values[name], before[name])


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
    def test_the_setting(self, power: int, form, setting: str) -> None:  # type: ignore[no-untyped-def]
        finding = Finding(count=90, example={"row": 3})
        quality = Quality(rows=100, quarantined={times_price(power): finding})
        quality = Quality(rows=100, suspects=suspects(quality, "a.csv"))
        with pytest.raises(BarsError, match=rf"^a.csv: 90 of 100 .*row=3.*{setting}( |$)"):
            check_suspects(quality, ["a.csv"], form)
        with pytest.raises(BarsError, match="1 of 2 files are not so, and a setting holds for all"):
            check_suspects(quality, ["a.csv", "b.csv"], form)

    def test_a_few_rows_are_no_system(self) -> None:
        quality = Quality(rows=100, quarantined={OUTSIDE: Finding(count=49, example={})})
        assert suspects(quality, "a.csv") == ()
