"""JSON files as typed records: one schema per file, checked at every read.

A record is a frozen dataclass of JSON types. Unknown keys are ignored, so that files of later
versions can be read. Tables for people are CSV files. Cells that a spreadsheet would run as
formulas are quoted.
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype
from pydantic import TypeAdapter, ValidationError

from gangru_dist.base.errors import StorageError
from gangru_dist.base.storage import Storage

Record = TypeVar("Record")
_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


class Describable(ABC):
    """Shows itself in a line, and in a notebook as a table, by what `describe` says."""

    __slots__ = ()

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """What to show, by name."""

    def __repr__(self) -> str:
        facts = (f"{name}={value}" for name, value in self.describe().items())
        return f"{type(self).__name__}({', '.join(facts)})"

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
            for name, value in self.describe().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{''.join(rows)}</table>"


def parse_record(kind: type[Record], text: str | bytes) -> Record:
    """A record from JSON; strict ("5" is not 5). Raises pydantic's ValidationError."""
    record: Record = _adapter(kind).validate_json(text, strict=True)
    return record


def to_jsonable(record: Any) -> Any:
    """A record as plain JSON types, keys in the order of its fields."""
    return _adapter(type(record)).dump_python(record, mode="json")


def find_record(kind: type[Record], folder: Storage, name: str) -> Record | None:
    """The record in a JSON file; None if there is no such file.

    Raises:
        StorageError: The file is not JSON, or not a record of this kind.
    """
    try:
        return parse_record(kind, folder.read_bytes(name))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StorageError(
            f"{folder.uri}/{name} is damaged: {describe_error(error)}. Delete it, then run the job "
            "that writes it."
        ) from error


def write_record(folder: Storage, name: str, record: Any) -> None:
    """Write a record as JSON, atomically."""
    folder.write_json(name, to_jsonable(record))


def hash_json(content: Any) -> str:
    """Hash plain values, whatever the order of their keys; twelve hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def hash_bytes(data: bytes) -> str:
    """Hash the bytes of a file, to name it by its content; 128 bits of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def describe_error(error: ValidationError) -> str:
    """The first error: `not JSON (...)`, or the key and what it should be."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"not JSON ({first['msg'].removeprefix('Invalid JSON: ')})"
    where = ".".join(map(str, first["loc"])) or "content"
    return f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes text that begins so for a formula, whoever wrote it into the data."""


def write_table(folder: Storage, name: str, table: pd.DataFrame) -> None:
    """Write a table as `format_table` gives it, atomically."""
    folder.write_bytes(name, format_table(table))


def format_table(table: pd.DataFrame) -> bytes:
    """A table as CSV without its index; texts that look like formulas get a quote."""
    shown = table.rename(columns=_defuse)
    for column in shown.columns:
        values = shown[column]
        if not is_numeric_dtype(values) and not is_datetime64_any_dtype(values):
            shown[column] = values.astype(object).map(_defuse)
    text: str = shown.to_csv(index=False, date_format="%Y-%m-%d", lineterminator="\n")
    return text.encode()


def _defuse(cell: Any) -> Any:
    """Put a `'` before a cell that a spreadsheet would run; numbers stay, also as text."""
    if not isinstance(cell, str) or not cell.lstrip(" ").startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def read_code_version() -> dict[str, str | None]:
    """`package_version` and `commit` of this process's code; JSON types.

    Workers may have the source without its git history, so the driver passes its own on to them.
    """
    try:
        installed = version("gangru_dist")
    except PackageNotFoundError:
        installed = "not installed"
    return {"package_version": installed, "commit": _find_commit()}


def _find_commit() -> str | None:
    """Commit of the source tree, with `-dirty` if there are changes; None without git."""
    source = Path(__file__).parents[2]
    if not (source / "pyproject.toml").exists():  # installed: a repository above is not ours
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
