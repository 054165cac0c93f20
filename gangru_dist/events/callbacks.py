"""The callbacks of a job, fed by its driver: the one place through which figures leave.

Training sends each epoch as it comes and each model when it is finished, a search its trials, a
report its metrics. A model's whole history is sent again with the model, and finished models with
the next job; what a callback has received before is dropped (`teller`). So no figure is missing
after an interruption, and a callback that is added later learns what happened before.

The base class of callbacks, one's own and ours.

What shows a job's progress: fed by `Callbacks` as callbacks are, but from this job alone.

One callback beside a job: in a thread of its own, told everything once, never a failure.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from gangru_dist.base.errors import GangruError, StorageError, reason_of
from gangru_dist.base.records import find_record, write_record
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import CALLBACKS, RunConfig
from gangru_dist.runs.model import EpochResult, ModelRecord, TimedEpoch, figures
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import TrialRecord
from gangru_dist.runs.summaries import WindowResult


@dataclass(frozen=True)
class Series:
    """What figures belong to: one model, one trial, or a run's report."""

    job: Literal["train", "tune", "report"]
    name: str
    """`<refit day>/seed-<s>`, `tune/trial-<number>` or `report`; unique in a run."""
    identity: str
    """Changes with what decides the figures, such as settings or panel: then they start anew."""


class Callback:
    """Receives what a job computes; override what you need.

    `--set 'callbacks=["my_package.module:Class"]'` asks for it. A job makes one object, in the
    driver, and calls it from one thread beside the work, so it may take its time. What it raises
    becomes a line of the log. Nothing is sent twice, not even after an interrupted job.
    """

    def __init__(self, run: Run) -> None:
        """Raise ConfigError for what the user should mend before the job starts."""
        self.run = run

    def on_figures(self, series: Series, step: int, figures: Mapping[str, float]) -> None:
        """Figures at a step of a series.

        Args:
            series: Of job `train`, `tune` or `report`.
            step: Epoch of the stage, from 1; of a trial the predictor epoch over all windows; of a
                report its number of months.
            figures: `gan/…` and `predictor/…`: losses, IC, speed; of a trial `mean_ic`, the running
                mean of validation IC; of a report the numbers of `metrics.json`, such as `ic/mean`.
        """

    def on_done(
        self, series: Series, status: str, figures: Mapping[str, float], facts: Mapping[str, Any]
    ) -> None:
        """A model, trial or report is finished.

        Args:
            series: Which one.
            status: Of a model `trained`, `resumed`, `finished before` or `failed`; of a trial
                `complete`, `pruned`, `diverged` or `failed`; of a report `written`.
            figures: Of the whole: `best_valid_ic`, `objective`, `epochs`, `seconds`, …
            facts: A trial's settings, the page of a report, the reason of a failure, …
        """

    def close(self) -> None:
        """Free what was opened; called once, at the end of the job."""


class Watcher:
    """Does nothing; override what you need. Answers at once and raises nothing.

    A callback hears each thing once, whatever jobs it takes; a watcher hears what was finished
    before too.
    """

    def planned(self, names: Sequence[str]) -> None:
        """Models that will be trained, each `<refit day>/seed-<s>`."""

    def epoch(self, name: str, result: EpochResult, *, share: float, seconds_left: float) -> None:
        """A model has trained an epoch.

        Args:
            name: Which one.
            result: Of the epoch.
            share: Of all its epochs, of both stages, that are done.
            seconds_left: Of the whole job, if no model stops early.
        """

    def window(self, name: str, result: WindowResult) -> None:
        """A model is there, or cannot be; a window without history has its refit day as name."""

    def trial(self, trial: TrialRecord) -> None:
        """How far a trial of a search is."""


_logger = logging.getLogger(__name__)
_PATIENCE_SECONDS = 30.0
"""At the end of a job: how long one event may take before the rest is dropped."""
_PASSWORD = re.compile(r"//[^/\s@]+@")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a callback has been told of a series: `tracking/<callback>/<series>.json`."""

    identity: str
    keys: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Event:
    series: Series
    key: str | None
    """Its name among the series' events; None = may be told again."""
    call: Callable[[Callback], None]


class Teller:
    """Hands events to a callback, in order. An event is noted before it is told: at most once."""

    def __init__(self, name: str, callback: Callback, folder: Storage) -> None:
        """Start the thread; `folder` keeps what was told."""
        self._name, self._callback, self._folder = name, callback, folder
        self._events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._told: dict[str, Told] = {}
        self._taken = self._failures = 0
        self._error = ""
        self._thread = threading.Thread(target=self._work, name=f"callback {name}", daemon=True)
        self._thread.start()

    def tell(self, series: Series, key: str | None, call: Callable[[Callback], None]) -> None:
        """Have the callback called, unless it was told this key before; returns at once."""
        self._events.put(_Event(series, key, call))

    def close(self) -> None:
        """Wait for what is left, as long as the callback takes it."""
        self._events.put(None)
        taken = -1
        while self._thread.is_alive() and self._taken != taken:
            taken = self._taken
            self._thread.join(_PATIENCE_SECONDS)
        if self._thread.is_alive():
            left = self._events.qsize()
            _logger.warning("callback_too_slow callback=%s events_left=%d", self._name, left)
        if self._failures > 1:
            text = "callback_failed callback=%s times=%d last_error=%s"
            _logger.warning(text, self._name, self._failures, self._error)

    def _work(self) -> None:
        for event in iter(self._events.get, None):
            self._safely(partial(self._tell, event))
            self._taken += 1
        self._safely(self._callback.close)

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # also sys.exit(): it is not our code
            self._failures += 1
            self._error = _PASSWORD.sub("//***@", reason_of(error))
            if self._failures == 1:
                text = "callback_failed callback=%s error=%s: %s"
                _logger.warning(text, self._name, type(error).__name__, self._error)

    def _tell(self, event: _Event) -> None:
        if event.key is None:
            event.call(self._callback)
            return
        told = self._told_of(event.series)
        if event.key in told.keys:
            return
        told.keys.append(event.key)
        try:
            write_record(self._folder, _file(event.series), told)
            event.call(self._callback)
        except BaseException:
            told.keys.remove(event.key)  # to be told with what comes at the end, or next time
            with suppress(OSError, StorageError):
                write_record(self._folder, _file(event.series), told)
            raise

    def _told_of(self, series: Series) -> Told:
        if series.name not in self._told:
            stored = find_record(Told, self._folder, _file(series))
            self._told[series.name] = stored or Told(identity=series.identity)
        told = self._told[series.name]
        if told.identity != series.identity:
            told = self._told[series.name] = Told(identity=series.identity)
        return told


def _file(series: Series) -> str:
    return f"{series.name}.json"


TRACKING = "tracking"


class Callbacks:
    """Sends events to all callbacks of a run and to the job's watcher, if there are any."""

    def __init__(
        self, run: Run, tellers: Sequence[Teller] = (), watcher: Watcher | None = None
    ) -> None:
        self._run, self._tellers, self._watcher = run, tellers, watcher or Watcher()

    def planned(self, names: Sequence[str]) -> None:
        """Models that will be trained."""
        self._watcher.planned(names)

    def epoch(
        self,
        name: str,
        identity: str,
        epoch: TimedEpoch,
        *,
        share: float = 0.0,
        seconds_left: float = 0.0,
    ) -> None:
        """An epoch of a model; what is left of it and of the job, as a `Watcher` is told."""
        self._watcher.epoch(name, epoch.result, share=share, seconds_left=seconds_left)
        pace = {"seconds": epoch.seconds, "samples_per_s": epoch.samples_per_s}
        self._epoch(Series("train", name, identity), epoch.result, pace)

    def window(self, result: WindowResult, identity: str = "") -> None:
        """What became of a window and seed; `identity` of the model that it has or should have."""
        name = result.window if result.seed is None else f"{result.window}/seed-{result.seed}"
        self._watcher.window(name, result)
        if not self._tellers or result.seed is None:
            return
        facts = {"window": result.window, "seed": result.seed}
        if result.status == "failed":
            facts["reason"] = result.reason
            self._done(Series("train", name, identity), result.status, {}, facts, key=None)
            return
        try:
            model = self._run.model(result.window, result.seed)
        except (OSError, StorageError) as error:
            _logger.warning("model_not_told window=%s error=%s", name, reason_of(error))
            return
        if model is not None:
            self._model(Series("train", name, model.identity), model, result.status, facts)

    def _model(
        self, series: Series, model: ModelRecord, status: str, facts: Mapping[str, Any]
    ) -> None:
        for result in model.history:
            self._epoch(series, result, {})
        whole = {
            "best_valid_ic": model.best_valid_ic,
            "best_epoch": model.best_epoch,
            "epochs": len(model.predictor_epochs),
            "seconds": model.seconds,
        }
        self._done(series, status, numbers(whole), {**facts, "model": model.model})

    def trial(self, identity: str, trial: TrialRecord) -> None:
        """How far a trial of a search is; its end too, once it has ended."""
        self._watcher.trial(trial)
        series = Series("tune", f"tune/trial-{trial.number:04d}", identity)
        for step, mean_ic in trial.reports:
            self._figures(series, step, {"mean_ic": mean_ic})
        if trial.is_over:
            whole = {
                "objective": trial.objective,
                "mean_ic": trial.mean_ic,
                "epochs": trial.epochs,
                "seconds": trial.seconds,
            }
            facts = trial.settings | ({"reason": trial.reason} if trial.reason else {})
            self._done(series, trial.status, numbers(whole), facts)

    def report(self, metrics: Mapping[str, Any], page: str) -> None:
        """A report's metrics, unless they are those of an earlier one."""
        series, found = Series("report", "report", "report"), numbers(metrics)
        step = int(metrics["period"]["months"])
        key = f"{step}/{digest(found)}"
        self._figures(series, step, found, key)
        self._done(series, "written", found, {"page": page}, key=f"done/{key}")

    def close(self) -> None:
        """Wait for callbacks that have something left to do."""
        for teller in self._tellers:
            teller.close()

    def _epoch(self, series: Series, result: EpochResult, pace: Mapping[str, float]) -> None:
        named = {f"{result.stage}/{name}": x for name, x in (figures(result) | {**pace}).items()}
        self._figures(series, result.epoch, named, f"{result.stage}/{result.epoch}")

    def _figures(
        self, series: Series, step: int, found: Mapping[str, float], key: str | None = None
    ) -> None:
        for teller in self._tellers:
            call = partial(_on_figures, series=series, step=step, figures=dict(found))
            teller.tell(series, key or str(step), call)

    def _done(
        self,
        series: Series,
        status: str,
        found: Mapping[str, float],
        facts: Mapping[str, Any],
        key: str | None = "done",
    ) -> None:
        for teller in self._tellers:
            call = partial(_on_done, series=series, status=status, figures=found, facts=facts)
            teller.tell(series, key, call)


def _on_figures(callback: Callback, **given: Any) -> None:
    callback.on_figures(**given)


def _on_done(callback: Callback, **given: Any) -> None:
    callback.on_done(**given)


@contextmanager
def told(run: Run, watcher: Watcher | None = None) -> Iterator[Callbacks]:
    """The callbacks that a run's configuration names, until the block ends.

    Args:
        run: Whose configuration.
        watcher: Is told of this job beside them.

    Raises:
        ConfigError: One lacks its package, or finds a setting wrong.
    """
    tellers = []
    for name in names(run.cfg):
        callback = _made(name, run)
        if callback is not None:
            folder = run.folder.child(TRACKING, name.replace(":", "."))
            tellers.append(Teller(name, callback, folder))
    callbacks = Callbacks(run, tellers, watcher)
    try:
        yield callbacks
    finally:
        callbacks.close()


def names(cfg: RunConfig) -> tuple[str, ...]:
    """The callbacks that are asked for, each once."""
    also = ("tensorboard",) if cfg.training.tensorboard else ()
    return tuple(dict.fromkeys((*cfg.callbacks, *also)))


def _made(name: str, run: Run) -> Callback | None:
    try:
        callback: Callback = CALLBACKS[name](run)
    except GangruError:
        raise
    except Exception as error:  # noqa: BLE001  # a user's own code
        text = "callback_failed callback=%s error=%s: %s; it is left out"
        _logger.warning(text, name, type(error).__name__, reason_of(error))
        return None
    return callback


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
