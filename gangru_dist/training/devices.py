"""The precision of a run: what `auto` stands for, and whether its workers' devices have it.

Checked before anything is written, so that a mistake claims no name; `require_precision` of
`torch_setup` checks again where a worker starts, on the device that it really has.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gangru_dist import runtime
from gangru_dist.config import PLAIN_PRECISIONS, RunConfig, with_precision
from gangru_dist.errors import ResourceError
from gangru_dist.runs.run import Run

if TYPE_CHECKING:
    from gangru_dist.models.precision import Device

_logger = logging.getLogger(__name__)


def settled(run: Run, *, anew: bool = False) -> Run:
    """The run with `training.precision=auto` replaced by what it stands for.

    That is what the run was claimed with; at its first start, or `anew`, the best that all
    devices have which its workers can get.

    Raises:
        ResourceError: The cluster cannot hold a worker.
        StorageError: The run's `config.json` is damaged.
    """
    kept = run if anew else run.as_claimed()
    return replace(kept, cfg=decided(kept.cfg))


def decided(cfg: RunConfig, before: str | None = None) -> RunConfig:
    """The same with `auto` replaced by what it stood for before, else by what the devices have.

    Raises:
        ResourceError: The cluster cannot hold a worker.
    """
    if cfg.training.precision != "auto":
        return cfg
    if before is not None:
        return with_precision(cfg, before)
    from gangru_dist.models.precision import resolve  # torch: only where devices are asked

    devices = _devices(cfg)
    found = resolve(devices)
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
        from gangru_dist.models.precision import lacking

        reason = lacking(precision, _devices(variants[0]))
        if reason:
            raise ResourceError(
                f"{reason}. Give --set training.precision=float32 or auto; a run that began "
                f"with {precision} keeps it: also give another --run, or use machines that have it."
            )


def _devices(cfg: RunConfig) -> list[Device]:
    """Every device that a worker may get, on every node that has room for one."""
    from gangru_dist.models.precision import devices_here

    here = partial(devices_here, cfg.resources.gpus_per_worker)
    return [
        replace(device, name=f"{device.name}{place}")
        for place, devices in runtime.ask_nodes(cfg, here)
        for device in devices
    ]
