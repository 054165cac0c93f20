"""Baselines that are fitted by one call: their coefficients, their rows, how they are stored."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gangru_dist.base.errors import ConfigError, TrainingError
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import PREDICTORS, GruConfig, RunConfig
from gangru_dist.models import estimators
from gangru_dist.models.estimators import Estimator, FitData, FitDay, LightGbm, Ridge
from gangru_dist.models.losses import own_share
from gangru_dist.models.predictors import from_architecture
from gangru_dist.runs.run import Run
from gangru_dist.scoring.predictor import predict
from gangru_dist.training.checkpoint import TrainingState, read_model, write_model
from gangru_dist.training.data import prepare
from gangru_dist.training.pace import estimate_training
from gangru_dist.training.window import train_window
from tests.training.worlds import block, config, until, window


def make_days(count: int = 3, assets: int = 40) -> list[FitDay]:
    """Samples of 4 days x 2 channels whose label is a line in them, and noise."""
    rng = np.random.default_rng(0)
    line = rng.normal(size=8)
    days = []
    for number in range(count):
        x = rng.normal(size=(assets, 4, 2))
        y = x.reshape(assets, 8) @ line + rng.normal(size=assets)
        keys = torch.from_numpy(rng.permutation(assets))
        values = (torch.from_numpy(x).float(), torch.from_numpy(y).float())
        days.append(FitDay(*values, keys, weight=1.0 + number))
    return days


def give(days: list[FitDay], **more: Any) -> FitData:
    samples = sum(len(day.x) for day in days)
    given = {"seed": 0, "rank": 0, "all_sum": own_share, "gather": lambda value: [value]} | more
    return FitData(days=iter(days), samples=samples, **given)


class Line:
    """Least squares, as scikit-learn writes it: what is learnt ends in _."""

    def __init__(self, features: int, cfg: GruConfig) -> None:
        self.seen: list[Any] = []

    def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> None:
        self.seen = [x.copy(), y.copy(), sample_weight]
        self.coef_ = np.linalg.lstsq(x, y, rcond=None)[0]
        self.name_, self.n_iter_, self.nothing_ = "line", 3, None

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x @ self.coef_


def train(cfg: RunConfig) -> TrainingState:
    world = block()
    chosen = window(world, cfg)
    data = prepare(until(world, chosen.refit), chosen, world.dates, cfg)
    return train_window(data, TrainingState(cfg, 3), cfg, seed=3)


class TestRidge:
    def test_it_is_the_weighted_ridge_regression(self) -> None:
        days = make_days()
        model = Ridge(2, GruConfig(options={"alpha": 0.3}), lookback=4)
        model.fit(give(days))
        # the textbook's: least squares with rows of sqrt(alpha) below
        weight = np.concatenate([np.full(len(day.x), day.weight) for day in days])
        x = np.concatenate([day.x.flatten(1).numpy() for day in days]).astype(float)
        y = np.concatenate([day.label.numpy() for day in days])
        root = np.sqrt(weight / weight.sum())
        rows = np.vstack([x * root[:, None], np.sqrt(0.3) * np.eye(8)])
        wanted = np.linalg.lstsq(rows, np.concatenate([y * root, np.zeros(8)]), rcond=None)[0]
        np.testing.assert_allclose(model.weight.numpy(), wanted, rtol=1e-5)

    def test_alpha_must_shrink(self) -> None:
        with pytest.raises(ConfigError, match=r"gru.options.alpha=0 must be > 0"):
            Ridge(2, GruConfig(options={"alpha": 0}), lookback=4)

    @pytest.mark.parametrize("options", [{"alhpa": 1.0}, {"alpha": "much"}])
    def test_an_option_it_does_not_have_is_refused(self, options: dict) -> None:
        with pytest.raises(ConfigError, match=r"predictor=ridge has the options alpha \(1.0\)"):
            Ridge(2, GruConfig(options=options), lookback=4)


class TestEstimator:
    def test_it_sees_every_sample_once_in_the_assets_order(self) -> None:
        days, model = make_days(), Estimator(Line(2, GruConfig()))
        line = model.model
        model.fit(give(days))
        order = [np.argsort(day.keys.numpy()) for day in days]
        x, y, weight = line.seen
        rows = [day.x.flatten(1).numpy()[o] for day, o in zip(days, order, strict=True)]
        np.testing.assert_array_equal(x, np.concatenate(rows))
        labels = [day.label.numpy()[o] for day, o in zip(days, order, strict=True)]
        np.testing.assert_array_equal(y, np.concatenate(labels))
        np.testing.assert_array_equal(weight, np.repeat([1.0, 2.0, 3.0], 40))

    def test_two_workers_give_it_the_rows_of_one(self) -> None:
        days, alone, first = make_days(), Line(2, GruConfig()), Line(2, GruConfig())
        Estimator(alone).fit(give(days))
        split = [
            [FitDay(d.x[part], d.label[part], d.keys[part], d.weight) for d in days]
            for part in (slice(15), slice(15, None))
        ]
        others = iter([[d.keys.numpy(), d.x.flatten(1).numpy(), d.label.numpy()] for d in split[1]])

        def gather(value: Any) -> list[Any]:
            return [value, next(others) if isinstance(value, list) else None]

        Estimator(first).fit(FitData(iter(split[0]), 120, 0, 0, own_share, gather))
        for one, other in zip(first.seen, alone.seen, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_what_does_not_fit_into_memory_is_refused_with_the_numbers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(estimators, "count_free_bytes", lambda: 11_000)
        with pytest.raises(TrainingError) as caught:  # 120 samples x 8 values x 12 bytes
            Estimator(Line(2, GruConfig())).fit(give(make_days()))
        assert "needs 0.0 GB on one worker, for 120 samples of 8 values" in str(caught.value)
        monkeypatch.setattr(estimators, "count_free_bytes", lambda: 12_000)
        Estimator(Line(2, GruConfig())).fit(give(make_days()))

    def test_what_it_learns_elsewhere_cannot_be_stored(self) -> None:
        class Hidden(Line):
            def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: Any = None) -> None:
                super().fit(x, y)
                self.scale = 2.0

            def predict(self, x: np.ndarray) -> np.ndarray:
                return super().predict(x) * getattr(self, "scale", 1.0)

        class Listed(Line):
            def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: Any = None) -> None:
                super().fit(x, y)
                self.parts_ = [1, 2]

        for made, says in (
            (Hidden, "not all in attributes that end in _"),
            (Listed, "parts_ is a list"),
        ):
            with pytest.raises(TrainingError, match=says):
                Estimator(made(2, GruConfig())).fit(give(make_days()))

    def test_an_empty_text_is_stored(self) -> None:
        line = Line(2, GruConfig())
        line.fit(np.ones((3, 2)), np.ones(3))
        line.name_ = ""
        tensors, again = estimators.to_tensors(line), Line(2, GruConfig())
        estimators.set_tensors(again, tensors)
        assert again.name_ == ""
        assert again.n_iter_ == 3

    def test_stored_names_reach_nothing_but_what_is_learnt(self) -> None:
        for name in ("__class__", "_secret_", "fit"):
            with pytest.raises(RuntimeError, match="names nothing that an estimator learns"):
                Estimator(Line(2, GruConfig())).load_state_dict({name: torch.zeros(1)})

    def test_one_that_scores_in_another_shape_is_refused(self) -> None:
        class Column(Line):
            def predict(self, x: np.ndarray) -> np.ndarray:
                return super().predict(x)[:, None]

        model = Estimator(Column(2, GruConfig()))
        model.fit(give(make_days()))
        with pytest.raises(TrainingError, match=r"shape \(5, 1\) for 5 samples"):
            model(torch.zeros(5, 4, 2))

    def test_it_is_asked_for_no_empty_share(self) -> None:
        """Of a day on which a worker has nobody; scikit-learn's refuse a matrix without rows."""

        class Strict(Line):
            def predict(self, x: np.ndarray) -> np.ndarray:
                assert len(x)
                return super().predict(x)

        model = Estimator(Strict(2, GruConfig()))
        model.fit(give(make_days()))
        assert model(torch.zeros(0, 4, 2)).shape == (0,)


class Regression:
    """An estimator of scikit-learn's."""

    def __new__(cls, features: int, cfg: GruConfig) -> Any:
        return pytest.importorskip("sklearn.linear_model").ElasticNet(alpha=0.01)


class TestTraining:
    """The training core calls `fit` in place of the epochs; all else is the networks'."""

    @pytest.mark.parametrize("name", ["ridge", "line", "lightgbm", "sklearn"])
    def test_it_is_trained_stored_and_read_as_a_network_is(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if name == "lightgbm":
            pytest.importorskip("lightgbm")
        monkeypatch.setitem(PREDICTORS, "line", Line)
        monkeypatch.setitem(PREDICTORS, "sklearn", Regression)
        options = {"num_iterations": 20, "min_data_in_leaf": 5} if name == "lightgbm" else {}
        cfg = config(
            variant="gru", predictor=name, gru={"options": options},
            training={"average_epochs": 2.0, "compile": True},
        )  # fmt: skip
        state = train(cfg)
        (epoch,) = state.progress.history
        assert state.progress.stage == "done"
        assert state.progress.best_ic == epoch.valid_ic
        assert -epoch.train_loss > 0.15  # fitted to noise, as it must be
        run = Run(Storage(str(tmp_path)), "mine", cfg)
        write_model(run, "2020-03-31", 3, state, identity="a")
        network, record = read_model(run, "2020-03-31", 3)
        x = torch.randn(50, 8, 4)
        np.testing.assert_array_equal(predict(network, x), predict(state.network, x))
        assert np.ptp(predict(network, x)) > 0
        assert record.architecture["lookback"] == 8
        again = train(cfg)
        assert all(
            torch.equal(value, again.network.state_dict()[key])
            for key, value in state.network.state_dict().items()
        )

    @pytest.mark.parametrize("predictor", ["line", "ridge", "gru"])
    def test_its_time_is_estimated_before_it_is_fitted(
        self, predictor: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(PREDICTORS, "line", Line)
        cfg = config(variant="gru", predictor=predictor)
        chosen = window(block(), cfg)
        cost = estimate_training(cfg, chosen, 24)
        assert cost.seconds > 0
        rows = 24 * len(chosen.train_days)
        assert cost.gathered == (12 * rows * 8 * 4 if predictor == "line" else 0)

    def test_behind_a_gan_it_sees_what_the_generator_makes(self) -> None:
        cfg = config(predictor="ridge")
        state = train(cfg)
        assert [epoch.stage for epoch in state.progress.history] == ["gan", "gan", "predictor"]
        again = from_architecture(state.network.architecture)
        again.load_state_dict(state.network.state_dict())
        x = torch.randn(5, 8, 4)
        assert torch.equal(again(x), state.network(x))

    def test_a_checkpoint_holds_what_is_fitted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PREDICTORS, "line", Line)
        cfg = config(variant="gru", predictor="line")
        state, again = train(cfg), TrainingState(cfg, 0)
        again.restore(state.to_bytes("a"), "a")
        assert again.progress.stage == "done"
        assert torch.equal(again.best["coef_"], state.best["coef_"])

    def test_lightgbm_says_what_it_has(self) -> None:
        pytest.importorskip("lightgbm")
        with pytest.raises(ConfigError, match="predictor=lightgbm has the options num_iterations"):
            LightGbm(2, GruConfig(options={"n_trees": 3}))

    def test_without_its_package_lightgbm_says_how_to_get_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "lightgbm", None)
        with pytest.raises(ConfigError, match=r"pip install 'gangru_dist\[lightgbm\]'"):
            LightGbm(2, GruConfig())
