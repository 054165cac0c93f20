"""The search: Ray Tune runs trials in parallel, ASHA stops those that are behind [Ray].

Tune schedules, places and stops trials. The queue proposes, stores and resumes them, so Tune's own
experiment state is kept in a temporary folder only.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from gangru_dist.base.errors import DivergedError, GangruError, TrainingError
from gangru_dist.cluster import session
from gangru_dist.config.settings import RunConfig, TuneConfig
from gangru_dist.events.callbacks import open_callbacks
from gangru_dist.models.precision import choose_device, prepare_torch
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.shared import share_panel
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import Search, TrialRecord
from gangru_dist.training.plan import require_native
from gangru_dist.tuning.queue import TrialQueue, plan_search
from gangru_dist.tuning.space import apply
from gangru_dist.tuning.trial import (
    find_panel_span,
    list_features,
    neutralizes,
    read_window,
    run_trial,
)

_logger = logging.getLogger(__name__)

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # prints even with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our records have everything
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the job; the next one resumes the search
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a diverged trial reports no IC
}


def search(
    run: Run,
    *,
    only: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Search:
    """Search until `tune.trials` trials have ended or `tune.hours` have passed.

    Args:
        run: The search is stored in `Run.tune` and continued if it exists. Section `tune` of the
            configuration describes it.
        only: Refit days of every trial; None = those of section `tune`.
        overwrite: Start over.

    Returns:
        The search after this session.

    Raises:
        ConfigError: The space is invalid, the name has another search, or a callback lacks its
            package or a setting.
        PanelError: There is no panel, or it lacks a feature.
        WindowError: A named window does not exist, or none has enough history.
        ResourceError: The cluster is too small for one trial, or lacks `training.precision`.
        StorageError: A record of the search is damaged.
        TrainingError: All trials have ended and none is complete.
    """
    plan = plan_search(run, only, overwrite=overwrite)
    cfg, variants, manifest = plan.cfg, plan.variants, plan.manifest
    if not plan.is_stored:
        require_native(*variants)
    begin = partial(_begin, run.tune, cfg, plan.space, plan.record, overwrite=overwrite)
    with open_callbacks(run):
        queue = begin() if plan.is_stored else None
        if queue is None or queue.remaining:
            require_native(*variants)
            with session.open_session(cfg, dashboard=True):
                session.find_room("one trial", cfg.resources)
                blocks = _put_windows(run, manifest, plan.record.windows, variants)
                queue = queue or begin()  # replaces one only when all that it needs is there
                steps = max(one.training.epochs for one in variants)
                run_trials(queue, manifest.calendar, blocks, steps_per_window=steps)
    found = queue.search()
    if found.record.best_trial is None and not queue.remaining:
        reasons = sorted({trial.reason for trial in found.trials if trial.reason})
        raise TrainingError(f"no trial is complete; see {run.tune.uri}/trials.csv: {reasons}")
    return found


def _put_windows(
    run: Run, manifest: Manifest, windows: Sequence[str], variants: Sequence[RunConfig]
) -> dict[str, Any]:
    """Window -> reference of its block. The panel, whose days they share, leaves the store here."""
    spans = [find_panel_span(manifest.calendar, name, variants) for name in windows]
    shared = share_panel(
        run.root,
        manifest,
        run.cfg,
        start=min(start for start, _ in spans),
        end=max(end for _, end in spans),
        features=list_features(variants),
        trading=neutralizes(variants),
        readers=len(windows),
    )
    return {name: ray.put(read_window(shared, name, variants)) for name in windows}


def _begin(*of_search: Any, overwrite: bool) -> TrialQueue:
    queue = TrialQueue(*of_search, overwrite=overwrite)
    search = queue.record
    _logger.info(
        "search_start trials=%d kept=%d windows=%s reported_from=%s searched=%s",
        search.asked_trials,
        queue.ended_before,
        ",".join(search.windows),
        search.reported_first or "none",
        ",".join(search.space),
    )
    if search.overlap:
        _logger.warning(
            "windows_overlap windows=%s: used for tuning and reported too (windows.first=%s); "
            "their figures in the report are not out of sample",
            ",".join(search.overlap),
            queue.cfg.windows.first,
        )
    for key in search.incomparable:
        _logger.warning("not_comparable key=%s: changes what the validation IC measures", key)
    return queue


def run_trials(
    queue: TrialQueue, calendar: np.ndarray, blocks: dict[str, Any], *, steps_per_window: int
) -> None:
    """Run a queue's trials until none remains or the time is up.

    Args:
        queue: Hands out the trials and records their results.
        calendar: (D,) datetime64[D] of the panel.
        blocks: Window -> reference of its `read_window`; one read-only copy per node.
        steps_per_window: Most predictor epochs of any trial.

    Raises:
        ResourceError: The cluster is too small for one trial.
    """
    cfg = queue.cfg
    size, at_once = cfg.resources, count_at_once(cfg, queue.remaining)
    _logger.info("trials_start left=%d at_once=%d", queue.remaining, at_once)
    trainable: Callable[..., Any] = tune.with_resources(
        tune.with_parameters(
            _train,
            base=cfg,
            calendar=calendar,
            blocks=blocks,
            steps_per_window=steps_per_window,
        ),
        {"CPU": size.cpus_per_worker, "GPU": size.gpus_per_worker},
    )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # hides tracebacks of failed trials and Tune's summary; the queue logs both in one line
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scheduler = make_scheduler(cfg.tune, steps_per_window * len(blocks), queue.records)
    with tempfile.TemporaryDirectory(prefix="gangru-tune-") as scratch:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                num_samples=queue.remaining,
                search_alg=_Proposer(queue),
                scheduler=scheduler,
                max_concurrent_trials=at_once,
                time_budget_s=cfg.tune.hours * 3600 if cfg.tune.hours else None,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="search", storage_path=scratch, verbose=0, callbacks=[Listener(queue)]
            ),
        ).fit()


def count_at_once(cfg: RunConfig, left: int) -> int:
    """How many of the trials that are left run at once: as many as there is room for.

    A cluster that grows gets `tune.startup_trials`, which nobody learns from, or `max_concurrent`:
    of more at once, TPE would propose the settings before it has seen a result.

    Raises:
        ResourceError: The cluster is too small for one trial.
    """
    size = cfg.resources
    room = session.find_room("one trial", size)
    if size.wait_for_nodes_minutes:
        return min(size.max_concurrent or max(room, cfg.tune.startup_trials), left)
    return min(size.max_concurrent or room, room, left)


def _train(
    config: dict[str, Any],
    *,
    base: RunConfig,
    calendar: np.ndarray,
    blocks: dict[str, Any],
    steps_per_window: int,
) -> None:
    """Run one trial in a Tune worker."""
    logging.getLogger().setLevel(logging.WARNING)
    device = choose_device(base)
    try:
        cfg = apply(base, json.loads(config["values"]))
        prepare_torch(cfg)
        run_trial(
            cfg,
            base=base,
            windows=tuple(blocks),
            calendar=calendar,
            read_block=lambda name: ray.get(blocks[name]),
            steps_per_window=steps_per_window,
            report=lambda result: tune.report({**result, "device": device.type}),
            device=device,
        )
    except GangruError as error:
        status = "diverged" if isinstance(error, DivergedError) else "failed"
        tune.report({"status": status, "reason": str(error)})


class _Proposer(Searcher):  # type: ignore[misc]  # untyped
    """Passes the queue's trials to Tune; `Listener` passes their results back, with reasons."""

    def __init__(self, queue: TrialQueue) -> None:
        super().__init__(metric="mean_ic", mode="max")
        self.queue = queue

    def suggest(self, trial_id: str) -> Any:
        """Settings of the next trial."""
        record = self.queue.start_next()
        if record is None:
            _logger.info("space_exhausted trials=%d", len(self.queue.records))
            return Searcher.FINISHED
        return {"number": record.number, "values": json.dumps(record.settings)}

    def on_trial_complete(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing; see the class."""


class Listener(tune.Callback):  # type: ignore[misc]  # untyped
    """Reports Tune's events to the queue.

    For a trial that is cut off at the time limit there is no event; it stays `running` and starts
    again in the next session.
    """

    def __init__(self, queue: TrialQueue) -> None:
        self.queue = queue
        self._wants_gpu = queue.cfg.resources.gpus_per_worker > 0

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Report an epoch."""
        if self._wants_gpu and result.get("device") == "cpu":
            self._wants_gpu = False  # warn once
            _logger.warning("no_gpu trials are trained on the CPU, torch sees no GPU")
        self.queue.report(trial.config["number"], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End a trial that returned or was stopped by ASHA."""
        self.queue.end(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End a trial that raised or whose process died."""
        lines = str(trial.get_error() or "process died").strip().splitlines()
        self.queue.end(trial.config["number"], error=lines[-1])


class _Asha(ASHAScheduler):  # type: ignore[misc]  # untyped
    """ASHA that lets trial 0 finish, as the unchanged configuration is the baseline."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether to continue a trial after an epoch."""
        decision = str(super().on_trial_result(tune_controller, trial, result))
        is_first = trial.config["number"] == 0
        return TrialScheduler.CONTINUE if is_first else decision


def make_scheduler(
    cfg: TuneConfig, steps: int, records: Sequence[TrialRecord] = ()
) -> TrialScheduler:
    """ASHA on the running mean of validation IC; a complete trial has `steps` steps.

    It compares new trials with those of earlier sessions, which it hears of here.
    """
    if not cfg.prune:
        return FIFOScheduler()
    scheduler = _Asha(
        time_attr="step",
        metric="mean_ic",
        mode="max",
        max_t=steps,
        grace_period=min(cfg.grace_epochs, steps),
        reduction_factor=cfg.reduction,
        stop_last_trials=False,  # else a trial that skips a rung is judged again at the lower one
    )
    for record in records:
        if record.is_over and record.reports:
            config = {"number": record.number}
            past = SimpleNamespace(trial_id=f"past-{record.number}", config=config)
            scheduler.on_trial_add(None, past)
            for step, mean_ic in record.reports:
                scheduler.on_trial_result(None, past, {"step": step, "mean_ic": mean_ic})
    return scheduler
