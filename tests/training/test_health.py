"""Distributions of real and generated samples: against plain numpy, and over several workers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from gangru_dist.base.records import parse_record, to_jsonable
from gangru_dist.config.settings import RunConfig
from gangru_dist.runs.model import GanSamples
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import Collective, Scratch, TensorCache, WindowData, prepare
from gangru_dist.training.loop import Draws, Step
from gangru_dist.training.window import BINS, gan_samples, train_window
from tests.training.worlds import ASSETS, block, config, share, until, window


def data_of(cfg: RunConfig, assets: np.ndarray | None = None) -> WindowData:
    world = block()
    chosen = window(world, cfg)
    known = until(world, chosen.refit)
    mine = known if assets is None else share(known, assets)
    return prepare(mine, chosen, world.dates, cfg)


def generator_of(cfg: RunConfig) -> torch.nn.Module:
    generator = TrainingState(cfg, 0).network.generator
    assert generator is not None
    return generator


class TestReference:
    def test_numpy_finds_the_same(self) -> None:
        cfg = config(training={"precision": "float64"})
        data, generator = data_of(cfg), generator_of(cfg)
        found = gan_samples(generator, data, cfg, seed=3)
        day = data.train[-1]
        real = data.samples(day)
        draws = Draws(data, day, Step(3, cfg.gan.epochs - 1))
        fake = generator(real, draws.noise(real, cfg.gan.noise_channels)).detach()
        assert found.day == day.date
        assert found.assets == len(day.members)
        edges = np.linspace(-5 - 0.125, 5 + 0.125, BINS + 1)
        for source, values in (("real", real), ("generated", fake)):
            for place, name in enumerate(cfg.panel.features):
                column = values[:, :, place].numpy()
                figures = getattr(found, source)[name]
                assert figures.mean == pytest.approx(column.mean(), abs=1e-12)
                assert figures.std == pytest.approx(column.std(), abs=1e-12)
                cs_std = np.sqrt((column.std(axis=0) ** 2).mean())
                assert figures.cs_std == pytest.approx(cs_std, abs=1e-12)
                expected = np.histogram(column.clip(-5, 5), edges)[0]
                assert figures.histogram == tuple(expected.tolist())

    def test_a_generator_that_makes_one_sample_has_no_spread(self) -> None:
        cfg = config(gan={"noise_channels": 0})
        generator = generator_of(cfg)
        with torch.no_grad():
            for name, weight in generator.named_parameters():
                if "weight_ih" in name:
                    weight.zero_()  # blind to its input, but not constant in time
        found = gan_samples(generator, data_of(cfg), cfg, seed=0)
        for name in cfg.panel.features:
            assert found.generated[name].cs_std < 1e-6
            assert found.generated[name].std > 1e-4
            assert found.real[name].cs_std > 0.5


class _Recorded(Collective):
    """A worker among several: keeps what it would add up."""

    def __init__(self, others: list[Tensor]) -> None:
        super().__init__(rank=0, size=2)
        self.own: list[Tensor] = []
        self.others = iter(others)

    def all_sum(self, x: Tensor) -> Tensor:
        self.own.append(x.clone())
        return x + next(self.others, torch.zeros_like(x))

    def gather(self, value: object) -> list[object]:
        return [value]


class TestProperties:
    def test_shares_add_up_to_the_whole(self) -> None:
        """Two workers' sums are those of one; gloo itself runs in test_world_size."""
        cfg = config(training={"precision": "float64"})
        whole = data_of(cfg)
        day, generator = whole.train[-1], generator_of(cfg)
        alone = gan_samples(generator, whole, cfg, seed=0)

        def part(members: slice, others: list[Tensor]) -> tuple[GanSamples, list[Tensor]]:
            some = dataclasses.replace(day, members=day.members[members], label=day.label[members])
            cache = TensorCache(lambda row: whole.cache(row)[members], Scratch(0))
            data = dataclasses.replace(whole, train=(some,), cache=cache)
            group = _Recorded(others)
            return gan_samples(generator, data, cfg, seed=0, collective=group), group.own

        _, first = part(slice(0, 5), [])
        together, _ = part(slice(5, None), first)
        for source in ("real", "generated"):
            for name, figures in to_jsonable(alone)[source].items():
                found = to_jsonable(together)[source][name]
                assert found.pop("histogram") == figures.pop("histogram")
                assert found == pytest.approx(figures, rel=1e-9)
        nobody, sums = part(slice(0, 0), first)
        assert nobody.assets == day.total
        assert all(float(x.abs().sum()) == 0 for x in sums)

    def test_training_and_weights_do_not_notice(self) -> None:
        cfg = config()
        data = data_of(cfg)
        state = train_window(data, TrainingState(cfg, 0), cfg, seed=0)
        before = {name: tensor.clone() for name, tensor in state.tensors().items()}
        global_state = torch.get_rng_state()
        assert state.network.generator is not None
        gan_samples(state.network.generator, data, cfg, seed=0)
        assert torch.equal(torch.get_rng_state(), global_state)
        after = state.tensors()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())

    def test_plain_json(self) -> None:
        cfg = config()
        found = gan_samples(generator_of(cfg), data_of(cfg), cfg, seed=0)
        assert parse_record(GanSamples, json.dumps(to_jsonable(found))) == found
        assert sum(found.real["open"].histogram) == found.assets * cfg.samples.lookback
        assert len(found.bin_centers) == BINS
        assert found.assets <= ASSETS
