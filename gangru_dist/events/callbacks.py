"""Deliver events to a run's callbacks: each in its own thread, each figure once, without failing.

A callback is an object of any class. It is made from a `Run`, and has any of these methods::

    on_figures(series, step, figures)        figures of an epoch, of a trial or of a report
    on_done(series, status, figures, facts)  a model, trial or report is finished
    close()                                  the job ends

A model's whole history is delivered again with the model, and finished models with the next job;
what a callback has received before is left out. So no figure is missing after an interruption, and
a callback that is added later learns what happened before.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from gangru_dist.base.errors import GangruError, extract_reason
from gangru_dist.base.log import subscribe
from gangru_dist.base.records import find_record, hash_json, write_record
from gangru_dist.base.redaction import redact
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import CALLBACKS
from gangru_dist.events.events import EpochTrained, ReportWritten, TrialChanged, WindowDone
from gangru_dist.runs.model import EpochResult, get_figures
from gangru_dist.runs.run import Run

_logger = logging.getLogger(__name__)
TRACKING = "tracking"


@dataclass(frozen=True)
class Series:
    """What figures belong to: one model, one trial, or a run's report."""

    job: Literal["train", "tune", "report"]
    name: str
    """`<refit day>/seed-<s>`, `tune/trial-<number>` or `report`; unique in a run."""
    identity: str
    """Changes with what decides the figures, such as settings or panel: then they start anew."""


class Call(NamedTuple):
    """One call of a callback's method."""

    series: Series
    key: str | None
    """Its name among the series' calls; None = it may be repeated."""
    method: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class DeliveryLog:
    """Keys that a callback has received of a series: `tracking/<callback>/<series>.json`."""

    identity: str
    keys: list[str] = field(default_factory=list)


def make_calls(event: object) -> Iterator[Call]:
    """Make the calls that an event stands for; none for an event that has no figures.

    Figures are `gan/…` and `predictor/…` of an epoch: losses, IC, speed; `mean_ic` of a trial, the
    running mean of validation IC; the numbers of `metrics.json` of a report, such as `ic/mean`.
    """
    match event:
        case EpochTrained(epoch=epoch):
            pace = {"seconds": epoch.seconds, "samples_per_s": epoch.samples_per_s}
            yield _epoch_call(Series("train", event.name, event.identity), epoch.result, pace)
        case WindowDone(result=result, model=model):
            facts: dict[str, Any] = {"window": result.window, "seed": result.seed}
            if result.status == "failed":
                series = Series("train", event.name, event.identity)
                yield _done_call(series, None, "failed", {}, facts | {"reason": result.reason})
            elif model is not None:
                series = Series("train", event.name, model.identity)
                yield from (_epoch_call(series, epoch, {}) for epoch in model.history)
                reached: dict[str, Any] = {
                    "best_valid_ic": model.best_valid_ic,
                    "best_epoch": model.best_epoch,
                    "epochs": len(model.predictor_epochs),
                    "seconds": model.seconds,
                }
                facts["model"] = model.model
                yield _done_call(series, "done", result.status, reached, facts)
        case TrialChanged(trial=trial):
            series = Series("tune", f"tune/trial-{trial.number:04d}", event.identity)
            for step, mean_ic in trial.reports:
                yield _figures_call(series, str(step), step, {"mean_ic": mean_ic})
            if trial.is_over:
                names = ("objective", "mean_ic", "epochs", "seconds")
                reached = {name: getattr(trial, name) for name in names}
                facts = trial.settings | ({"reason": trial.reason} if trial.reason else {})
                yield _done_call(series, "done", trial.status, reached, facts)
        case ReportWritten(metrics=metrics, page=page):
            series, months = Series("report", "report", "report"), int(metrics["period"]["months"])
            key = f"{months}/{hash_json(flatten_numbers(metrics))}"
            yield _figures_call(series, key, months, flatten_numbers(metrics))
            yield _done_call(series, f"done/{key}", "written", metrics, {"page": page})


def _epoch_call(series: Series, result: EpochResult, pace: Mapping[str, float]) -> Call:
    named = {f"{result.stage}/{name}": x for name, x in (get_figures(result) | {**pace}).items()}
    return _figures_call(series, f"{result.stage}/{result.epoch}", result.epoch, named)


def _figures_call(series: Series, key: str, step: int, found: Mapping[str, float]) -> Call:
    return Call(series, key, "on_figures", {"step": step, "figures": found})


def _done_call(
    series: Series, key: str | None, status: str, found: Mapping[str, Any], facts: Mapping[str, Any]
) -> Call:
    arguments = {"status": status, "figures": flatten_numbers(found), "facts": facts}
    return Call(series, key, "on_done", arguments)


class CallbackSink:
    """A sink that calls one callback, in order, in a thread of its own."""

    def __init__(
        self, name: str, callback: object, folder: Storage, *, patience: float = 30.0
    ) -> None:
        """Start the thread.

        Args:
            name: As in `callbacks`.
            callback: What is called.
            folder: Records what was delivered.
            patience: Seconds that a call may take at the end of a job; then the rest is dropped.
        """
        self._name, self._callback, self._folder = name, callback, folder
        self._patience = patience
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._delivered: dict[str, DeliveryLog] = {}
        self._done = self._failures = 0
        self._error = ""
        self._thread = threading.Thread(target=self._work, name=f"callback {name}", daemon=True)
        self._thread.start()

    def __call__(self, event: object) -> None:
        """Queue the event's calls; returns at once."""
        for call in make_calls(event):
            self._calls.put(call)

    def close(self) -> None:
        """Wait for the calls that are left, as long as the callback makes progress."""
        self._calls.put(None)
        before = -1
        while self._thread.is_alive() and self._done != before:
            before = self._done
            self._thread.join(self._patience)
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
            getattr(self._callback, "close", lambda: None)()

    @contextmanager
    def _log_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001  # also sys.exit(): it is not our code
            self._failures += 1
            self._error = redact(extract_reason(error))
            if self._failures == 1:
                text = "callback_failed callback=%s error=%s: %s"
                _logger.warning(text, self._name, type(error).__name__, self._error)

    def _deliver(self, call: Call) -> None:
        """Make a call that the callback wants and has not received; what fails comes again."""
        method = getattr(self._callback, call.method, None)
        delivered = self._find_delivered(call.series)
        if method is None or call.key in delivered.keys:
            return
        method(series=call.series, **call.arguments)
        if call.key is not None:
            delivered.keys.append(call.key)
            write_record(self._folder, f"{call.series.name}.json", delivered)

    def _find_delivered(self, series: Series) -> DeliveryLog:
        found = self._delivered.get(series.name)
        found = found or find_record(DeliveryLog, self._folder, f"{series.name}.json")
        if found is None or found.identity != series.identity:
            found = DeliveryLog(identity=series.identity)
        self._delivered[series.name] = found
        return found


@contextmanager
def open_callbacks(run: Run, *, required: bool = True) -> Iterator[None]:
    """Deliver events to the callbacks that a run's configuration names, until the block ends.

    Args:
        run: Its configuration names them.
        required: Whether one that cannot start is an error; else it is left out, with a warning.

    Raises:
        ConfigError: One lacks its package, or finds a setting wrong.
    """
    with ExitStack() as stack:
        for name in dict.fromkeys(run.cfg.callbacks):
            try:
                callback = CALLBACKS[name](run)
            except Exception as error:  # a user's own code
                if required and isinstance(error, GangruError):
                    raise
                text = "callback_failed callback=%s error=%s: %s; it is left out"
                _logger.warning(text, name, type(error).__name__, extract_reason(error))
                continue
            folder = run.folder.child(TRACKING, name.replace(":", "."))
            sink = stack.enter_context(closing(CallbackSink(name, callback, folder)))
            stack.enter_context(subscribe(sink))
        yield


def flatten_numbers(found: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Name the finite numbers of nested tables `outer/inner`; leave out lists and texts."""
    flat: dict[str, float] = {}
    for name, value in found.items():
        if isinstance(value, Mapping):
            flat |= flatten_numbers(value, f"{prefix}{name}/")
        elif type(value) in (int, float) and math.isfinite(value):
            flat[f"{prefix}{name}"] = float(value)
    return flat
