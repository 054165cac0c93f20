"""What each Ray Train worker runs: wiring only [Ray].

A worker trains a chain of (window, seed) tasks one after another. A task whose model is
finished is skipped, the one a checkpoint belongs to is continued, so a restart by Ray, a job
submitted again and an undisturbed run all end with the same weights.
"""

from __future__ import annotations

import datetime as dt
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from gangru_dist.config import RunConfig, model_identity
from gangru_dist.errors import TrainingError, WindowError
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.runs.model import figures
from gangru_dist.runs.run import CHECKPOINTS, Run
from gangru_dist.splits import Window
from gangru_dist.training import collective
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.collective import Collective
from gangru_dist.training.data import WindowData, first_day, prepare
from gangru_dist.training.health import gan_samples
from gangru_dist.training.ingest import Share, read_share
from gangru_dist.training.model_files import write_model
from gangru_dist.training.torch_setup import prepare_torch
from gangru_dist.training.window import TimedEpoch, train_window

STATE = "state.safetensors"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One window and seed to train."""

    window: Window
    seed: int

    @property
    def name(self) -> str:
        """For logs and tables."""
        return f"{self.window.name}/seed-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Tasks that one Ray Train run trains one after another; travels to its workers."""

    run: Run
    name: str
    """Of the Ray Train run: the same name continues from the same checkpoints; no timestamp."""
    tasks: tuple[Task, ...]
    """Those without a model of their identity."""
    progress: Any = None
    """Handle of the progress actor, or None."""
    made_by: Mapping[str, str | None] = field(default_factory=dict)
    """The driver's `code_version`, for `model.json`."""

    @property
    def checkpoints(self) -> str:
        """Folder of the run where Ray Train keeps its state until the chain is done."""
        return f"{CHECKPOINTS}/{self.name}"


def train_worker(config: dict[str, Any]) -> dict[str, str]:
    """Train every task of the chain that has no finished model yet.

    Returns:
        Task name -> why it could not be trained. Such an error is the same on every worker and
        in every attempt, so it is not raised: the chain goes on, and Ray does not try again.
    """
    chain: Chain = config["chain"]
    run = chain.run
    prepare_torch(run.cfg)
    logging.getLogger().setLevel(logging.WARNING)
    manifest = read_manifest(run.root)
    failures: dict[str, str] = {}
    for task in chain.tasks:
        identity = task_identity(run.cfg, manifest, task)
        model = run.model(task.window.name, task.seed)
        if model is not None and model.identity == identity:
            continue
        try:
            _train(chain, manifest, task, identity)
        except TrainingError as error:
            failures[task.name] = str(error)
    return failures


def task_identity(cfg: RunConfig, manifest: Manifest, task: Task) -> str:
    """What decides the task's weights, the panel up to its refit day included.

    Raises:
        WindowError: The window is not of this panel's calendar, which changed under the job.
    """
    refit = task.window.refit
    if refit >= len(manifest.calendar) or str(manifest.calendar[refit]) != task.window.name:
        raise WindowError(
            f"window {task.window.name} is not day {refit} of the panel's calendar any more: the "
            "panel was built again while this job ran. Start jobs/train.py again."
        )
    day: dt.date = manifest.calendar[refit].astype(dt.date)
    return model_identity(cfg, task.window.name, task.seed, manifest.fingerprint_to(day))


def share_of(run: Run, manifest: Manifest, window: Window) -> Share:
    """The rows a window may know: from its first sample's first day to its refit day."""
    first = manifest.calendar[first_day(window, run.cfg.samples.lookback)]
    return Share(
        root=run.root,
        manifest=manifest,
        start=first.astype(dt.date),
        end=manifest.calendar[window.refit].astype(dt.date),
        features=run.cfg.features,
    )


def _train(chain: Chain, manifest: Manifest, task: Task, identity: str) -> None:
    started = time.time()
    cfg = chain.run.cfg
    group = collective.current()
    device = _device()
    data = _data(chain.run, manifest, task.window, group, device)
    state = TrainingState(cfg, task.seed, device)
    resumed = _restore(state, identity)
    reporter = _Reporter(chain, task, identity, group.rank)
    train_window(data, state, cfg, seed=task.seed, collective=group, report=reporter.report)
    generator = state.network.generator
    samples = None
    if generator is not None:
        samples = gan_samples(generator, data, cfg, seed=task.seed, collective=group)
    if group.rank == 0:
        write_model(
            chain.run,
            task.window.name,
            task.seed,
            state,
            identity=identity,
            **chain.made_by,
            variant=cfg.variant,
            features=cfg.features,
            workers=group.size,
            device=device.type,
            resumed_epochs=resumed,
            days_left_out=data.dropped,
            train_days=tuple(day.date for day in data.train),
            valid_days=tuple(day.date for day in data.valid),
            seconds=time.time() - started,
            first_step=reporter.first_step,
            last_step=reporter.last_step,
            gan_samples=samples,
        )
    group.gather(None)  # nobody goes on before the model is there


def _device() -> torch.device:
    """The GPU that Ray gave this worker; the CPU if it gave none, or one torch cannot see."""
    if not torch.cuda.is_available():  # Ray would name a promised GPU all the same
        return torch.device("cpu")
    device: torch.device = ray.train.torch.get_device()
    return device


def _data(
    run: Run, manifest: Manifest, window: Window, group: Collective, device: torch.device
) -> WindowData:
    """Read this rank's share; of the block only what training needs outlives the call."""
    block = read_share(
        share_of(run, manifest, window),
        window.name,
        group.rank,
        group.size,
        through_ray=run.cfg.resources.ingest == "ray",
    )
    return prepare(block, window, manifest.calendar, run.cfg, group, device)


def _restore(state: TrainingState, identity: str) -> int:
    """Continue from Ray's latest checkpoint if it is this task's; epochs it holds."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        if Path(folder, "identity").read_text() != identity:
            return 0
        state.restore(Path(folder, STATE).read_bytes(), identity)
    return len(state.progress.history)


class _Reporter:
    """One report to Ray Train an epoch, a checkpoint with it when due, a line to the driver."""

    def __init__(self, chain: Chain, task: Task, identity: str, rank: int) -> None:
        self.chain, self.task, self.identity, self.rank = chain, task, identity, rank
        self.first_step: float | None = None
        """Unix time, of this attempt; None if nothing was left to train."""
        self.last_step: float | None = None

    def report(self, epoch: TimedEpoch, state: TrainingState) -> None:
        """Every rank must report; only rank 0 brings the checkpoint."""
        self.last_step = time.time()
        self.first_step = self.first_step or self.last_step - epoch.seconds
        count = len(state.progress.history)
        is_due = count % self.chain.run.cfg.training.checkpoint_every == 0
        if self.rank == 0 and self.chain.progress is not None:
            self.chain.progress.update.remote(self.task.name, epoch)
        metrics = figures(epoch.result)
        if self.rank != 0 or not (is_due or state.progress.stage == "done"):
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, STATE).write_bytes(state.to_bytes(self.identity))
            Path(folder, "identity").write_text(self.identity)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=checkpoint, checkpoint_upload_fn=self._upload)

    def _upload(self, checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        """Bring it where Ray Train would; Ray's own upload does not try again."""
        folder, place = self.chain.run.folder, f"{self.chain.checkpoints}/{name}"
        for file in sorted(Path(checkpoint.path).iterdir()):
            folder.write_bytes(f"{place}/{file.name}", file.read_bytes())
        return ray.train.Checkpoint(folder.full(place), folder.filesystem)
