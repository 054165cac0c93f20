"""What each worker runs, alone in a Ray task or in a group of Ray Train: wiring only [Ray].

A group of workers stays for as long as there are tasks: it takes one, trains it, takes the next.
A task is continued from its own checkpoint, whoever began it, so a restart by Ray, a job submitted
again and an undisturbed run all end with the same weights.

A rank's share of the panel goes straight into its dense tensor. `direct`: the rank reads its bucket
files. `ray`: Ray Data reads them for it, wherever the cluster has room: a rank's own buckets, for
Train's way of cutting rows evenly would cut within a stock, and drop the remainder. Both hand the
same tables to the same `scatter`, so the block is the same. Reading tasks ask for no CPU: Train's
workers may hold every one, and nothing can starve.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import torch

from gangru_dist.base.errors import StorageError, TrainingError, extract_reason
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import read_tables
from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import Window
from gangru_dist.panel.manifest import Manifest, PanelFile, read_manifest
from gangru_dist.panel.store import (
    PanelBlock,
    asset_names,
    block_columns,
    files_of,
    read_block,
    read_files,
    scatter,
)
from gangru_dist.runs.model import TimedEpoch
from gangru_dist.runs.run import CHECKPOINTS, Run
from gangru_dist.training import collective
from gangru_dist.training.checkpoint import TrainingState, write_model
from gangru_dist.training.collective import Collective, prepare_torch, promised_device
from gangru_dist.training.data import WindowData, first_day, prepare
from gangru_dist.training.queue import Task, WorkerGroup, task_identity
from gangru_dist.training.window import gan_samples, train_window

_BLOCKS = 16
"""Reading tasks of a rank and window, at most."""
_READERS = 2
"""Of them at once."""


def own_buckets(buckets: int, rank: int, size: int) -> list[int]:
    """Rank r of N owns the buckets b with b mod N = r."""
    return list(range(rank, buckets, size))


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which rows a window needs; `files` narrows them to a rank's buckets."""

    root: Storage
    manifest: Manifest
    start: dt.date
    end: dt.date
    features: tuple[str, ...]
    trading: bool = False
    """Whether market cap and industry are needed too."""

    def buckets(self, rank: int, size: int) -> list[int]:
        """Buckets of a rank."""
        return own_buckets(self.manifest.buckets, rank, size)

    def files(self, rank: int, size: int) -> list[PanelFile]:
        """Files of a rank, in the manifest's order."""
        return files_of(self.manifest, self.start, self.end, self.buckets(rank, size))

    def read(self, file: PanelFile) -> Iterator[pa.Table]:
        """One file's rows of the span."""
        members = self.manifest.has_members
        columns = block_columns(self.features, trading=self.trading, members=members)
        return read_files(self.root, [file], self.start, self.end, columns)


def read_share(share: Share, rank: int, size: int, *, through_ray: bool) -> PanelBlock:
    """The dense block of a rank's assets, read once.

    Args:
        share: The window's rows.
        rank: Of this worker.
        size: Number of workers.
        through_ray: Whether Ray Data reads; else this process does.
    """
    if not through_ray:
        return read_block(
            share.root,
            share.manifest,
            start=share.start,
            end=share.end,
            buckets=share.buckets(rank, size),
            features=share.features,
            trading=share.trading,
        )
    files = share.files(rank, size)
    read = read_tables(files, share.read, tasks=_BLOCKS, at_once=_READERS)
    return scatter(
        read.iter_batches(batch_size=None, batch_format="pyarrow"),
        calendar=share.manifest.calendar,
        dates=share.manifest.trading_days(share.start, share.end),
        assets=asset_names(share.root, files, share.start, share.end),
        features=share.features,
        trading=share.trading,
        members=share.manifest.has_members,
    )


_logger = logging.getLogger(__name__)
STATE = "state.safetensors"


def train_worker(config: dict[str, WorkerGroup]) -> None:
    """Train tasks until none is left, or as many as `resources.windows_per_run`.

    A `TrainingError` is the same on every worker and in every attempt: the task has failed, and
    the next one follows. Any other error ends the workers, and new ones are started.
    """
    workers = config["workers"]
    prepare_torch(workers.run.cfg)
    logging.getLogger().setLevel(logging.WARNING)
    trainer = _Trainer(workers, collective.current())
    most = workers.run.cfg.resources.windows_per_run
    count = 0
    while (most is None or count < most) and (task := trainer.next()) is not None:
        trainer.train(task)
        count += 1


def share_of(run: Run, manifest: Manifest, window: Window) -> Share:
    """The rows a window may know: from its first sample's first day to its refit day."""
    first = manifest.calendar[first_day(window, run.cfg.samples.lookback)]
    return Share(
        root=run.root,
        manifest=manifest,
        start=first.astype(dt.date),
        end=manifest.calendar[window.refit].astype(dt.date),
        features=run.cfg.features,
        trading=bool(run.cfg.label.neutralize),
    )


class _Trainer:
    """One worker of a group; keeps the data of the newest window for its next seed."""

    def __init__(self, workers: WorkerGroup, group: Collective) -> None:
        self.workers, self.group = workers, group
        self._data: tuple[Window, str, WindowData] | None = None

    def next(self) -> Task | None:
        """Take the next task, the same on every worker."""
        own = self.workers.tasks.take(self.workers.number) if self.group.rank == 0 else None
        task: Task | None = self.group.gather(own)[0]
        return task

    def train(self, task: Task) -> None:
        """Train one task to its model, or record why there is none."""
        reason = None
        try:
            manifest = read_manifest(self.workers.run.root)
            identity = task_identity(self.workers.run.cfg, manifest, task)
            model = self.workers.run.read_model(task.window.name, task.seed)
            if model is None or model.identity != identity:
                self._train(task, manifest, identity)
        except TrainingError as error:
            reason = str(error)
        except Exception as error:
            self.workers.tasks.record_failure(self.workers.number, extract_reason(error))
            raise
        self.group.gather(None)  # all wait until the model is stored
        if self.group.rank == 0:
            self.workers.tasks.finish(self.workers.number, reason)

    def _train(self, task: Task, manifest: Manifest, identity: str) -> None:
        started = time.time()
        run, cfg = self.workers.run, self.workers.run.cfg
        data = self._window_data(task, manifest, identity)
        checkpoint = _Checkpoint(run, identity)
        state = checkpoint.restored(task.seed)
        resumed = len(state.progress.history)
        reporter = _Reporter(self.workers, task, checkpoint, self.group.rank)
        train_window(
            data, state, cfg, seed=task.seed, collective=self.group, report=reporter.report
        )
        generator = state.network.generator
        samples = None
        if generator is not None:
            samples = gan_samples(generator, data, cfg, seed=task.seed, collective=self.group)
        if self.group.rank != 0:
            return
        write_model(
            run,
            task.window.name,
            task.seed,
            state,
            identity=identity,
            **self.workers.made_by,
            variant=cfg.variant,
            features=cfg.features,
            workers=self.group.size,
            device=_device(cfg).type,
            resumed_epochs=resumed,
            days_left_out=data.dropped,
            older_days=tuple(day.date for day in data.older),
            train_days=tuple(day.date for day in data.train),
            valid_days=tuple(day.date for day in data.valid),
            seconds=time.time() - started,
            first_step=reporter.first_step,
            last_step=reporter.last_step,
            gan_samples=samples,
        )
        checkpoint.remove()

    def _window_data(self, task: Task, manifest: Manifest, identity: str) -> WindowData:
        """This rank's share of the window; read once for all seeds that follow each other."""
        run, window = self.workers.run, task.window
        panel = manifest.fingerprint_to(manifest.calendar[window.refit].astype(dt.date))
        if self._data is not None and self._data[:2] == (window, panel):
            return self._data[2]
        self._data = None  # never two windows in memory
        block = read_share(
            share_of(run, manifest, window),
            self.group.rank,
            self.group.size,
            through_ray=self.workers.through_ray,
        )
        data = prepare(block, window, manifest.calendar, run.cfg, self.group, _device(run.cfg))
        self._data = (window, panel, data)
        return data


def _device(cfg: RunConfig) -> torch.device:
    """The GPU that Ray gave this worker; the CPU if it gave none, or one torch cannot see."""
    if cfg.resources.workers == 1 or not torch.cuda.is_available():
        return promised_device(cfg)
    from ray.train.torch import get_device  # in a group all GPUs of the node are seen

    device: torch.device = get_device()
    return device


class _Checkpoint:
    """One file of a task, written whole: where it stands after an epoch."""

    def __init__(self, run: Run, identity: str) -> None:
        self.run, self.identity = run, identity
        self.folder = f"{CHECKPOINTS}/{identity}"

    def save(self, state: TrainingState) -> None:
        """Replace it."""
        self.run.folder.write_bytes(f"{self.folder}/{STATE}", state.to_bytes(self.identity))

    def restored(self, seed: int) -> TrainingState:
        """Where it stands; the beginning if there is none, or a damaged one, which costs time."""
        state = TrainingState(self.run.cfg, seed, _device(self.run.cfg))
        file = f"{self.folder}/{STATE}"
        try:
            state.restore(self.run.folder.read_bytes(file), self.identity)
        except FileNotFoundError:
            pass
        except ValueError as error:
            text = "checkpoint_damaged file=%s/%s reason=%s: the window begins anew"
            _logger.warning(text, self.run.folder.uri, file, error)
            return TrainingState(self.run.cfg, seed, _device(self.run.cfg))
        return state

    def remove(self) -> None:
        """The model is there; a checkpoint that is left over only uses disk."""
        try:
            self.run.folder.delete_folder(self.folder)
        except (OSError, StorageError) as error:
            _logger.warning("checkpoint_left task=%s %s", self.identity, error)


class _Reporter:
    """Reports each epoch to the driver and writes a checkpoint when due; rank 0 only."""

    def __init__(
        self, workers: WorkerGroup, task: Task, checkpoint: _Checkpoint, rank: int
    ) -> None:
        self.workers, self.task, self.checkpoint, self.rank = workers, task, checkpoint, rank
        self.first_step: float | None = None
        """Unix time, of this attempt; None if nothing was left to train."""
        self.last_step: float | None = None

    def report(self, epoch: TimedEpoch, state: TrainingState) -> None:
        """Replicas are equal after every step, so one of them stands for all."""
        self.last_step = time.time()
        self.first_step = self.first_step or self.last_step - epoch.seconds
        if self.rank != 0:
            return
        count = len(state.progress.history)
        is_due = count % self.workers.run.cfg.training.checkpoint_every == 0
        if is_due and state.progress.stage != "done":  # else the model itself follows
            self.checkpoint.save(state)
        self.workers.tasks.report_epoch(self.task, epoch)
