"""A run's claim and places; the command line's part of it is in test_cli."""

import dataclasses
from pathlib import Path

import pytest

from gangru_dist.base.errors import ConfigError, StorageError
from gangru_dist.base.storage import Storage
from gangru_dist.config import presets
from gangru_dist.config.identity import to_dict
from gangru_dist.config.sources import load
from gangru_dist.runs.run import Run


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


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
