"""Settings `gru.…`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any

from pydantic import Field, JsonValue
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import STRICT, Count
from gangru_dist.decides import Decides
from gangru_dist.registry import Registry

PREDICTORS: Registry[Callable[[int, GruConfig], Any]] = Registry(
    "predictor",
    items={
        "gru": "gangru_dist.models.gru:GruPredictor",
        "lstm": "gangru_dist.models.predictors:LstmPredictor",
        "transformer": "gangru_dist.models.predictors:TransformerPredictor",
    },
)
"""Makes a torch module, samples (B, T, F) -> scores (B,), from the number of features and sizes."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class GruConfig:
    """The predictor: GRU layers and a head [R]."""

    hidden: int = Field(default=128, ge=1)
    """GRU units per layer."""
    layers: int = Field(default=2, ge=1)
    """GRU layers."""
    head: tuple[Count, ...] = (256, 64, 64)
    """Units of the head's hidden layers, followed by one output without bias."""
    options: Annotated[dict[str, JsonValue], Decides.MODEL | Decides.IF_CHANGED] = field(
        default_factory=dict
    )
    """Further sizes of predictors other than `gru`, by name: `transformer` has `heads` (4)."""
