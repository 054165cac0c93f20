"""Callbacks by name: what receives the figures of a running job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator

from gangru_dist.registry import STORED, Registry

CALLBACKS: Registry[Callable[[Any], Any]] = Registry(
    "callback",
    items={
        "mlflow": "gangru_dist.tracking.mlflow:Mlflow",
        "tensorboard": "gangru_dist.tracking.tensorboard:TensorBoard",
    },
)
"""Makes a `tracking.callback.Callback` from a `Run`."""


def _known(names: tuple[str, ...], info: Any) -> tuple[str, ...]:
    """Known names; of stored ones, code that was not given with the command is left out.

    They decide no result, so a run does not need those of the job before.
    """
    if info.context == STORED:
        return tuple(name for name in names if name in CALLBACKS)
    return tuple(CALLBACKS.known(name) for name in names)


CallbackNames = Annotated[tuple[str, ...], AfterValidator(_known)]
"""Out of `CALLBACKS`, or `package.module:Class` of one's own."""
