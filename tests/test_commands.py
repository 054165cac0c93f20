"""The one command: what it offers, `--json`, `--dry-run`, `--notify`, a run's own settings."""

import datetime as dt
import io
import json
import logging
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gangru_dist import commands
from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.commands import notify, panel, plan, train
from gangru_dist.commands.cli import Job, Outcome, run_job
from gangru_dist.commands.plan import GAN_PER_SECOND, TRAIN_PER_SECOND, Shape, size
from gangru_dist.commands.settings import reference
from gangru_dist.config import presets
from gangru_dist.config.identity import DECIDES
from gangru_dist.config.settings import RunConfig
from gangru_dist.config.sources import load
from gangru_dist.maths.calendar import Window
from gangru_dist.runs.run import Run
from tests.made_bars import make_bars, write


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """`run_job` sets the package's logger up, `main` the import path; put them back."""
    package = logging.getLogger("gangru_dist")
    before, path = (package.handlers, package.level, package.propagate), list(sys.path)
    yield
    package.handlers, package.propagate, sys.path[:] = before[0], before[2], path
    package.setLevel(before[1])


@pytest.fixture
def listener() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server that keeps what is posted to it, and answers the first call with 503."""
    got: list[dict[str, Any]] = []
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.append(self.path)
            if len(calls) > 1:
                got.append(json.loads(body))
            self.send_response(503 if len(calls) == 1 else 204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    thread.join()
    server.server_close()


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

    def test_a_failure_is_one_too(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        def body(job: Job) -> Outcome:
            raise PanelError("no panel")

        assert self.call(body, tmp_path, "--json") == 2
        out, err = capfd.readouterr()
        result = json.loads(out)
        assert (result["verdict"], result["status"]) == ("failed", 2)
        assert (result["error"], err.endswith("error: no panel\n")) == ("no panel", True)

    @pytest.mark.parametrize(
        ("error", "verdict", "status"),
        [
            (None, "done", 0),
            (PanelError("x"), "failed", 2),
            (KeyboardInterrupt(), "interrupted", 130),
            (ZeroDivisionError("a defect"), "failed", 1),
        ],
    )
    def test_somebody_is_told_however_it_ends(
        self,
        tmp_path: Path,
        listener: tuple[str, list[dict[str, Any]]],
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException | None,
        verdict: str,
        status: int,
    ) -> None:
        url, got = listener
        monkeypatch.setattr("gangru_dist.commands.notify.time.sleep", lambda seconds: None)

        def body(job: Job) -> Outcome:
            if error:
                raise error
            return done(job)

        if isinstance(error, ZeroDivisionError):
            with pytest.raises(ZeroDivisionError):
                self.call(body, tmp_path, "--notify", url)
        else:
            assert self.call(body, tmp_path, "--notify", url) == status
        assert [(one["verdict"], one["status"]) for one in got] == [(verdict, status)]

    def test_nobody_there_is_a_warning_that_keeps_the_secret(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("gangru_dist.commands.notify.time.sleep", lambda seconds: None)
        assert not notify.post("http://127.0.0.1:9/hook/secret", {})
        assert "host=127.0.0.1" in caplog.text
        assert "secret" not in caplog.text

    def test_an_address_is_sent_encoded(
        self, listener: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gangru_dist.commands.notify.time.sleep", lambda seconds: None)
        url, got = listener
        assert notify.post(notify.address(f"{url}/通知?to=我 b"), {"path": "a\udc80"})
        assert got == [{"path": "a\udc80"}]

    @pytest.mark.parametrize(
        ("url", "sent"),
        [
            (
                "http://x/通知?a=%E4%BD%A0&b=我",
                "http://x/%E9%80%9A%E7%9F%A5?a=%E4%BD%A0&b=%E6%88%91",
            ),
            ("https://例子.invalid:80/x", "https://xn--fsqu00a.invalid:80/x"),
            ("http://[::1]:8080/a|b?c={d}", "http://[::1]:8080/a|b?c={d}"),
        ],
    )
    def test_what_is_encoded_already_stays(
        self, url: str, sent: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str] = []

        def urlopen(request: urllib.request.Request, timeout: float) -> Any:
            seen.append(request.full_url)
            return io.BytesIO()

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        assert notify.post(notify.address(url), {})
        assert seen == [sent]

    @pytest.mark.parametrize(
        "url",
        [
            "http://a..b/secret",
            "http://x:port/secret",
            "http://me:secret@127.0.0.1/",
            "http://[::1/secret",
            "hook/secret",
        ],
    )
    def test_an_address_that_cannot_be_used_is_a_warning_that_keeps_the_secret(
        self, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert not notify.post(url, {})
        assert "error=the URL cannot be used" in caplog.text
        assert "secret" not in caplog.text

    @pytest.mark.parametrize(
        "url",
        [
            "file:///etc/passwd",
            "hook",
            "ftp://x/y",
            "http://x:port/",
            "http://a..b/",
            "http://[::1/",
            f"http://{'例' * 60}/",
        ],
    )
    def test_only_the_web_is_told(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(SystemExit):
            self.call(done, tmp_path, "--notify", url)


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

    def test_alone(self, tmp_path: Path, own: RunConfig) -> None:
        assert self.resolved(tmp_path) == own

    def test_with_a_setting_on_top(self, tmp_path: Path, own: RunConfig) -> None:
        cfg = self.resolved(tmp_path, "--set", "resources.workers=2")
        assert cfg == replace(own, resources=replace(own.resources, workers=2))

    def test_what_is_overwritten_keeps_its_settings(self, tmp_path: Path, own: RunConfig) -> None:
        assert self.resolved(tmp_path, "--overwrite") == own
        cfg = self.resolved(tmp_path, "--overwrite", "--set", "gan.epochs=8")
        assert cfg == replace(own, gan=replace(own.gan, epochs=8))

    @pytest.mark.usefixtures("own")
    @pytest.mark.parametrize("more", [[], ["--overwrite"]])
    def test_not_with_a_preset(self, tmp_path: Path, more: list[str]) -> None:
        assert self.resolved(tmp_path, "--preset", "report", *more) == presets.report()

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

    @pytest.mark.slow
    def test_panel_then_models(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        bars, storage = tmp_path / "bars", tmp_path / "storage"
        write(bars, make_bars())
        argv = ["--storage", str(storage), "--bars", str(bars)]
        assert panel.run([*argv, "--dry-run", "--json"]) == 0
        facts = json.loads(capfd.readouterr().out)
        assert facts["bars_files"] == 1
        assert facts["bars_bytes"] == sum(file.stat().st_size for file in bars.iterdir())
        assert facts["panel"] == "to be built"
        assert not storage.exists()

        assert panel.run(argv) == 0
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
        assert train.run(argv + [word for one in settings for word in ("--set", one)]) == 0
        facts = json.loads(capfd.readouterr().out)
        assert facts["models_to_train"] == [f"2019-03-29/seed-{seed}" for seed in (0, 1)]
        assert facts["models_to_skip"].get("finished before", 0) == 0
        parquet = sum(path.stat().st_size for path in storage.rglob("*.parquet"))
        assert 0 < facts["bytes_to_read"] <= parquet
        assert facts["worker_gb"] >= 1.5
        assert {path: path.stat().st_mtime_ns for path in storage.rglob("*")} == before


class TestSizing:
    def test_by_hand(self) -> None:
        shape = Shape(epochs=10, gan_epochs=0, train_days=60, valid_days=0, scored_days=0)
        need = size(1000, 4, 2, shape)
        assert need.at_once == 2
        assert need.train_hours == pytest.approx(2 * 10 * 60 * 1000 / TRAIN_PER_SECOND / 3600)
        assert need.thread_hours == pytest.approx(2 * need.hours)

    def test_larger_networks_cost_what_they_multiply(self) -> None:
        assert Shape().cost == 1
        assert Shape(lookback=80).cost == 2
        wide = (18 * 128 + 128**2 + 2 * 128**2) / (18 * 64 + 64**2)
        assert Shape(hidden=128, layers=2).cost == pytest.approx(wide)

    def test_the_gan_has_a_cost_of_its_own(self) -> None:
        assert Shape(hidden=128, layers=2).gan_cost == Shape().gan_cost == 1
        assert Shape(lookback=80).gan_cost == 2
        assert Shape(channels=36).gan_cost == 1
        assert Shape(gan_channels=36).gan_cost > 1.9
        assert 1.8 < Shape(gan_hidden=128, gan_layers=2).gan_cost < 2.0  # measured: 1.9
        alone = Shape(epochs=0, gan_epochs=5, train_days=60, scored_days=0)
        assert size(1000, 1, 1, alone).hours == pytest.approx(5 * 60_000 / GAN_PER_SECOND / 3600)

    def test_workers_share_a_window(self) -> None:
        one, two = (size(1000, 1, 1, Shape(workers=n)) for n in (1, 2))
        assert two.hours == pytest.approx(one.hours / 2)
        assert two.worker_gb - 1.5 == pytest.approx((one.worker_gb - 1.5) / 2)

    def test_the_shape_of_a_run(self) -> None:
        both = 'samples.channels=["shape","level"]'
        cfg = load("default", None, ["variant=gru", both, "gan.sees=shape"])
        window = Window(
            name=str(dt.date(2019, 6, 28)),
            refit=500,
            train_days=(1, 2, 3),
            valid_days=(4,),
            score_first=501,
            score_last=600,
        )
        shape = plan.shape_of(cfg, [window])
        assert (shape.gan_epochs, shape.channels, shape.epochs) == (0, 36, 12)
        assert shape.gan_channels == 18
        assert (shape.train_days, shape.valid_days, shape.scored_days) == (3, 1, 100)


class TestSettings:
    def test_every_setting_has_a_meaning(self) -> None:
        found = reference()
        assert [one.key for one in found] == list(DECIDES)
        assert [one.key for one in found if not one.meaning] == []

    def test_one_of_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        one = next(one for one in reference("demo") if one.key == "gan.dropout")
        assert (one.kind, one.value, one.decides) == ("float >= 0, < 1", 0.25, ("model",))
        assert one.meaning.startswith("Share of the discriminator's feature maps dropped")
        assert commands.main(["settings", "gan", "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {line["key"].partition(".")[0] for line in lines} == {"gan"}
        assert commands.main(["settings"]) == 0
        assert "gan.dropout = 0.25  (float >= 0, < 1)  decides: model\n" in capsys.readouterr().out


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
        assert panel.run(given) == status
        assert "rows read" in capsys.readouterr().out
        assert panel.run([*given, "--json"]) == status
        told = capsys.readouterr()
        assert json.loads(told.out)["status"] == status
        assert "rows read" in told.err
        assert not storage.exists()
