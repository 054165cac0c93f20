"""The page of a job: what it says, when it is written, and that it is in nobody's way."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gangru_dist.base import log
from gangru_dist.base.errors import GangruError
from gangru_dist.base.storage import Storage
from gangru_dist.config import sources
from gangru_dist.events.events import EpochTrained, ModelsPlanned, TrialChanged, WindowDone
from gangru_dist.report.progress import ProgressPage
from gangru_dist.report.text import NARROW
from gangru_dist.runs.model import EpochResult, GanEpoch, PredictorEpoch, TimedEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import TrialRecord
from gangru_dist.runs.summaries import WindowResult

PLACES = ("2019-12-31/seed-0", "2020-06-30/seed-0")
BEFORE = {
    "2018-12-28": WindowResult(window="2018-12-28", status="no history", reason="too short"),
    "2019-06-28/seed-0": WindowResult(
        window="2019-06-28", seed=0, status="finished before", best_valid_ic=0.07
    ),
}
GAN = GanEpoch(
    epoch=2, discriminator_loss=1.0, generator_loss=1.0, discriminator_accuracy=0.62, distance=0.5
)


def epoch(name: str, result: EpochResult, *, share: float, seconds_left: float) -> EpochTrained:
    timed, done = TimedEpoch(result, 1.0, 1.0), round(100 * share)
    return EpochTrained(
        name=name, identity="a", epoch=timed, done=done, total=100, seconds_left=seconds_left
    )


def begin(page: ProgressPage) -> ProgressPage:
    """What a training job publishes first."""
    for result in BEFORE.values():
        page(WindowDone(result=result))
    page(ModelsPlanned(PLACES))
    return page


def predictor(epoch: int, valid_ic: float) -> PredictorEpoch:
    return PredictorEpoch(epoch=epoch, train_loss=-0.1, valid_ic=valid_ic)


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(Storage(str(tmp_path)), "r", sources.load("demo"))


def until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def written(run: Run) -> str:
    return run.folder.read_bytes("progress.html").decode() if _there(run) else ""


def _there(run: Run) -> bool:
    return run.folder.exists("progress.html")


def cells(page: str, window: str) -> list[str]:
    row = re.search(rf"<tr><td class=\"l\">{window}</td>.*?</tr>", page)
    assert row
    return [re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<td.*?>(.*?)</td>", row[0])]


class TestReference:
    def test_it_says_what_was_published(self, run):
        with suppress(GangruError), ProgressPage(run, every=0.01).show() as page:
            begin(page)
            page(epoch(PLACES[0], predictor(1, 0.01), share=0.4, seconds_left=900))
            page(epoch(PLACES[0], predictor(2, 0.05), share=0.6, seconds_left=600))
            page(epoch(PLACES[1], GAN, share=0.2, seconds_left=594))
            assert until(lambda: f"62{NARROW}%" in written(run))
            said = written(run)
            assert "1 of 3 models are there, 2 under way, 0 wait, 0 failed." in said
            assert re.search(r"About <b>9\.\d</b> minutes are left", said)
            stage, ic = ["under way", "predictor", "2", f"60{NARROW}%"], ["+0.050", "+0.050"]
            assert cells(said, "2019-12-31")[2:8] == [*stage, *ic]
            stage = ["under way", f"GAN accuracy 62{NARROW}%", "2", f"20{NARROW}%"]
            assert cells(said, "2020-06-30")[2:6] == stage
            assert cells(said, "2018-12-28")[-1] == "too short"
            assert 'value="0.600"' in said  # (1 + 0.6 + 0.2) / 3
            assert "location.reload" in said
            done = WindowResult(
                window="2019-12-31", seed=0, status="trained", best_valid_ic=0.05, seconds=90
            )
            page(WindowDone(result=done))
            bad = WindowResult(window="2020-06-30", seed=0, status="failed", reason="<diverged>")
            page(WindowDone(result=bad))
            raise GangruError("gone")
        said = written(run)
        assert "<b>Stopped before its end</b> (gone)" in said
        assert "2 of 3 models are there, 0 under way, 0 wait, 1 failed." in said
        assert cells(said, "2019-12-31")[2] == "trained"
        assert "1.5" in cells(said, "2019-12-31")
        shares = {window: cells(said, window)[5] for window in ("2018-12-28", "2019-12-31")}
        assert shares == {"2018-12-28": "", "2019-12-31": f"100{NARROW}%"}
        assert cells(said, "2020-06-30")[5] == f"20{NARROW}%"  # where it failed
        assert "&lt;diverged&gt;" in said

    @pytest.mark.parametrize(
        ("status", "says"),
        [("trained", "<b>Done</b>"), ("failed", "<b>Ended: some windows failed</b>")],
    )
    def test_the_end_is_said_and_the_page_rests(self, run, status, says):
        with ProgressPage(run).show() as page:
            page(ModelsPlanned(PLACES[:1]))
            page(WindowDone(result=WindowResult(window="2019-12-31", seed=0, status=status)))
        assert says in written(run)
        for word in ("reload", "refresh", "minutes are left"):
            assert word not in written(run)

    def test_a_curve_goes_from_the_lowest_to_the_highest_of_all(self, run):
        page = ProgressPage(run)
        page(epoch(PLACES[0], predictor(1, -0.1), share=0, seconds_left=0))
        page(epoch(PLACES[0], predictor(2, 0.3), share=0, seconds_left=0))
        page(epoch(PLACES[1], predictor(1, 0.1), share=0, seconds_left=0))
        assert 'points="60.0,26.0 120.0,0.0"' in page.render()

    def test_stages_are_counted_wherever_they_are_worked_on(self, run):
        """Panel and scores: the build and the scorer know nothing of the page."""
        with ProgressPage(run).show() as page:
            with log.Progress("panel_read", total=4) as progress:
                assert 'value="0.000"' in page.render()
                progress.advance()
                progress.advance(2)
            said = page.render()
            assert cells(said, "reading bars, parts")[1:3] == ["3", "4"]
            assert said.count('value="0.750"') == 2  # the stage, and the job
            with log.Progress("score", total=2, unit="days") as progress:
                progress.advance(2)
        assert cells(written(run), "reading bars, parts")[1:3] == ["3", "4"]
        assert cells(written(run), "scoring, days")[1:3] == ["2", "2"]
        before = written(run)
        with log.Progress("panel_features", total=2) as progress:
            progress.advance()  # nobody listens any more
        assert written(run) == before

    def test_a_search_shows_its_trials_and_the_time_left(self, run, monkeypatch):
        now = [1000.0]
        monkeypatch.setattr("gangru_dist.report.progress.time.time", lambda: now[0])
        cfg = dataclasses.replace(run.cfg, tune=dataclasses.replace(run.cfg.tune, trials=5))
        page = ProgressPage(dataclasses.replace(run, cfg=cfg))
        over = TrialRecord(
            number=0, settings={}, status="complete", objective=0.04, epochs=9, seconds=60
        )
        page(TrialChanged(over, "a"))  # of the session before: no pace
        page(TrialChanged(TrialRecord(number=1, settings={}), "a"))
        assert "minutes are left" not in page.render()
        grown = TrialRecord(number=1, settings={}, reports=((1, 0.01), (2, 0.03)), mean_ic=0.03)
        page(TrialChanged(grown, "a"))
        now[0] += 120
        page(
            TrialChanged(dataclasses.replace(grown, status="pruned", epochs=2, seconds=120.0), "a")
        )
        said = page.render()
        assert "2 of 5 trials have ended." in said
        assert "About <b>6.0</b> minutes are left" in said  # three more at two minutes each
        assert cells(said, "0000")[1:5] == ["complete", "9", "", "+0.040"]
        assert cells(said, "0001")[1:5] == ["pruned", "2", "+0.030", "+0.030"]
        assert 'value="0.400"' in said


class TestProperties:
    def test_a_job_that_is_refused_writes_none(self, run):
        with suppress(GangruError), ProgressPage(run).show():
            raise GangruError("the name is taken")
        assert written(run) == ""

    def test_a_panel_of_no_run_has_the_page_beside_it(self, run):
        panel = run.root.child("panel")
        page = ProgressPage(run, folder=panel)
        with page.show(), log.Progress("panel_read", total=1) as progress:
            progress.advance()
        said = panel.read_bytes("progress.html").decode()
        assert "<h1>Progress of the panel</h1>" in said
        assert "../index.html" not in said
        assert written(run) == ""

    def test_it_is_written_at_intervals_not_at_each_epoch(self, run, monkeypatch):
        wrote = []
        monkeypatch.setattr(Storage, "write_bytes", lambda *_: wrote.append(time.monotonic()))
        with ProgressPage(run, every=0.2).show() as page:
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                page(epoch(PLACES[0], predictor(1, 0.0), share=0.1, seconds_left=1))
                time.sleep(0.002)
        assert 2 <= len(wrote) <= 7

    def test_nothing_new_writes_nothing(self, run, monkeypatch):
        wrote = []
        monkeypatch.setattr(Storage, "write_bytes", lambda *_: wrote.append(1))
        with ProgressPage(run, every=0.01).show() as page:
            page(ModelsPlanned(PLACES))
            time.sleep(0.3)
            assert len(wrote) <= 1

    def test_a_store_that_hangs_holds_nothing_up(self, run, monkeypatch):
        free, before = threading.Event(), threading.active_count()
        monkeypatch.setattr(Storage, "write_bytes", lambda *_: free.wait(60))
        started = time.monotonic()
        with ProgressPage(run, every=0.01, patience=0.2).show() as page:
            for number in range(1, 100):
                page(epoch(PLACES[0], predictor(number, 0.0), share=0.1, seconds_left=1))
        assert time.monotonic() - started < 10
        free.set()
        assert until(lambda: threading.active_count() <= before)  # else it writes in the next test

    def test_a_store_that_fails_is_one_line_and_the_page_comes_back(self, run, monkeypatch, caplog):
        write, failures = Storage.write_bytes, []

        def broken(self, name, data):
            if len(failures) < 3:
                failures.append(name)
                raise OSError("no route to host")
            write(self, name, data)

        monkeypatch.setattr(Storage, "write_bytes", broken)
        with ProgressPage(run, every=0.01).show() as page:
            for number in range(1, 1000):
                page(epoch(PLACES[0], predictor(number, 0.0), share=0.1, seconds_left=1))
                if _there(run):
                    break
                time.sleep(0.02)
        assert "<b>Done</b>" in written(run)
        assert caplog.text.count("progress_page_failed") == 1

    def test_any_storage_and_either_language(self, tmp_path: Path):
        cfg = sources.load("demo", None, ["report.language=zh"])
        run = Run(Storage(tmp_path.as_uri()), "r", cfg)
        with suppress(GangruError), ProgressPage(run).show() as page:
            begin(page)
            page(epoch(PLACES[0], GAN, share=0.1, seconds_left=90))
            page(WindowDone(result=WindowResult(window="2018-12-28", status="no history")))
            page(TrialChanged(TrialRecord(number=1, settings={}), "a"))
            for name in ("panel_read", "panel_tables", "panel_features", "score"):
                with log.Progress(name, total=1):
                    pass
            raise GangruError("断电")
        page = run.folder.read_bytes("progress.html").decode()
        assert "r 的进度" in page
        words = set(re.findall(r"[A-Za-z_]{3,}", re.sub("(?s)<style>.*?</style>|<.*?>", "", page)))
        assert words - {"GAN", "UTC"} == set()
