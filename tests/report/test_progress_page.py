"""The page of a training job: what it says, when it is written, and that it is in nobody's way."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gangru_dist import settings
from gangru_dist.report.progress_page import ProgressPage
from gangru_dist.report.text import NARROW
from gangru_dist.runs.model import GanEpoch, PredictorEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.train_summary import WindowResult
from gangru_dist.storage import Storage

PLACES = [("2019-12-31", 0), ("2020-06-30", 0)]
BEFORE = [
    WindowResult(window="2018-12-28", status="no history", reason="too short"),
    WindowResult(window="2019-06-28", seed=0, status="finished before", best_valid_ic=0.07),
]
GAN = GanEpoch(
    epoch=2, discriminator_loss=1.0, generator_loss=1.0, discriminator_accuracy=0.62, distance=0.5
)


def predictor(epoch: int, valid_ic: float) -> PredictorEpoch:
    return PredictorEpoch(epoch=epoch, train_loss=-0.1, valid_ic=valid_ic)


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(Storage(str(tmp_path)), "r", settings.load("demo"))


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
    def test_it_says_what_the_driver_was_told(self, run):
        page = ProgressPage(run, every=0.01)
        page.start(PLACES, BEFORE)
        page.epoch(PLACES[0], predictor(1, 0.01), share=0.4, seconds_left=900)
        page.epoch(PLACES[0], predictor(2, 0.05), share=0.6, seconds_left=600)
        page.epoch(PLACES[1], GAN, share=0.2, seconds_left=594)
        assert until(lambda: f"62{NARROW}%" in written(run))
        said = written(run)
        assert "1 of 3 models are there, 2 under way, 0 wait, 0 failed." in said
        assert re.search(r"About <b>9\.\d</b> minutes are left", said)
        stage, ic = ["running", "predictor", "2", f"60{NARROW}%"], ["+0.050", "+0.050"]
        assert cells(said, "2019-12-31")[2:8] == [*stage, *ic]
        stage = ["running", f"GAN accuracy 62{NARROW}%", "2", f"20{NARROW}%"]
        assert cells(said, "2020-06-30")[2:6] == stage
        assert cells(said, "2018-12-28")[-1] == "too short"
        assert 'value="0.600"' in said  # (1 + 0.6 + 0.2) / 3
        assert "location.reload" in said
        page.settle(
            WindowResult(
                window=PLACES[0][0], seed=0, status="trained", best_valid_ic=0.05, seconds=90
            )
        )
        page.settle(WindowResult(window=PLACES[1][0], seed=0, status="failed", reason="<diverged>"))
        page.stop("failed")
        said = written(run)
        assert "Ended: some windows failed" in said
        assert "2 of 3 models are there, 0 under way, 0 wait, 1 failed." in said
        assert cells(said, "2019-12-31")[2] == "trained"
        assert "1.5" in cells(said, "2019-12-31")
        done = {window: cells(said, window)[5] for window in ("2018-12-28", "2019-12-31")}
        assert done == {"2018-12-28": "", "2019-12-31": f"100{NARROW}%"}
        assert cells(said, "2020-06-30")[5] == f"20{NARROW}%"  # where it failed
        assert "&lt;diverged&gt;" in said

    @pytest.mark.parametrize(
        ("state", "says"),
        [
            ("done", "<b>Done</b>"),
            ("failed", "<b>Ended: some windows failed</b>"),
            ("stopped", "<b>Stopped before its end</b> (gone)"),
        ],
    )
    def test_the_end_is_said_and_the_page_rests(self, run, state, says):
        page = ProgressPage(run)
        page.start(PLACES, ())
        page.stop(state, "gone" if state == "stopped" else "")
        assert says in written(run)
        assert "reload" not in written(run)
        assert "refresh" not in written(run)
        assert "minutes are left" not in written(run)

    def test_a_curve_goes_from_the_lowest_to_the_highest_of_all(self, run):
        page = ProgressPage(run)
        for place in PLACES:
            page.settle(WindowResult(window=place[0], seed=0, status="trained"))
        page.epoch(PLACES[0], predictor(1, -0.1), share=0, seconds_left=0)
        page.epoch(PLACES[0], predictor(2, 0.3), share=0, seconds_left=0)
        assert 'points="60.0,26.0 120.0,0.0"' in page.render()


class TestProperties:
    def test_it_is_written_at_intervals_not_at_each_epoch(self, run, monkeypatch):
        wrote = []
        monkeypatch.setattr(Storage, "write_bytes", lambda *_: wrote.append(time.monotonic()))
        page = ProgressPage(run, every=0.2)
        page.start(PLACES, ())
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            page.epoch(PLACES[0], predictor(1, 0.0), share=0.1, seconds_left=1)
            time.sleep(0.002)
        page.stop("done")
        assert 2 <= len(wrote) <= 7

    def test_nothing_new_writes_nothing(self, run, monkeypatch):
        wrote = []
        monkeypatch.setattr(Storage, "write_bytes", lambda *_: wrote.append(1))
        page = ProgressPage(run, every=0.01)
        page.start(PLACES, ())
        time.sleep(0.3)
        assert len(wrote) <= 1
        page.stop("done")

    def test_a_store_that_hangs_holds_nothing_up(self, run, monkeypatch):
        free = threading.Event()
        monkeypatch.setattr(Storage, "write_bytes", lambda *_: free.wait(60))
        monkeypatch.setattr("gangru_dist.report.progress_page._LAST", 0.2)
        page = ProgressPage(run, every=0.01)
        started = time.monotonic()
        page.start(PLACES, ())
        for epoch in range(1, 100):
            page.epoch(PLACES[0], predictor(epoch, 0.0), share=0.1, seconds_left=1)
        page.stop("done")
        assert time.monotonic() - started < 10
        free.set()
        assert until(lambda: not page._thread.is_alive())  # else it writes in the next test

    def test_a_store_that_fails_is_one_line_and_the_page_comes_back(self, run, monkeypatch, caplog):
        write, failures = Storage.write_bytes, []

        def broken(self, name, data):
            if len(failures) < 3:
                failures.append(name)
                raise OSError("no route to host")
            write(self, name, data)

        monkeypatch.setattr(Storage, "write_bytes", broken)
        page = ProgressPage(run, every=0.01)
        page.start(PLACES, ())
        for epoch in range(1, 1000):
            page.epoch(PLACES[0], predictor(epoch, 0.0), share=0.1, seconds_left=1)
            if _there(run):
                break
            time.sleep(0.02)
        page.stop("done")
        assert "<b>Done</b>" in written(run)
        assert caplog.text.count("progress_page_failed") == 1

    def test_any_storage_and_either_language(self, tmp_path: Path):
        cfg = settings.load("demo", None, ["report.language=zh"])
        run = Run(Storage(f"local://{tmp_path}"), "r", cfg)
        page = ProgressPage(run)
        page.start(PLACES, BEFORE[1:])
        page.epoch(PLACES[0], GAN, share=0.1, seconds_left=90)
        page.stop("stopped", "断电")
        page = run.folder.read_bytes("progress.html").decode()
        assert "r 的训练" in page
        words = set(re.findall(r"[A-Za-z_]{3,}", re.sub("(?s)<style>.*?</style>|<.*?>", "", page)))
        assert words - {"GAN", "UTC"} == set()
