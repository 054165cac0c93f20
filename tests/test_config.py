"""What each setting decides, and that it stays so for models that are stored already."""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic.dataclasses import dataclass

from gangru_dist.base.errors import ConfigError
from gangru_dist.config import presets
from gangru_dist.config.identity import (
    DECIDES,
    deciding,
    from_dict,
    model_identity,
    model_settings,
    run_settings,
    to_dict,
)
from gangru_dist.config.settings import (
    LABEL_TRANSFORMS,
    PREDICTORS,
    Decides,
    LabelConfig,
    RunConfig,
    declared,
)
from gangru_dist.config.sources import load

STORED = {"demo": "e07e3afeb27a", "report": "55191656b6c2", "default": "ff6eda0130b8"}
"""Identities of stored models, which a new setting must not move: `demo` and `report` by the first
version, `default` since 2026-11-26."""
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
    "gan.discriminator_learning_rate": 1e-3,
    "gan.output": "beside",
    "gan.history_days": 800,
    "gan.sees": "shape",
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
    "resources.ingest": "ray",
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
}
"""A valid value that is not the default, of settings that have no natural next one."""


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
    @pytest.mark.parametrize("preset", presets.ALL)
    def test_models_keep_their_identity(self, preset: str) -> None:
        cfg = presets.ALL[preset]()
        assert model_identity(cfg, "2018-12-28", 0, "f" * 8) == STORED[preset]

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

    def test_a_variant_without_a_gan(self) -> None:
        given = ["variant=gru", 'panel.features=["close","open"]', "training.seeds=[1,2]"]
        assert model_identity(load("demo", None, given), "2018-12-28", 1, "x") == "777e5a1fa9b7"

    def test_a_configuration_stored_before_samples_had_features(self) -> None:
        values = to_dict(load("demo", None, ['panel.features=["close","open"]']))
        del values["samples"]["features"]
        cfg = from_dict(json.loads(json.dumps(values)))
        assert cfg.features == cfg.panel.features == ("close", "open")


class TestMarks:
    @pytest.mark.parametrize("key", DECIDES)
    def test_identities_follow_the_marks(self, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PREDICTORS, "other", PREDICTORS["gru"])
        old, new = RunConfig(), changed(key)
        mark = DECIDES[key]
        assert (model_settings(old) != model_settings(new)) == bool(mark & Decides.MODEL)
        results = Decides.MODEL | Decides.RUN
        assert (run_settings(old) != run_settings(new)) == bool(mark & results)
        for one in (Decides.PANEL, Decides.SEARCH):
            assert (deciding(old, one) != deciding(new, one)) == bool(mark & one)

    def test_what_a_window_covers_and_costs_decides_no_model(self) -> None:
        for key in ("windows.first", "windows.last", "training.checkpoint_every"):
            assert DECIDES[key] is Decides.NOTHING
        assert DECIDES["training.seeds"] is Decides.RUN
        assert DECIDES["bars.max_quarantined"] is Decides.NOTHING
        assert DECIDES["bars.scales"] is Decides.PANEL
        sections = {key.partition(".")[0] for key, m in DECIDES.items() if m is Decides.NOTHING}
        assert {"resources", "report", "synthetic"} <= sections

    def test_a_setting_must_say_what_it_decides(self) -> None:
        @dataclass
        class Section:
            a: int = 1
            b: Annotated[int, Decides.RUN] = 2

        @dataclass
        class Marked:
            part: Annotated[Section, Decides.MODEL]

        @dataclass
        class Unmarked:
            part: Section

        scope = {"Section": Section}
        for cls in (Marked, Unmarked):
            cls.__annotations__["part"] = eval(cls.__annotations__["part"], globals(), scope)
        marks = [("part.a", int, Decides.MODEL), ("part.b", int, Decides.RUN)]
        assert list(declared(Marked)) == marks
        with pytest.raises(TypeError, match=r"part\.a does not say what it decides"):
            list(declared(Unmarked))

    def test_a_setting_that_was_added_counts_once_it_is_changed(self) -> None:
        assert "features" not in deciding(RunConfig(), Decides.MODEL)["samples"]
        cfg = load("default", None, ['samples.features=["close"]'])
        assert deciding(cfg, Decides.MODEL)["samples"]["features"] == ["close"]


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
            ('samples.features=["close","close"]', r"samples.features .* repeated: \['close'\]"),
            ('panel.features=["a","a"]', r"panel.features must be unique; repeated: \['a'\]"),
            ("panel.features=[]", "leave at least one"),
            ('samples.features=["close","mine"]', "names mine, which panel.features lacks"),
            ("gan.sees=level", r"gan.sees='level' is not one of samples.channels=\['shape'\]"),
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
            ("predictor=gur", r"predictor='gur' \(--set .*: no predictor; nearest: \['gru'\]"),
        ],
    )
    def test_wrong_names(self, given: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load("demo", None, [given])
