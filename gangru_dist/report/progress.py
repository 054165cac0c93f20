"""The progress of a job as a page that reloads itself: `runs/<run>/progress.html`.

It shows steps of stages (bars, features, scores), windows with their epochs and validation curves,
trials of a search, and minutes left, from what the driver receives anyway. A thread of its own
writes the whole page, so a slow store delays nothing; a failure is only logged.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from gangru_dist.base import log
from gangru_dist.base.errors import extract_reason
from gangru_dist.base.storage import Storage
from gangru_dist.events.events import EpochTrained, ModelsPlanned, TrialChanged, WindowDone
from gangru_dist.report import text
from gangru_dist.report.text import gettext as _
from gangru_dist.runs.model import GanEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import TrialRecord

PAGE = "progress.html"
_AT_MOST = 60.0
"""Seconds between two pages, if nothing happens."""
_WIDTH, _HEIGHT = 120, 26
_HAS_MODEL = ("trained", "resumed", "finished before")
_logger = logging.getLogger(__name__)


@dataclass
class _Row:
    """A window and seed, or a trial."""

    name: str
    state: str = "waiting"
    """`waiting`, `running`, or a `WindowResult`'s or `TrialRecord`'s status."""
    stage: str = ""
    accuracy: float | None = None
    """Of the discriminator, in the GAN stage."""
    epoch: int | None = None
    share: float | None = 0.0
    """Of a window's epochs that are done; None where there is nothing to train."""
    curve: Sequence[tuple[int, float]] = ()
    """Epoch and validation IC of the predictor's epochs; of a trial its running mean."""
    reached: float | None = None
    """At the end."""
    seconds: float = 0.0
    reason: str = ""

    @property
    def best(self) -> float | None:
        """What was reached at the end, or so far."""
        so_far = max((ic for _epoch, ic in self.curve), default=None)
        return so_far if self.reached is None else self.reached

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state not in ("waiting", "running")


class ProgressPage:
    """Shows one job, inside `with page.show()`."""

    def __init__(
        self,
        run: Run,
        *,
        folder: Storage | None = None,
        every: float = 10.0,
        patience: float = 10.0,
    ) -> None:
        """Write nothing yet.

        Args:
            run: Whose job it is.
            folder: Where the page is written; None = the run's.
            every: Seconds between two pages.
            patience: Seconds to wait for the last page.
        """
        self._run, self._folder, self._every = run, folder or run.folder, every
        self._patience, self._is_of_run = patience, folder is None
        self._stages: dict[str, log.Progress] = {}
        self._rows: dict[str, _Row] = {}
        self._trials: dict[int, _Row] = {}
        self._trials_began: float | None = None
        self._trials_ended = 0  # in this session
        self._state, self._reason = "running", ""
        self._ends: float | None = None
        self._lock, self._over = threading.Lock(), threading.Event()
        self._version = 0
        self._failed = False
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
        with self._lock:
            match event:
                case log.Progress():
                    self._note_stage(event)
                case ModelsPlanned(names=names):
                    self._ends = None  # of the stage before
                    self._rows |= {name: _Row(name) for name in names}
                case EpochTrained():
                    self._note_epoch(event)
                case WindowDone():
                    self._note_window(event)
                case TrialChanged(trial=trial):
                    self._note_trial(trial)
            self._version += 1
            if self._version == 1:
                self._thread.start()

    def _note_stage(self, progress: log.Progress) -> None:
        self._stages[progress.name], left = progress, progress.eta_minutes
        self._ends = None if left is None else time.time() + left * 60

    def _note_epoch(self, event: EpochTrained) -> None:
        result = event.epoch.result
        row = self._rows.setdefault(event.name, _Row(event.name))
        row.state, row.stage = "running", result.stage
        row.epoch, row.share = result.epoch, event.share
        row.accuracy = None
        if isinstance(result, GanEpoch):
            row.accuracy = result.discriminator_accuracy
        else:
            row.curve = (*row.curve, (result.epoch, result.valid_ic))
        self._ends = time.time() + event.seconds_left

    def _note_window(self, event: WindowDone) -> None:
        row, result = self._rows.setdefault(event.name, _Row(event.name)), event.result
        row.state, row.reason, row.seconds = result.status, result.reason, result.seconds
        row.reached = result.best_valid_ic
        if result.status != "failed":  # else as far as it came
            row.share = 1.0 if result.status in _HAS_MODEL else None

    def _note_trial(self, trial: TrialRecord) -> None:
        is_new, now = trial.number not in self._trials, time.time()
        self._trials[trial.number] = _Row(
            name=f"{trial.number:04d}",
            state=trial.status,
            epoch=trial.epochs,
            curve=trial.reports,
            reached=trial.current_objective,
            seconds=trial.seconds,
            reason=trial.reason,
        )
        if is_new and trial.is_over:  # in an earlier session
            return
        self._trials_began = self._trials_began or now
        self._trials_ended += trial.is_over
        if self._trials_ended:
            over = sum(row.is_over for row in self._trials.values())
            left = max(0, self._run.cfg.tune.trials - over)
            self._ends = now + (now - self._trials_began) / self._trials_ended * left

    def _stop(self, state: str, reason: str = "") -> None:
        """Write the last page; wait for it, but not for long."""
        with self._lock:
            self._state, self._reason = state, reason
        self._over.set()
        if self._version:
            self._thread.join(timeout=self._patience)

    def _serve(self) -> None:
        written, at = -1, 0.0
        while True:
            is_last = self._over.is_set()  # first: what is written next has the final state
            if is_last or self._version != written or time.monotonic() - at > _AT_MOST:
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
            trials = [self._trials[number] for number in sorted(self._trials)]
            left = None if self._ends is None else max(0.0, self._ends - time.time()) / 60
            return text.render_page(
                "progress.html",
                run=self._run.name if self._is_of_run else None,
                state=self._state,
                reason=self._reason,
                stages=[(_name_stage(one.name), one) for one in self._stages.values()],
                windows=windows,
                trials=trials,
                draw=_draw_curve,
                counts=_count_states(windows),
                trials_over=sum(row.is_over for row in trials),
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
        if stage and (stage.done < stage.total or not (windows or trials)):
            return stage.done / max(stage.total, 1)
        if trials:
            over = sum(row.is_over for row in trials)
            return min(1.0, over / max(1, self._run.cfg.tune.trials))
        shares = [
            1.0 if row.is_over else row.share or 0.0 for row in windows if row.share is not None
        ]
        return sum(shares) / len(shares) if shares else float(bool(windows))


def _count_states(rows: Sequence[_Row]) -> dict[str, int]:
    """Count the models that are there, and the windows that failed, are under way and wait."""
    states = [row.state for row in rows]
    return {
        "all": sum(state != "no history" for state in states),
        "done": sum(state in _HAS_MODEL for state in states),
        **{name: states.count(name) for name in ("failed", "running", "waiting")},
    }


def _name_stage(name: str) -> str:
    names = {
        "panel_read": _("reading bars, parts"),
        "panel_tables": _("reading side tables, parts"),
        "panel_features": _("computing features, buckets"),
        "score": _("scoring, days"),
    }
    return names.get(name, name)


def _draw_curve(row: _Row, rows: Sequence[_Row]) -> str:
    """Points of a row's curve, between the lowest and the highest value of all rows."""
    if len(row.curve) < 2:
        return ""
    values = [ic for one in rows for _epoch, ic in one.curve]
    low, high = min(0.0, *values), max(0.0, *values)
    last, room = max(epoch for epoch, _ic in row.curve), max(high - low, 1e-9)
    return " ".join(
        f"{_WIDTH * epoch / last:.1f},{_HEIGHT * (high - ic) / room:.1f}" for epoch, ic in row.curve
    )
