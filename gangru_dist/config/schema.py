"""What the declaration of a setting says: type, bounds, what it affects, and its meaning."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from enum import Flag, auto
from types import NoneType
from typing import Any

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
"""Of every section: unknown keys and infinite numbers are errors; docstrings are descriptions."""


class Affects(Flag):
    """What a setting affects: `lookback: Annotated[int, Affects.MODEL] = 40`.

    The mark of a section holds for its settings without a mark of their own.
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


NEW_PANEL = Affects.PANEL | Affects.IF_CHANGED
"""Of settings that were added after panels had been built."""
NEW = Affects.MODEL | Affects.IF_CHANGED
"""Of settings that were added after models had been stored."""
NEW_RUN = Affects.RUN | Affects.IF_CHANGED
"""Of settings that were added after factors had been stored."""

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting, as it is declared."""

    key: str
    """Dotted, such as `windows.first`."""
    type: Any
    """Without marks and bounds."""
    bounds: str
    """Such as `>= 0, < 1`; empty = none."""
    affects: Affects
    meaning: str

    @property
    def is_optional(self) -> bool:
        """Whether `none` unsets it."""
        return NoneType in typing.get_args(self.type)

    @property
    def kind(self) -> str:
        """Type and bounds for a reader."""
        if typing.get_origin(self.type) is typing.Literal:
            return " | ".join(map(repr, typing.get_args(self.type)))
        plain = isinstance(self.type, type) and not typing.get_args(self.type)
        name = self.type.__name__ if plain else re.sub(r"(\w+\.)+", "", str(self.type))
        return f"{name} {self.bounds}".strip()


def list_settings(
    section: Any, prefix: str = "", affects: Affects | None = None
) -> Iterator[Setting]:
    """List every setting of a section and of the sections in it, in the order of declaration.

    Args:
        section: A pydantic dataclass.
        prefix: Its own key, with a dot.
        affects: Its mark.

    Raises:
        TypeError: Neither a setting nor its section has a mark.
    """
    types = typing.get_type_hints(section)
    for name, declared in section.__pydantic_fields__.items():
        key, kind = f"{prefix}{name}", types[name]
        mark = next((one for one in declared.metadata if isinstance(one, Affects)), affects)
        if dataclasses.is_dataclass(kind):
            yield from list_settings(kind, f"{key}.", mark)
            continue
        if mark is None:
            raise TypeError(f"{key} does not say what it affects: Annotated[..., Affects.…].")
        bounds = (
            f"{sign} {getattr(limit, sort)}"
            for limit in declared.metadata
            for sort, sign in _SIGNS.items()
            if hasattr(limit, sort)
        )
        yield Setting(
            key=key,
            type=kind,
            bounds=", ".join(bounds),
            affects=mark,
            meaning=" ".join((declared.description or "").split()),
        )
