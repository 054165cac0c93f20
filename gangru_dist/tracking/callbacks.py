"""The callbacks of a job, fed by its driver: the one place through which figures leave.

Training sends each epoch as it comes and each model when it is finished, a search its trials, a
report its metrics. A model's whole history is sent again with the model, and finished models with
the next job; what a callback has received before is dropped (`teller`). So no figure is missing
after an interruption, and a callback that is added later learns what happened before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from gangru_dist.config import CALLBACKS, RunConfig
from gangru_dist.errors import GangruError, StorageError, reason_of
from gangru_dist.runs.model import EpochResult, ModelRecord, TimedEpoch, figures
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import TrialRecord
from gangru_dist.runs.train_summary import WindowResult
from gangru_dist.tracking.callback import Callback, Series
from gangru_dist.tracking.teller import Teller
from gangru_dist.tracking.watcher import Watcher

_logger = logging.getLogger(__name__)
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
