"""One window's training: both stages, exact resume, early stop, errors."""

import dataclasses

import pytest
import torch

from gangru_dist.config import RunConfig
from gangru_dist.errors import TrainingError
from gangru_dist.models import precision
from gangru_dist.runs.model import TimedEpoch
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.collective import Alone
from gangru_dist.training.data import WindowData, prepare
from gangru_dist.training.loop import GanTrainer, Step, predictor_epoch
from gangru_dist.training.window import train_window
from tests.training.worlds import block, config, until, window


def data_of(cfg: RunConfig, seed: int = 0) -> WindowData:
    world = block(seed)
    chosen = window(world, cfg)
    return prepare(until(world, chosen.refit), chosen, world.dates, cfg, Alone())


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
    predictor, optimizer = ours.network.predictor, ours.optimizers["predictor"]
    predictor_epoch(predictor, optimizer, data, data.samples, order, Alone())
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
            assert state.network.generator
            assert state.discriminator
            for group in state.optimizers[idle].param_groups:
                group["lr"] = 0.0
            before = weights(state)
            trainer = GanTrainer(
                state.network.generator,
                state.discriminator,
                (state.optimizers["generator"], state.optimizers["discriminator"]),
                cfg.gan,
            )
            trainer.epoch(data, [0, 1], Step(0, 0), Alone())
            after = weights(state)
            moved = {name for name in before if not torch.equal(before[name], after[name])}
            assert moved
            assert all(name.startswith(rate) for name in moved)

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


@pytest.fixture(scope="module")
def undisturbed() -> Undisturbed:
    cfg = config()
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
    @pytest.mark.skipif("bf16" not in precision.cpu().fast, reason="this CPU has no bf16")
    def test_bf16_trains(self) -> None:
        cfg = config(gan={"epochs": 1}, training={"precision": "bf16", "epochs": 1})
        state = train_window(data_of(cfg), TrainingState(cfg, 0), cfg, seed=0)
        assert next(state.network.parameters()).dtype == torch.float32
        plain = config(gan={"epochs": 1}, training={"epochs": 1})
        other = train_window(data_of(plain), TrainingState(plain, 0), plain, seed=0)
        assert state.progress.history[0] != other.progress.history[0]

    @pytest.mark.parametrize("variant", ["gan_gru", "gru"])
    def test_bf16_is_refused_where_it_would_be_emulated(
        self, variant: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(precision, "cpu", lambda: precision.Device(name="CPU old"))
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
