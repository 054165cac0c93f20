"""Level channels, and both kinds side by side, against their definition in plain numpy."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gangru_dist.base.errors import ConfigError
from gangru_dist.config.settings import SampleConfig
from gangru_dist.samples.standardize import Standardizer

NAMES = ("open", "close", "volume", "turnover_rate")
LEVEL = SampleConfig(lookback=10, channels=("level",), mad_clip=3.0, z_clip=2.0)
MEMBERS = [0, 1, 2, 4, 5, 7, 8]


def panel(seed: int = 0, days: int = 30, assets: int = 9, missing: float = 0.2) -> np.ndarray:
    """Open, close, log volume and a turnover with fat tails; one asset without any value."""
    rng = np.random.default_rng(seed)
    price = np.exp(rng.normal(size=(days, assets)).cumsum(axis=0) * 0.02 + 2)
    values = np.stack(
        [
            price * np.exp(rng.normal(size=price.shape) * 0.01),
            price,
            rng.normal(15, 1, size=price.shape),
            rng.standard_t(2, size=price.shape) ** 2,
        ],
        axis=2,
    )
    values[rng.random((days, assets)) < missing] = np.nan
    values[:, 5] = np.nan
    return values


def level_of_sample(block: np.ndarray) -> np.ndarray:
    """(T, 4) of one asset: what the feature is taken against, word by word."""
    close = block[:, 1]
    known = close[~np.isnan(close)]
    if known.size == 0:
        return np.full(block.shape, np.nan)
    result = block.copy()
    result[:, :2] = np.log(block[:, :2] / known[-1])
    result[:, 2] = block[:, 2] - np.nanmean(block[:, 2])
    return result


def reference(values: np.ndarray, day: int, members: list[int], cfg: SampleConfig) -> np.ndarray:
    block = values[day - cfg.lookback + 1 : day + 1][:, members].transpose(1, 0, 2)
    levels = np.stack([level_of_sample(sample) for sample in block])
    result = np.zeros_like(levels)
    for t in range(levels.shape[1]):
        for f in range(levels.shape[2]):
            known = ~np.isnan(levels[:, t, f])
            column = levels[known, t, f]
            if column.size == 0:
                continue
            middle = np.median(column)
            reach = cfg.mad_clip * 1.4826 * np.median(np.abs(column - middle))
            if reach > 0:
                column = np.clip(column, middle - reach, middle + reach)
            if column.std() > 1e-6 * abs(column.mean()) + 1e-12:
                scored = (column - column.mean()) / column.std()
                result[known, t, f] = np.clip(scored, -cfg.z_clip, cfg.z_clip)
    return result


def samples(values: np.ndarray, cfg: SampleConfig = LEVEL, day: int = 20) -> torch.Tensor:
    members = torch.tensor(MEMBERS)
    return Standardizer(cfg, NAMES).standardize_day(
        torch.from_numpy(values), day, members, torch.float64
    )


class TestReference:
    @pytest.mark.parametrize("missing", [0.0, 0.2, 0.7])
    def test_level_equals_the_specification_in_loops(self, missing: float) -> None:
        values = panel(missing=missing)
        np.testing.assert_allclose(
            samples(values), reference(values, 20, MEMBERS, LEVEL), atol=1e-9
        )

    def test_both_kinds_stand_side_by_side(self) -> None:
        values = panel()
        kinds = [SampleConfig(lookback=10, channels=(kind,)) for kind in ("shape", "level")]
        both = SampleConfig(lookback=10, channels=("shape", "level"))
        expected = torch.cat([samples(values, cfg) for cfg in kinds], dim=2)
        assert torch.equal(samples(values, both), expected)
        assert Standardizer(both, NAMES).channels[3:5] == ("turnover_rate", "open_level")

    def test_many_assets_are_standardized_in_pieces_to_the_same_bits(self) -> None:
        rng = np.random.default_rng(1)
        values = torch.from_numpy(np.exp(rng.normal(size=(12, 1300, 4))).astype(np.float32))
        both = Standardizer(SampleConfig(lookback=10, channels=("shape", "level")), NAMES)
        whole = both.standardize_time(values, 11, torch.arange(1300), torch.float32)
        for size in (1, 77, 1000):
            members = torch.arange(1300).split(size)
            parts = [both.standardize_time(values, 11, some, torch.float32) for some in members]
            for kind, share in enumerate(whole):
                assert torch.equal(share.value, torch.cat([part[kind].value for part in parts]))


class TestProperties:
    @pytest.mark.parametrize("channels", [("shape",), ("level",), ("shape", "level")])
    def test_shares_give_what_the_whole_gives(self, channels: tuple[str, ...]) -> None:
        """Three workers, one after the other, with sums and gathers played by hand."""
        both = Standardizer(SampleConfig(lookback=10, channels=channels), NAMES)
        values = torch.from_numpy(panel())
        members = torch.tensor(MEMBERS)
        split = [members[[0, 3]], members[:0], members[[1, 2, 4, 5, 6]]]
        shares = [both.standardize_time(values, 20, part, torch.float64) for part in split]
        for kind, name in enumerate(channels):
            one = Standardizer(SampleConfig(lookback=10, channels=(name,)), NAMES)
            gathered: list[np.ndarray] = []
            sums: list[torch.Tensor] = []
            for share in shares:  # what each would send
                one.compute_statistics(
                    share[kind : kind + 1], _note(sums), _note(gathered, as_list=True)
                )
            summed: list[torch.Tensor] = []
            for share in shares:
                one.compute_statistics(
                    share[kind : kind + 1], _note(summed), partial(_give, gathered)
                )
            total = sum(summed[1:], summed[0])
            mine = shares[0][kind : kind + 1]
            found = one.compute_statistics(mine, partial(_give, total), partial(_give, gathered))
            whole = one.standardize_day(values, 20, members, torch.float64)
            for part, share in zip(split, shares, strict=True):
                own = torch.searchsorted(members, part)
                torch.testing.assert_close(
                    one.standardize_assets(share[kind : kind + 1], found), whole[own]
                )

    @settings(max_examples=25, deadline=None)
    @given(day=st.integers(9, 28), seed=st.integers(0, 999))
    def test_sample_ignores_the_future(self, day: int, seed: int) -> None:
        values, tampered = panel(seed), panel(seed + 1)
        tampered[: day + 1] = values[: day + 1]
        assert torch.equal(samples(values, day=day), samples(tampered, day=day))

    def test_the_check_has_teeth(self) -> None:
        tampered = panel()
        tampered[20] *= 1.1
        assert not torch.equal(samples(panel()), samples(tampered))

    def test_currency_of_a_price_does_not_matter(self) -> None:
        dear = panel()
        dear[..., :2] *= 7.0
        torch.testing.assert_close(samples(dear), samples(panel()), rtol=1e-9, atol=1e-9)

    def test_one_outlier_leaves_the_others_apart(self) -> None:
        values = panel(missing=0.0)
        values[20, 0, 3] = 1e12
        others = samples(values)[1:, -1, 3]
        assert others.std() > 0.1

    def test_turnover_of_a_stock_is_told_apart(self) -> None:
        """What the shape loses: one stock turns over ten times as much as the others."""
        rng = np.random.default_rng(3)
        values = np.exp(rng.normal(size=(30, 9, 4)) * 0.1)
        values[:, 4, 3] *= 10
        shape = SampleConfig(lookback=10)
        assert samples(values)[3, :, 3].mean() > 1.5
        assert samples(values, shape)[3, :, 3].mean().abs() < 0.5


class TestValidation:
    def test_level_of_a_price_needs_the_close(self) -> None:
        cfg = SampleConfig(lookback=10, channels=("level",))
        values = torch.from_numpy(panel()[..., [0, 2]])
        with pytest.raises(ConfigError, match="add the feature 'close'"):
            Standardizer(cfg, ("open", "volume")).standardize_day(values, 20, torch.tensor([0, 1]))

    def test_a_kind_named_twice(self) -> None:
        with pytest.raises(ValidationError, match="must be unique"):
            SampleConfig(channels=("level", "level"))


def _give(known, _):
    return known


def _note(sent: list, *, as_list: bool = False):
    def note(value):
        sent.append(value)
        return [value] if as_list else value

    return note
