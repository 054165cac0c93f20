"""User code by name: found, checked, part of the identity, and never named by storage."""

import importlib
import json
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from gangru_dist.base import registry
from gangru_dist.base.errors import ConfigError, TrainingError, WindowError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.commands import check_plugin
from gangru_dist.commands.check_plugin import check
from gangru_dist.config.identity import from_dict, model_settings, to_dict
from gangru_dist.config.settings import LABEL_TRANSFORMS, PREDICTORS, GruConfig, RunConfig
from gangru_dist.config.sources import load, with_values
from gangru_dist.features.price_volume import FEATURES
from gangru_dist.models.predictors import TransformerPredictor
from gangru_dist.runs.run import Run
from gangru_dist.training.checkpoint import TrainingState, read_model, write_model
from gangru_dist.training.data import prepare
from gangru_dist.training.window import train_window
from tests.training.worlds import block, config, until, window

CODE = "my_plugin"


class TestNames:
    def test_a_name_of_ones_own_reaches_every_process_by_itself(self) -> None:
        cfg = load("default", None, [f"predictor={CODE}:Mean", f"label.transform={CODE}:squared"])
        assert PREDICTORS[cfg.predictor] is sys.modules[CODE].Mean
        PREDICTORS.pop(cfg.predictor)  # as in a worker, which unpickles the configuration
        assert PREDICTORS[cfg.predictor](3, GruConfig())(torch.zeros(2, 5, 3)).shape == (2,)
        assert LABEL_TRANSFORMS[cfg.label.transform](np.array([-2.0]), cfg.label) == -4

    def test_a_feature_of_ones_own(self) -> None:
        cfg = load("default", None, [f'panel.features=["close","{CODE}:surprise"]'])
        assert cfg.features == ("close", f"{CODE}:surprise")
        assert FEATURES[f"{CODE}:surprise"].inputs == ("close", "volume")

    @pytest.mark.parametrize(
        ("setting", "says"),
        [
            ("predictor=no_such:Class", "No module named 'no_such'"),
            (f"predictor={CODE}:Men", "has no attribute 'Men'"),
            (f'panel.features=["{CODE}:bare"]', "is no feature: it lacks the decorator"),
            ("predictor=gur", "no predictor 'gur'; nearest: ['gru'"),
        ],
    )
    def test_what_cannot_be_found_names_the_key(self, setting: str, says: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load("default", None, [setting])
        assert says in str(caught.value)
        assert setting.partition("=")[0] in str(caught.value)

    def test_an_installed_package_is_called_by_its_entry_point(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        point = SimpleNamespace(name="line", value=f"{CODE}:Mean")
        asked: list[str] = []

        def entry_points(group: str) -> list[SimpleNamespace]:
            asked.append(group)
            return [point] if group == "gangru_dist.predictors" else []

        monkeypatch.setattr(registry, "entry_points", entry_points)
        cfg = load("default", None, ["predictor=line"])
        assert PREDICTORS[cfg.predictor] is sys.modules[CODE].Mean
        assert set(asked) == {"gangru_dist.predictors"}

    def test_code_is_part_of_the_identity(self) -> None:
        own = model_settings(load("default", None, [f"predictor={CODE}:Mean"]))
        assert list(own["code"]) == [f"predictor {CODE}:Mean"]
        assert "code" not in model_settings(load("default", None, ["predictor=lstm"]))

    def test_it_is_in_a_worker_too(self) -> None:
        cfg = load("default", None, [f"predictor={CODE}:Mean"])
        here = model_settings(cfg)
        PREDICTORS.pop(cfg.predictor)  # as in a worker, which unpickles the configuration
        assert model_settings(cfg) == here

    def test_a_base_class_is_code_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cfg = load("default", None, [f"predictor={CODE}:Column"])
        before = model_settings(cfg)["code"]
        monkeypatch.setattr(sys.modules[CODE].Column, "__doc__", "says nothing")
        assert model_settings(cfg)["code"] == before
        monkeypatch.setattr(sys.modules[CODE], "Mean", sys.modules[CODE].Batch)
        assert model_settings(cfg)["code"] != before

    def test_it_is_shipped_to_a_cluster_that_is_joined(self) -> None:
        assert session.list_user_files() == []
        load("default", None, [f"predictor={CODE}:Mean"])
        assert session.list_user_files() == [str(Path(__file__).parent / f"{CODE}.py")]

    def test_a_namespace_package_is_shipped_as_its_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "spaced").mkdir()
        (tmp_path / "spaced" / "own.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.import_module("spaced.own")
        names = Mock(return_value={"spaced"})
        monkeypatch.setattr(type(session.FEATURES), "list_user_modules", names)
        assert session.list_user_files() == [str(tmp_path / "spaced")]


class TestStoredNames:
    """What lies in storage names no code."""

    def claimed(self, folder: Path) -> Run:
        cfg = load("demo", None, [f"predictor={CODE}:Mean", f'panel.features=["{CODE}:surprise"]'])
        run = Run(Storage(str(folder)), "mine", cfg)
        run.claim()
        for table in (PREDICTORS, FEATURES):
            for name in [name for name in table if ":" in name]:
                del table[name]
        FEATURES.pop("surprise")
        del sys.modules[CODE]
        return run

    def test_a_configuration_is_not_imported(self, tmp_path: Path) -> None:
        run = self.claimed(tmp_path)
        claim = run.read_claim()
        assert claim is not None
        assert claim.parse_settings() is None
        with pytest.raises(ConfigError, match="names code of your own"):
            run.read_settings()
        assert CODE not in sys.modules

    def test_the_user_names_it_and_goes_on(self, tmp_path: Path) -> None:
        run = self.claimed(tmp_path)
        given = from_dict(to_dict(run.cfg))  # as --config does
        Run(run.root, run.name, given).claim()
        assert run.read_settings() == given

    def test_a_model_of_another_class_is_refused(self, tmp_path: Path) -> None:
        cfg = config(variant="gru")
        run = Run(Storage(str(tmp_path)), "mine", cfg)
        state = TrainingState(cfg, 0)
        write_model(run, "2020-03-31", 0, state, identity="x")
        assert read_model(run, "2020-03-31", 0)[1].identity == "x"
        file = tmp_path / "runs/mine/windows/2020-03-31/seed-0/model.json"
        record = json.loads(file.read_text())
        record["architecture"]["predictor"] = "os:system"
        file.write_text(json.dumps(record))
        with pytest.raises(
            WindowError, match="predictor 'os:system', the configuration names 'gru'"
        ):
            read_model(run, "2020-03-31", 0)


class TestCheck:
    @pytest.mark.parametrize(
        "name",
        [
            *(f"{CODE}:{n}" for n in ("surprise", "Mean", "squared", "Flat", "Least", "Recorder")),
            *("gru", "lstm", "transformer", "ridge"),
        ],
    )
    def test_what_keeps_the_promises(self, name: str) -> None:
        assert check(name) == []

    def test_an_estimator_without_weights_under_days_that_have_some(self) -> None:
        cfg = with_values(RunConfig(), {"windows.half_life_days": 50.0}, "test")
        with pytest.raises(ConfigError, match="has no parameter sample_weight"):
            check(f"{CODE}:Least", cfg)

    def test_ours_do(self) -> None:
        assert {name: check(name) for name in (*FEATURES, *LABEL_TRANSFORMS) if check(name)} == {}

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("tomorrow", "looks ahead: bars after day 5"),
            ("of_all_days", "looks ahead"),
            ("market_relative", "mixes assets"),
            ("reads_more", "reads more than it names: only close"),
            ("spoils", "changes the bars that it is given"),
            ("infinite", "gives infinity"),
            ("WithBias", "-IC gives line.2.bias no gradient"),
            ("Batch", "mixes samples"),
            ("Dropping", "draws at random while it trains"),
            ("Column", "gives shape (16, 1) for 16 samples"),
            ("Failing", "fails: RuntimeError: shape '[7, -1]' is invalid"),
            ("Failing", "(my_plugin.py, line "),
            ("Broken", "fails: RuntimeError"),
            ("Unmade", "fails: RuntimeError: no key"),
            ("cumulated", "depends on the order of the assets"),
            ("shared_random", "gives another result when it is called again"),
            ("bare", "it lacks the decorator"),
            ("nowhere", "has no attribute 'nowhere'"),
        ],
    )
    def test_what_breaks_one(
        self, name: str, says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert check_plugin.run([f"{CODE}:{name}", f"{CODE}:squared"]) == 2
        shown = capsys.readouterr().out
        assert says in shown
        assert f"{CODE}:squared: keeps the promises\n" in shown  # later names are checked too

    def test_a_predictor_is_built_with_the_settings(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = [f"{CODE}:Flat", "--set", "samples.lookback=50"]
        assert check_plugin.run([*words, "--set", 'samples.channels=["shape", "level"]']) == 0
        assert check_plugin.run([*words, "--set", "gru.options.p=0.1"]) == 2
        assert "draws at random while it trains (dropout?)" in capsys.readouterr().out

    def test_training_refuses_what_draws_at_random(self) -> None:
        sizes = {"options": {"p": 0.1}}
        cfg = config(variant="gru", predictor=f"{CODE}:Flat", gru=sizes, training={"epochs": 1})
        world = block()
        chosen = window(world, cfg)
        data = prepare(until(world, chosen.refit), chosen, world.dates, cfg)
        with pytest.raises(TrainingError, match=r"my_plugin:Flat draws at random while it trains"):
            train_window(data, TrainingState(cfg, 0), cfg, seed=0)
        cfg = config(variant="gru", predictor=f"{CODE}:Flat", training={"epochs": 1})
        assert train_window(data, TrainingState(cfg, 0), cfg, seed=0).progress.stage == "done"


class TestDocument:
    """docs/extend.md: its code is what its commands name."""

    TEXT = (Path(__file__).parents[1] / "docs" / "extend.md").read_text()

    def test_the_code_keeps_the_promises_and_the_command_takes_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        block = re.search(r"```python\n(.*?)```", self.TEXT, re.DOTALL)
        assert block is not None
        (tmp_path / "factors.py").write_text(block[1])
        monkeypatch.syspath_prepend(str(tmp_path))
        (names,) = re.findall(r"gangru check-plugin (.*)", self.TEXT)
        assert check_plugin.run(names.split()) == 0
        (line,) = re.findall(r"gangru pipeline (.*)", self.TEXT)
        words = shlex.split(line)
        given = [b for a, b in pairwise(words) if a == "--set"]
        assert load("default", None, given).predictor == "factors:Mean"


class TestPredictors:
    @pytest.mark.parametrize("name", ["lstm", "transformer"])
    def test_the_order_of_days_counts(self, name: str) -> None:
        torch.manual_seed(0)
        model = PREDICTORS[name](3, GruConfig(hidden=8, layers=2, head=(4,))).eval()
        x = torch.randn(4, 6, 3)
        assert not torch.allclose(model(x), model(torch.cat([x[:, :-1].flip(1), x[:, -1:]], 1)))

    def test_heads_must_divide(self) -> None:
        cfg = GruConfig(hidden=8, options={"heads": 3})
        with pytest.raises(ConfigError, match=r"gru.options.heads=3 must divide gru.hidden=8"):
            TransformerPredictor(3, cfg)
        wanted = load("default", None, ["predictor=transformer", "gru.options.heads=8"])
        assert wanted.gru.options == {"heads": 8}
        assert isinstance(wanted, RunConfig)
