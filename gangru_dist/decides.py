"""Marks that say what each setting decides; they stand where the setting is declared."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from enum import Flag, auto
from typing import Any


class Decides(Flag):
    """Mark of a setting, or of a section: then of all its settings without a mark of their own.

    `lookback: Annotated[int, Decides.MODEL] = 40`
    """

    NOTHING = 0
    """No result: batch sizes, speed, places, presentation."""
    PANEL = auto()
    """The rows of the panel, given the bars."""
    MODEL = auto()
    """The weights of a given refit day and seed."""
    RUN = auto()
    """Which models a run has, or what is computed from them: factor, figures."""
    SEARCH = auto()
    """The trials of a search."""
    IF_CHANGED = auto()
    """With another mark: counts only if the value is not the default. For settings added after
    models were stored; their default is the earlier behavior, so those models stay valid."""


def declared(
    cls: type[Any], prefix: str = "", section: Decides | None = None
) -> Iterator[tuple[str, Any, Decides]]:
    """Dotted key, type and mark of every setting of a configuration class.

    Raises:
        TypeError: Neither a setting nor its section has a mark.
    """
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        extras = getattr(hint, "__metadata__", ())
        mark = next((extra for extra in extras if isinstance(extra, Decides)), section)
        bare: Any = hint.__origin__ if extras else hint
        if dataclasses.is_dataclass(bare):
            yield from declared(typing.cast("type[Any]", bare), f"{prefix}{name}.", mark)
        elif mark is None:
            raise TypeError(
                f"{prefix}{name} does not say what it decides: Annotated[..., Decides.…]."
            )
        else:
            yield f"{prefix}{name}", bare, mark
