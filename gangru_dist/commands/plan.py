"""What a command would do, in figures: `--dry-run`. Reads lists and headings, writes nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gangru_dist.cli import Job
from gangru_dist.config import RunConfig
from gangru_dist.errors import PanelError
from gangru_dist.sizing import STOPS_EARLY, Shape, Size, size

if TYPE_CHECKING:
    from gangru_dist.panel.manifest import Manifest
    from gangru_dist.splits import Window

Facts = dict[str, Any]


def panel(job: Job) -> Facts:
    """Bars to be read; the panel that is there."""
    from gangru_dist.bars.files import list_files
    from gangru_dist.panel.manifest import read_manifest
    from gangru_dist.pipeline import SYNTHETIC, check_bars

    check_bars(job.args.bars, job.run.cfg)
    facts: Facts = {"features": list(job.run.cfg.panel.features)}
    if job.args.bars != SYNTHETIC:
        files = list_files(job.args.bars)
        facts |= {"bars_files": len(files), "bars_bytes": sum(file.size for file in files)}
    try:
        there = read_manifest(job.run.root)
    except PanelError:
        return facts | {"panel": "to be built"}
    days = f"{there.calendar[0]} to {there.calendar[-1]}"
    return facts | {"panel": f"{there.rows} rows, {days}: kept if bars and settings are the same"}


def train(job: Job) -> Facts:
    """Models to be trained and to be skipped, what they read, need and take."""
    from gangru_dist.panel.manifest import read_manifest
    from gangru_dist.training.launch import planned

    manifest = read_manifest(job.run.root)
    only = getattr(job.args, "windows", None)
    run, results, todo = planned(job.run, manifest, only, anew=job.args.overwrite)
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
    from gangru_dist.scoring.score import planned

    args = job.args
    *_, plan = planned(job.run, start=args.start, end=args.end, daily=args.daily)
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
    from gangru_dist.tuning.windows import all_windows, choose

    manifest, cfg = read_manifest(job.run.root), job.run.cfg
    names = choose(manifest.calendar, cfg, [cfg], job.args.windows).names
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
    from gangru_dist import runtime

    with runtime.session(cfg):
        slots = runtime.slots(cpus=need.cpus_per_worker, gpus=need.gpus_per_worker)
    return max(1, slots // need.workers)


def _bytes(manifest: Manifest, panel: Any, window: Window, cfg: RunConfig) -> int:
    """Size of the files that a window's workers read together."""
    from gangru_dist.panel.store import files_of
    from gangru_dist.training.data import first_day

    days = [first_day(window, cfg.samples.lookback), window.refit]
    start, end = (manifest.calendar[day].item() for day in days)
    names = [panel.full(file.name) for file in files_of(manifest, start, end)]
    return sum(int(info.size or 0) for info in panel.filesystem.get_file_info(names))
