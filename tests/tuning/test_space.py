import dataclasses
from typing import Any

import pytest

from gangru_dist.base.errors import ConfigError
from gangru_dist.config import presets, sources
from gangru_dist.config.identity import to_dict
from gangru_dist.config.settings import RunConfig, SearchRange
from gangru_dist.runs.search import Numbers
from gangru_dist.tuning.space import (
    apply,
    list_extremes,
    list_incomparable,
    make_parameters,
    propose,
)


def with_space(preset: str = "demo", **space: Any) -> RunConfig:
    """A preset whose search space is these ranges alone; `__` stands for a dot."""
    cfg = presets.ALL[preset]()
    ranges = {key.replace("__", "."): SearchRange(**span) for key, span in space.items()}
    return dataclasses.replace(cfg, tune=dataclasses.replace(cfg.tune, space=ranges))


class TestReference:
    def test_a_range_follows_the_type_of_its_setting(self) -> None:
        cfg = with_space(
            gru__hidden={"low": 8, "high": 30, "step": 8},
            training__learning_rate={"low": 1e-4, "high": 1e-2, "log": True},
            gru__head={"choices": [[8, 4], [4]]},
        )
        hidden, rate, head = make_parameters(cfg)
        assert (hidden.span.kind, hidden.bounds) == ("int", [8, 24])  # 32 would be too large
        assert rate.span == Numbers(kind="float", low=1e-4, high=1e-2, log=True, step=None)
        assert rate.value(0.00123456) == 0.00123
        assert head.bounds == [[8, 4], [4]]
        assert apply(cfg, {"gru.head": head.value("[4]")}).gru.head == (4,)

    def test_values_are_the_settings_of_the_trial(self) -> None:
        cfg = with_space(gru__hidden={"low": 8, "high": 16})
        trial = apply(cfg, {"gru.hidden": 9, "label.transform": "rank"})
        assert sources.difference(to_dict(cfg), to_dict(trial)) == [
            "gru.hidden: 32 -> 9",
            "label.transform: 'zscore' -> 'rank'",
        ]


class TestProperties:
    @pytest.mark.parametrize("preset", presets.ALL)
    def test_every_bound_of_the_default_space_is_valid(self, preset: str) -> None:
        cfg = presets.ALL[preset]()
        space = make_parameters(cfg)
        assert len(list_extremes(cfg, space)) == 1 + sum(len(p.bounds) for p in space)

    def test_the_configuration_itself_is_the_first_trial(self) -> None:
        cfg = presets.demo()
        space = make_parameters(cfg)
        first = propose(cfg, space, [])
        assert first is not None
        assert apply(cfg, first) == cfg

    def test_what_the_gan_does_not_have_is_not_searched(self) -> None:
        cfg = dataclasses.replace(presets.demo(), variant="gru")
        assert not [p.key for p in make_parameters(cfg) if p.key.startswith("gan.")]

    def test_what_a_fitted_predictor_does_not_have_is_not_searched(self) -> None:
        none = with_space(
            training__learning_rate={"low": 1e-4, "high": 1e-3}, gru__hidden={"low": 4, "high": 8}
        )
        with pytest.raises(ConfigError, match=r"changes a model of .* predictor=ridge"):
            make_parameters(dataclasses.replace(none, predictor="ridge"))
        space = with_space(
            training__epochs={"low": 2, "high": 4}, samples__lookback={"low": 40, "high": 60}
        )
        (left,) = make_parameters(dataclasses.replace(space, predictor="ridge"))
        assert left.key == "samples.lookback"

    def test_a_proposal_on_a_step_stays_on_it(self) -> None:
        span = {"low": 0.0, "high": 0.5, "step": 0.0625}
        (dropout,) = make_parameters(with_space(gan__dropout=span))
        values = [dropout.value(k * 0.0625) for k in range(9)]
        assert values[3] == 0.1875  # three digits would be 0.188, in no range of this search
        assert values == [k * 0.0625 for k in range(9)]

    def test_extremes_move_a_windows_days_together(self) -> None:
        cfg = with_space(
            samples__lookback={"low": 30, "high": 60},
            windows__history_days={"low": 300, "high": 500},
            gru__hidden={"low": 8, "high": 16},
        )
        found = list_extremes(cfg, make_parameters(cfg))
        assert (60, 500) in {(c.samples.lookback, c.windows.history_days) for c in found}
        assert len(found) == 1 + 6 + 4

    def test_impossible_corners_are_no_trial(self) -> None:
        cfg = with_space(
            "default",
            windows__history_days={"low": 30, "high": 400},
            label__horizon={"low": 5, "high": 60},
            windows__sample_every={"low": 1, "high": 5},
        )
        found = list_extremes(cfg, make_parameters(cfg))
        assert 7 < len(found) < 1 + 6 + 8
        assert all(c.windows.history_days > c.label.reach for c in found)

    def test_another_yardstick_is_named(self) -> None:
        cfg = with_space(
            label__horizon={"low": 5, "high": 20}, label__transform={"choices": ["zscore", "rank"]}
        )
        assert list_incomparable(make_parameters(cfg)) == ["label.horizon"]

    def test_a_file_replaces_the_space_and_set_changes_one_entry(self, tmp_path: Any) -> None:
        file = tmp_path / "a.toml"
        file.write_text("[tune.space]\ngru.hidden = {low = 8, high = 16}\n")
        cfg = sources.load("demo", str(file), ["tune.space.gru.layers={low=1, high=2}"])
        assert [p.key for p in make_parameters(cfg)] == ["gru.hidden", "gru.layers"]
        fixed = sources.load("demo", str(file), ["tune.space.gru.hidden=none", "tune.trials=3"])
        assert fixed.tune.space == {"gru.hidden": None}


class TestValidation:
    @pytest.mark.parametrize(
        ("space", "message"),
        [
            ({"gru__hiden": {"low": 1, "high": 2}}, r"unknown setting 'gru.hiden'.*gru.hidden"),
            ({"gru__hidden": {"low": 0, "high": 8}}, r"tune.space.gru.hidden = 0 is not a valid"),
            ({"gan__dropout": {"low": 0, "high": 1}}, r"tune.space.gan.dropout = 1.0 is not a"),
            ({"gru__hidden": {"low": 1.5, "high": 8}}, r"tune.space.gru.hidden: .* whole number"),
            (
                {"label__transform": {"choices": ["zscore", "x"]}},
                r"label.transform = .x. is not a valid",
            ),
            ({"label__transform": {"low": 1, "high": 2}}, r"label.transform is not a number"),
            (
                {"factor__quantiles": {"low": 2, "high": 9}},
                r"factor.quantiles does not change the model",
            ),
            (
                {"windows__first": {"choices": ["2019-01-01"]}},
                r"windows.first does not change the model",
            ),
            ({"samples__lookback": {"low": 20, "high": 40}}, r"lookback = 20 .*min_traded_days"),
            ({}, r"tune.space is empty"),
        ],
    )
    def test_a_wrong_space_names_its_key(self, space: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            make_parameters(with_space(**space))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{low=8}", r"tune.space.gru.hidden=.*give \{low"),
            ("{low=8, high=8}", r"low = 8 must be less"),
            ("{low=0, high=8, log=true}", r"log = true needs low > 0"),
            ("{low=1, high=8, choices=[1]}", r"choices cannot be combined"),
            ("{low=1, hgih=8}", r"tune.space.gru.hidden.hgih"),
        ],
    )
    def test_a_wrong_range_names_its_key(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            sources.load("demo", None, [f"tune.space.gru.hidden={text}"])
