"""GAN_GRU stock-selection factors, retrained and scored on a Ray cluster.

Read the table with `gangru_dist.read_factor("s3://bucket/gangru", "monthly")`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gangru_dist.scoring.table import read_factor, to_alphalens

__all__ = ["__version__", "read_factor", "to_alphalens"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the readers on first use, so that `import gangru_dist` stays fast."""
    if name in ("read_factor", "to_alphalens"):
        return getattr(import_module("gangru_dist.scoring.table"), name)
    raise AttributeError(f"module 'gangru_dist' has no attribute {name!r}")
