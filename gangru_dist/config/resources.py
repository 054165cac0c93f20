"""Settings `resources.…`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import STRICT


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class ResourcesConfig:
    """Resources of a run; they do not change results."""

    workers: int = Field(default=1, ge=1)
    """Workers per window, data-parallel over assets."""
    min_workers: int | None = Field(default=None, ge=1)
    """Minimum workers with which a window may start and continue; None = `workers`."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    """Ray CPUs per training worker or scoring actor."""
    gpus_per_worker: float = Field(default=0.0, ge=0)
    """Ray GPUs per training worker or scoring actor; fractions share a device."""
    threads_per_worker: int = Field(default=1, ge=1)
    """Torch threads; two spinning threads can be slower than one."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Windows trained at once; None = as many as fit into the cluster."""
    windows_per_run: int | None = Field(default=None, ge=1)
    """Windows that one group of workers trains before it is replaced; None = no limit, so that
    workers are started once."""
    max_failures: int = Field(default=2, ge=0)
    """Restarts of a window's workers before the window counts as failed."""
    wait_for_nodes_minutes: float = Field(default=0.0, ge=0)
    """On an autoscaling cluster: how long to wait until one window fits; 0 = do not wait. If set,
    `max_concurrent` windows are requested even if they do not fit yet."""
    ingest: Literal["auto", "direct", "ray"] = "auto"
    """`direct`: each rank reads its bucket files; `ray`: Ray Data streams them; `auto`: `ray` if
    the cluster has several nodes or the storage is remote."""
    scratch_gb: float = Field(default=8.0, ge=0)
    """Temporary disk space per worker, in GB, to cache what every epoch needs (standardized
    samples, the frozen generator's output); 0 = compute it again."""
    scoring_actors: int | None = Field(default=None, ge=1)
    """Scoring actors; None = as many as fit into the cluster."""
