"""The one command: what it offers, `--json`, `--dry-run`, a run's own settings."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gangru_dist import commands
from gangru_dist.base.errors import PanelError, TrainingError
from gangru_dist.base.storage import Storage
from gangru_dist.commands import jobs
from gangru_dist.commands.cli import Job, Outcome, run_job
from gangru_dist.commands.settings import list_rows
from gangru_dist.config import presets
from gangru_dist.config.identity import SETTINGS, to_dict
from gangru_dist.config.settings import RunConfig
from gangru_dist.config.sources import load
from gangru_dist.runs.run import Run
from tests.made_bars import make_bars, write


def done(job: Job) -> Outcome:
    """A body that did everything."""
    return Outcome(outputs=("there",), facts={"days": 3})


class TestMain:
    def test_help_names_every_command_and_imports_next_to_nothing(self) -> None:
        code = (
            "import sys; from gangru_dist.commands import main; main(['--help']);"
            "heavy = {'ray', 'torch', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules);"
            "sys.exit(str(heavy) if heavy else 0)"
        )
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        for name in commands.SUMMARIES:
            assert f"\n  {name} " in shown.stdout

    @pytest.mark.parametrize("name", commands.SUMMARIES)
    def test_each_command_says_how_it_is_called(
        self, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            commands.main([name, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: gangru {name}")
        assert f"    gangru {name}" in shown

    def test_no_command_and_a_wrong_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert commands.main([]) == 2
        assert commands.main(["trian"]) == 2
        assert "there is no command 'trian'" in capsys.readouterr().err
        assert commands.main(["--version"]) == 0
        assert capsys.readouterr().out.startswith("gangru_dist ")


class TestJson:
    def call(self, body: Any, tmp_path: Path, *more: str, **kw: Any) -> int:
        return run_job("doc", body, ["--storage", str(tmp_path), *more], **kw)

    def test_the_object_is_all_of_standard_output(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert self.call(done, tmp_path, "--json", program="gangru train") == 0
        result = json.loads(capfd.readouterr().out)
        assert result.pop("seconds") >= 0
        assert result == {
            "command": "train",
            "verdict": "done",
            "status": 0,
            "storage": str(tmp_path),
            "run": "default",
            "outputs": ["there"],
            "days": 3,
        }

    @pytest.mark.parametrize(
        ("error", "verdict", "status"),
        [
            (PanelError("x"), "failed", 2),
            (TrainingError("x"), "failed", 1),
            (KeyboardInterrupt(), "interrupted", 130),
            (ZeroDivisionError("a defect"), "failed", 1),
        ],
    )
    def test_it_is_printed_however_the_job_ends(
        self,
        tmp_path: Path,
        error: BaseException,
        verdict: str,
        status: int,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        def body(job: Job) -> Outcome:
            raise error

        with suppress(ZeroDivisionError):
            assert self.call(body, tmp_path, "--json") == status
        result = json.loads(capfd.readouterr().out)
        assert (result["verdict"], result["status"]) == (verdict, status)
        assert result.get("error", str(error)).endswith(str(error))


class TestOwnSettings:
    """A run that is named alone goes on with what it was claimed with."""

    def resolved(self, tmp_path: Path, *more: str) -> RunConfig:
        seen: list[Job] = []

        def body(job: Job) -> Outcome:
            seen.append(job)
            return done(job)

        assert run_job("doc", body, ["--storage", str(tmp_path), "--run", "mine", *more]) == 0
        return seen[0].run.cfg

    @pytest.fixture
    def own(self, tmp_path: Path) -> RunConfig:
        cfg = load("demo", None, ["gan.epochs=7"])
        Run(Storage(str(tmp_path)), "mine", cfg).claim()
        return cfg

    def test_alone_and_with_a_setting_on_top(self, tmp_path: Path, own: RunConfig) -> None:
        assert self.resolved(tmp_path) == own
        cfg = self.resolved(tmp_path, "--set", "resources.workers=2")
        assert cfg == replace(own, resources=replace(own.resources, workers=2))

    def test_what_is_overwritten_keeps_its_settings(self, tmp_path: Path, own: RunConfig) -> None:
        assert self.resolved(tmp_path, "--overwrite") == own
        cfg = self.resolved(tmp_path, "--overwrite", "--set", "gan.epochs=8")
        assert cfg == replace(own, gan=replace(own.gan, epochs=8))

    @pytest.mark.usefixtures("own")
    def test_not_with_a_preset(self, tmp_path: Path) -> None:
        assert self.resolved(tmp_path, "--preset", "report") == presets.report()

    def test_a_name_that_is_free(self, tmp_path: Path) -> None:
        assert self.resolved(tmp_path) == presets.default()

    def test_settings_of_another_version(
        self, tmp_path: Path, own: RunConfig, capfd: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "runs" / "mine" / "config.json"
        text = json.loads(file.read_text())
        text["config"]["gan"]["unheard_of"] = 1
        file.write_text(json.dumps(text))
        assert run_job("doc", done, ["--storage", str(tmp_path), "--run", "mine"]) == 2
        assert "Give the run's --preset, --config and --set." in capfd.readouterr().err


class TestDryRun:
    def test_it_does_nothing(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        def body(job: Job) -> Outcome:
            raise AssertionError

        argv = ["--storage", str(tmp_path / "there"), "--dry-run"]
        assert run_job("doc", body, argv, plan=lambda job: {"models": 4}) == 0
        assert capfd.readouterr().out == "models: 4\n"
        facts = {"train": [], "skip": {"no history": 3, "done": 1}, "windows": ["a", "b"]}
        assert run_job("doc", body, argv, plan=lambda job: facts) == 0
        assert capfd.readouterr().out == "train: none\nskip: 3 no history, 1 done\nwindows: a, b\n"
        assert run_job("doc", body, [*argv, "--json"], plan=lambda job: {"models": 4}) == 0
        result = json.loads(capfd.readouterr().out)
        assert (result["verdict"], result["models"]) == ("would", 4)
        assert not (tmp_path / "there").exists()

    def test_bars_without_a_row(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "bars").mkdir()
        make_bars().head(0).to_csv(tmp_path / "bars" / "2019.csv", index=False)
        argv = ["--storage", str(tmp_path / "storage"), "--bars", str(tmp_path / "bars")]
        assert jobs.run("pipeline", [*argv, "--dry-run"]) == 2
        assert "bars has no row with a date. Export it again." in capfd.readouterr().err

    @pytest.mark.slow
    def test_panel_then_models(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        bars, storage = tmp_path / "bars", tmp_path / "storage"
        write(bars, make_bars())
        argv = ["--storage", str(storage), "--bars", str(bars)]
        assert jobs.run("panel", [*argv, "--dry-run", "--json"]) == 0
        facts = json.loads(capfd.readouterr().out)
        assert facts["bars_files"] == 1
        assert facts["bars_bytes"] == sum(file.stat().st_size for file in bars.iterdir())
        assert facts["panel"] == "to be built"
        assert not storage.exists()
        first = ["windows.history_days=60", "windows.refit_months=[3]", "label.horizon=5"]
        first += ["samples.lookback=10", "universe.min_traded_days=5"]
        words = [word for one in first for word in ("--set", one)]
        assert jobs.run("pipeline", [*argv, "--dry-run", "--json", *words]) == 0
        facts = json.loads(capfd.readouterr().out)
        assert facts["models_about"] == 3  # seeds, of one refit day
        assert facts["worker_gb"] >= 1.5
        assert facts["minutes_at_most"] > 0
        assert not storage.exists()

        assert jobs.run("panel", argv) == 0
        capfd.readouterr()
        before = {path: path.stat().st_mtime_ns for path in storage.rglob("*")}
        settings = [
            "windows.history_days=60",
            "samples.lookback=10",
            "universe.min_traded_days=5",
            "label.horizon=5",
            "training.seeds=[0,1]",
            "universe.min_assets=3",
            "windows.refit_months=[3]",
        ]
        argv = ["--storage", str(storage), "--dry-run", "--json"]
        assert jobs.run("train", argv + [word for one in settings for word in ("--set", one)]) == 0
        facts = json.loads(capfd.readouterr().out)
        assert facts["models_to_train"] == [f"2019-03-29/seed-{seed}" for seed in (0, 1)]
        assert facts["models_to_skip"].get("finished before", 0) == 0
        parquet = sum(path.stat().st_size for path in storage.rglob("*.parquet"))
        assert 0 < facts["bytes_to_read"] <= parquet
        assert facts["worker_gb"] >= 1.5
        assert facts["minutes_at_most"] > 0
        assert {path: path.stat().st_mtime_ns for path in storage.rglob("*")} == before
        # a trial is one process, whatever a window's workers are
        settings += ["training.precision=auto", "resources.cpus_per_worker=0.1"]
        settings += ["tune.space.samples.lookback=none"]  # 60 days would leave none to train on
        found = []
        for workers in (1, 2):
            words = [
                w for one in (*settings, f"resources.workers={workers}") for w in ("--set", one)
            ]
            assert jobs.run("tune", [*argv, *words]) == 0
            found.append(json.loads(capfd.readouterr().out))
        names = "models_at_once", "worker_gb", "windows"
        assert [found[0][name] for name in names] == [found[1][name] for name in names]
        mistake = ["--set", "tune.space.gru.hiden={low=4, high=8}"]
        assert jobs.run("tune", [*argv, *words, *mistake]) == 2
        assert "unknown setting" in json.loads(capfd.readouterr().out)["error"]
        # a name that belongs to another configuration: what the job itself would say
        Run(Storage(str(storage)), "default", load("default")).claim()
        words = [word for one in settings for word in ("--set", one)]
        assert jobs.run("train", [*argv, *words]) == 2
        assert "has another configuration" in json.loads(capfd.readouterr().out)["error"]
        assert jobs.run("train", [*argv, *words, "--overwrite"]) == 0


def test_a_job_finds_own_code_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also as `python jobs/train.py`, which puts the folder of jobs on the path, not this one."""
    (tmp_path / "mean_of_mine.py").write_text("class Mean:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    argv = ["--storage", str(tmp_path / "none"), "--set", "predictor=mean_of_mine:Mean"]
    assert jobs.run("train", [*argv, "--dry-run"]) == 2
    assert "Build it first: gangru panel" in capfd.readouterr().err


class TestSettings:
    def test_every_setting_has_a_meaning(self) -> None:
        rows = list(list_rows())
        assert [row["key"] for row in rows] == list(SETTINGS)
        assert [row["key"] for row in rows if not row["meaning"]] == []

    def test_one_of_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        row = next(row for row in list_rows("demo") if row["key"] == "gan.dropout")
        assert (row["kind"], row["value"], row["affects"]) == ("float >= 0, < 1", 0.25, ["model"])
        assert row["meaning"].startswith("Share of the discriminator's feature maps dropped")
        assert commands.main(["settings", "gan", "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {line["key"].partition(".")[0] for line in lines} == {"gan"}

    @pytest.mark.parametrize("preset", presets.ALL)
    def test_what_is_printed_can_be_given_back(
        self, preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert commands.main(["settings", "--preset", preset]) == 0
        text = capsys.readouterr().out
        (tmp_path / "mine.toml").write_text(text)
        other = "report" if preset == "demo" else "demo"
        assert load(other, str(tmp_path / "mine.toml")) == presets.ALL[preset]()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert load(other, None, lines) == presets.ALL[preset]()


class TestRuns:
    def test_a_line_a_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = Storage(str(tmp_path))
        Run(root, "one", load("demo")).claim()
        Run(root, "two", load("demo", None, ["variant=gru"])).claim()
        assert commands.main(["runs", "--storage", str(tmp_path), "--json"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(row["run"], row["variant"], row["models"], row["days"]) for row in rows] == [
            ("one", "gan_gru", 0, 0),
            ("two", "gru", 0, 0),
        ]
        assert commands.main(["runs", "--storage", str(tmp_path)]) == 0
        head, *lines, page = capsys.readouterr().out.splitlines()
        assert (head.split()[:2], len(lines)) == (["run", "variant"], 2)
        assert page == f"{tmp_path}/runs/index.html"

    def test_a_damaged_factor_hides_no_run(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        root = Storage(str(tmp_path))
        for name in ("one", "two"):
            Run(root, name, load("demo")).claim()
        log = "factor/_delta_log/00000000000000000000.json"
        root.child("runs", "one").write_bytes(log, b"{")
        assert commands.main(["runs", "--storage", str(tmp_path), "--json"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(row["run"], row["state"], row["days"], row["last_day"]) for row in rows] == [
            ("one", "scored", 0, ""),
            ("two", "started", 0, ""),
        ]
        assert re.search(rf"factor_unreadable run=one reason=.*{log} is damaged", caplog.text)
        for name in ("one", "two"):
            assert name in (tmp_path / "runs" / "index.html").read_text()


class TestCheck:
    @pytest.mark.parametrize(("price", "status"), [(None, 0), (-1.0, 2)])
    def test_it_prints_what_it_found_and_writes_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], price: float | None, status: int
    ) -> None:
        frame = make_bars()
        if price is not None:
            frame.loc[: len(frame) // 2, "close"] = price
        write(tmp_path / "bars", frame)
        storage = tmp_path / "storage"
        given = ["--bars", str(tmp_path / "bars"), "--storage", str(storage), "--check"]
        assert jobs.run("panel", given) == status
        assert "rows read" in capsys.readouterr().out
        assert jobs.run("panel", [*given, "--json"]) == status
        told = capsys.readouterr()
        assert json.loads(told.out)["status"] == status
        assert "rows read" in told.err
        assert not storage.exists()


def test_an_interrupt_before_the_job_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(words: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "_run", interrupt)
    assert commands.main(["train"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


class TestStreams:
    """What standard output and its reader cannot take ends in no traceback."""

    def call(self, words: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
        line = words.replace("gangru", f"{sys.executable} -m gangru_dist")
        root = str(Path(__file__).parents[2])
        env = {**os.environ, "PYTHONPATH": root, **env}
        found = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120,
            errors="replace",
        )  # fmt: skip
        assert "Traceback" not in found.stderr
        assert "Exception ignored" not in found.stderr
        return found

    @pytest.mark.parametrize("words", ["settings", "settings --json", "runs --help"])
    def test_a_reader_that_leaves_early(self, tmp_path: Path, words: str) -> None:
        found = self.call(f"gangru {words} | head -1", tmp_path)
        assert (found.returncode, found.stderr) == (0, "")
        assert found.stdout.count("\n") == 1

    @pytest.mark.parametrize("words", ["--help", "train --storage s --json"])
    def test_an_output_that_is_full_or_closed(self, tmp_path: Path, words: str) -> None:
        full = self.call(f"gangru {words} > /dev/full", tmp_path)
        assert full.returncode == 2
        assert "error: the result cannot be written to standard output: " in full.stderr
        assert self.call(f"gangru {words} >&- 2>&-", tmp_path).returncode in (0, 2)

    @pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "gbk"}])
    def test_a_terminal_of_another_encoding(self, tmp_path: Path, env: dict[str, str]) -> None:
        place = tmp_path / "\u4e2d\u6587\U0001f600"
        found = self.call(f"gangru train --storage {place} --json", tmp_path, **env)
        assert json.loads(found.stdout)["storage"] == str(place)
        found = self.call(f"gangru runs --storage {place}", tmp_path, **env)
        assert "there are no runs in" in found.stdout
        env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        found = self.call(f"gangru runs --storage {place}", tmp_path, **env)
        assert "is not UTF-8" in found.stderr

    def test_a_working_folder_that_is_gone(self, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        found = self.call("cd x && rmdir ../x && gangru runs --storage s", tmp_path)
        assert (found.returncode, found.stderr.count("\n")) == (2, 1)
        assert "the working folder is gone" in found.stderr

    @pytest.mark.parametrize(
        "words", ["train --storage s --json --bad", "runs --json", "settings --json --preset x"]
    )
    def test_a_mistake_is_an_object_too(self, tmp_path: Path, words: str) -> None:
        found = self.call(f"gangru {words}", tmp_path)
        assert found.returncode == 2
        result = json.loads(found.stdout)
        assert (result["verdict"], result["status"]) == ("failed", 2)
        assert result["error"] in found.stderr

    def test_a_file_may_not_grow(self, tmp_path: Path) -> None:
        (tmp_path / "s/runs/default").mkdir(parents=True)
        (tmp_path / "s/runs/default/config.json").write_text(
            json.dumps({"package_version": "1", "config": to_dict(load("default"))})
        )
        found = self.call("ulimit -f 0; gangru runs --storage s", tmp_path)
        assert found.returncode == 2
        assert "File too large" in found.stderr
        assert "ulimit -f" in found.stderr
