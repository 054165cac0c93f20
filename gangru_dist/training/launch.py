"""Train every window and seed that has no model yet: as many at once as there is room for.

A request that the cluster can never meet is refused first, because Ray would wait for it forever;
then Ray gets all units of work (`units`). One window's failure does not stop the others.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from gangru_dist.base.errors import StorageError
from gangru_dist.base.log import publish, subscribe
from gangru_dist.base.records import read_code_version
from gangru_dist.base.storage import READERS
from gangru_dist.cluster import session
from gangru_dist.cluster.map import catch_error
from gangru_dist.config.settings import RunConfig
from gangru_dist.events import prometheus
from gangru_dist.events.callbacks import open_callbacks
from gangru_dist.events.console import TrainingConsole
from gangru_dist.events.events import EpochTrained, ModelsPlanned, WindowDone
from gangru_dist.maths.calendar import first_day, to_day
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.panel.shared import SharedPanel, share_panel
from gangru_dist.runs.model import GanEpoch, TimedEpoch
from gangru_dist.runs.run import CHECKPOINTS, Run, require_run
from gangru_dist.runs.summaries import (
    TrainSummary,
    WindowResult,
    summarize_windows,
    write_train_summary,
)
from gangru_dist.training.plan import plan_training, require_native
from gangru_dist.training.units import (
    EpochDone,
    Event,
    Report,
    Task,
    TaskFinished,
    TrainingJob,
    Unit,
    UnitFinished,
    UnitStarted,
    make_task_identity,
    make_units,
    run_units,
)

_logger = logging.getLogger(__name__)
Runner = Callable[[TrainingJob, Sequence[Unit], int], Iterator[Event]]
"""`units.run_units`, or a stand-in for tests."""


def train_windows(
    run: Run,
    *,
    only: Sequence[str] | None = None,
    overwrite: bool = False,
    runner: Runner | None = None,
) -> TrainSummary:
    """Train what is not trained yet; leave finished models of the same identity.

    Args:
        run: What to train, beside the panel; claimed once its settings fit panel and nodes.
        only: Refit days to train; None = all.
        overwrite: Take the run's name even if it has another configuration.
        runner: What runs the units; None = workers on Ray, or this process in `run_here`.

    Returns:
        What became of every window and seed; also in `summary.json`.

    Raises:
        ConfigError: The run's name is taken by another configuration, or a callback lacks its
            package or a setting.
        PanelError: There is no panel, or it lacks a feature.
        WindowError: A named window does not exist, or there is no refit day at all.
        ResourceError: The cluster can never run one window, or not in `training.precision`.
    """
    require_run(run)
    if only is not None:
        names = only if isinstance(only, Iterable) and not isinstance(only, str) else [only]
        only = [day if isinstance(day, str) else str(to_day(day, "only")) for day in names]
    manifest = read_manifest(run.root, run.cfg.panel.features)
    run, over, todo = plan_training(run, manifest, only, anew=overwrite)
    if todo:
        require_native(run.cfg)
    with open_callbacks(run), subscribe(prometheus.record):
        run.check_claim(overwrite=overwrite)
        claim = partial(run.claim, overwrite=overwrite)
        _warn_of_missing_neutralizers(run.cfg, manifest)
        for event in over:
            publish(event)
        publish(ModelsPlanned([task.name for task in todo]))
        if todo:
            over += _train_all(run, manifest, todo, runner, claim)
        else:
            claim()
    summary = summarize_windows([event.result for event in over])
    write_train_summary(run, summary)
    _remove_checkpoints(run, {event.identity for event in over if event.model is not None})
    return summary


def _remove_checkpoints(run: Run, done: set[str]) -> None:
    """Delete checkpoints of finished models, a remote store's and those of a killed job.

    All at once if no other is there: a store deletes a folder's files by the thousand.
    """
    folders = {name.split("/")[1] for name in run.folder.list_files(CHECKPOINTS)}
    if folders and folders <= done:
        run.folder.discard(CHECKPOINTS)
        return
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(run.folder.discard, [f"{CHECKPOINTS}/{one}" for one in folders & done]))


def _warn_of_missing_neutralizers(cfg: RunConfig, manifest: Manifest) -> None:
    """Warn where the panel lacks what the label is to be neutralized by."""
    there = {"industry": manifest.has_industry, "size": manifest.has_market_cap}
    for name in cfg.label.neutralize:
        if not there[name]:
            _logger.warning("label_not_neutralized by=%s: no row of the panel has it", name)


def _train_all(
    run: Run,
    manifest: Manifest,
    tasks: list[Task],
    runner: Runner | None,
    claim: Callable[[], None],
) -> list[WindowDone]:
    publisher = _Publisher(run, manifest, tasks)
    size = run.cfg.resources
    with session.open_session(run.cfg):
        slots, nodes = count_concurrent(run.cfg, len(tasks)), session.count_nodes()
        units = make_units(tasks, slots)
        if size.workers == 1 and not session.is_here():  # Ray's own queue holds them all
            slots = size.max_concurrent or len(units)
        at_once = min(slots, len(units))
        claim()
        job = TrainingJob(
            run=run,
            panel=_share_panel(run, manifest, units),
            made_by=read_code_version(),
            spread=at_once > 1 and (nodes > 1 or size.wait_for_nodes_minutes > 0),
        )
        text = "train_start models=%d units=%d at_once=%d workers_each=%d shared_panel=%s spread=%s"
        shared = bool(job.panel.blocks)
        _logger.info(text, len(tasks), len(units), at_once, size.workers, shared, job.spread)
        with TrainingConsole(run.cfg, len(tasks)).show():
            if runner is None and session.is_here():
                _train_here(job, units, publisher.handle)
            else:
                for event in (runner or run_units)(job, units, at_once):
                    publisher.handle(event)
    return list(publisher.over.values())


def _share_panel(run: Run, manifest: Manifest, units: Sequence[Unit]) -> SharedPanel:
    """The panel from the first day that any of the units reads to the last refit day."""
    windows, lookback = [unit[0].window for unit in units], run.cfg.samples.lookback
    return share_panel(
        run.root,
        manifest,
        run.cfg,
        start=manifest.calendar[min(first_day(window, lookback) for window in windows)].item(),
        end=manifest.calendar[max(window.refit for window in windows)].item(),
        features=run.cfg.features,
        trading=bool(run.cfg.label.neutralize),
        readers=len(units),
    )


def _train_here(job: TrainingJob, units: Sequence[Unit], report: Report) -> None:
    """Train in this process; what the workers of a group would share is one worker's."""
    from gangru_dist.training.worker import train_unit  # torch: not for a driver of Ray's

    for unit in units:
        error = catch_error(partial(train_unit, job, unit, report))
        report(UnitFinished(unit, None if error is None else str(error)))


class _Publisher:
    """Publishes what workers report, and keeps what became of every task."""

    def __init__(self, run: Run, manifest: Manifest, tasks: Sequence[Task]) -> None:
        self.over: dict[Task, WindowDone] = {}
        self._run = run
        self._identities = {task: make_task_identity(run.cfg, manifest, task) for task in tasks}
        self._starts = Counter[Unit]()
        self._first_epoch: float | None = None
        self._shares: dict[Task, float] = {}

    def handle(self, event: Event) -> None:
        """Publish one event of the workers."""
        match event:
            case UnitStarted(unit):
                self._starts[unit] += 1
                if self._starts[unit] > 1:
                    text = "window_restarted window=%s starts=%d: its workers were lost or failed"
                    _logger.warning(text, unit[0].name, self._starts[unit])
            case EpochDone(task, epoch, is_last):
                self._publish_epoch(task, epoch, is_last=is_last)
            case TaskFinished(task, reason):
                self._publish_end(task, reason)
            case UnitFinished(unit, reason):
                for task in unit:
                    self._publish_end(task, reason)

    def _publish_end(self, task: Task, reason: str | None) -> None:
        if task not in self.over:  # a unit that began again passes its finished tasks
            event = find_model(self._run, task, reason, self._identities[task])
            self.over[task], self._shares[task] = event, 1.0
            publish(event)

    def _publish_epoch(self, task: Task, epoch: TimedEpoch, *, is_last: bool) -> None:
        if self._first_epoch is None:  # the pace of training, without Ray's start-up
            self._first_epoch = time.time() - epoch.seconds
        cfg = self._run.cfg
        gan = cfg.gan.epochs if cfg.variant == "gan_gru" else 0
        done = epoch.result.epoch + (0 if isinstance(epoch.result, GanEpoch) else gan)
        total = done if is_last else gan + cfg.training.epochs
        self._shares[task] = done / total
        share = sum(self._shares.values()) / len(self._identities)
        event = EpochTrained(
            name=task.name,
            identity=self._identities[task],
            epoch=epoch,
            done=done,
            total=total,
            seconds_left=(time.time() - self._first_epoch) * (1 - share) / share,
        )
        publish(event)


def find_model(run: Run, task: Task, reason: str | None, identity: str) -> WindowDone:
    """Find the model that a finished task should have, or the reason why it has none."""
    model = None
    try:
        model = run.read_model(task.window.name, task.seed)
    except (OSError, StorageError) as error:
        reason = reason or str(error)
    if model is None or model.identity != identity:
        reason = reason or "ended without a model and without an error"
        result = WindowResult(
            window=task.window.name, seed=task.seed, status="failed", reason=reason
        )
        return WindowDone(result=result, identity=identity)
    if run.cfg.resources.gpus_per_worker and model.device == "cpu":
        _logger.warning("no_gpu window=%s: trained on the CPU, torch sees no GPU", task.name)
    result = WindowResult.from_model(model, "resumed" if model.resumed_epochs else "trained")
    return WindowDone(result=result, identity=identity, model=model)


def count_concurrent(cfg: RunConfig, models: int) -> int:
    """How many models to train at once: what there is room for, at most `max_concurrent`.

    On a cluster that grows all, or `max_concurrent` if that is given: Ray's own queue is what makes
    an autoscaler add nodes. Groups of workers wait in memory, so only `max_concurrent` of them do.

    Raises:
        ResourceError: Not even one ever fits.
    """
    size = cfg.resources
    most = min(size.max_concurrent or models, models)
    room = session.find_room("one window", size, size.min_workers or size.workers)
    if size.wait_for_nodes_minutes and (size.workers == 1 or size.max_concurrent):
        return most
    return min(most, max(1, room // size.workers))
