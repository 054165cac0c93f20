"""What a command would do, in figures: `--dry-run`. Reads lists and headings, writes nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.commands.cli import Job
from gangru_dist.config.settings import RunConfig

if TYPE_CHECKING:
    from gangru_dist.maths.calendar import Window
    from gangru_dist.panel.manifest import Manifest

Facts = dict[str, Any]
WORKER_GB = 1.5
"""Memory of a worker beside its data. Measured: 0.3 (torch) + 0.7 (Ray), plus a margin."""


def preview_panel(job: Job) -> Facts:
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
        panel = read_manifest(job.run.root)
    except PanelError:
        return facts | {"panel": "to be built"}
    added = [name for name in job.run.cfg.panel.features if name not in panel.features]
    facts |= {"features_to_add": added} if added else {}
    days = f"{panel.calendar[0]} to {panel.calendar[-1]}"
    return facts | {"panel": f"{panel.rows} rows, {days}: kept if bars and settings are the same"}


def preview_training(job: Job) -> Facts:
    """Models to be trained and to be skipped; what they read and need."""
    from gangru_dist.panel.manifest import read_manifest
    from gangru_dist.training.launch import plan_training

    manifest = read_manifest(job.run.root, job.run.cfg.panel.features)
    only = getattr(job.args, "windows", None)
    run, over, todo = plan_training(job.run, manifest, only, anew=job.args.overwrite)
    windows = list(dict.fromkeys(task.window for task in todo))
    return {
        "models_to_train": [task.name for task in todo],
        "models_to_skip": dict(Counter(event.result.status for event in over)),
        "bytes_to_read": sum(_count_bytes(run.root, manifest, w, run.cfg) for w in windows),
        **_estimate_memory(run.cfg, manifest, windows, len(todo)),
    }


def preview_scoring(job: Job) -> Facts:
    """Days to be scored, and what cannot be."""
    from gangru_dist.scoring.score import plan_scoring

    args = job.args
    *_, plan = plan_scoring(job.run, start=args.start, end=args.end, daily=args.daily)
    return {
        "days_to_score": plan.days,
        "days_up_to_date": plan.up_to_date,
        "days_without_a_model": sum(part.days for part in plan.unscored),
    }


def preview_report(job: Job) -> Facts:
    """Days that would be judged."""
    from gangru_dist.scoring.table import FactorTable

    if job.args.factor:
        from gangru_dist.report.factors import name_factors, read_factor_files

        tables = name_factors(read_factor_files(job.args.factor))
        return {"factors": [f"{len(one)} values of {name}" for name, one in tables.items()]}
    job.run.check_exists()
    days = sorted(FactorTable(job.run.factor).read_coverage())
    return {"days_scored": len(days), "first": str(days[0]), "last": str(days[-1])} if days else {}


def preview_search(job: Job) -> Facts:
    """Trials that are asked for, at the sizes of the configuration itself."""
    from gangru_dist.panel.manifest import read_manifest
    from gangru_dist.tuning.trial import choose_windows, make_all_windows

    cfg = job.run.cfg
    manifest = read_manifest(job.run.root, cfg.panel.features)
    names = choose_windows(manifest.calendar, cfg, [cfg], job.args.windows)
    windows = [make_all_windows(manifest.calendar, cfg)[name] for name in names]
    trials = job.args.trials or cfg.tune.trials
    memory = _estimate_memory(cfg, manifest, windows, trials)
    return {"trials": trials, "windows": list(names), **memory}


def preview_pipeline(job: Job) -> Facts:
    """The panel, and training if a panel is there to plan it by."""
    facts = preview_panel(job)
    is_there = facts["panel"] != "to be built" and "features_to_add" not in facts
    return facts | preview_training(job) if is_there else facts


def _estimate_memory(
    cfg: RunConfig, manifest: Manifest, windows: Sequence[Window], models: int
) -> Facts:
    """Models trained at once, and the memory of a worker of theirs.

    A worker has its share of the window's block, a standardized copy, and a day's activations.
    """
    if not windows or not models:
        return {}
    older = max(len(window.older_days) for window in windows) * cfg.windows.sample_every
    days = cfg.windows.history_days + cfg.samples.lookback + older
    channels = len(cfg.features) * len(cfg.samples.channels)
    stocks = manifest.rows / len(manifest.calendar) / cfg.resources.workers
    groups = _count_groups(cfg)
    return {
        "models_at_once": min(groups, cfg.resources.max_concurrent or groups, models),
        "worker_gb": round(WORKER_GB + 3 * 4 * days * stocks * channels / 1e9, 1),
    }


def _count_groups(cfg: RunConfig) -> int:
    """Count the groups of workers that fit: on `RAY_ADDRESS`, else on this machine."""
    need = cfg.resources
    if os.environ.get("RAY_ADDRESS", "local") in ("", "local"):
        return max(1, int((os.cpu_count() or 1) / need.cpus_per_worker) // need.workers)
    from gangru_dist.cluster import session

    with session.open_session(cfg):
        slots = session.count_workers(need)
    return max(1, slots // need.workers)


def _count_bytes(root: Storage, manifest: Manifest, window: Window, cfg: RunConfig) -> int:
    """Size of the files that a window's workers read together."""
    from gangru_dist.panel.store import files_of
    from gangru_dist.training.data import first_day

    days = [first_day(window, cfg.samples.lookback), window.refit]
    start, end = (manifest.calendar[day].item() for day in days)
    panel = root.child("panel")
    names = [panel.full_path(file.name) for file in files_of(manifest, start, end)]
    return sum(int(info.size or 0) for info in panel.filesystem.get_file_info(names))
