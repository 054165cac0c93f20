"""What a command would do, in figures: `--dry-run`. Reads lists and headings, writes nothing.

Estimate of hours, threads and memory for a run, from measured speeds.

Measured on one thread of a two-core AMD machine at the sizes of preset `default`: the predictor
trains 11,000 samples per second, a GAN epoch goes through 1,200, scoring through 14,000. The rest
is arithmetic: a sample is one stock on one day. GPUs were not measured; train one window on yours
and scale.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gangru_dist.base.errors import PanelError
from gangru_dist.commands.cli import Job
from gangru_dist.config.settings import RunConfig

if TYPE_CHECKING:
    from gangru_dist.maths.calendar import Window
    from gangru_dist.panel.manifest import Manifest

TRAIN_PER_SECOND = 11_000.0
"""Samples per second and thread of the predictor, forward and backward. Measured."""
GAN_PER_SECOND = 1_200.0
"""Samples per second and thread of a GAN epoch, both players. Measured."""
SCORE_PER_SECOND = 14_000.0
"""Samples per second and thread, generator and predictor, forward only. Measured."""
DISCRIMINATOR = 0.89
"""Share of a GAN epoch that does not grow with the generator. Measured: 2 x 128 goes through 630
samples per second."""
PENALTY = 0.9
"""Time of the gradient penalty (R1), as a share of the discriminator's. Measured."""
STOPS_EARLY = 12
"""A typical number of predictor epochs (at most 50); models of the whole market took 10 and 11."""
WORKER_GB = 1.5
"""Memory of a worker beside its data. Measured: 0.3 (torch) + 0.7 (Ray), plus a margin."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Data and sizes of one model; the defaults are those of preset `default`."""

    epochs: int = STOPS_EARLY
    """Predictor epochs."""
    gan_epochs: int = 5
    train_days: float = 64
    """Days of samples: every fifth of 400, a fifth of these for validation."""
    valid_days: float = 16
    older_days: float = 0
    """Days before these, which the GAN alone sees."""
    panel_days: int = 440
    """Days that a window reads."""
    scored_days: float = 122
    """Half a year."""
    channels: int = 18
    """Values per day of a sample."""
    gan_channels: int = 18
    """Those of them that the GAN sees."""
    lookback: int = 40
    hidden: int = 64
    layers: int = 1
    gan_hidden: int = 64
    gan_layers: int = 1
    penalty: bool = False
    """Whether the discriminator has a gradient penalty."""
    workers: int = 1
    """Workers that share a window."""

    @property
    def cost(self) -> float:
        """Multiplications of one sample's recurrent layers, against the default's.

        Larger layers are faster a multiplication: 2 x 128 take 0.7 of what this says.
        """
        one = Shape()
        of_one = one._multiplications(one.channels, one.hidden, one.layers)
        return self._multiplications(self.channels, self.hidden, self.layers) / of_one

    @property
    def gan_cost(self) -> float:
        """Time of one sample in the GAN stage, against the default's."""
        one = Shape()
        generator = self._multiplications(self.gan_channels, self.gan_hidden, self.gan_layers)
        generator /= one._multiplications(one.gan_channels, one.gan_hidden, one.gan_layers)
        width = self.lookback * self.gan_channels / (one.lookback * one.gan_channels)
        discriminator = width * (1 + PENALTY * self.penalty)
        return DISCRIMINATOR * discriminator + (1 - DISCRIMINATOR) * generator

    def _multiplications(self, channels: int, hidden: int, layers: int) -> float:
        sizes = (channels, *[hidden] * layers)
        return self.lookback * sum(h * (inputs + h) for inputs, h in pairwise(sizes))


DEFAULT = Shape()


@dataclass(frozen=True, kw_only=True)
class Size:
    """Resources of a run."""

    train_hours: float
    """Wall time on the given threads; windows are not split, so some threads end up idle."""
    score_hours: float
    thread_hours: float
    """Training and scoring of all models."""
    worker_gb: float
    """Memory of one worker."""
    at_once: int
    """Models trained in parallel."""

    @property
    def hours(self) -> float:
        """Training, then scoring."""
        return self.train_hours + self.score_hours


def size(stocks: float, models: int, at_once: int, shape: Shape = DEFAULT) -> Size:
    """Estimate for a number of models.

    Args:
        stocks: Members of the universe per day.
        models: Refit days x seeds.
        at_once: Groups of `shape.workers` threads that the cluster has room for.
        shape: Days, epochs and sizes of one model.
    """
    train_rate, score_rate = TRAIN_PER_SECOND / shape.cost, SCORE_PER_SECOND / shape.cost
    epoch = stocks * (shape.train_days / train_rate + shape.valid_days / score_rate)
    gan_days = shape.older_days + shape.train_days
    gan = stocks * gan_days / GAN_PER_SECOND * shape.gan_cost * shape.gan_epochs
    train, score = epoch * shape.epochs + gan, stocks * shape.scored_days / score_rate
    used = max(1, min(at_once, models))
    rounds = -(-models // used)
    # the block, its standardized copy, and a day's activations
    data_gb = 3 * 4 * shape.panel_days * stocks * shape.channels / 1e9
    return Size(
        train_hours=rounds * train / shape.workers / 3600,
        score_hours=models * score / used / shape.workers / 3600,
        thread_hours=models * (train + score) / 3600,
        worker_gb=WORKER_GB + data_gb / shape.workers,
        at_once=used,
    )


Facts = dict[str, Any]


def panel(job: Job) -> Facts:
    """Bars to be read; the panel that is there."""
    from gangru_dist.api import check_bars
    from gangru_dist.panel.manifest import read_manifest

    bars = check_bars(job.args.bars, job.run.cfg)
    facts: Facts = {"features": list(job.run.cfg.panel.features)}
    if not isinstance(bars, str):
        facts |= {
            "bars_files": len(bars.files),
            "bars_bytes": sum(file.size for file in bars.files),
        }
    try:
        there = read_manifest(job.run.root)
    except PanelError:
        return facts | {"panel": "to be built"}
    days = f"{there.calendar[0]} to {there.calendar[-1]}"
    return facts | {"panel": f"{there.rows} rows, {days}: kept if bars and settings are the same"}


def train(job: Job) -> Facts:
    """Models to be trained and to be skipped, what they read, need and take."""
    from gangru_dist.panel.manifest import read_manifest
    from gangru_dist.training.launch import plan_training

    manifest = read_manifest(job.run.root)
    only = getattr(job.args, "windows", None)
    run, results, todo = plan_training(job.run, manifest, only, anew=job.args.overwrite)
    windows = list(dict.fromkeys(task.window for task in todo))
    return {
        "models_to_train": [task.name for task in todo],
        "models_to_skip": dict(Counter(result.status for result in results)),
        "bytes_to_read": sum(
            _bytes(manifest, run.root.child("panel"), w, run.cfg) for w in windows
        ),
        **_need(run.cfg, manifest, windows, len(todo)),
    }


def score(job: Job) -> Facts:
    """Days to be scored, and what cannot be."""
    from gangru_dist.scoring.score import plan_scoring

    args = job.args
    *_, plan = plan_scoring(job.run, start=args.start, end=args.end, daily=args.daily)
    return {
        "days_to_score": plan.days,
        "days_up_to_date": plan.up_to_date,
        "days_without_a_model": sum(part.days for part in plan.unscored),
    }


def report(job: Job) -> Facts:
    """Days that would be judged."""
    from gangru_dist.scoring.table import covered_days

    job.run.require()
    days = sorted(covered_days(job.run.factor))
    return {"days_scored": len(days), "first": str(days[0]), "last": str(days[-1])} if days else {}


def tune(job: Job) -> Facts:
    """Trials that are asked for, at the sizes of the configuration itself."""
    from gangru_dist.panel.manifest import read_manifest
    from gangru_dist.tuning.trial import all_windows, choose_windows

    manifest, cfg = read_manifest(job.run.root), job.run.cfg
    names = choose_windows(manifest.calendar, cfg, [cfg], job.args.windows).names
    windows = [all_windows(manifest.calendar, cfg)[name] for name in names]
    trials = job.args.trials or cfg.tune.trials
    facts = _need(cfg, manifest, windows, trials * len(windows))
    return {"trials": trials, "windows": list(names), **facts}


def pipeline(job: Job) -> Facts:
    """The panel, and training if a panel is there to plan it by."""
    facts = panel(job)
    return facts if facts["panel"] == "to be built" else facts | train(job)


def _need(cfg: RunConfig, manifest: Manifest, windows: Sequence[Window], models: int) -> Facts:
    """Memory and hours of so many models of these windows."""
    if not windows or not models:
        return {"hours": 0.0}
    shape = shape_of(cfg, windows)
    need = _size(manifest, models, cfg, shape)
    return {
        "models_at_once": need.at_once,
        "worker_gb": round(need.worker_gb, 1),
        "hours": round(need.hours, 2),
        "hours_are": "measured speeds of one kind of CPU; see gangru_dist/sizing.py",
    }


def _size(manifest: Manifest, models: int, cfg: RunConfig, shape: Shape) -> Size:
    room = _groups(cfg)
    at_once = min(room, cfg.resources.max_concurrent or room)
    return size(manifest.rows / len(manifest.calendar), models, at_once, shape)


def shape_of(cfg: RunConfig, windows: Sequence[Window]) -> Shape:
    """What one model of these windows works on."""
    older = [len(window.older_days) for window in windows]
    is_gan = cfg.variant == "gan_gru"
    return replace(
        Shape(),
        epochs=min(STOPS_EARLY, cfg.training.epochs),
        gan_epochs=cfg.gan.epochs if is_gan else 0,
        train_days=float(np.mean([len(window.train_days) for window in windows])),
        valid_days=float(np.mean([len(window.valid_days) for window in windows])),
        older_days=float(np.mean(older)),
        panel_days=cfg.windows.history_days
        + cfg.samples.lookback
        + max(older) * cfg.windows.sample_every,
        scored_days=float(np.mean([w.score_last - w.score_first + 1 for w in windows])),
        channels=len(cfg.features) * len(cfg.samples.channels),
        gan_channels=len(cfg.features) * (1 if cfg.gan.sees else len(cfg.samples.channels)),
        lookback=cfg.samples.lookback,
        hidden=cfg.gru.hidden,
        layers=cfg.gru.layers,
        gan_hidden=cfg.gan.hidden,
        gan_layers=cfg.gan.layers,
        penalty=cfg.gan.gradient_penalty > 0,
        workers=cfg.resources.workers,
    )


def _groups(cfg: RunConfig) -> int:
    """Groups of workers that there is room for: on `RAY_ADDRESS`, else on this machine."""
    need = cfg.resources
    if os.environ.get("RAY_ADDRESS", "local") in ("", "local"):
        return max(1, int((os.cpu_count() or 1) / need.cpus_per_worker) // need.workers)
    from gangru_dist.cluster import session

    with session.session(cfg):
        slots = session.slots(cpus=need.cpus_per_worker, gpus=need.gpus_per_worker)
    return max(1, slots // need.workers)


def _bytes(manifest: Manifest, panel: Any, window: Window, cfg: RunConfig) -> int:
    """Size of the files that a window's workers read together."""
    from gangru_dist.panel.store import files_of
    from gangru_dist.training.data import first_day

    days = [first_day(window, cfg.samples.lookback), window.refit]
    start, end = (manifest.calendar[day].item() for day in days)
    names = [panel.full(file.name) for file in files_of(manifest, start, end)]
    return sum(int(info.size or 0) for info in panel.filesystem.get_file_info(names))
