"""What each setting affects, and that it stays so for models that are stored already."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from gangru_dist.base.errors import ConfigError
from gangru_dist.config import presets
from gangru_dist.config.identity import (
    SETTINGS,
    from_dict,
    model_identity,
    model_settings,
    run_settings,
    select_settings,
    to_dict,
)
from gangru_dist.config.schema import STRICT, Affects, list_settings
from gangru_dist.config.settings import (
    LABEL_TRANSFORMS,
    PREDICTORS,
    LabelConfig,
    RunConfig,
)
from gangru_dist.config.sources import load

OLD = [
    *("evaluation.top_fraction=0.1", "evaluation.buffer=1.0", "variant=gan_gru"),
    *("gan.hidden=64", "gan.layers=1", "gan.epochs=5", "gan.learning_rate=1e-3"),
    "gan.reconstruction_weight=100",
]
"""Of preset `default` as it was when the identities were stored."""
CASES: dict[str, tuple[str, list[str]]] = {
    "demo": ("demo", []),
    "report": ("report", []),
    "default": ("default", OLD),
    "gru": (
        "demo",
        ["variant=gru", 'panel.features=["close","open"]', "training.seeds=[1,2]"],
    ),
    "changed": (
        "default",
        [
            *OLD,
            *("label.also=[5]", "windows.min_history_days=300", "predictor=lstm"),
            "training.dropout=0.1",
            *("bars.prices=adjusted", "panel.members=m.csv", "evaluation.members=false"),
            *("factor.members=false", "tune.trials=7", "tune.space.gru.layers=none"),
            "tune.space.samples.lookback={choices=[30,40]}",
        ],
    ),
}
"""Preset and `--set` of configurations whose identities are stored."""
STORED = {
    "demo": ("e07e3afeb27a", "7b10dcde3d18", "5167f03bbad4", "b250231effc7", "7beda83e2db1"),
    "report": ("55191656b6c2", "a22e3e0acd5d", "5cb76a2223b6", "2ed19ab79933", "7beda83e2db1"),
    "default": ("ff6eda0130b8", "6df49a4d1e81", "46a26fae3905", "2ed19ab79933", "7beda83e2db1"),
    "gru": ("1dcde667c573", "21a6ff336dcb", "a55623c103c5", "55d053f1447c", "7beda83e2db1"),
    "changed": ("62a0826b3994", "d83d2fc6dcae", "f1e9fbb0a820", "86a892fb438d", "237859656585"),
}
"""Identity of a model and hashes of model, run, panel and search settings, as version afc845f
stored them. A new setting must not move any of them."""
OTHER = {
    "bars.format": "ashare",
    "bars.columns": {"open": "o"},
    "bars.scales": {"volume": 100.0},
    "bars.price_limits": "none",
    "bars.calendar": "days.txt",
    "bars.first_day": "2001-01-01",
    "panel.members": "members.csv",
    "evaluation.index": "index.csv",
    "panel.features": ["open"],
    "samples.features": ["open"],
    "label.transform": "rank",
    "label.neutralize": ["size"],
    "label.also": [5],
    "windows.min_history_days": 300,
    "windows.half_life_days": 20.0,
    "windows.refit_months": [3],
    "windows.first": "2019-01-01",
    "windows.last": "2019-01-01",
    "gan.channels": [1, 2],
    "gru.head": [3],
    "training.seeds": [5],
    "training.precision": "float64",
    "resources.min_workers": 1,
    "resources.max_concurrent": 3,
    "resources.scoring_actors": 3,
    "factor.neutralize": [],
    "evaluation.decay_horizons": [2],
    "report.language": "zh",
    "synthetic.first": "2016-01-04",
    "synthetic.last": "2021-01-04",
    "tune.space": {},
    "tune.hours": 1.0,
    "tune.windows": ["2019-06-28"],
    "tune.sampler": "random",
    "bars.prices": "adjusted",
    "bars.encoding": "gbk",
    "panel.without": ["none_of_them"],  # else it is the features that change
    "samples.channels": ["level"],
    "resources.windows_per_run": 3,
    "variant": "gru",
    "predictor": "other",
    "gru.options": {"heads": 2},
    "callbacks": ["tensorboard"],
    "evaluation.top_count": 50,
    "evaluation.weights": "score",
    "evaluation.buffer": 2.0,
    "evaluation.max_turnover": 0.3,
    "evaluation.sell_cost_bps": 25.0,
    "evaluation.index_column": "csi300",
}
"""A valid value that is not the default, of settings that have no natural next one."""


@dataclass(config=STRICT)
class Section:
    a: int = Field(default=1, ge=1, lt=5)
    """What it is,
    in two lines."""
    b: Annotated[Literal["x", "y"], Affects.RUN] = "x"


@dataclass
class Marked:
    part: Annotated[Section, Affects.MODEL]


@dataclass
class Unmarked:
    part: Section


def digest(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def changed(key: str) -> RunConfig:
    """The default configuration with another value of one setting."""
    values = to_dict(RunConfig())
    *sections, name = key.split(".")
    table = values
    for section in sections:
        table = table[section]
    table[name] = OTHER[key] if key in OTHER else _next(table[name])
    found = from_dict(values)
    assert found != RunConfig(), key
    return found


def _next(old: Any) -> Any:
    if isinstance(old, bool):
        return not old
    return old + 1 if isinstance(old, int) else 0.7 * old or 0.1


class TestStored:
    @pytest.mark.parametrize("case", CASES)
    def test_stored_identities_do_not_move(self, case: str) -> None:
        preset, given = CASES[case]
        cfg = load(preset, None, given)
        parts = (
            model_settings(cfg),
            run_settings(cfg),
            select_settings(cfg, Affects.PANEL),
            select_settings(cfg, Affects.SEARCH),
        )
        identity = model_identity(cfg, "2018-12-28", 0, "f" * 8)
        assert (identity, *map(digest, parts)) == STORED[case]

    @pytest.mark.parametrize(
        ("precision", "identity"),
        [
            ("float32", "e07e3afeb27a"),
            ("bf16", "d7f8535f9be7"),
            ("tf32", "0301ed0701c2"),
            ("float64", "1f5c921c8dda"),
        ],
    )
    def test_models_of_every_precision_keep_it(self, precision: str, identity: str) -> None:
        """As before there was `auto`."""
        cfg = load("demo", None, [f"training.precision={precision}"])
        assert model_identity(cfg, "2018-12-28", 0, "f" * 8) == identity

    def test_a_configuration_stored_before_samples_had_features(self) -> None:
        values = to_dict(load("demo", None, ['panel.features=["close","open"]']))
        del values["samples"]["features"]
        cfg = from_dict(json.loads(json.dumps(values)))
        assert cfg.features == cfg.panel.features == ("close", "open")

    def test_a_configuration_stored_with_a_setting_that_is_gone(self) -> None:
        values = to_dict(load("demo"))
        values["training"]["tensorboard"] = False
        assert from_dict(values, stored=True) == load("demo")
        values["training"]["tensorboard"] = True
        assert from_dict(values, stored=True) == load("demo", None, ['callbacks=["tensorboard"]'])
        with pytest.raises(ValidationError, match="tensorboard"):
            from_dict(values)

    def test_a_configuration_stored_with_designs_of_the_gan(self) -> None:
        """None of them changed what was trained, unless it was set."""
        values = to_dict(load("demo"))
        values["gan"] |= {"sees": None, "spectral_norm": False, "output": "replace"}
        assert from_dict(values, stored=True) == load("demo")
        with pytest.raises(ValidationError, match=r"gan\.output"):
            from_dict(values | {"gan": values["gan"] | {"output": "beside"}}, stored=True)

    def test_a_search_space_is_stored_flat_and_read_nested_too(self) -> None:
        cfg = load("demo", None, ["tune.space.gru.layers=none"])
        values = to_dict(cfg)
        assert values["tune"]["space"]["gru.layers"] is None
        nested: dict[str, Any] = {}
        for key, span in values["tune"]["space"].items():
            section, _, name = key.partition(".")
            nested.setdefault(section, {})[name] = span
        values["tune"]["space"] = nested
        assert from_dict(values, stored=True) == from_dict(values) == cfg


class TestMarks:
    @pytest.mark.parametrize("key", SETTINGS)
    def test_identities_follow_the_marks(self, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PREDICTORS, "other", PREDICTORS["gru"])
        old, new = RunConfig(), changed(key)
        mark = SETTINGS[key].affects
        assert (model_settings(old) != model_settings(new)) == bool(mark & Affects.MODEL)
        results = Affects.MODEL | Affects.RUN
        assert (run_settings(old) != run_settings(new)) == bool(mark & results)
        for one in (Affects.PANEL, Affects.SEARCH):
            assert (select_settings(old, one) != select_settings(new, one)) == bool(mark & one)

    def test_what_a_window_covers_and_costs_affects_no_model(self) -> None:
        for key in ("windows.first", "windows.last", "training.checkpoint_every"):
            assert SETTINGS[key].affects is Affects.NOTHING
        assert SETTINGS["training.seeds"].affects is Affects.RUN
        assert SETTINGS["bars.max_quarantined"].affects is Affects.NOTHING
        assert SETTINGS["bars.scales"].affects is Affects.PANEL
        unmarked = (key for key, one in SETTINGS.items() if one.affects is Affects.NOTHING)
        sections = {key.partition(".")[0] for key in unmarked}
        assert {"resources", "report", "synthetic"} <= sections

    def test_a_setting_is_all_that_its_declaration_says(self) -> None:
        first, second = list_settings(Marked)
        assert (first.key, first.type, first.affects) == ("part.a", int, Affects.MODEL)
        assert (first.kind, first.meaning) == ("int >= 1, < 5", "What it is, in two lines.")
        assert (second.kind, second.affects) == ("'x' | 'y'", Affects.RUN)
        with pytest.raises(TypeError, match=r"part\.a does not say what it affects"):
            list(list_settings(Unmarked))

    def test_a_setting_that_was_added_counts_once_it_is_changed(self) -> None:
        assert "features" not in select_settings(RunConfig(), Affects.MODEL)["samples"]
        cfg = load("default", None, ['samples.features=["close"]'])
        assert select_settings(cfg, Affects.MODEL)["samples"]["features"] == ["close"]


class TestFeatures:
    def test_one_list_whoever_names_it(self) -> None:
        """The same sample, and so the same model, by the panel's list or the sample's own."""
        mine = load("demo", None, ['samples.features=["close","open"]'])
        all_of_panel = load("demo", None, ['panel.features=["close","open"]'])
        assert mine.features == all_of_panel.features == ("close", "open")
        assert model_settings(mine) == model_settings(all_of_panel)
        assert mine.panel == presets.demo().panel  # so that it can be shared

    def test_their_order_is_the_models(self) -> None:
        one, two = (
            load("demo", None, [f"samples.features={names}"])
            for names in ('["close","open"]', '["open","close"]')
        )
        assert model_settings(one) != model_settings(two)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ('samples.features=["close","close"]', r"samples.features=.* repeated: \['close'\]"),
            ('panel.features=["a","a"]', r"panel.features=.* must be unique; repeated: \['a'\]"),
            ("panel.features=[]", "leave at least one"),
            ('samples.features=["close","mine"]', "names mine, which panel.features lacks"),
        ],
    )
    def test_impossible_lists(self, given: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load("demo", None, [given])


def halved(values: np.ndarray, cfg: LabelConfig) -> np.ndarray:
    return values / 2


def doubled(values: np.ndarray, cfg: LabelConfig) -> np.ndarray:
    return values * 2


class TestNames:
    def test_a_users_code_is_part_of_its_models_identity(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        for transform in (halved, halved, doubled):
            monkeypatch.setitem(LABEL_TRANSFORMS, "mine", transform)
            found.append(model_settings(load("demo", None, ["label.transform=mine"])))
        assert found[0] == found[1] != found[2]
        assert {"code"} == {key for key in found[0] if found[0][key] != found[2].get(key)}
        assert "code" not in model_settings(load("demo"))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("label.transform=rnk", r"label.transform='rnk' \(--set .*no label.*nearest: \['rank'"),
            (
                "predictor=gur",
                r"predictor='gur' \(--set .*: no predictor 'gur'; nearest: \['gru'\]",
            ),
        ],
    )
    def test_wrong_names(self, given: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load("demo", None, [given])
