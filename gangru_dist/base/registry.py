"""Registries of items that the configuration refers to by name; one error for unknown names.

A registry starts with the project's own items. Others are found by their name:

| name | item |
|---|---|
| `my_package.factors:surprise` | this attribute; its module must be on every worker's import path |
| an entry point of a package, in a group below | what the entry point names |
| a name given to `register` | an item of this process only |

The groups of entry points are `gangru_dist.features`, `.predictors`, `.label_transforms`,
`.callbacks` and `.bars_formats`.

A name stands for code that will run, so only names given by the user are imported, never names
that were read from storage, such as a run's `config.json` (`STORED`).
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar, cast

from gangru_dist.base.errors import ConfigError, GangruError

T = TypeVar("T")


STORED = {"stored": True}
"""Validation context of names that were read from storage."""


class Registry(dict[str, T]):
    """Name -> item. An item may be given as `package.module:attribute`, imported on first use."""

    def __init__(
        self,
        kind: str,
        error: type[GangruError] = ConfigError,
        *,
        items: Mapping[str, T | str] | None = None,
        code: Callable[[T], Any] = lambda item: item,
        made: Callable[[str], T | None] = lambda name: None,
    ) -> None:
        """Make a registry.

        Args:
            kind: What an item is, for messages.
            error: Raised for an unknown name.
            items: The first items.
            code: Gives the function or class of an item.
            made: Makes an item from what its name alone says; None = the name is not of that kind.
        """
        super().__init__(cast("Mapping[str, T]", items or {}))
        self._kind, self._error, self._code, self._made = kind, error, code, made

    def __getitem__(self, name: str) -> T:
        item: Any = super().__getitem__(name)
        if isinstance(item, str):
            module, _, attribute = item.partition(":")
            item = self[name] = getattr(importlib.import_module(module), attribute)
        return cast("T", item)

    def __missing__(self, name: str) -> T:
        if (item := self._made(name)) is not None:
            self[name] = item
            return item
        path = self._find_path(name)
        if path is None:
            raise self._error(f"no {self._kind} {name!r}; nearest: {suggest_names(name, self)}.")
        module, _, attribute = path.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise self._error(
                f"{self._kind} {name!r} cannot be imported: {error}. It must be on the import path "
                "(the working folder is), here and on all workers."
            ) from error
        same = [item for item in self.values() if not isinstance(item, str)]
        item = next((item for item in same if self._code(item) is found), cast("T", found))
        try:
            self._code(item)
        except AttributeError:
            raise self._error(f"{path} is no {self._kind}: it lacks the decorator.") from None
        self[name] = item
        return item

    def _find_path(self, name: str) -> str | None:
        """Return `module:attribute` of a name, which may be an entry point's; None if unknown."""
        if ":" in name:
            return name
        points = entry_points(group=f"gangru_dist.{self._kind.replace(' ', '_')}s")
        return next((point.value for point in points if point.name == name), None)

    def check_name(self, name: str) -> str:
        """Return a name if it is known; else ValueError, to which pydantic adds the key."""
        try:
            if name not in self:
                self[name]
        except GangruError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return name

    def validate(self, name: str, info: Any) -> str:
        """The same for pydantic; a `STORED` name may not import code that is not here already."""
        is_code = ":" in name and name not in self and self._made(name) is None
        if is_code and info.context == STORED:
            raise ValueError(f"names code as {self._kind} that this command was not given")
        return self.check_name(name)

    def list_user_modules(self) -> set[str]:
        """List the top-level modules of users' own code that this process has been given."""
        items = [self._code(item) for name, item in self.items() if ":" in name]
        return {item.__module__.partition(".")[0] for item in items} - {__name__.partition(".")[0]}

    def register(self, name: str, item: T) -> None:
        """Add an item, or replace its earlier definition, as when a notebook cell runs again.

        Raises:
            ConfigError: The name belongs to another item.
        """
        old_item = self[name] if name in self else item  # noqa: SIM401, get() would not import it
        old, new = _qualified_name(self._code(old_item)), _qualified_name(self._code(item))
        if old != new:
            raise ConfigError(f"{self._kind} {name!r} is {old} already; {new} needs another name.")
        self[name] = item

    def hash_user_code(self, name: str) -> dict[str, str]:
        """Return `{kind and name: source hash}` of a user's item; empty for the project's own."""
        item: Any = self.get(name)  # a worker may not have a user's yet
        if isinstance(item, str) or (item is None and not self._find_path(name)):
            return {}
        own = self._code(self[name]).__module__.partition(".")[0] == __name__.partition(".")[0]
        return {} if own else {f"{self._kind} {name}": hash_source(self._code(self[name]))}


def _qualified_name(item: Any) -> str:
    """Module and name of a function or class."""
    return f"{item.__module__}.{item.__qualname__}"


def find_close_names(name: str, known: Iterable[str], cutoff: float = 0.4) -> list[str]:
    """Find up to three known names similar to this one, best first."""
    return difflib.get_close_matches(name, known, n=3, cutoff=cutoff)


def suggest_names(name: str, known: Iterable[str]) -> list[str]:
    """Find the close names, for a message; all known names if none is close."""
    known = list(known)
    return find_close_names(name, known) or known


def hash_source(item: Callable[..., Any]) -> str:
    """Hash the code that affects the result of a function or class, 64 hex digits.

    Covers its own code and, recursively, what it uses of the same top-level package: functions,
    classes, numbers and texts, and for any other name of a module the statements that make it.
    Comments, docstrings and layout do not count.

    Raises:
        ConfigError: There is no source, e.g. for code typed at a prompt.
    """
    parts: dict[str, str] = {}
    _collect(item, parts)
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()


def _collect(item: Any, parts: dict[str, str]) -> None:
    """Add the bare code of an item, and of all that it uses, by place."""
    item = inspect.unwrap(item)  # a cached function is the function
    if _qualified_name(item) in parts:
        return
    try:
        tree = _Bare().visit(ast.parse(textwrap.dedent(inspect.getsource(item))))
    except (OSError, TypeError, SyntaxError) as error:
        raise ConfigError(
            f"the source of {_qualified_name(item)} cannot be found, so changes would go "
            "unnoticed. Define it with def, in a file or a notebook."
        ) from error
    parts[_qualified_name(item)] = ast.unparse(tree)
    _collect_names(tree, item.__module__, parts)


def _collect_names(tree: ast.AST, module: str, parts: dict[str, str]) -> None:
    """Add what the names in a piece of a module's code stand for."""
    scope, package = vars(sys.modules[module]), module.partition(".")[0]
    for name in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & set(scope):
        value, place = scope[name], f"{module}.{name}"
        code = inspect.unwrap(value) if callable(value) else None
        if _is_plain(value):
            parts[place] = repr(value)
        elif inspect.isfunction(code) or inspect.isclass(code):
            if code.__module__.partition(".")[0] == package:
                _collect(code, parts)
        elif place not in parts and not inspect.ismodule(value):
            _collect_statements(module, name, parts)


def _is_plain(value: Any) -> bool:
    """Whether it stays as it is, and its text says all of it, the same in every process."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | float | str | bytes)


def _collect_statements(module: str, name: str, parts: dict[str, str]) -> None:
    """Add the statements of a module that make a name, or the import that brings it."""
    try:
        body = _Bare().visit(ast.parse(inspect.getsource(sys.modules[module]))).body
    except (OSError, TypeError):  # a notebook's cells are no file: lists and dicts as they are
        value = vars(sys.modules[module])[name]
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        if isinstance(value, dict | list) and _is_plain(tuple(inner)):
            parts[f"{module}.{name}"] = repr(value)
        return
    makes = []
    for node in body:
        if isinstance(node, ast.ImportFrom):
            _follow_import(node, module, name, parts)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            makes += [node] if node.name == name else []  # a decorator made something else of it
        elif any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(node)):
            makes.append(node)
    if makes:
        parts[f"{module}.{name}"] = "\n".join(map(ast.unparse, makes))
        for node in makes:
            _collect_names(node, module, parts)


def _follow_import(node: ast.ImportFrom, module: str, name: str, parts: dict[str, str]) -> None:
    """Add what makes a name that this statement brings from the same top-level package."""
    package = vars(sys.modules[module])["__package__"]
    origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
    if origin.partition(".")[0] == module.partition(".")[0]:
        for alias in node.names:
            if name == (alias.asname or alias.name):
                _collect_statements(origin, alias.name, parts)


class _Bare(ast.NodeTransformer):
    """Removes docstrings and other constant expressions."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)
