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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from gangru_dist.config import RunConfig, model_identity
from gangru_dist.errors import TrainingError, WindowError
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.splits import Window
from gangru_dist.storage import Storage
from gangru_dist.training import collective
from gangru_dist.training.artifact import read_about, write_model
from gangru_dist.training.collective import Collective
from gangru_dist.training.data import WindowData, first_day, prepare
from gangru_dist.training.health import gan_samples
from gangru_dist.training.ingest import Share, read_share
from gangru_dist.training.process import prepare_torch
from gangru_dist.training.state import TrainingState
from gangru_dist.training.window import train_window

STATE = "state.safetensors"
CHECKPOINTS = "checkpoints"
"""Folder of the run where Ray Train keeps its state until a chain is done."""


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
class Job:
    """What one Ray Train run does; travels to its workers."""

    root: Storage
    run: Storage
    cfg: RunConfig
    name: str
    """Of the Ray Train run: the same name continues from the same checkpoints; no timestamp."""
    tasks: tuple[Task, ...]
    progress: Any
    """Handle of the progress actor, or None."""
    made_by: Mapping[str, str | None]
    """The driver's `code_version`, for `model.json`."""


def train_worker(config: dict[str, Any]) -> dict[str, str]:
    """Train every task of the chain that has no finished model yet.

    Returns:
        Task name -> why it could not be trained. Such an error is the same on every worker and
        in every attempt, so it is not raised: the chain goes on, and Ray does not try again.
    """
    job: Job = config["job"]
    prepare_torch(job.cfg)
    logging.getLogger().setLevel(logging.WARNING)
    manifest = read_manifest(job.root)
    failures: dict[str, str] = {}
    for task in job.tasks:
        code = task_identity(job.cfg, manifest, task)
        about = read_about(job.run, task.window.name, task.seed)
        if about is not None and about["identity"] == code:
            continue
        try:
            _train(job, manifest, task, code)
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


def share_of(root: Storage, cfg: RunConfig, manifest: Manifest, window: Window) -> Share:
    """The rows a window may know: from its first sample's first day to its refit day."""
    first = manifest.calendar[first_day(window, cfg.samples.lookback)]
    return Share(
        root=root,
        manifest=manifest,
        start=first.astype(dt.date),
        end=manifest.calendar[window.refit].astype(dt.date),
        features=cfg.features,
    )


def _train(job: Job, manifest: Manifest, task: Task, code: str) -> None:
    started = time.time()
    group = collective.current()
    device = _device()
    data = _data(job, manifest, task.window, group, device)
    state = TrainingState(job.cfg, task.seed, device)
    resumed = _restore(state, code)
    reporter = _Reporter(job, task, code, group.rank)
    train_window(data, state, job.cfg, seed=task.seed, collective=group, report=reporter.report)
    generator = state.network.generator
    samples = None
    if generator is not None:
        samples = gan_samples(generator, data, job.cfg, seed=task.seed, collective=group)
    if group.rank == 0:
        about = {
            "identity": code,
            **job.made_by,
            "variant": job.cfg.variant,
            "features": list(job.cfg.features),
            "workers": group.size,
            "device": device.type,
            "resumed_epochs": resumed,
            "days_left_out": list(data.dropped),
            "train_days": [day.date for day in data.train],
            "valid_days": [day.date for day in data.valid],
            "seconds": time.time() - started,
            "first_step": reporter.first_step,
            "last_step": reporter.last_step,
            "gan_samples": samples,
        }
        write_model(job.run, task.window.name, task.seed, state, about)
    group.gather(None)  # nobody goes on before the model is there


def _device() -> torch.device:
    """The GPU that Ray gave this worker; the CPU if it gave none, or one torch cannot see."""
    if not torch.cuda.is_available():  # Ray would name a promised GPU all the same
        return torch.device("cpu")
    device: torch.device = ray.train.torch.get_device()
    return device


def _data(
    job: Job, manifest: Manifest, window: Window, group: Collective, device: torch.device
) -> WindowData:
    """Read this rank's share; of the block only what training needs outlives the call."""
    block = read_share(
        share_of(job.root, job.cfg, manifest, window),
        window.name,
        group.rank,
        group.size,
        through_ray=job.cfg.resources.ingest == "ray",
    )
    return prepare(block, window, manifest.calendar, job.cfg, group, device)


def _restore(state: TrainingState, code: str) -> int:
    """Continue from Ray's latest checkpoint if it is this task's; epochs it holds."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        if Path(folder, "identity").read_text() != code:
            return 0
        state.restore(Path(folder, STATE).read_bytes(), code)
    return len(state.progress.history)


class _Reporter:
    """One report to Ray Train an epoch, a checkpoint with it when due, a line to the driver."""

    def __init__(self, job: Job, task: Task, code: str, rank: int) -> None:
        self.job, self.task, self.code, self.rank = job, task, code, rank
        self.first_step: float | None = None
        """Unix time, of this attempt; None if nothing was left to train."""
        self.last_step: float | None = None

    def report(self, metrics: dict[str, Any], state: TrainingState) -> None:
        """Every rank must report; only rank 0 brings the checkpoint."""
        self.last_step = time.time()
        self.first_step = self.first_step or self.last_step - metrics["seconds"]
        count = len(state.progress.history)
        is_due = count % self.job.cfg.training.checkpoint_every == 0
        if self.rank == 0 and self.job.progress is not None:
            self.job.progress.update.remote(self.task.name, metrics)
        if self.rank != 0 or not (is_due or state.progress.stage == "done"):
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, STATE).write_bytes(state.to_bytes(self.code))
            Path(folder, "identity").write_text(self.code)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=checkpoint, checkpoint_upload_fn=self._upload)

    def _upload(self, checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        """Bring it where Ray Train would; Ray's own upload does not try again."""
        place = f"{CHECKPOINTS}/{self.job.name}/{name}"
        for file in sorted(Path(checkpoint.path).iterdir()):
            self.job.run.write_bytes(f"{place}/{file.name}", file.read_bytes())
        return ray.train.Checkpoint(self.job.run.full(place), self.job.run.filesystem)
