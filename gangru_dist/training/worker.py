"""The code of each worker, alone in a Ray task or in a group of Ray Train: wiring only [Ray].

A task is continued from its own checkpoint, whoever began it, so a restart by Ray, a job submitted
again and an undisturbed run all end with the same weights.

A rank's share of the panel is bucket b for rank b mod N: Ray Train's own way of cutting rows evenly
would cut within a stock, and drop the remainder.
"""

from __future__ import annotations

import logging
import time

import torch

from gangru_dist.base.errors import ConfigError, TrainingError
from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import Window, first_day
from gangru_dist.models.precision import choose_device, prepare_torch
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.runs.model import TimedEpoch
from gangru_dist.runs.run import CHECKPOINTS
from gangru_dist.training.checkpoint import TrainingState, write_model
from gangru_dist.training.data import (
    SINGLE,
    Collective,
    WindowData,
    join_workers,
    prepare,
)
from gangru_dist.training.units import (
    EpochDone,
    Report,
    Task,
    TaskFinished,
    TrainingJob,
    Unit,
    UnitStarted,
    make_task_identity,
)
from gangru_dist.training.window import gan_samples, train_window

_logger = logging.getLogger(__name__)
STATE = "state.safetensors"


def read_share(
    panel: SharedPanel, cfg: RunConfig, window: Window, collective: Collective = SINGLE
) -> PanelBlock:
    """This worker's assets on the days a window may know: its first sample to its refit day."""
    calendar = panel.manifest.calendar
    start, end = calendar[[first_day(window, cfg.samples.lookback), window.refit]].tolist()
    return panel.read(
        start=start,
        end=end,
        buckets=range(collective.rank, panel.manifest.buckets, collective.size),
        features=cfg.features,
        trading=bool(cfg.label.neutralize),
    )


def train_unit(job: TrainingJob, unit: Unit, report: Report) -> None:
    """Train what a unit has no model of yet, in this process, with the other workers of its group.

    A `TrainingError` or a `ConfigError` is the same on every worker and in every attempt: the task
    has failed, and the next one follows. Any other error ends the workers, and the unit is run
    again.

    Args:
        job: What all units have in common.
        unit: Seeds of one window.
        report: Takes what happens; called by the first worker alone.
    """
    prepare_torch(job.run.cfg)
    collective = join_workers()
    trainer = _Trainer(job, collective, report if collective.rank == 0 else lambda _: None)
    trainer.report(UnitStarted(unit))
    for task in unit:
        reason = None
        try:
            trainer.train(task)
        except (TrainingError, ConfigError) as error:
            reason = str(error)
        collective.gather(None)  # all wait until the model is stored
        trainer.report(TaskFinished(task, reason))


class _Trainer:
    """One worker of a unit; keeps the window's data for its next seed."""

    def __init__(self, job: TrainingJob, collective: Collective, report: Report) -> None:
        self.job, self.collective, self.report = job, collective, report
        self.run, self.device = job.run, _find_device(job.run.cfg)
        self._data: tuple[str, WindowData] | None = None

    def train(self, task: Task) -> None:
        """Train one task to its model, if it has none of this identity.

        Raises:
            TrainingError: It cannot have one.
        """
        identity = make_task_identity(self.run.cfg, self.job.panel.manifest, task)
        is_done, stored = self.collective.gather(self._look_up(task, identity))[0]
        if not is_done:
            self._train(task, identity, stored)

    def _look_up(self, task: Task, identity: str) -> tuple[bool, bytes | None]:
        """Whether the model is there; else its stored training state, if there is one.

        The first worker looks for all: while another job writes, each could see something else.
        """
        if self.collective.rank != 0:
            return False, None
        model = self.run.read_model(task.window.name, task.seed)
        if model is not None and model.identity == identity:
            return True, None
        try:
            return False, self.run.folder.read_bytes(_state_file(identity))
        except FileNotFoundError:
            return False, None

    def _train(self, task: Task, identity: str, stored: bytes | None) -> None:
        started = time.time()
        run, cfg, collective = self.run, self.run.cfg, self.collective
        data = self._load_data(task.window)
        state = self._restore(task, identity, stored)
        resumed = len(state.progress.history)
        steps: list[float] = []  # Unix times of the attempt's first and last step

        def report(epoch: TimedEpoch, state: TrainingState) -> None:
            now = time.time()
            steps[:] = [steps[0] if steps else now - epoch.seconds, now]
            if collective.rank != 0:  # replicas are equal: one of them stands for all
                return
            is_due = len(state.progress.history) % cfg.training.checkpoint_every == 0
            if is_due and state.progress.stage != "done":  # else the model itself follows
                run.folder.write_bytes(_state_file(identity), state.to_bytes(identity))
            self.report(EpochDone(task, epoch, is_last=state.progress.stage == "done"))

        train_window(data, state, cfg, seed=task.seed, collective=collective, report=report)
        samples, generator = None, state.network.generator
        if generator is not None:
            samples = gan_samples(generator, data, cfg, seed=task.seed, collective=collective)
        if collective.rank != 0:
            return
        write_model(
            run,
            task.window.name,
            task.seed,
            state,
            identity=identity,
            **self.job.made_by,
            workers=collective.size,
            device=self.device.type,
            resumed_epochs=resumed,
            days_left_out=data.dropped,
            train_days=tuple(day.date for day in data.train),
            valid_days=tuple(day.date for day in data.valid),
            seconds=time.time() - started,
            first_step=steps[0] if steps else None,
            last_step=steps[1] if steps else None,
            gan_samples=samples,
        )
        if run.folder.is_local:  # of a remote store the driver deletes all at once
            run.folder.discard(f"{CHECKPOINTS}/{identity}")

    def _load_data(self, window: Window) -> WindowData:
        """This rank's share of the window; read once for all seeds."""
        if self._data is None or self._data[0] != window.name:
            self._data = None  # never two windows in memory
            cfg, panel, collective = self.run.cfg, self.job.panel, self.collective
            block = read_share(panel, cfg, window, collective)
            calendar = panel.manifest.calendar
            data = prepare(block, window, calendar, cfg, collective, self.device)
            self._data = (window.name, data)
        return self._data[1]

    def _restore(self, task: Task, identity: str, stored: bytes | None) -> TrainingState:
        """The stored training state; a new one if there is none or it is damaged."""
        state = TrainingState(self.run.cfg, task.seed, self.device)
        if stored is None:
            return state
        try:
            state.restore(stored, identity)
        except ValueError as error:
            text = "checkpoint_damaged file=%s/%s reason=%s: the window begins anew"
            _logger.warning(text, self.run.folder.uri, _state_file(identity), error)
            return TrainingState(self.run.cfg, task.seed, self.device)
        return state


def _state_file(identity: str) -> str:
    """One file of a task, written whole: its training state after an epoch."""
    return f"{CHECKPOINTS}/{identity}/{STATE}"


def _find_device(cfg: RunConfig) -> torch.device:
    """The GPU that Ray gave this worker; the CPU if it gave none, or one torch cannot see."""
    if cfg.resources.workers == 1 or not torch.cuda.is_available():
        return choose_device(cfg)
    from ray.train.torch import get_device  # in a group all GPUs of the node are seen

    device: torch.device = get_device()
    return device
