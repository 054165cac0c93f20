"""One window's training: both stages, exact resume, early stop, errors."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gangru_dist.base.errors import TrainingError
from gangru_dist.config.settings import RunConfig
from gangru_dist.models import precision
from gangru_dist.runs.model import TimedEpoch
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import WindowData, prepare
from gangru_dist.training.loop import (
    Step,
    average_weights,
    drop_channels,
    train_gan_epoch,
    train_predictor_epoch,
    validate,
)
from gangru_dist.training.window import train_window
from tests.training.worlds import block, config, until, window


def data_of(cfg: RunConfig, seed: int = 0) -> WindowData:
    world = block(seed)
    chosen = window(world, cfg)
    return prepare(until(world, chosen.refit), chosen, world.dates, cfg)


def weights(state: TrainingState) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_adam_step_is_the_bare_torch_loop() -> None:
    """The same epoch written with nothing but torch gives the same weights."""
    cfg = config(variant="gru", training={"precision": "float64"})
    data = data_of(cfg)
    ours, plain = TrainingState(cfg, 0), TrainingState(cfg, 0)
    order = [2, 0, 1]
    train_predictor_epoch(ours, data, data.samples, cfg.training, order, Step(0, 0))
    optimizer = torch.optim.Adam(plain.network.parameters(), lr=1e-3)
    for index in order:
        day = data.train[index]
        score = plain.network(data.samples(day))
        loss = -torch.corrcoef(torch.stack([score, day.label]))[0, 1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for a, b in zip(ours.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


HELPED = {
    "windows": {"half_life_days": 20.0},
    "label": {"horizon": 4, "neutralize": ["industry", "size"]},
    "training": {
        "epochs": 4, "learning_rate": 0.01, "weight_decay": 0.1, "dropout": 0.2,
        "average_epochs": 1.5,
    },
}  # fmt: skip
"""Every setting of the predictor's training that changes nothing by default."""
FLOAT64 = {"precision": "float64"}


class TestHelp:
    """What steadies the predictor: decay, averaged weights, dropout, weights of days."""

    def epoch(self, cfg: RunConfig, states: int = 1) -> tuple[WindowData, list[TrainingState]]:
        return data_of(cfg), [TrainingState(cfg, 0) for _ in range(states)]

    def test_weight_decay_is_torchs_adamw(self) -> None:
        cfg = config(variant="gru", training={"precision": "float64", "weight_decay": 0.5})
        data, (ours, plain) = self.epoch(cfg, 2)
        train_predictor_epoch(ours, data, data.samples, cfg.training, [0, 1], Step(0, 0))
        optimizer = torch.optim.AdamW(plain.network.parameters(), lr=1e-3, weight_decay=0.5)
        for day in data.train[:2]:
            score = plain.network(data.samples(day))
            optimizer.zero_grad()
            (-torch.corrcoef(torch.stack([score, day.label]))[0, 1]).backward()
            optimizer.step()
        for a, b in zip(ours.network.parameters(), plain.network.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)

    def test_a_days_weight_scales_its_gradient(self) -> None:
        cfg = config(variant="gru", training={"precision": "float64"})
        data, (state,) = self.epoch(cfg)
        predictor = state.network.predictor
        grads = []
        for weight in (1.0, 0.25):
            day = dataclasses.replace(data.train[0], weight=weight)
            some = dataclasses.replace(data, train=(day,))
            state.optimizers["predictor"] = torch.optim.SGD(predictor.parameters(), lr=0.0)
            train_predictor_epoch(state, some, data.samples, cfg.training, [0], Step(0, 0))
            grads.append([p.grad.clone() for p in predictor.parameters() if p.grad is not None])
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(0.25 * a, b)

    def test_averaged_weights_are_the_mean_of_the_steps(self) -> None:
        cfg = config(variant="gru", training={"epochs": 2, "average_epochs": 1e9})
        data, (state,) = self.epoch(cfg)
        seen: list[torch.Tensor] = []

        def remember(_: TimedEpoch, now: TrainingState) -> None:
            assert now.averaged is not None
            seen.append(torch.nn.utils.parameters_to_vector(now.averaged.parameters()).detach())

        train_window(data, state, cfg, seed=0, report=remember)
        steps: list[torch.Tensor] = []
        again = TrainingState(cfg, 0)
        predictor = again.network.predictor

        def note(*_: Any) -> None:
            steps.append(torch.nn.utils.parameters_to_vector(predictor.parameters()).detach())

        again.optimizers["predictor"].register_step_post_hook(note)
        for epoch in range(2):
            order = np.random.default_rng([0, 1, epoch]).permutation(len(data.train)).tolist()
            step = Step(0, epoch)
            train_predictor_epoch(again, data, data.samples, cfg.training, order, step)
            torch.testing.assert_close(seen[epoch], torch.stack(steps).mean(dim=0))

    def test_old_steps_fade(self) -> None:
        mean, newest = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
        expected = None
        for step, value in enumerate([3.0, 1.0, 5.0, 2.0, 8.0, 1.0], start=1):
            torch.nn.init.constant_(newest.weight, value)
            average_weights(mean, newest, step=step, steps=4.0)
            share = 1 / min(step, 4)
            expected = value if expected is None else (1 - share) * expected + share * value
        assert mean.weight.item() == pytest.approx(expected)

    def test_averaged_weights_are_validated_and_kept(self) -> None:
        cfg = config(variant="gru", training={"epochs": 1, "average_epochs": 2.0})
        data, (state,) = self.epoch(cfg)
        train_window(data, state, cfg, seed=0)
        assert state.averaged is not None
        assert same(dict(state.network.predictor.state_dict()), dict(state.averaged.state_dict()))
        assert state.progress.best_ic == validate(state.averaged, data, data.samples)

    def test_dropout_hides_whole_channels_by_asset(self) -> None:
        cfg = config(variant="gru")
        data, _ = self.epoch(cfg)
        day = data.train[0]
        whole = data.samples(day)
        epochs = [
            drop_channels(data.samples, data, 0.3, Step(0, epoch))(day) for epoch in range(40)
        ]
        assert not torch.equal(epochs[0], epochs[1])
        again = drop_channels(data.samples, data, 0.3, Step(0, 0))(day)
        assert torch.equal(epochs[0], again)
        some = whole.abs().sum(dim=1) > 0
        for seen in epochs:
            hidden = (seen == 0).all(dim=1)
            torch.testing.assert_close(torch.where(hidden[:, None, :], 0.0, whole / 0.7), seen)
        share = torch.stack([(seen == 0).all(dim=1)[some] for seen in epochs]).double().mean()
        assert share.item() == pytest.approx(0.3, abs=0.02)


class TestStages:
    def test_history_has_both_stages(self) -> None:
        cfg = config()
        state = train_window(data_of(cfg), TrainingState(cfg, 0), cfg, seed=0)
        stages = [entry.stage for entry in state.progress.history]
        assert stages == ["gan", "gan", "predictor", "predictor", "predictor"]
        assert state.progress.best_ic is not None

    def test_a_gan_without_noise_trains(self) -> None:
        cfg = config(gan={"noise_channels": 0})
        state = train_window(data_of(cfg), TrainingState(cfg, 0), cfg, seed=0)
        assert state.progress.best_ic is not None

    def test_gru_has_no_gan(self) -> None:
        cfg = config(variant="gru")
        state = train_window(data_of(cfg), TrainingState(cfg, 0), cfg, seed=0)
        assert state.network.generator is None
        assert {entry.stage for entry in state.progress.history} == {"predictor"}

    def test_best_epoch_is_kept(self) -> None:
        cfg = config(variant="gru", training={"epochs": 6, "learning_rate": 0.02})
        kept: list[dict[str, torch.Tensor]] = []

        def remember(_: TimedEpoch, state: TrainingState) -> None:
            params = state.network.predictor.state_dict()
            kept.append({name: tensor.clone() for name, tensor in params.items()})

        state = train_window(data_of(cfg), TrainingState(cfg, 0), cfg, seed=0, report=remember)
        ics = [entry.valid_ic for entry in state.progress.history]
        best = ics.index(max(ics))
        assert state.progress.best_epoch == best + 1
        assert same(dict(state.network.predictor.state_dict()), kept[best])

    def test_patience_stops_early(self) -> None:
        cfg = config(variant="gru", training={"epochs": 50, "patience": 2, "learning_rate": 0.05})
        state = train_window(data_of(cfg), TrainingState(cfg, 0), cfg, seed=0)
        assert state.progress.epoch == state.progress.best_epoch + 2 < 50

    def test_generator_is_frozen_in_the_predictor_stage(self) -> None:
        cfg = config()
        seen: list[dict[str, torch.Tensor]] = []

        def remember(_: TimedEpoch, state: TrainingState) -> None:
            assert state.network.generator is not None
            params = state.network.generator.state_dict()
            seen.append({name: tensor.clone() for name, tensor in params.items()})

        train_window(data_of(cfg), TrainingState(cfg, 0), cfg, seed=0, report=remember)
        assert not same(seen[0], seen[1])
        assert same(seen[1], seen[-1])


class TestGan:
    def test_each_step_leaves_the_other_network_alone(self) -> None:
        cfg = config()
        data = data_of(cfg)
        for idle, rate in (("generator", "discriminator"), ("discriminator", "generator")):
            state = TrainingState(cfg, 0)
            for group in state.optimizers[idle].param_groups:
                group["lr"] = 0.0
            before = weights(state)
            train_gan_epoch(state, data, cfg.gan, [0, 1], Step(0, 0))
            after = weights(state)
            moved = {name for name in before if not torch.equal(before[name], after[name])}
            assert moved
            assert all(name.startswith(rate) for name in moved)

    def test_a_day_is_the_bare_torch_loop(self) -> None:
        gan = {"dropout": 0.0, "noise_channels": 0, "learning_rate": 1e-3}
        cfg = config(gan=gan | {"reconstruction_weight": 3.0}, training=FLOAT64)
        data = data_of(cfg)
        ours, plain = TrainingState(cfg, 0), TrainingState(cfg, 0)
        train_gan_epoch(ours, data, cfg.gan, [1], Step(0, 0))
        x, made, judge = data.samples(data.train[1]), plain.network.generator, plain.discriminator
        assert made is not None
        assert judge is not None
        adams = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in (judge, made)]
        bce, ones = F.binary_cross_entropy_with_logits, torch.ones(len(x), dtype=torch.float64)
        fake = made(x)
        (bce(judge(x), ones) + bce(judge(fake.detach()), 0 * ones)).backward()
        adams[0].step()
        (bce(judge(fake), ones) + 3.0 * (fake - x).abs().mean()).backward()
        adams[1].step()
        for name, expected in (("generator", made), ("discriminator", judge)):
            for a, b in zip(ours.parts[name].parameters(), expected.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)

    def test_reconstruction_weight_brings_the_output_near_the_sample(self) -> None:
        far, near = (
            config(
                gan={"epochs": 6, "reconstruction_weight": weight, "learning_rate": 0.02},
                training={"epochs": 1},
            )
            for weight in (0.0, 20.0)
        )
        distances = []
        for cfg in (far, near):
            state = train_window(data_of(cfg), TrainingState(cfg, 0), cfg, seed=0)
            gan = [entry for entry in state.progress.history if entry.stage == "gan"]
            distances.append(gan[-1].distance)
        assert distances[1] < 0.9 * distances[0]


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """A run from first to last epoch, and its state as saved after each."""

    cfg: RunConfig
    data: WindowData
    state: TrainingState
    saved: list[bytes]


@pytest.fixture(scope="module", params=[{}, HELPED], ids=["plain", "helped"])
def undisturbed(request: pytest.FixtureRequest) -> Undisturbed:
    cfg = config(**request.param)
    data = data_of(cfg)
    saved: list[bytes] = []

    def save(_: TimedEpoch, state: TrainingState) -> None:
        saved.append(state.to_bytes("id"))

    state = train_window(data, TrainingState(cfg, 7), cfg, seed=7, report=save)
    return Undisturbed(cfg, data, state, saved)


class TestResume:
    @pytest.mark.parametrize("stop", [1, 2, 3, 4])
    def test_resumed_anywhere_ends_with_the_same_bits(
        self, undisturbed: Undisturbed, stop: int
    ) -> None:
        cfg, whole = undisturbed.cfg, undisturbed.state
        again = TrainingState(cfg, 99)  # other initial weights: all must come from the bytes
        again.restore(undisturbed.saved[stop - 1], "id")
        resumed = train_window(undisturbed.data, again, cfg, seed=7)
        assert same(weights(whole), weights(resumed))
        assert whole.progress == resumed.progress
        assert whole.to_bytes("id") == resumed.to_bytes("id")

    def test_checkpoint_of_something_else_is_refused(self) -> None:
        cfg = config()
        data = TrainingState(cfg, 0).to_bytes("2018-12-28/a")
        with pytest.raises(TrainingError, match="2018-12-28/a cannot continue 2019-06-28/b"):
            TrainingState(cfg, 0).restore(data, "2019-06-28/b")


class TestPrecision:
    @pytest.mark.skipif(
        "bf16" not in precision.describe_device(torch.device("cpu")).fast,
        reason="this CPU has no bf16",
    )
    def test_bf16_trains(self) -> None:
        cfg = config(training={"precision": "bf16", "epochs": 1})
        state = train_window(data_of(cfg), TrainingState(cfg, 0), cfg, seed=0)
        assert next(state.network.parameters()).dtype == torch.float32
        plain = config(training={"epochs": 1})
        other = train_window(data_of(plain), TrainingState(plain, 0), plain, seed=0)
        assert state.progress.history[0] != other.progress.history[0]

    @pytest.mark.parametrize("variant", ["gan_gru", "gru"])
    def test_bf16_is_refused_where_it_would_be_emulated(
        self, variant: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = precision.Device(name="CPU old")
        monkeypatch.setattr(precision, "describe_device", lambda _: old)
        cfg = config(variant=variant, training={"precision": "bf16"})
        state = TrainingState(cfg, 0)
        with pytest.raises(TrainingError, match=r"bf16 needs .*without it: CPU old on node"):
            train_window(data_of(cfg), state, cfg, seed=0)
        assert not state.progress.history


class TestValidation:
    def test_no_usable_day_is_an_error_that_says_where_to_look(self) -> None:
        cfg = config(universe={"min_assets": 25})
        with pytest.raises(TrainingError, match=r"no training day has enough.*min_assets"):
            train_window(data_of(cfg), TrainingState(cfg, 0), cfg, seed=0)

    def test_divergence_is_an_error(self) -> None:
        cfg = config(variant="gru")
        data = data_of(cfg)
        broken = dataclasses.replace(data.train[0], label=data.train[0].label * float("nan"))
        data = dataclasses.replace(data, train=(broken, *data.train[1:]))
        with pytest.raises(TrainingError, match=r"train_loss is nan in epoch 1 .* diverged"):
            train_window(data, TrainingState(cfg, 0), cfg, seed=0)
