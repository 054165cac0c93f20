"""A run's claim and places; the command line's part of it is in test_cli."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar
from unittest.mock import Mock

import pytest

import gangru_dist
from gangru_dist import api, cluster
from gangru_dist.base.errors import (
    BarsError,
    ConfigError,
    GangruError,
    ResourceError,
    StorageError,
)
from gangru_dist.base.storage import Storage
from gangru_dist.config import presets, sources
from gangru_dist.config.identity import to_dict
from gangru_dist.config.sources import load
from gangru_dist.panel.manifest import Manifest
from gangru_dist.report.document import write_report
from gangru_dist.runs.run import Run
from gangru_dist.scoring.score import score_days
from gangru_dist.training.launch import train_windows
from gangru_dist.tuning.search import search
from tests.report import store


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


class TestFailedCommand:
    """One that takes a run's name with --overwrite and fails leaves the run as it was."""

    bad: ClassVar = {  # command -> settings that its inputs contradict
        "report": {"evaluation.index": "/nowhere/index.csv"},
        "report again": {"factor.quantiles": 7},
        "score": {"samples.features": ["close"]},
        "train": {"gru.hidden": 3},
        "tune": {"tune.seed": 9},
        "pipeline": {"gru.hidden": 3},
    }

    def call(self, command: str, run: Run) -> object:
        match command:
            case "score":
                return score_days(run, overwrite=True)
            case "train":
                return train_windows(run, overwrite=True)
            case "tune":
                return search(run, overwrite=True)
            case "pipeline":
                return gangru_dist.run_pipeline(run, bars="synthetic", overwrite=True)
        return write_report(run, overwrite=True)

    @pytest.mark.parametrize("command", bad)
    def test_it_changes_no_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        world = store.write_world(tmp_path / "s")
        Run(world.root, store.RUN, world.cfg).tune.write_bytes("best.toml", b"x = 1")
        before = files(world.root)
        refuse = Mock(side_effect=ResourceError("there is no room"))
        monkeypatch.setattr(cluster.session, "open_session", refuse)
        monkeypatch.setattr(cluster.session, "share_session", lambda *_, **__: nullcontext())
        monkeypatch.setattr(api, "_build_panel", Mock(side_effect=BarsError("bad bars")))
        if command != "score":
            monkeypatch.setattr(Manifest, "require_features", lambda *_: None)
        cfg = sources.with_values(world.cfg, self.bad[command], "test")
        with pytest.raises(GangruError):
            self.call(command, Run(world.root, store.RUN, cfg))
        assert files(world.root) == before
        Run(world.root, store.RUN, world.cfg).check_claim()  # the run's own command goes on


def files(root: Storage) -> dict[str, bytes]:
    """What a storage's runs hold, but for the page of how a job is doing."""
    names = (name for name in root.list_files("runs") if "progress" not in name)
    return {name: root.read_bytes(f"runs/{name.removeprefix('runs/')}") for name in names}


class TestClaim:
    @pytest.mark.parametrize(
        "change",
        ["gan.epochs=9", "training.seeds=[5]", "factor.quantiles=7", "windows.refit_months=[3]"],
    )
    def test_another_configuration_under_the_same_name(self, root: Storage, change: str) -> None:
        mine, other = (Run(root, "mine", load("demo", None, more)) for more in ([], [change]))
        mine.claim()
        key = change.partition("=")[0]
        with pytest.raises(ConfigError, match=f"run 'mine' .*{key}: .* -> .*--overwrite"):
            other.claim()
        claim = other.read_claim()
        assert claim is not None
        assert claim.parse_settings() == mine.cfg
        other.claim(overwrite=True)
        other.claim()

    @pytest.mark.parametrize(
        "change", ["resources.max_failures=9", "windows.first=2019-01-01", "synthetic.seed=4"]
    )
    def test_what_decides_no_result_may_change(self, root: Storage, change: str) -> None:
        Run(root, "mine", load("demo")).claim()
        changed = load("demo", None, [change])
        Run(root, "mine", changed).claim()
        assert root.read_json("runs/mine/config.json")["config"] == to_dict(changed)

    def test_config_json_holds_everything(self, root: Storage) -> None:
        Run(root, "mine", presets.demo()).claim()
        content = root.read_json("runs/mine/config.json")
        assert content["config"] == to_dict(presets.demo())
        assert content["run"] == "mine"
        assert list(content) == ["run", "package_version", "commit", "config"]

    def test_a_run_of_another_version_is_not_taken_over(self, root: Storage) -> None:
        root.write_json("runs/mine/config.json", {"package_version": "9.9", "config": {"x": 1}})
        with pytest.raises(ConfigError, match=r"was written by package version 9\.9"):
            Run(root, "mine", load("demo")).claim()

    @pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b'{"config": 3}'])
    def test_a_damaged_config_json(self, root: Storage, text: bytes) -> None:
        root.write_bytes("runs/mine/config.json", text)
        run = Run(root, "mine", load("demo"))
        with pytest.raises(StorageError, match=r"runs/mine/config.json is damaged: .*Delete it"):
            run.claim()
        run.claim(overwrite=True)

    def test_a_run_that_must_exist_names_those_that_do(self, root: Storage) -> None:
        monthly = Run(root, "monthly", load("demo"))
        monthly.claim()
        monthly.check_exists()
        with pytest.raises(ConfigError, match=r"no run 'montly' in .*; there are: monthly"):
            dataclasses.replace(monthly, name="montly").check_exists()
        assert root.list_files("runs/montly") == []

    @pytest.mark.parametrize("name", ["a/b", "", "..", ".x"])
    def test_an_unsafe_name_is_no_run(self, root: Storage, name: str) -> None:
        with pytest.raises(StorageError, match=r"--run .* cannot be a folder name"):
            Run(root, name, load("demo"))


class TestPlaces:
    def test_a_copy_under_another_name_has_its_own(self, root: Storage) -> None:
        run = Run(root, "a", load("demo"))
        assert run.factor.path == f"{root.path}/runs/a/factor"
        assert dataclasses.replace(run, name="b").factor.path == f"{root.path}/runs/b/factor"
