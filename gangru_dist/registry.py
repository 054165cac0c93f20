"""What the configuration calls by name: one table a kind, one answer to a wrong name.

A table starts with the project's own items. Others are found by what they are called:

| name | is |
|---|---|
| `my_package.factors:surprise` | that attribute; its module is on the import path of all workers |
| an entry point of `gangru_dist.features`, `.predictors`, `.label_transforms` | a package's |
| what `register` was given | user code's, in this process only |

A name is code that will run, so it counts when the user gave it. One that merely lies in storage,
in a run's `config.json`, is never imported (`STORED`).
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar, cast

from gangru_dist.errors import ConfigError, GangruError

T = TypeVar("T")


STORED = {"stored": True}
"""Context of a validation whose names were read from storage."""


class Registry(dict[str, T]):
    """Name -> item. An item may stand as `package.module:attribute` until it is asked for."""

    def __init__(
        self,
        kind: str,
        error: type[GangruError] = ConfigError,
        *,
        items: Mapping[str, T | str] | None = None,
        code: Callable[[T], Any] = lambda item: item,
    ) -> None:
        """An empty table, or one of items to be imported.

        Args:
            kind: What an item is, in words.
            error: Raised for a name that has no item.
            items: To begin with.
            code: The function or class that an item stands for.
        """
        super().__init__(cast("Mapping[str, T]", items or {}))
        self._kind, self._error, self._code = kind, error, code

    def __getitem__(self, name: str) -> T:
        item: Any = super().__getitem__(name)
        if isinstance(item, str):
            module, _, attribute = item.partition(":")
            item = self[name] = getattr(importlib.import_module(module), attribute)
        return cast("T", item)

    def __missing__(self, name: str) -> T:
        place = name if ":" in name else _installed(self._kind).get(name)
        if place is None:
            raise self._error(f"no {self._kind} {name!r}; nearest: {nearest(name, self)}.")
        module, _, attribute = place.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise self._error(
                f"{self._kind} {name!r} cannot be imported: {error}. It must be on the import path "
                "(the working folder is), here and on all workers."
            ) from error
        same = [item for item in self.values() if not isinstance(item, str)]
        item = next((item for item in same if self._code(item) is found), found)
        try:
            self._code(item)
        except AttributeError:
            raise self._error(f"{place} is no {self._kind}: it lacks the decorator.") from None
        self[name] = item
        return cast("T", item)

    def known(self, name: str) -> str:
        """The name itself, if it has an item; else ValueError, to which pydantic adds the key."""
        if name in self:
            return name
        if ":" not in name and name not in _installed(self._kind):
            raise ValueError(f"no {self._kind}; nearest: {nearest(name, self)}")
        try:
            self[name]
        except GangruError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return name

    def validated(self, name: str, info: Any) -> str:
        """The same for pydantic; of `STORED` names, those of code count that is here already."""
        if ":" in name and name not in self and info.context == STORED:
            raise ValueError(f"names code as {self._kind} that this command was not given")
        return self.known(name)

    def places(self) -> set[str]:
        """Top-level modules of users' own code that this process has been given."""
        items = [self._code(item) for name, item in self.items() if ":" in name]
        return {item.__module__.partition(".")[0] for item in items} - {__name__.partition(".")[0]}

    def register(self, name: str, item: T) -> None:
        """Add an item, or replace it by its own new definition, as a notebook's cell does.

        Raises:
            ConfigError: The name is another item's.
        """
        there = self[name] if name in self else item  # noqa: SIM401, get() would not import it
        old, new = _place(self._code(there)), _place(self._code(item))
        if old != new:
            raise ConfigError(f"{self._kind} {name!r} is {old} already; {new} needs another name.")
        self[name] = item

    def source_hash(self, name: str) -> str:
        """`source_hash` of the item of this name."""
        return source_hash(self._code(self[name]))

    def users_code(self, name: str) -> dict[str, str]:
        """The same for an identity, by what it is: empty for one of the project's own items."""
        if name not in self or isinstance(self.get(name), str):
            return {}
        own = self._code(self[name]).__module__.partition(".")[0] == __name__.partition(".")[0]
        return {} if own else {f"{self._kind} {name}": self.source_hash(name)}


@cache
def _installed(kind: str) -> dict[str, str]:
    """Entry points of installed packages for this kind: name -> `module:attribute`."""
    group = f"gangru_dist.{kind.replace(' ', '_')}s"
    return {point.name: point.value for point in entry_points(group=group)}


def _place(item: Any) -> str:
    """Where a function or class was defined."""
    return f"{item.__module__}.{item.__qualname__}"


def close_names(name: str, known: Iterable[str], cutoff: float = 0.4) -> list[str]:
    """Up to three of the known names that look like this one, best first."""
    return difflib.get_close_matches(name, known, n=3, cutoff=cutoff)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The close names, for a message; all of them if none is close."""
    known = list(known)
    return close_names(name, known) or known


def source_hash(item: Callable[..., Any]) -> str:
    """Hash of the code that decides what a function or class gives, 64 hex digits.

    That is its own, and that of the functions and plain constants of the same top-level package
    that it names, and so on. Comments, docstrings and layout do not count.

    Raises:
        ConfigError: There is no source, as for what was typed at a prompt.
    """
    parts: dict[str, str] = {}
    _collect(item, parts)
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()


def _collect(item: Any, parts: dict[str, str]) -> None:
    """Add the bare code of an item, and of all that it names, under their places."""
    if _place(item) in parts:
        return
    try:
        tree = _bare(inspect.getsource(item))
    except (OSError, TypeError, SyntaxError) as error:
        raise ConfigError(
            f"{_place(item)} has no source to tell a change by; define it with def, in a file or a "
            "notebook."
        ) from error
    parts[_place(item)] = ast.unparse(tree)
    scope, package = vars(sys.modules[item.__module__]), item.__module__.partition(".")[0]
    for name in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & set(scope):
        value = scope[name]
        if isinstance(value, int | float | str | tuple):
            parts[f"{item.__module__}.{name}"] = repr(value)
        elif inspect.isfunction(value) and value.__module__.partition(".")[0] == package:
            _collect(value, parts)


def bare_code(source: str) -> str:
    """Python source without comments, docstrings and layout."""
    return ast.unparse(_bare(source))


def _bare(source: str) -> ast.AST:
    tree: ast.AST = _Bare().visit(ast.parse(textwrap.dedent(source)))
    return tree


class _Bare(ast.NodeTransformer):
    """Takes away what no result depends on."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)
