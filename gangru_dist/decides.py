"""What each setting decides, said where it is declared."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from enum import Flag, auto
from typing import Any


class Decides(Flag):
    """A mark of a setting, or of a section for all its settings that have none of their own.

    `lookback: Annotated[int, Decides.MODEL] = 40`
    """

    NOTHING = 0
    """No result, given the bars: how much is done at a time, how fast, where, how it is shown."""
    PANEL = auto()
    """The panel's rows, given the bars."""
    MODEL = auto()
    """The weights of a given refit day and seed."""
    RUN = auto()
    """Which models a run has, or what follows from them: factor, figures."""
    SEARCH = auto()
    """The trials of a search."""
    IF_CHANGED = auto()
    """Beside another: only where it is not the default. For a setting that is added when models
    are stored already, with the default that they were made with: they stay what they were."""


def declared(
    cls: type[Any], prefix: str = "", section: Decides | None = None
) -> Iterator[tuple[str, Any, Decides]]:
    """Dotted key, type and mark of every setting below a configuration's class.

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
