"""Plan what to train: windows of the calendar, models that are still missing, the precision.

Precision, devices and the model's settings are checked before anything is written, so a mistake
claims no run's name;
`models.precision.require_precision` checks again where a worker starts, on its real device.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gangru_dist.base.errors import ConfigError, ResourceError, WindowError
from gangru_dist.cluster import session
from gangru_dist.config.identity import with_precision
from gangru_dist.config.settings import PLAIN_PRECISIONS, RunConfig
from gangru_dist.events.events import WindowDone
from gangru_dist.maths.calendar import SkippedWindow, Window, make_windows, select_windows
from gangru_dist.panel.manifest import Manifest
from gangru_dist.runs.run import Run
from gangru_dist.runs.summaries import WindowResult
from gangru_dist.training.units import Task, make_task_identity

if TYPE_CHECKING:
    from gangru_dist.models.precision import Device

_logger = logging.getLogger(__name__)


def resolve_run(run: Run, *, anew: bool = False) -> Run:
    """Replace `training.precision=auto` by what it stands for in this run.

    That is what the run was claimed with; at its first start, or `anew`, the best that all
    devices have which its workers can get.

    Raises:
        ResourceError: The cluster cannot hold a worker.
        StorageError: The run's `config.json` is damaged.
    """
    claimed = run if anew else run.with_claimed_precision()
    return replace(claimed, cfg=resolve_precision(claimed.cfg))


def resolve_precision(cfg: RunConfig, before: str | None = None) -> RunConfig:
    """Replace `auto` by what it stood for before, else by the best that all devices have.

    Raises:
        ResourceError: The cluster cannot hold a worker.
    """
    if cfg.training.precision != "auto":
        return cfg
    if before is not None:
        return with_precision(cfg, before)
    from gangru_dist.models.precision import choose_precision  # torch: only where devices are asked

    devices = _devices(cfg)
    found = choose_precision(devices)
    names = ", ".join(dict.fromkeys(device.name for device in devices))
    _logger.info("precision auto=%s devices=[%s]", found, names)
    return with_precision(cfg, found)


def require_native(*variants: RunConfig) -> None:
    """Check that every device a worker may get has the arithmetic; asks the first one's resources.

    Raises:
        ResourceError: One lacks it; names the devices and the way out.
    """
    wanted = dict.fromkeys(cfg.training.precision for cfg in variants)
    for precision in (name for name in wanted if name not in PLAIN_PRECISIONS):
        from gangru_dist.models.precision import describe_lack

        reason = describe_lack(precision, _devices(variants[0]))
        if reason:
            raise ResourceError(
                f"{reason}. Give --set training.precision=float32 or auto; a run that began "
                f"with {precision} keeps it: also give another --run, or use machines that have it."
            )


def require_model(cfg: RunConfig) -> None:
    """Build the model of the settings, so that what is wrong with them is said before a start.

    Raises:
        ConfigError: `predictor`, `gru.options`, `samples.channels` and `windows.half_life_days` do
            not go together.
    """
    is_level = "level" in cfg.samples.channels
    if cfg.predictor == "gru" and not cfg.gru.options and (not is_level or "close" in cfg.features):
        return  # torch: seconds
    import torch

    from gangru_dist.models.estimators import Estimator
    from gangru_dist.models.predictors import make_predictor
    from gangru_dist.samples.standardize import Standardizer

    standardizer, days = Standardizer(cfg.samples, cfg.features), cfg.samples.lookback
    standardizer.standardize_day(torch.zeros(days, 2, len(cfg.features)), days - 1, torch.arange(2))
    predictor = make_predictor(cfg.predictor, len(standardizer.channels), days, cfg.gru)
    weighted = cfg.windows.half_life_days is not None
    if weighted and isinstance(predictor, Estimator) and not predictor.takes_weights:
        raise ConfigError(
            f"windows.half_life_days={cfg.windows.half_life_days} weights the days, and the fit of "
            f"predictor={cfg.predictor} has no parameter sample_weight. Add it, or leave the "
            "setting out."
        )


def _devices(cfg: RunConfig) -> list[Device]:
    """Every device that a worker may get, on every node that has room for one."""
    from gangru_dist.models.precision import list_devices

    return [
        replace(device, name=f"{device.name}{node}")
        for node, devices in session.ask_nodes(cfg, partial(list_devices, cfg))
        for device in devices
    ]


def choose_windows(
    manifest: Manifest, cfg: RunConfig, only: Sequence[str] | None
) -> tuple[list[Window], list[SkippedWindow]]:
    """Windows of the panel's calendar, all or the named ones, and those without history.

    Raises:
        WindowError: A named window does not exist, or there is no refit day at all.
    """
    days = manifest.calendar
    windows, skipped = make_windows(
        days,
        cfg.windows,
        cfg.label,
        lookback=cfg.samples.lookback,
    )
    if not windows and not skipped:
        raise WindowError(
            f"the panel, {days[0]} to {days[-1]}, has no refit day: "
            f"windows.refit_months={list(cfg.windows.refit_months)}, "
            f"windows.first={cfg.windows.first}, windows.last={cfg.windows.last}. Widen them, or "
            "add bars with `gangru panel`."
        )
    if only is None:
        return windows, skipped
    wanted = [window for window in skipped if window.name in only]
    left = [name for name in only if name not in {window.name for window in wanted}]
    return select_windows(windows, left), wanted


def plan_training(
    run: Run, manifest: Manifest, only: Sequence[str] | None = None, *, anew: bool = False
) -> tuple[Run, list[WindowDone], list[Task]]:
    """Find the run with its precision resolved, what needs no training, and what is to be trained.

    Raises:
        GangruError: As `train_windows`.
    """
    manifest.require_features(run.cfg.features)
    windows, skipped = choose_windows(manifest, run.cfg, only)
    run = resolve_run(run, anew=anew)
    over = [
        WindowDone(result=WindowResult(window=s.name, status="no history", reason=s.reason))
        for s in skipped
    ]
    todo, models = [], run.read_models({window.name for window in windows})
    for task in (Task(window=w, seed=s) for w in windows for s in run.cfg.training.seeds):
        model = models.get((task.window.name, task.seed))
        if model is not None and model.identity == make_task_identity(run.cfg, manifest, task):
            result = WindowResult.from_model(model, "finished before")
            over.append(WindowDone(result=result, identity=model.identity, model=model))
        else:
            todo.append(task)
    if todo:
        require_model(run.cfg)
    return run, over, todo
