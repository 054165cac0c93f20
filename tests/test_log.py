import io
import logging

import pytest
from rich.console import Console

from gangru_dist import log


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TestReference:
    def test_eta_is_the_pace_so_far(self) -> None:
        clock = Clock()
        with log.Progress("score", total=10, clock=clock) as progress:
            assert progress.eta_seconds == float("inf")
            clock.now += 6
            progress.advance(3)
            assert progress.eta_seconds == pytest.approx(14)  # 2 s a step, 7 left
            assert progress.line("epoch=1/5") == "what=score done=3/10 eta_s=14 epoch=1/5"


class TestProperties:
    def test_a_log_gets_a_line_now_and_then(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = Clock()
        with (
            caplog.at_level(logging.INFO, logger="gangru_dist.log"),
            log.Progress("score", total=100, clock=clock) as progress,
        ):
            for _ in range(100):
                clock.now += log.LINE_EVERY_SECONDS / 10
                progress.advance()
        assert len(caplog.messages) == 9  # every tenth step, and not the last
        assert caplog.messages[0] == "progress what=score done=10/100 eta_s=135"

    def test_without_a_terminal_there_is_no_bar(self, capfd: pytest.CaptureFixture[str]) -> None:
        with log.progress("score", total=2) as progress:
            progress.advance(2)
        assert capfd.readouterr() == ("", "")

    def test_the_bar_counts_as_the_lines_do(self) -> None:
        with log.Progress("score", total=4, unit="days", bar=True) as progress:
            progress.advance(3)
        assert progress.done == 3

    def test_setup_twice_speaks_once(self, capfd: pytest.CaptureFixture[str]) -> None:
        package = logging.getLogger("gangru_dist")
        before = package.handlers, package.level, package.propagate
        try:
            log.setup()
            log.setup()
            logging.getLogger("gangru_dist.x").info("event key=%d", 1)
        finally:
            package.handlers, package.propagate = before[0], before[2]
            package.setLevel(before[1])
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].endswith("INFO    event key=1")


class TestRows:
    def console(self, *, terminal: bool) -> Console:
        return Console(file=io.StringIO(), force_terminal=terminal, width=120)

    def test_a_row_while_it_runs_and_one_of_all(self) -> None:
        console = self.console(terminal=True)
        rows = log.Rows("train", total=2, console=console)
        rows.start()
        rows.update("2018-12-31/seed-0", done=3, total=12, note="gan d_loss=0.69")
        rows.update("2019-06-28/seed-0", done=1, total=12, note="gan d_loss=0.70")
        rows.finish("2018-12-31/seed-0")
        rows.finish("2019-12-31/seed-0")  # ended before its first epoch
        rows.stop()
        assert isinstance(console.file, io.StringIO)
        last = console.file.getvalue().rpartition("train")[2]
        assert "2/2" in last
        assert "2019-06-28/seed-0" in last
        assert "1/12" in last
        assert "2018-12-31" not in last

    def test_no_terminal_no_drawing(self) -> None:
        console = self.console(terminal=False)
        rows = log.Rows("train", total=1, console=console)
        rows.start()
        rows.update("a", done=1, total=2, note="")
        rows.finish("a")
        rows.stop()
        assert not rows.is_live
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue() == ""
