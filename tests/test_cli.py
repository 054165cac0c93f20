import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gangru_dist import presets
from gangru_dist.cli import Job, Outcome, claim_run, require_run, run_job
from gangru_dist.config import RunConfig, to_dict
from gangru_dist.errors import ConfigError, PanelError, StorageError, TrainingError
from gangru_dist.settings import load
from gangru_dist.storage import Storage


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """`run_job` sets the package's logger up; put it back."""
    package = logging.getLogger("gangru_dist")
    before = package.handlers, package.level, package.propagate
    yield
    package.handlers, package.propagate = before[0], before[2]
    package.setLevel(before[1])


def outcome(job: Job) -> Outcome:
    """A body that did everything."""
    return Outcome(outputs=(job.root.uri,))


class TestReference:
    def test_a_job_gets_what_the_flags_say(self, tmp_path: Path) -> None:
        seen: list[Job] = []

        def body(job: Job) -> Outcome:
            seen.append(job)
            return outcome(job)

        def flags(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--bars")

        argv = ["--storage", str(tmp_path), "--preset", "demo", "--bars", "x"]
        assert run_job("doc", body, [*argv, "--set", "gan.epochs=7"], flags) == 0
        assert seen[0].run == "demo"
        assert seen[0].root.path == str(tmp_path)
        assert seen[0].cfg == load("demo", None, ["gan.epochs=7"])
        assert seen[0].args.bars == "x"

    def test_it_says_what_it_will_do_and_where_outputs_are(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        run_job("doc", outcome, ["--storage", str(tmp_path), "--set", "gan.epochs=77"])
        out, err = capfd.readouterr()
        assert f"storage={tmp_path} run=default preset=default" in err
        assert f"gan.epochs: {presets.default().gan.epochs} -> 77" in err
        assert out.startswith("done in 0 s\n")
        assert str(tmp_path) in out

    def test_config_json_holds_everything(self, tmp_path: Path) -> None:
        claim_run(Storage(str(tmp_path)), "mine", presets.demo())
        content = json.loads((tmp_path / "runs/mine/config.json").read_text())
        assert content["config"] == to_dict(presets.demo())
        assert content["run"] == "mine"
        assert set(content) == {"run", "package_version", "commit", "config"}


class TestProperties:
    @pytest.mark.parametrize(
        "change", ["resources.max_failures=9", "windows.first=2019-01-01", "synthetic.seed=4"]
    )
    def test_a_claimed_run_may_change_what_decides_no_result(
        self, tmp_path: Path, change: str
    ) -> None:
        root = Storage(str(tmp_path))
        claim_run(root, "mine", load("demo"))
        claim_run(root, "mine", load("demo", None, [change]))
        there = root.read_json("runs/mine/config.json")["config"]
        assert there == to_dict(load("demo", None, [change]))

    def test_a_relative_storage_becomes_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        seen: list[str] = []

        def body(job: Job) -> Outcome:
            seen.append(job.root.uri)
            return outcome(job)

        run_job("doc", body, ["--storage", "here"])
        assert seen == [str(tmp_path / "here")]


class TestValidation:
    def test_a_place_that_cannot_be_written_is_an_error_without_a_traceback(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "file"
        file.write_text("no folder")

        def body(job: Job) -> Outcome:
            job.claim()
            return outcome(job)

        assert run_job("doc", body, ["--storage", str(file)]) == 2
        err = capfd.readouterr().err
        assert str(file) in err
        assert "then run the same command again" in err

    def test_a_full_disk_is_said_at_once(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        asked: list[Path] = []

        def usage(place: Path) -> SimpleNamespace:
            asked.append(place)
            return SimpleNamespace(free=10 * 2**20)

        monkeypatch.setattr("gangru_dist.storage.shutil.disk_usage", usage)
        assert run_job("doc", outcome, ["--storage", str(tmp_path / "not" / "yet")]) == 2
        assert asked == [tmp_path]
        assert f"the disk of {tmp_path}/not/yet has 10 MB free, a job" in capfd.readouterr().err
        asked.clear()
        Storage("memory://bucket").require_room()
        assert asked == []

    def test_any_other_failure_of_the_system_shows_where_it_came_from(self, tmp_path: Path) -> None:
        def body(job: Job) -> Outcome:
            raise BrokenPipeError(32, "a defect of ours")

        with pytest.raises(BrokenPipeError):
            run_job("doc", body, ["--storage", str(tmp_path)])

    @pytest.mark.parametrize(
        "change",
        ["gan.epochs=9", "training.seeds=[5]", "factor.quantiles=7", "windows.refit_months=[3]"],
    )
    def test_another_configuration_under_the_same_name(self, tmp_path: Path, change: str) -> None:
        root = Storage(str(tmp_path))
        claim_run(root, "mine", load("demo"))
        key = change.partition("=")[0]
        with pytest.raises(ConfigError, match=f"run 'mine' .*{key}: .* -> .*--overwrite"):
            claim_run(root, "mine", load("demo", None, [change]))
        assert root.read_json("runs/mine/config.json")["config"] == to_dict(load("demo"))
        claim_run(root, "mine", load("demo", None, [change]), overwrite=True)
        claim_run(root, "mine", load("demo", None, [change]))

    def test_a_run_of_another_version_is_not_taken_over(self, tmp_path: Path) -> None:
        root = Storage(str(tmp_path))
        root.write_json("runs/mine/config.json", {"package_version": "9.9", "config": {"x": 1}})
        with pytest.raises(ConfigError, match=r"package version 9\.9 is not ours"):
            claim_run(root, "mine", load("demo"))

    @pytest.mark.parametrize("text", [b"[]", b"{}", b'{"config": 3}'])
    def test_a_config_json_of_somebody_else(self, tmp_path: Path, text: bytes) -> None:
        root = Storage(str(tmp_path))
        root.write_bytes("runs/mine/config.json", text)
        with pytest.raises(ConfigError, match=r"package version None is not ours"):
            claim_run(root, "mine", load("demo"))

    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            (["--set", "training.epocs=5"], "training.epochs"),
            (["--run", "../x"], "--run '../x' cannot be a folder's name"),
            (["--config", "nope.toml"], "cannot read --config nope.toml"),
        ],
    )
    def test_a_mistake_is_one_message_and_status_2(
        self, tmp_path: Path, argv: list[str], says: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run_job("doc", outcome, ["--storage", str(tmp_path), *argv]) == 2
        err = capfd.readouterr().err
        assert err.startswith("error: ")
        assert says in err
        assert "Traceback" not in err
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (PanelError("no panel"), 2),
            (TrainingError("one failed"), 1),
            (KeyboardInterrupt(), 130),
        ],
    )
    def test_exit_status_of_errors(self, tmp_path: Path, error: BaseException, status: int) -> None:
        def body(job: Job) -> Outcome:
            raise error

        assert run_job("doc", body, ["--storage", str(tmp_path)]) == status

    def test_exit_status_when_a_part_failed(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def body(job: Job) -> Outcome:
            return Outcome(outputs=("there",), ok=False)

        assert run_job("doc", body, ["--storage", str(tmp_path)]) == 1
        assert "partly failed" in capfd.readouterr().out

    def test_a_defect_shows_its_traceback(self, tmp_path: Path) -> None:
        def body(job: Job) -> Outcome:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run_job("doc", body, ["--storage", str(tmp_path)])

    def test_a_run_that_must_exist_names_those_that_do(self, tmp_path: Path) -> None:
        root = Storage(str(tmp_path))
        claim_run(root, "monthly", RunConfig())
        require_run(root, "monthly")
        with pytest.raises(ConfigError, match=r"no run 'montly' in .*; there are: monthly"):
            require_run(root, "montly")
        assert not (tmp_path / "runs" / "montly").exists()

    def test_an_unsafe_run_name_claims_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="cannot be a folder's name"):
            claim_run(Storage(str(tmp_path)), "a/b", load("demo"))
        assert list(tmp_path.iterdir()) == []
