import io
import logging
import os
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from gangru_dist.base import log


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TestReference:
    def test_eta_is_the_pace_since_the_first_result(self) -> None:
        clock = Clock()
        with log.Progress("score", total=10, clock=clock) as progress:
            clock.now += 700  # workers start
            progress.advance(1)
            assert progress.eta_minutes is None
            assert progress.line() == "what=score done=1/10 eta_min=unknown"
            clock.now += 60
            progress.advance(3)
            assert progress.eta_minutes == pytest.approx(2)  # 20 s a step, 6 left
            assert progress.line() == "what=score done=4/10 eta_min=2.0"


class TestProperties:
    def test_a_log_gets_a_line_now_and_then(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = Clock()
        with (
            caplog.at_level(logging.INFO, logger="gangru_dist.base.log"),
            log.Progress("score", total=100, clock=clock) as progress,
        ):
            for _ in range(100):
                clock.now += log.LINE_EVERY_SECONDS / 10
                progress.advance()
        assert len(caplog.messages) == 9  # every tenth step, and not the last
        assert caplog.messages[0] == "progress what=score done=10/100 eta_min=2.2"

    def test_what_is_waited_for_is_said_until_it_comes(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with (
            caplog.at_level(logging.INFO, logger="gangru_dist.base.log"),
            log.log_waiting("workers", every=0.02),
        ):
            time.sleep(0.3)
        said = len(caplog.messages)
        assert said > 2
        assert caplog.messages[0] == "waiting for=workers seconds=0"
        time.sleep(0.1)
        assert len(caplog.messages) == said

    def test_only_our_events_reach_standard_error(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Not Ray's C++, which writes to the descriptor; afterwards all do again."""
        package = logging.getLogger("gangru_dist")
        log.setup()
        with log.reserve_stderr():
            os.write(2, b"C++\n")
            sys.stderr.write("ours too\n")
            package.info("event")
        os.write(2, b"after\n")
        package.info("last")
        lines = capfd.readouterr().err.splitlines()
        assert [line.split()[-1] for line in lines] == ["too", "event", "after", "last"]

    def test_without_a_terminal_there_is_no_bar(self, capfd: pytest.CaptureFixture[str]) -> None:
        with log.Progress("score", total=2) as progress:
            progress.advance(2)
        assert capfd.readouterr() == ("", "")

    def test_the_bar_counts_as_the_lines_do(self) -> None:
        console = Console(file=io.StringIO(), force_terminal=True, width=120)
        with log.Progress("score", total=4, unit="days", console=console) as progress:
            progress.advance(3)
        assert progress.done == 3
        assert isinstance(console.file, io.StringIO)
        assert "3/4" in console.file.getvalue()

    def test_setup_twice_speaks_once(self, capfd: pytest.CaptureFixture[str]) -> None:
        log.setup()
        log.setup()
        logging.getLogger("gangru_dist.x").info("event key=%d", 1)
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].endswith("INFO    event key=1")


class TestRows:
    def console(self, *, terminal: bool) -> Console:
        return Console(file=io.StringIO(), force_terminal=terminal, width=120)

    def test_a_row_while_it_runs_and_one_of_all(self) -> None:
        console = self.console(terminal=True)
        rows = log.TaskBars("train", total=2, console=console)
        with rows:
            rows.update("2018-12-31/seed-0", done=3, total=12, note="gan d_loss=0.69")
            rows.update("2019-06-28/seed-0", done=1, total=12, note="gan d_loss=0.70")
            rows.finish("2018-12-31/seed-0")
            rows.finish("2019-12-31/seed-0")  # ended before its first epoch
        assert isinstance(console.file, io.StringIO)
        last = console.file.getvalue().rpartition("train")[2]
        assert "2/2" in last
        assert "2019-06-28/seed-0" in last
        assert "1/12" in last
        assert "2018-12-31" not in last

    def test_no_terminal_no_drawing(self) -> None:
        console = self.console(terminal=False)
        rows = log.TaskBars("train", total=1, console=console)
        with rows:
            rows.update("a", done=1, total=2, note="")
            rows.finish("a")
        assert not rows.is_live
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue() == ""


def test_a_notebook_gets_the_rows_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for IPython; `test_api` asks a real kernel."""
    shown: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            shown.append(data["text/plain"])

    stand_in = SimpleNamespace(display=lambda *_, **__: Handle())
    monkeypatch.setitem(sys.modules, "IPython.display", stand_in)
    rows = log.TaskBars("train", total=2, console=Console(file=io.StringIO(), force_jupyter=True))
    assert rows.is_live
    with rows:
        rows.update("2018-12-31/seed-0", done=3, total=9, note="gan")
        rows.finish("2018-12-31/seed-0")
    assert "2018-12-31/seed-0" in shown[0]
    assert "3/9 gan" in shown[0]
    assert "1/2" in shown[-1]


class TestAlone:
    def test_a_handler_whose_stream_is_closed_is_left_as_it_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone, used = io.StringIO(), io.StringIO()
        handlers = [logging.StreamHandler(gone), logging.StreamHandler(used)]
        gone.close()  # as a notebook or a test runner does with what it captured
        monkeypatch.setattr(logging.getLogger("gangru_dist"), "handlers", handlers)
        with log.reserve_stderr():
            assert handlers[1].stream is not used
        assert [handler.stream for handler in handlers] == [gone, used]
