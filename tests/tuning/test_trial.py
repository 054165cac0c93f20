"""A trial against the training core called by hand."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gangru_dist.base.errors import DivergedError, TrainingError
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import LabelConfig, RunConfig, UniverseConfig
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import Scratch, WindowData, prepare
from gangru_dist.training.loop import make_inputs, validate
from gangru_dist.training.window import train_window
from gangru_dist.tuning import trial as trial_module
from gangru_dist.tuning.trial import (
    compute_objective,
    make_all_windows,
    make_validation_config,
    read_window,
    run_trial,
    select_features,
)
from tests.training import worlds
from tests.tuning import store

NAMES = ["2020-03-31", "2020-04-30"]
MARKET = store.market(days=160)


def until_refit(name: str) -> PanelBlock:
    day = make_all_windows(MARKET.dates, store.config())[name].refit
    return worlds.until(MARKET, day)


def trial(
    cfg: RunConfig, base: RunConfig | None = None
) -> tuple[list[float], list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    ics = run_trial(
        cfg,
        base=base or cfg,
        windows=NAMES,
        calendar=MARKET.dates,
        read_block=until_refit,
        steps_per_window=10,
        report=told.append,
    )
    return ics, told


def by_hand(cfg: RunConfig, ruler: RunConfig, name: str) -> tuple[TrainingState, float]:
    """Train a window; IC of the kept model on the ruler's labels."""
    window = make_all_windows(MARKET.dates, cfg)[name]
    data = prepare(until_refit(name), window, MARKET.dates, cfg)
    judged = prepare(until_refit(name), window, MARKET.dates, ruler)
    state = train_window(data, TrainingState(cfg, 0), cfg, seed=0)
    inputs = make_inputs(state.network, judged)
    return state, validate(state.network.predictor, judged, inputs)


class TestReference:
    def test_a_trial_is_the_training_core_on_each_window(self) -> None:
        cfg = store.config()
        ics, told = trial(cfg)
        assert ics == [by_hand(cfg, cfg, name)[0].progress.best_ic for name in NAMES]
        assert told[-1]["objective"] == compute_objective(ics, cfg.tune.spread_penalty)
        assert (told[-1]["windows_done"], told[-1]["epochs"]) == (2, 8)
        assert [one["step"] for one in told] == [1, 2, 3, 10, 11, 12, 13, 20]

    @pytest.mark.parametrize("average", [0.0, 2.0])
    def test_ranks_are_judged_as_returns(self, average: float) -> None:
        """The kept model's IC on the base's labels, not on the ranks it was trained on."""
        training = {"epochs": 4, "patience": 4, "average_epochs": average}
        base = store.config(training=training)
        ranks = store.config(training=training, label={"transform": "rank"})
        ics, _ = trial(ranks, base)
        expected = [by_hand(ranks, base, name) for name in NAMES]
        assert ics == pytest.approx([ic for _, ic in expected], abs=1e-6)
        assert ics != [state.progress.best_ic for state, _ in expected]

    def test_features_are_picked_by_name(self) -> None:
        picked = select_features(MARKET, ("volume", "open"))
        assert (picked.features[..., 1] == MARKET.features[..., 0])[MARKET.traded].all()
        assert select_features(MARKET, MARKET.feature_names) is MARKET


class TestProperties:
    def test_the_gan_is_counted_but_not_reported(self) -> None:
        cfg = store.config(variant="gan_gru", training={"epochs": 1})
        _, told = trial(cfg)
        assert [one["gan_epochs"] for one in told] == [2, 4]
        assert [one["epochs"] for one in told] == [1, 2]

    def test_all_caches_of_a_trial_share_one_budget(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Training's and validation's, and each window begins with all of it."""
        taken: list[tuple[int, float]] = []
        inner = prepare

        def watched(*given: Any, scratch: Scratch, **named: Any) -> WindowData:
            assert given[1].train_days or scratch.left == taken[-1][1] < taken[-1][0]
            full = scratch.left
            data = inner(*given, scratch=scratch, **named)
            for day in (*data.train, *data.valid):
                data.cache(day.row)
            taken.append((full, scratch.left))
            return data

        monkeypatch.setattr(trial_module, "prepare", watched)
        trial(store.config(label={"transform": "rank"}), store.config())
        assert len(taken) == 4
        assert taken[0][0] == taken[2][0]

    def test_it_knows_nothing_after_the_refit_day(self) -> None:
        """The block ends with the refit day, so a trial that looked further would fail."""
        assert until_refit(NAMES[0]).dates[-1] == MARKET.dates[90]
        assert len(trial(store.config())[0]) == 2


class TestValidation:
    def test_a_diverging_trial_says_so(self) -> None:
        with pytest.raises(DivergedError, match="diverged"):
            trial(store.config(training={"learning_rate": 1e30}))

    def test_a_yardstick_without_a_day_says_so(self) -> None:
        """Trials may lower the universe's bounds; they are judged by the search's own."""
        base = store.config(universe={"min_assets": 1000})
        with pytest.raises(TrainingError, match=r"no validation day of 2020-03-31 .*min_assets=10"):
            trial(store.config(), base)


def test_a_search_reads_what_labels_are_neutralized_by(tmp_path: Path) -> None:
    """As the default preset asks: industry and market cap."""
    root = Storage(str(tmp_path))
    manifest = store.write_panel(root, store.market())
    panel = SharedPanel(root=root, manifest=manifest)
    cfg = store.config(label={"neutralize": ["industry", "size"]})
    name = next(iter(make_all_windows(manifest.calendar, cfg)))
    ics = run_trial(
        cfg,
        base=cfg,
        windows=(name,),
        calendar=manifest.calendar,
        read_block=lambda name: read_window(panel, name, [cfg]),
        steps_per_window=cfg.training.epochs,
        report=lambda _: None,
    )
    assert len(ics) == 1


def test_the_objective_is_less_by_the_spread() -> None:
    assert compute_objective([0.02, 0.06], 0.5) == pytest.approx(0.04 - 0.5 * 0.02)
    assert compute_objective([0.06, 0.02], 0.5) == compute_objective([0.02, 0.06], 0.5)
    assert compute_objective([0.02], 3.0) == 0.02


def test_trials_are_validated_on_one_scale() -> None:
    base = RunConfig()
    trial = dataclasses.replace(
        base,
        label=LabelConfig(
            transform="rank", winsorize_mad=3, neutralize=("size",), also=(2,), horizon=5
        ),
        universe=UniverseConfig(exclude_st=False),
    )
    validated = make_validation_config(trial, base)
    assert validated.label == LabelConfig(horizon=5)
    assert validated.universe == base.universe
    assert make_validation_config(base, base) == base
