"""A window's days: whole cross-sections, whatever the number of workers."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from gangru_dist.maths.calendar import first_day
from gangru_dist.panel.universe import select_universe
from gangru_dist.samples.labels import compute_forward_return, make_label
from gangru_dist.samples.standardize import Standardizer
from gangru_dist.training.data import Collective, prepare
from tests.training.worlds import block, config, share, until, window


class TestReference:
    @pytest.mark.parametrize("also", [[], [1, 3]])
    def test_a_batch_is_one_day_and_all_of_it(self, also: list[int]) -> None:
        cfg, world = config(label={"also": also}), block()
        chosen = window(world, cfg)
        known = until(world, chosen.refit)
        data = prepare(known, chosen, world.dates, cfg)
        members = select_universe(known, cfg.universe, 8)
        returns = np.stack(
            [
                compute_forward_return(known.adj_close, known.traded, horizon=horizon, entry_lag=1)
                for horizon in (4, *also)
            ],
            axis=1,
        )  # (days, horizons, N)
        assert [day.row for day in data.train] == list(chosen.train_days)
        assert [day.row for day in data.valid] == list(chosen.valid_days)
        for day in (*data.train, *data.valid):
            universe = np.flatnonzero(members[day.row])
            labeled = np.flatnonzero(members[day.row] & ~np.isnan(returns[day.row, 0]))
            np.testing.assert_array_equal(day.members, labeled)
            masked = np.where(members[day.row], returns[day.row], np.nan)
            expected = make_label(masked, cfg.label)[labeled]
            np.testing.assert_allclose(day.label, expected, rtol=1e-6)
            whole = Standardizer(cfg.samples, cfg.panel.features).standardize_day(
                torch.from_numpy(known.features), day.row, torch.from_numpy(universe)
            )
            own = np.searchsorted(universe, labeled)
            torch.testing.assert_close(data.samples(day), whole[own])

    def test_block_may_start_at_the_first_day_needed(self) -> None:
        cfg, world = config(), block()
        chosen = window(world, cfg)
        whole = prepare(until(world, chosen.refit), chosen, world.dates, cfg)
        start = first_day(chosen, cfg.samples.lookback)
        assert start == chosen.train_days[0] - 7
        assert len(whole.train) == len(chosen.train_days)


class TestProperties:
    @pytest.mark.parametrize(
        "label", [{}, {"neutralize": ["industry", "size"]}, {"also": [1, 3]}], ids=str
    )
    def test_bars_after_the_refit_day_change_nothing(self, label: dict[str, Any]) -> None:
        cfg = config(label=label, windows={"half_life_days": 20.0})
        world, other = block(0), block(1)
        chosen = window(world, cfg)
        cut = chosen.refit + 1
        other = dataclasses.replace(other, industry=other.industry[:, ::-1])
        fields = (
            "features", "traded", "is_st", "listed_days", "adj_close", "market_cap", "industry"
        )  # fmt: skip
        mixed = {
            n: np.concatenate([getattr(world, n)[:cut], getattr(other, n)[cut:]]) for n in fields
        }
        tampered = dataclasses.replace(world, **mixed)
        before = prepare(world, chosen, world.dates, cfg)
        after = prepare(tampered, chosen, world.dates, cfg)
        pairs = zip((*before.train, *before.valid), (*after.train, *after.valid), strict=True)
        for a, b in pairs:
            assert torch.equal(a.label, b.label)
            assert a.weight == b.weight
            assert torch.equal(before.samples(a), after.samples(b))

    def test_exposures_of_later_days_change_no_label(self) -> None:
        """Also before the refit day: a label's regression is of its signal day."""
        cfg, world = config(label={"neutralize": ["industry", "size"]}), block()
        chosen = window(world, cfg)
        known, day = until(world, chosen.refit), chosen.train_days[5]
        cap, industry = known.market_cap.copy(), known.industry.copy()
        cap[day + 1 :], industry[day + 1 :] = cap[day + 1 :, ::-1], industry[day + 1 :, ::-1]
        tampered = dataclasses.replace(known, market_cap=cap, industry=industry)
        before, after = (prepare(b, chosen, world.dates, cfg).train for b in (known, tampered))
        same = [torch.equal(a.label, b.label) for a, b in zip(before, after, strict=True)]
        assert same == [a.row <= day for a in before]

    def test_weights_halve_with_age_and_are_1_on_average(self) -> None:
        cfg, world = config(windows={"half_life_days": 6.0}), block()
        chosen = window(world, cfg)
        data = prepare(until(world, chosen.refit), chosen, world.dates, cfg)
        weights = np.array([day.weight for day in data.train])
        assert weights.mean() == pytest.approx(1)
        assert [day.weight for day in data.valid] == [1.0] * len(data.valid)
        rows = np.array([day.row for day in data.train])
        assert set(np.diff(rows)) == {3}
        np.testing.assert_allclose(weights[2:] / weights[:-2], 2.0)

    @pytest.mark.parametrize("neutralize", [[], ["size"], ["industry", "size"]])
    def test_shares_see_the_whole_cross_section(self, neutralize: list[str]) -> None:
        """Two workers, played with a collective that knows the other's block."""
        cfg, world = config(label={"neutralize": neutralize, "also": [2]}), block()
        chosen = window(world, cfg)
        known = until(world, chosen.refit)
        whole = prepare(known, chosen, world.dates, cfg)
        parts = [np.arange(0, 24, 2), np.arange(1, 24, 2)]
        pair = _Recorder()
        for assets in parts:  # first pass only records what each would send
            prepare(share(known, assets), chosen, world.dates, cfg, pair.recording())
        for rank, assets in enumerate(parts):
            part = prepare(share(known, assets), chosen, world.dates, cfg, pair.playing(rank))
            for mine, all_ in zip(part.train, whole.train, strict=True):
                torch.testing.assert_close(mine.statistics[0].mean, all_.statistics[0].mean)
                own = np.isin(all_.members, assets)
                torch.testing.assert_close(mine.label, all_.label[own])
                assert mine.total == len(all_.label)

    def test_day_with_too_few_assets_is_left_out_and_named(self) -> None:
        cfg, world = config(universe={"min_assets": 10}), block()
        chosen = window(world, cfg)
        day = chosen.train_days[3]
        world.traded[day, 8:] = False
        data = prepare(until(world, chosen.refit), chosen, world.dates, cfg)
        assert str(world.dates[day]) in data.dropped
        assert len(data.train) == len(chosen.train_days) - len(
            [d for d in data.dropped if d <= str(world.dates[chosen.train_days[-1]])]
        )

    def test_float64_is_float64_throughout(self) -> None:
        cfg, world = config(training={"precision": "float64"}), block()
        chosen = window(world, cfg)
        data = prepare(until(world, chosen.refit), chosen, world.dates, cfg)
        assert data.samples(data.train[0]).dtype == torch.float64
        assert data.train[0].label.dtype == torch.float64


class _Recorder:
    """Collective of two workers run one after the other: record first, then replay."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []

    def recording(self) -> "_Recording":
        self.sent.append([])
        return _Recording(self.sent[-1])

    def playing(self, rank: int) -> "_Playing":
        return _Playing(rank, self.sent[1 - rank])


class _Recording(Collective):
    def __init__(self, sent: list[Any]) -> None:
        super().__init__(rank=0, size=2)
        self.sent = sent

    def all_sum(self, x: torch.Tensor) -> torch.Tensor:
        self.sent.append(x.clone())
        return x

    def gather(self, value: Any) -> list[Any]:
        self.sent.append(value)
        return [value]


class _Playing(Collective):
    def __init__(self, rank: int, others: list[Any]) -> None:
        super().__init__(rank=rank, size=2)
        self.others = list(others)

    def all_sum(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.others.pop(0)

    def gather(self, value: Any) -> list[Any]:
        other = self.others.pop(0)
        return [value, other] if self.rank == 0 else [other, value]


@pytest.mark.parametrize("lag", [0, 1])
def test_labels_end_by_the_refit_day(lag: int) -> None:
    cfg, world = config(label={"horizon": 4, "entry_lag": lag}), block()
    chosen = window(world, cfg)
    data = prepare(until(world, chosen.refit), chosen, world.dates, cfg)
    assert not data.dropped  # a label that needed a later day would be missing
