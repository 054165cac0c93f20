"""How far a training job is, as a page that reloads itself: `runs/<run>/progress.html`.

Windows, epochs, validation curves and minutes left, from what the driver is told anyway. A thread
of its own writes the page, whole, so that a slow store holds nothing up; one that fails costs a
line of the log.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gangru_dist.errors import reason_of
from gangru_dist.report import text
from gangru_dist.report.language import language
from gangru_dist.runs.model import EpochResult, GanEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.train_summary import WindowResult

PAGE = "progress.html"
_EVERY, _AT_LEAST, _LAST = 10.0, 60.0, 10.0
"""Seconds between two pages; at most, if nothing happened; at most for the last one."""
_WIDTH, _HEIGHT = 120, 26
_logger = logging.getLogger(__name__)


@dataclass
class _Row:
    """A window and seed."""

    window: str
    seed: int | None
    state: str = "waiting"
    """`waiting`, `running`, or a `WindowResult`'s status."""
    last: EpochResult | None = None
    share: float = 0.0
    """Of its epochs that are done."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Epoch and validation IC of the predictor's epochs."""
    result: WindowResult | None = None


class ProgressPage:
    """A `Watcher` that writes the page of one training job."""

    def __init__(self, run: Run, *, every: float = _EVERY) -> None:
        """`every`: seconds between two pages."""
        self._run, self._every = run, every
        self._rows: dict[tuple[str, int | None], _Row] = {}
        self._state, self._reason = "running", ""
        self._ends: float | None = None
        self._lock, self._over = threading.Lock(), threading.Event()
        self._version = 0
        self._failed = False
        self._thread = threading.Thread(target=self._serve, name=PAGE, daemon=True)

    def start(self, todo: Sequence[tuple[str, int]], before: Sequence[WindowResult]) -> None:
        """See `training.progress.Watcher`."""
        self._rows = {place: _Row(*place) for place in todo}
        for result in before:
            self.settle(result)
        self._thread.start()

    def epoch(
        self, place: tuple[str, int], result: EpochResult, *, share: float, seconds_left: float
    ) -> None:
        """See `training.progress.Watcher`."""
        with self._lock:
            row = self._rows[place]
            row.state, row.last, row.share = "running", result, share
            if not isinstance(result, GanEpoch):
                row.curve.append((result.epoch, result.valid_ic))
            self._ends = time.time() + seconds_left
            self._version += 1

    def settle(self, result: WindowResult) -> None:
        """See `training.progress.Watcher`."""
        with self._lock:
            place = result.window, result.seed
            row = self._rows.setdefault(place, _Row(*place))
            row.state, row.result = result.status, result
            self._version += 1

    def stop(self, state: str, reason: str = "") -> None:
        """See `training.progress.Watcher`; waits for the last page, but not for long."""
        with self._lock:
            self._state, self._reason = state, reason
        self._over.set()
        self._thread.join(timeout=_LAST)

    def _serve(self) -> None:
        written, at = -1, 0.0
        while True:
            is_last = self._over.is_set()  # first: what is written next has the final state
            if is_last or self._version != written or time.monotonic() - at >= _AT_LEAST:
                written, at = self._version, time.monotonic()
                self._write()
            if is_last:
                return
            self._over.wait(self._every)

    def _write(self) -> None:
        try:
            self._run.folder.write_bytes(PAGE, self.render().encode())
        except Exception as error:  # noqa: BLE001  # the job goes on
            if not self._failed:
                _logger.warning("progress_page_failed reason=%s", reason_of(error))
            self._failed = True

    def render(self) -> str:
        """The page as it would be now."""
        words = language(self._run.cfg.report.language)
        with self._lock:
            rows = sorted(self._rows.values(), key=lambda row: (row.window, row.seed or 0))
            values = [value for row in rows for _, value in row.curve]
            low, high = min([0.0, *values]), max([0.0, *values])
            left = None if self._ends is None else max(0.0, self._ends - time.time()) / 60
            return text.template("progress.html", words).render(
                run=self._run.name,
                state=self._state,
                reason=self._reason,
                rows=[_shown(row, low, high) for row in rows],
                counts=_counts(rows),
                share=_share(rows),
                minutes_left=left if self._state == "running" else None,
                written=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} UTC",
                seconds=round(max(self._every, 1)),
                width=_WIDTH,
                height=_HEIGHT,
            )


def _done(row: _Row) -> float | None:
    """Share of a window's epochs that are done; None where there is nothing to train."""
    if row.state == "no history":
        return None
    return row.share if row.result is None or row.state == "failed" else 1.0


def _counts(rows: Sequence[_Row]) -> dict[str, int]:
    """Models that are there, windows that failed, are under way and wait."""
    states = [row.state for row in rows]
    there = ("trained", "resumed", "finished before")
    return {
        "all": sum(state != "no history" for state in states),
        "done": sum(state in there for state in states),
        **{name: states.count(name) for name in ("failed", "running", "waiting")},
    }


def _share(rows: Sequence[_Row]) -> float:
    """Of the work that is done, windows counted alike."""
    over = [row.share if row.result is None else 1.0 for row in rows if row.state != "no history"]
    return sum(over) / len(over) if over else 1.0


def _shown(row: _Row, low: float, high: float) -> dict[str, Any]:
    """A row of the page: the curve between the lowest and the highest value of all rows."""
    room, last = max(high - low, 1e-9), max((epoch for epoch, _ in row.curve), default=1)
    places = [
        (_WIDTH * epoch / last, _HEIGHT * (high - value) / room) for epoch, value in row.curve
    ]
    best = max((value for _, value in row.curve), default=None)
    result = row.result
    return {
        "window": row.window,
        "seed": row.seed,
        "state": row.state,
        "stage": row.last.stage if row.last else "",
        "epoch": row.last.epoch if row.last else None,
        "share": _done(row),
        "accuracy": row.last.discriminator_accuracy if isinstance(row.last, GanEpoch) else None,
        "valid_ic": row.curve[-1][1] if row.curve else None,
        "best": result.best_valid_ic if result and result.best_valid_ic is not None else best,
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in places) if len(places) > 1 else "",
        "minutes": result.seconds / 60 if result and result.seconds else None,
        "reason": result.reason if result else "",
    }
