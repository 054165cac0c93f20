"""What a command would do, in figures: `--dry-run`. Reads lists and headings, writes nothing."""

from __future__ import annotations

import datetime as dt
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from gangru_dist.base.errors import BarsError, PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.commands.cli import Job
from gangru_dist.config.settings import RunConfig

if TYPE_CHECKING:
    from gangru_dist.bars.headings import Bars
    from gangru_dist.maths.calendar import Window
    from gangru_dist.panel.manifest import Manifest

Facts = dict[str, Any]
_SURVEY_SECONDS = 5.0
"""For the dates of bars that no panel is built of yet."""
WORKER_GB = 1.5
"""Memory of a worker beside its data. Measured: 0.3 (torch) + 0.7 (Ray), plus a margin."""


def preview_panel(job: Job) -> Facts:
    """Bars to be read; the panel that is there."""
    from gangru_dist.api import check_bars

    return _describe_panel(job, check_bars(job.args.bars, job.run.cfg))


def _describe_panel(job: Job, bars: Bars | str) -> Facts:
    from gangru_dist.panel.manifest import read_manifest

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
    from gangru_dist.training.plan import plan_training

    manifest = read_manifest(job.run.root, job.run.cfg.panel.features)
    only = getattr(job.args, "windows", None)
    run, over, todo = plan_training(job.run, manifest, only, anew=job.args.overwrite)
    run.check_claim(overwrite=job.args.overwrite)
    windows = list(dict.fromkeys(task.window for task in todo))
    return {
        "models_to_train": [task.name for task in todo],
        "models_to_skip": dict(Counter(event.result.status for event in over)),
        "bytes_to_read": sum(_count_bytes(run.root, manifest, w, run.cfg) for w in windows),
        **_estimate_cost(run.cfg, _count_stocks(manifest), windows, len(todo), _is_here(job)),
    }


def _count_stocks(manifest: Manifest) -> float:
    """Of a day, on average."""
    return manifest.rows / len(manifest.calendar)


def _is_here(job: Job) -> bool:
    return bool(getattr(job.args, "here", False))


def preview_scoring(job: Job) -> Facts:
    """Days to be scored, and what cannot be."""
    from gangru_dist.scoring.score import plan_scoring

    args = job.args
    run, *_, plan = plan_scoring(job.run, start=args.start, end=args.end, daily=args.daily)
    run.check_claim(overwrite=args.overwrite)
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
    job.run.with_claimed_precision().check_claim(overwrite=job.args.overwrite)
    days = sorted(FactorTable(job.run.factor).read_coverage())
    return {"days_scored": len(days), "first": str(days[0]), "last": str(days[-1])} if days else {}


def preview_search(job: Job) -> Facts:
    """Trials that are asked for, at the sizes of the configuration itself."""
    from gangru_dist.tuning.queue import plan_search, require_same_search
    from gangru_dist.tuning.trial import make_all_windows

    plan = plan_search(job.run, job.args.windows, overwrite=job.args.overwrite)
    cfg, manifest, names = plan.cfg, plan.manifest, plan.record.windows
    if not job.args.overwrite:
        require_same_search(job.run.tune, plan.record)
    windows = [make_all_windows(manifest.calendar, cfg)[name] for name in names]
    trials = job.args.trials or cfg.tune.trials
    cost = _estimate_cost(_with_one_worker(cfg), _count_stocks(manifest), windows, trials)
    if "minutes_at_most" in cost:  # a trial trains every window
        cost["minutes_at_most"] = round(cost["minutes_at_most"] * len(windows), 1)
    return {"trials": trials, "windows": list(names), **cost}


def preview_pipeline(job: Job) -> Facts:
    """The panel, and training: by the panel that is there, else by a look at the bars' dates."""
    from gangru_dist.api import check_bars

    bars = check_bars(job.args.bars, job.run.cfg)
    facts = _describe_panel(job, bars)
    is_there = facts["panel"] != "to be built" and "features_to_add" not in facts
    return facts | (preview_training(job) if is_there else _preview_first_training(job, bars))


def _preview_first_training(job: Job, bars: Bars | str) -> Facts:
    """Training before there is a panel: stocks and days are about those of the bars."""
    from gangru_dist.maths.calendar import make_windows
    from gangru_dist.training.plan import resolve_run

    run = resolve_run(job.run, anew=job.args.overwrite)
    run.check_claim(overwrite=job.args.overwrite)
    cfg, (rows, days) = run.cfg, _survey(bars, run.cfg)
    windows, _ = make_windows(days, cfg.windows, cfg.label, lookback=cfg.samples.lookback)
    models = len(windows) * len(cfg.training.seeds)
    stocks = rows / len(days)
    about = {"stocks_about": round(stocks), "days_about": len(days), "models_about": models}
    return about | _estimate_cost(cfg, stocks, windows, models, _is_here(job))


def _survey(bars: Bars | str, cfg: RunConfig) -> tuple[int, np.ndarray]:
    """About the rows of the bars, and their working days; dates of some seconds' reading."""
    from gangru_dist.bars.reader import read_part

    if isinstance(bars, str):
        first, last, per_day = cfg.synthetic.first, cfg.synthetic.last, cfg.synthetic.assets
    else:
        parts = [part for part in bars.parts if part.table is None]
        seen: list[dt.date] = []
        started = time.monotonic()
        for part in (parts[0], parts[-1], *parts[1:-1]):
            dates = {our: its for our, its in part.columns.items() if our == "date"}
            for batch in read_part(bars.uri, replace(part, columns=dates), bars.own_form):
                span = pc.min_max(batch["date"]).as_py()
                seen += [day for day in span.values() if day is not None]
            if time.monotonic() - started > _SURVEY_SECONDS:
                break
        if not seen:
            raise BarsError(f"{bars.uri} has no row with a date. Export it again.")
        first, last, per_day = min(seen), max(seen), None
    days = np.arange(np.datetime64(first), np.datetime64(last) + 1)
    days = days[np.is_busday(days)]
    rows = per_day * len(days) if per_day else sum(part.rows for part in parts)
    return rows, days


def _estimate_cost(
    cfg: RunConfig, stocks: float, windows: Sequence[Window], models: int, is_here: bool = False
) -> Facts:
    """Models trained at once, the memory of a worker of theirs, and the time of all.

    A worker has its share of the window's block, a standardized copy, and a day's activations. The
    time is that of all epochs at this machine's speed, measured in a second or two.
    """
    if not windows or not models:
        return {}
    if is_here:
        cfg = _with_one_worker(cfg)
    days = cfg.windows.history_days + cfg.samples.lookback
    channels = len(cfg.features) * len(cfg.samples.channels)
    stocks /= cfg.resources.workers
    from gangru_dist.training.pace import estimate_training  # torch: seconds

    groups = 1 if is_here else _count_groups(cfg)
    at_once = min(groups, cfg.resources.max_concurrent or groups, models)
    cost = estimate_training(cfg, max(windows, key=lambda w: len(w.train_days)), round(stocks))
    return {
        "models_at_once": at_once,
        "worker_gb": round(
            WORKER_GB + 3 * 4 * days * stocks * channels / 1e9 + cost.gathered / 1e9, 1
        ),
        "minutes_at_most": math.ceil(cost.seconds * math.ceil(models / at_once) / 6) / 10,
    }


def _with_one_worker(cfg: RunConfig) -> RunConfig:
    """As a search and `--here` train: a window's stocks are in one process."""
    return replace(cfg, resources=replace(cfg.resources, workers=1, min_workers=None))


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
    from gangru_dist.maths.calendar import first_day
    from gangru_dist.panel.store import select_files

    days = [first_day(window, cfg.samples.lookback), window.refit]
    start, end = (manifest.calendar[day].item() for day in days)
    panel = root.child("panel")
    names = [panel.full_path(file.name) for file in select_files(manifest, start, end)]
    return sum(int(info.size or 0) for info in panel.filesystem.get_file_info(names))
