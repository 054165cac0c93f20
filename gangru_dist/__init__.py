"""GAN_GRU stock-selection factors, retrained and scored on a Ray cluster.

From Python: `api`. To read the table: `gangru_dist.read_factor("s3://bucket/gangru", "monthly")`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gangru_dist.api import (
        build_panel,
        evaluate,
        read_metrics,
        read_models,
        read_panel,
        read_picks,
        run_pipeline,
    )
    from gangru_dist.cluster.session import run_here
    from gangru_dist.report.document import write_report
    from gangru_dist.runs.run import open_run
    from gangru_dist.scoring.predictor import read_samples
    from gangru_dist.scoring.reader import read_factor, to_alphalens, to_qlib
    from gangru_dist.scoring.score import score_days
    from gangru_dist.training.checkpoint import load_model
    from gangru_dist.training.launch import train_windows

    __version__: str

_PLACES = {
    "api": (
        "build_panel",
        "evaluate",
        "read_metrics",
        "read_models",
        "read_panel",
        "read_picks",
        "run_pipeline",
    ),
    "cluster.session": ("run_here",),
    "report.document": ("write_report",),
    "runs.run": ("open_run",),
    "scoring.predictor": ("read_samples",),
    "scoring.score": ("score_days",),
    "scoring.reader": ("read_factor", "to_alphalens", "to_qlib"),
    "training.checkpoint": ("load_model",),
    "training.launch": ("train_windows",),
}
__all__ = [
    "__version__",
    "build_panel",
    "evaluate",
    "load_model",
    "open_run",
    "read_factor",
    "read_metrics",
    "read_models",
    "read_panel",
    "read_picks",
    "read_samples",
    "run_here",
    "run_pipeline",
    "score_days",
    "to_alphalens",
    "to_qlib",
    "train_windows",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import gangru_dist` stays fast."""
    if name == "__version__":
        return import_module("gangru_dist.base.records").read_code_version()["package_version"]
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"gangru_dist.{module}"), name)
    raise AttributeError(f"module 'gangru_dist' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
