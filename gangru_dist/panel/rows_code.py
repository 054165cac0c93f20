"""Which code a panel's rows follow from: what a build must know beside bars and settings."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence

from gangru_dist import bars
from gangru_dist.features.price_volume import FEATURES, adjust, compute
from gangru_dist.registry import bare_code, source_hash

BUILD = (
    "calendar",
    "panel.bucket",
    "panel.build",
    "panel.intake",
    "panel.moves",
    "panel.schema",
    "panel.side_tables",
    "panel.stages",
    "panel.writer",
)
"""Modules that make rows of what the intake, all of `bars`, lets through."""


def rows_code(features: Sequence[str]) -> str:
    """Hash of the code that decides the rows of these features, 64 hex digits.

    Code of other features does not count, nor do comments, docstrings and layout.
    """
    modules = [bare_code(inspect.getsource(importlib.import_module(name))) for name in _modules()]
    shared = [source_hash(adjust), source_hash(compute)]
    parts = [*modules, *shared, *(FEATURES.source_hash(name) for name in features)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _modules() -> Iterator[str]:
    yield from (f"gangru_dist.{name}" for name in BUILD)
    yield from (found.name for found in pkgutil.iter_modules(bars.__path__, "gangru_dist.bars."))
