"""Delivers events to a run's callbacks: each in its own thread, each figure once, never a failure.

A callback is an object of any class. It is made from a `Run`, and has those of these methods that
it wants::

    on_figures(series, step, figures)        figures of an epoch, of a trial or of a report
    on_done(series, status, figures, facts)  a model, trial or report is finished
    close()                                  the job ends

A model's whole history is delivered again with the model, and finished models with the next job;
what a callback has received before is left out. So no figure is missing after an interruption, and
a callback that is added later learns what happened before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from gangru_dist.base.errors import GangruError, StorageError, extract_reason
from gangru_dist.base.log import subscribe
from gangru_dist.base.records import find_record, write_record
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import CALLBACKS
from gangru_dist.events.events import EpochTrained, ReportWritten, TrialChanged, WindowDone
from gangru_dist.runs.model import EpochResult, get_figures
from gangru_dist.runs.run import Run

_logger = logging.getLogger(__name__)
TRACKING = "tracking"
PATIENCE_SECONDS = 30.0
"""At the end of a job: how long one call may take before the rest is dropped."""
_PASSWORD = re.compile(r"//[^/\s@]+@")


@dataclass(frozen=True)
class Series:
    """What figures belong to: one model, one trial, or a run's report."""

    job: Literal["train", "tune", "report"]
    name: str
    """`<refit day>/seed-<s>`, `tune/trial-<number>` or `report`; unique in a run."""
    identity: str
    """Changes with what decides the figures, such as settings or panel: then they start anew."""


@dataclass(frozen=True)
class Call:
    """One call of a callback's method."""

    series: Series
    key: str | None
    """Its name among the series' calls; None = it may be repeated."""
    method: str
    given: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """Keys that a callback has received of a series: `tracking/<callback>/<series>.json`."""

    identity: str
    keys: list[str] = field(default_factory=list)


def calls_for(event: object) -> Iterator[Call]:
    """The calls that an event stands for; none for events that have no figures.

    Figures are `gan/…` and `predictor/…` of an epoch: losses, IC, speed; `mean_ic` of a trial, the
    running mean of validation IC; the numbers of `metrics.json` of a report, such as `ic/mean`.
    """
    match event:
        case EpochTrained(epoch=epoch):
            pace = {"seconds": epoch.seconds, "samples_per_s": epoch.samples_per_s}
            yield _epoch(Series("train", event.name, event.identity), epoch.result, pace)
        case WindowDone(result=result, model=model):
            facts: dict[str, Any] = {"window": result.window, "seed": result.seed}
            if result.status == "failed":
                series = Series("train", event.name, event.identity)
                facts["reason"] = result.reason
                yield _done(series, None, result.status, {}, facts)
            elif model is not None:
                series = Series("train", event.name, model.identity)
                yield from (_epoch(series, epoch, {}) for epoch in model.history)
                whole = {
                    "best_valid_ic": model.best_valid_ic,
                    "best_epoch": model.best_epoch,
                    "epochs": len(model.predictor_epochs),
                    "seconds": model.seconds,
                }
                facts["model"] = model.model
                yield _done(series, "done", result.status, numbers(whole), facts)
        case TrialChanged(trial=trial):
            series = Series("tune", f"tune/trial-{trial.number:04d}", event.identity)
            for step, mean_ic in trial.reports:
                yield _figures(series, str(step), step, {"mean_ic": mean_ic})
            if trial.is_over:
                names = ("objective", "mean_ic", "epochs", "seconds")
                whole = {name: getattr(trial, name) for name in names}
                facts = trial.settings | ({"reason": trial.reason} if trial.reason else {})
                yield _done(series, "done", trial.status, numbers(whole), facts)
        case ReportWritten(metrics=metrics, page=page):
            series, found = Series("report", "report", "report"), numbers(metrics)
            step = int(metrics["period"]["months"])
            key = f"{step}/{digest(found)}"
            yield _figures(series, key, step, found)
            yield _done(series, f"done/{key}", "written", found, {"page": page})


def _epoch(series: Series, result: EpochResult, pace: Mapping[str, float]) -> Call:
    named = {f"{result.stage}/{name}": x for name, x in (get_figures(result) | {**pace}).items()}
    return _figures(series, f"{result.stage}/{result.epoch}", result.epoch, named)


def _figures(series: Series, key: str, step: int, found: Mapping[str, float]) -> Call:
    return Call(series, key, "on_figures", {"series": series, "step": step, "figures": found})


def _done(
    series: Series,
    key: str | None,
    status: str,
    found: Mapping[str, float],
    facts: Mapping[str, Any],
) -> Call:
    given = {"series": series, "status": status, "figures": found, "facts": facts}
    return Call(series, key, "on_done", given)


class CallbackSink:
    """A sink that calls one callback, in order. A call is noted before it is made: at most once."""

    def __init__(self, name: str, callback: object, folder: Storage) -> None:
        """Start the thread; `folder` keeps what was delivered."""
        self._name, self._callback, self._folder = name, callback, folder
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._delivered: dict[str, Delivered] = {}
        self._done = self._failures = 0
        self._error = ""
        self._thread = threading.Thread(target=self._work, name=f"callback {name}", daemon=True)
        self._thread.start()

    def __call__(self, event: object) -> None:
        """Queue the event's calls; returns at once."""
        for call in calls_for(event):
            self._calls.put(call)

    def close(self) -> None:
        """Wait for the calls that are left, as long as the callback makes progress."""
        self._calls.put(None)
        before = -1
        while self._thread.is_alive() and self._done != before:
            before = self._done
            self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive():
            left = self._calls.qsize()
            _logger.warning("callback_too_slow callback=%s events_left=%d", self._name, left)
        if self._failures > 1:
            text = "callback_failed callback=%s times=%d last_error=%s"
            _logger.warning(text, self._name, self._failures, self._error)

    def _work(self) -> None:
        for call in iter(self._calls.get, None):
            with self._log_failure():
                self._deliver(call)
            self._done += 1
        with self._log_failure():
            self._call("close")

    @contextmanager
    def _log_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001  # also sys.exit(): it is not our code
            self._failures += 1
            self._error = _PASSWORD.sub("//***@", extract_reason(error))
            if self._failures == 1:
                text = "callback_failed callback=%s error=%s: %s"
                _logger.warning(text, self._name, type(error).__name__, self._error)

    def _deliver(self, call: Call) -> None:
        if call.key is None:
            self._call(call.method, **call.given)
            return
        delivered, file = self._delivered_of(call.series), f"{call.series.name}.json"
        if call.key in delivered.keys:
            return
        delivered.keys.append(call.key)
        try:
            write_record(self._folder, file, delivered)
            self._call(call.method, **call.given)
        except BaseException:
            delivered.keys.remove(call.key)  # it comes again with the whole, or with the next job
            with suppress(OSError, StorageError):
                write_record(self._folder, file, delivered)
            raise

    def _call(self, method: str, **given: Any) -> None:
        wanted: Callable[..., object] | None = getattr(self._callback, method, None)
        if wanted is not None:
            wanted(**given)

    def _delivered_of(self, series: Series) -> Delivered:
        known = self._delivered.get(series.name)
        known = known or find_record(Delivered, self._folder, f"{series.name}.json")
        if known is None or known.identity != series.identity:
            known = Delivered(identity=series.identity)
        self._delivered[series.name] = known
        return known


@contextmanager
def open_callbacks(run: Run) -> Iterator[None]:
    """Deliver events to the callbacks that a run's configuration names, until the block ends.

    Raises:
        ConfigError: One lacks its package, or finds a setting wrong.
    """
    sinks = []
    for name in dict.fromkeys(run.cfg.callbacks):
        try:
            callback = CALLBACKS[name](run)
        except GangruError:
            raise
        except Exception as error:  # noqa: BLE001  # a user's own code
            text = "callback_failed callback=%s error=%s: %s; it is left out"
            _logger.warning(text, name, type(error).__name__, extract_reason(error))
            continue
        folder = run.folder.child(TRACKING, name.replace(":", "."))
        sinks.append(CallbackSink(name, callback, folder))
    try:
        with ExitStack() as stack:
            for sink in sinks:
                stack.enter_context(subscribe(sink))
            yield
    finally:
        for sink in sinks:
            sink.close()


def numbers(found: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of nested tables as `outer/inner`; lists and texts are left out."""
    flat: dict[str, float] = {}
    for name, value in found.items():
        if isinstance(value, Mapping):
            flat |= numbers(value, f"{prefix}{name}/")
        elif type(value) in (int, float) and math.isfinite(value):
            flat[f"{prefix}{name}"] = float(value)
    return flat


def digest(content: Any) -> str:
    """Twelve hex digits that change with a JSON content."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
