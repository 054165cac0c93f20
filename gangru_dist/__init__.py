"""GAN_GRU stock-selection factors, retrained and scored on a Ray cluster.

Read the table with `gangru_dist.read_factor("s3://bucket/gangru", "monthly")`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gangru_dist.scoring.table import read_factor, to_alphalens

__all__ = ["__version__", "read_factor", "to_alphalens"]


def __getattr__(name: str) -> Any:
    """Import the readers on first use, so that `import gangru_dist` stays fast."""
    if name == "__version__":
        return import_module("gangru_dist.lineage").code_version()["package_version"]
    if name in ("read_factor", "to_alphalens"):
        return getattr(import_module("gangru_dist.scoring.table"), name)
    raise AttributeError(f"module 'gangru_dist' has no attribute {name!r}")
