"""How far a job is, as a page that reloads itself: `runs/<run>/progress.html`.

Steps of stages (bars, features, scores), windows with their epochs and validation curves, trials of
a search, and minutes left: from what the driver receives anyway. A thread of its own writes the
whole page, so that a slow store delays nothing; a failure is only logged.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from gangru_dist.base import log
from gangru_dist.base.errors import extract_reason
from gangru_dist.base.storage import Storage
from gangru_dist.events.events import EpochTrained, ModelsPlanned, TrialChanged, WindowDone
from gangru_dist.report import text
from gangru_dist.report.text import gettext as _
from gangru_dist.runs.model import EpochResult, GanEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import TrialRecord

PAGE = "progress.html"
_EVERY, _AT_LEAST, _LAST = 10.0, 60.0, 10.0
"""Seconds between two pages; at most, if nothing happened; at most for the last one."""
_WIDTH, _HEIGHT = 120, 26
_THERE = ("trained", "resumed", "finished before")
_logger = logging.getLogger(__name__)


@dataclass
class _Row:
    """A window and seed, or a trial."""

    name: str
    state: str = "waiting"
    """`waiting`, `running`, or a `WindowResult`'s or `TrialRecord`'s status."""
    last: EpochResult | None = None
    """The last epoch of a window."""
    epochs: int | None = None
    share: float = 0.0
    """Of a window's epochs that are done."""
    curve: Sequence[tuple[int, float]] = ()
    """Epoch and validation IC of the predictor's epochs; of a trial its running mean."""
    best: float | None = None
    """What was reached at the end."""
    seconds: float = 0.0
    reason: str = ""


@dataclass
class _Stage:
    done: int
    total: int
    minutes_left: float | None


@dataclass
class _Trials:
    """The pace of a search."""

    rows: dict[int, _Row] = field(default_factory=dict)
    began: float | None = None
    ended: int = 0
    """In this session."""


class ProgressPage:
    """Shows one job, inside `with page.show()`."""

    def __init__(self, run: Run, *, folder: Storage | None = None, every: float = _EVERY) -> None:
        """Write nothing yet.

        Args:
            run: Whose job it is.
            folder: Where the page is written; None = the run's.
            every: Seconds between two pages.
        """
        self._run, self._folder, self._every = run, folder or run.folder, every
        self._is_of_run = folder is None
        self._stages: dict[str, _Stage] = {}
        self._rows: dict[str, _Row] = {}
        self._trials = _Trials()
        self._state, self._reason = "running", ""
        self._ends: float | None = None
        self._lock, self._over = threading.Lock(), threading.Event()
        self._version = 0
        self._begun = self._failed = False
        self._thread = threading.Thread(target=self._serve, name=PAGE, daemon=True)

    @contextmanager
    def show(self) -> Iterator[Self]:
        """Write the page while the block runs, and once more with how it ended.

        Writing begins with the first event, so a job that is refused writes none.
        """
        try:
            with log.subscribe(self):
                yield self
        except BaseException as error:
            self._stop("stopped", extract_reason(error))
            raise
        failed = any(row.state == "failed" for row in self._rows.values())
        self._stop("failed" if failed else "done")

    def __call__(self, event: object) -> None:
        """Note an event, as a sink of `log.subscribe`."""
        with self._changed():
            match event:
                case log.Progress():
                    self._note_stage(event)
                case ModelsPlanned(names=names):
                    self._ends = None  # of the stage before
                    self._rows |= {name: _Row(name) for name in names}
                case EpochTrained():
                    self._note_epoch(event)
                case WindowDone(result=result):
                    row = self._rows.setdefault(event.name, _Row(event.name))
                    row.state, row.best, row.reason = (
                        result.status,
                        result.best_valid_ic,
                        result.reason,
                    )
                    row.seconds = result.seconds
                case TrialChanged(trial=trial):
                    self._note_trial(trial)

    def _note_stage(self, progress: log.Progress) -> None:
        left = progress.eta_minutes
        self._stages[progress.name] = _Stage(progress.done, progress.total, left)
        self._ends = None if left is None else time.time() + left * 60

    def _note_epoch(self, event: EpochTrained) -> None:
        result = event.epoch.result
        row = self._rows.setdefault(event.name, _Row(event.name))
        row.state, row.last, row.epochs, row.share = "running", result, result.epoch, event.share
        if not isinstance(result, GanEpoch):
            row.curve = (*row.curve, (result.epoch, result.valid_ic))
        self._ends = time.time() + event.seconds_left

    def _note_trial(self, trial: TrialRecord) -> None:
        trials, now = self._trials, time.time()
        is_new = trial.number not in trials.rows
        row = trials.rows.setdefault(trial.number, _Row(f"{trial.number:04d}"))
        row.state, row.epochs, row.curve = trial.status, trial.epochs, trial.reports
        row.best, row.seconds, row.reason = trial.reached, trial.seconds, trial.reason
        if is_new and trial.is_over:  # in an earlier session
            return
        trials.began = trials.began or now
        trials.ended += trial.is_over
        if trials.ended:
            over = sum(row.state != "running" for row in trials.rows.values())
            left = max(0, self._run.cfg.tune.trials - over)
            self._ends = now + (now - trials.began) / trials.ended * left

    @contextmanager
    def _changed(self) -> Iterator[None]:
        with self._lock:
            yield
            self._version += 1
            if not self._begun:
                self._begun = True
                self._thread.start()

    def _stop(self, state: str, reason: str = "") -> None:
        """Write the last page; wait for it, but not for long."""
        with self._lock:
            self._state, self._reason = state, reason
        self._over.set()
        if self._begun:
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
            self._folder.write_bytes(PAGE, self.render().encode())
        except Exception as error:  # noqa: BLE001  # the job goes on
            if not self._failed:
                _logger.warning("progress_page_failed reason=%s", extract_reason(error))
            self._failed = True

    def render(self) -> str:
        """The page as it would be now."""
        with self._lock, text.use_language(self._run.cfg.report.language):
            windows = [self._rows[name] for name in sorted(self._rows)]
            trials = [self._trials.rows[number] for number in sorted(self._trials.rows)]
            left = None if self._ends is None else max(0.0, self._ends - time.time()) / 60
            return text.render_page(
                "progress.html",
                run=self._run.name if self._is_of_run else None,
                state=self._state,
                reason=self._reason,
                stages=[_shown_stage(name, one) for name, one in self._stages.items()],
                windows=_shown(windows),
                trials=_shown(trials),
                counts=_counts(windows),
                trials_over=sum(row.state != "running" for row in trials),
                trials_asked=self._run.cfg.tune.trials,
                share=self._share(windows, trials),
                minutes_left=left if self._state == "running" else None,
                written=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} UTC",
                seconds=round(max(self._every, 1)),
                width=_WIDTH,
                height=_HEIGHT,
            )

    def _share(self, windows: Sequence[_Row], trials: Sequence[_Row]) -> float:
        """Of the work under way that is done: of its models, its trials, or its stage."""
        stage = next(reversed(self._stages.values()), None)
        trained = _share(windows)
        if stage and (stage.done < stage.total or not (windows or trials)):
            return stage.done / max(stage.total, 1)
        if trials:
            over = sum(row.state != "running" for row in trials)
            return min(1.0, over / max(1, self._run.cfg.tune.trials))
        return trained


def _counts(rows: Sequence[_Row]) -> dict[str, int]:
    """Models that are there, windows that failed, are under way and wait."""
    states = [row.state for row in rows]
    return {
        "all": sum(state != "no history" for state in states),
        "done": sum(state in _THERE for state in states),
        **{name: states.count(name) for name in ("failed", "running", "waiting")},
    }


def _share(rows: Sequence[_Row]) -> float:
    """Of the work that is done, windows counted alike; 0 before any is known."""
    over = [
        row.share if row.state in ("waiting", "running") else 1.0
        for row in rows
        if row.state != "no history"
    ]
    return sum(over) / len(over) if over else float(bool(rows))


def _shown_stage(name: str, stage: _Stage) -> dict[str, Any]:
    """A stage's row of the page."""
    names = {
        "panel_read": _("reading bars, parts"),
        "panel_tables": _("reading side tables, parts"),
        "panel_features": _("computing features, buckets"),
        "score": _("scoring, days"),
    }
    return {
        "name": names.get(name, name),
        "done": stage.done,
        "total": stage.total,
        "share": stage.done / stage.total if stage.total else 1.0,
    }


def _shown(rows: Sequence[_Row]) -> list[dict[str, Any]]:
    """Rows of the page: curves between the lowest and the highest value of all rows."""
    values = [value for row in rows for _epoch, value in row.curve]
    low, high = min([0.0, *values]), max([0.0, *values])
    return [_shown_row(row, low, high) for row in rows]


def _shown_row(row: _Row, low: float, high: float) -> dict[str, Any]:
    room, last = max(high - low, 1e-9), max((epoch for epoch, _ic in row.curve), default=1)
    places = [
        (_WIDTH * epoch / last, _HEIGHT * (high - value) / room) for epoch, value in row.curve
    ]
    name, _slash, seed = row.name.partition("/seed-")
    reached = max((value for _epoch, value in row.curve), default=None)
    return {
        "name": name,
        "seed": seed,
        "state": row.state,
        "stage": row.last.stage if row.last else "",
        "epoch": row.epochs,
        "share": _done(row),
        "accuracy": row.last.discriminator_accuracy if isinstance(row.last, GanEpoch) else None,
        "valid_ic": row.curve[-1][1] if row.curve else None,
        "best": reached if row.best is None else row.best,
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in places) if len(places) > 1 else "",
        "minutes": row.seconds / 60 if row.seconds else None,
        "reason": row.reason,
    }


def _done(row: _Row) -> float | None:
    """Share of a window's epochs that are done; None where there is nothing to train."""
    if row.state == "no history":
        return None
    return 1.0 if row.state in _THERE else row.share
