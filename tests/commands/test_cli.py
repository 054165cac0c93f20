import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gangru_dist.commands.cli import Job, Outcome, run_job
from gangru_dist.config import presets
from gangru_dist.config.sources import load


def outcome(job: Job) -> Outcome:
    """A body that did everything."""
    return Outcome(outputs=(job.run.root.uri,))


class TestReference:
    def test_a_job_gets_what_the_flags_say(self, tmp_path: Path) -> None:
        seen: list[Job] = []

        def body(job: Job) -> Outcome:
            seen.append(job)
            return outcome(job)

        flags = [("--bars", {"metavar": "URI"})]
        argv = ["--storage", str(tmp_path), "--preset", "demo", "--bars", "x"]
        assert run_job("doc", body, [*argv, "--set", "gan.epochs=7"], flags) == 0
        assert seen[0].run.name == "demo"
        assert seen[0].run.root.path == str(tmp_path)
        assert seen[0].run.cfg == load("demo", None, ["gan.epochs=7"])
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


class TestProperties:
    def test_a_relative_storage_becomes_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        seen: list[str] = []

        def body(job: Job) -> Outcome:
            seen.append(job.run.root.uri)
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
            job.run.claim()
            return outcome(job)

        assert run_job("doc", body, ["--storage", str(file)]) == 2
        err = capfd.readouterr().err
        assert str(file) in err
        assert "then run the same command again" in err

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--epochs", "5"], "given as --set gan.epochs=5 or --set training.epochs=5\n"),
            (["--learning-rate=1e-4"], "or --set training.learning_rate=1e-4\n"),
            (["--format", "tushare"], "given as --set bars.format=tushare\n"),
            (["extra"], "unrecognized arguments: extra\n"),
            (["--notify", "http://x"], "Read the exit status, or what --json prints.\n"),
        ],
    )
    def test_a_setting_given_as_a_flag(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], says: str
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            run_job("doc", outcome, ["--storage", str(tmp_path), *words])
        assert caught.value.code == 2
        assert capfd.readouterr().err.endswith(says)

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

        monkeypatch.setattr("gangru_dist.base.store_check.shutil.disk_usage", usage)
        assert run_job("doc", outcome, ["--storage", str(tmp_path / "not" / "yet")]) == 2
        assert asked == [tmp_path]
        assert f"the disk of {tmp_path}/not/yet has 10 MB free; a job" in capfd.readouterr().err

    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            (["--set", "training.epocs=5"], "training.epochs"),
            (["--run", "../x"], "--run '../x' cannot be a folder name"),
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

    def test_sigterm_interrupts_and_is_put_back(self, tmp_path: Path) -> None:
        def body(job: Job) -> Outcome:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
            return Outcome(outputs=())

        before = signal.getsignal(signal.SIGTERM)
        assert run_job("doc", body, ["--storage", str(tmp_path)]) == 143
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.fixture
    def ctrl_c(self) -> Iterator[None]:
        """SIGINT as at a terminal; in the background, where tests may run, it is ignored."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.usefixtures("ctrl_c")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupt_that_a_library_turned_into_its_own_error(
        self, number: signal.Signals, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The soak's seed 46: SIGINT while pydantic built a serializer was a SchemaError."""

        def body(job: Job) -> Outcome:
            try:
                os.kill(os.getpid(), number)
                time.sleep(10)
            except KeyboardInterrupt as error:
                raise ValueError("Error building serializer") from error
            return Outcome(outputs=())

        assert run_job("doc", body, ["--storage", str(tmp_path)]) == 128 + number
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        out, err = capfd.readouterr()
        assert err.endswith("interrupted: run the same command again to continue.\n")
        assert not out

    @pytest.mark.parametrize(
        ("words", "how"), [(["--overwrite"], "without --overwrite, which begins anew, "), ([], "")]
    )
    def test_a_search_that_began_anew_goes_on_without(
        self, tmp_path: Path, words: list[str], how: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def body(job: Job) -> Outcome:
            raise KeyboardInterrupt

        argv = ["--storage", str(tmp_path), *words]
        assert run_job("doc", body, argv, program="gangru tune") == 130
        assert f"run the same command again {how}to continue" in capfd.readouterr().err

    def test_exit_status_when_a_part_failed(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def body(job: Job) -> Outcome:
            return Outcome(outputs=("there",), ok=False)

        assert run_job("doc", body, ["--storage", str(tmp_path)]) == 1
        assert "partly failed" in capfd.readouterr().out

    @pytest.mark.parametrize("error", [ZeroDivisionError(), BrokenPipeError(32, "ours")])
    def test_a_defect_shows_its_traceback(self, tmp_path: Path, error: Exception) -> None:
        def body(job: Job) -> Outcome:
            raise error

        with pytest.raises(type(error)):
            run_job("doc", body, ["--storage", str(tmp_path)])
