"""From preset, TOML file and `--set` to one checked RunConfig.

Later sources win: preset, then `--config FILE.toml`, then each `--set key=value` in turn.
Error messages give the key as typed, its source and the nearest known keys.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

from pydantic import ValidationError

from gangru_dist.base.errors import ConfigError, shorten
from gangru_dist.base.filesystems import open_filesystem
from gangru_dist.base.registry import find_close_names
from gangru_dist.config import presets
from gangru_dist.config.identity import TYPES, from_dict, to_dict
from gangru_dist.config.settings import RunConfig


def load(preset: str, file: str | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Resolve a run's configuration.

    Args:
        preset: A name from `config.presets.ALL`.
        file: Path or URI of a TOML file; its tables are the sections of RunConfig.
        overrides: `key=value`, the value as in TOML. A bare word is a string; `none` unsets an
            optional setting.

    Raises:
        ConfigError: Unknown preset or key, wrong type, out of range, impossible combination.
    """
    if preset not in presets.ALL:
        raise ConfigError(f"no preset {preset!r}; choose one of {', '.join(presets.ALL)}.")
    return _with_sources(presets.ALL[preset](), f"preset {preset}", file, overrides)


def with_flags(cfg: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """A run's own configuration with `key=value` on top; errors as in `load`."""
    return _with_sources(cfg, "the run's config.json", None, overrides)


def _with_sources(
    cfg: RunConfig, base: str, file: str | None, overrides: Sequence[str]
) -> RunConfig:
    values = to_dict(cfg)
    origins: dict[str, str] = {}
    for origin, given in _sources(file, overrides):
        for key, value in _leaves_given(given, origin):
            _put(values, key, value)
            origins[key] = origin
    return _checked(values, origins, base)


def with_values(cfg: RunConfig, given: Mapping[str, Any], origin: str) -> RunConfig:
    """The same configuration with some settings replaced.

    Args:
        cfg: A checked configuration.
        given: Dotted key -> value, plain JSON types.
        origin: Source of the values, for messages.

    Raises:
        ConfigError: As `load`.
    """
    values = to_dict(cfg)
    for key, value in _leaves_given(iter(given.items()), origin):
        _put(values, key, value)
    return _checked(values, dict.fromkeys(given, origin), "configuration")


def value_at(values: Mapping[str, Any], key: str) -> Any:
    """Value of a dotted key in a configuration's dictionary; KeyError if there is none."""
    found: Any = values
    for part in _parts(key):
        found = found[part]
    return found


def _parts(key: str) -> list[str]:
    """Parts of a dotted key; below a table-valued setting the rest is one entry's name."""
    table = next((name for name in _TABLES if key.startswith(f"{name}.")), None)
    return [*table.split("."), key[len(table) + 1 :]] if table else key.split(".")


def declared(key: str, origin: str) -> Any:
    """Declared type of a setting; ConfigError with the nearest keys if it does not exist."""
    if key not in TYPES:
        raise ConfigError(_unknown(key, origin))
    return TYPES[key]


def _checked(values: dict[str, Any], origins: Mapping[str, str], base: str) -> RunConfig:
    try:
        return from_dict(values)
    except ValidationError as error:
        raise ConfigError(_worded(error, origins, base)) from error


def difference(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line `section.key: old -> new` per differing setting, sorted by key."""
    lines: list[str] = []
    for key in sorted(set(a) | set(b)):
        name, old, new = f"{prefix}{key}", a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += difference(old, new, f"{name}.")
        elif old != new:
            lines.append(f"{name}: {old!r} -> {new!r}")
    return lines


_SECTIONS = {key.rpartition(".")[0] for key in TYPES} - {""}
_TABLES = {key for key, hint in TYPES.items() if typing.get_origin(hint) is dict}
_DEEPEST = 16
"""Levels of tables and lists that are read; no setting has more than five."""
_ENTRIES = {key: typing.get_args(TYPES[key])[1] for key in _TABLES}
"""Table-valued setting -> declared type of its entries."""
_RECORDS = {
    key: {field.name for field in dataclasses.fields(part)}
    for key, hint in _ENTRIES.items()
    for part in (hint, *typing.get_args(hint))
    if dataclasses.is_dataclass(part)
}
"""Table-valued setting whose entries are tables (`{low = 1, high = 3}`) -> keys of an entry."""


def _sources(
    file: str | None, overrides: Sequence[str]
) -> Iterator[tuple[str, Iterator[tuple[str, Any]]]]:
    """(origin, flattened keys and values) of each source, in order."""
    if file is not None:
        given = _read_toml(file)
        _check_size(given, f"--config {file}")
        yield f"file {file}", _replaced_tables(given)
        yield f"file {file}", _flatten(given)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"--set {text!r} is not key=value. Write for example --set training.epochs=5."
            )
        given = {key.strip(): _parse(value.strip())}
        _check_size(given, f"--set {_shown(key.strip())}")
        yield f"--set {_shown(text)}", _flatten(given)


def _shown(text: str) -> str:
    """As much of what was typed as a message can take."""
    return text if len(text) <= 200 else f"{text[:200]} …"


def _check_size(given: Mapping[str, Any], origin: str) -> None:
    """Refuse what no setting can be, before anything goes through it level by level.

    Raises:
        ConfigError: Tables and lists are nested more than `_DEEPEST` deep, or a whole
            number has more than 64 bits.
    """
    level: list[Any] = [given]
    for _ in range(_DEEPEST):
        inner = (value.values() if isinstance(value, Mapping) else value for value in level)
        level = [part for parts in inner for part in parts]
        for number in (part for part in level if isinstance(part, int)):
            if not -(2**63) <= number < 2**63:
                raise ConfigError(f"{origin} has a number of more than 64 bits.")
        level = [part for part in level if isinstance(part, dict | list)]
    if level:
        raise ConfigError(
            f"{origin} has tables or lists nested more than {_DEEPEST} deep; no setting is so "
            "deep. `gangru settings` shows them all."
        )


def _replaced_tables(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Clear a table of records that the file gives, so that it replaces the preset's entries."""
    for key in sorted(_RECORDS):
        section, _, name = key.rpartition(".")
        if isinstance(given.get(section), dict) and name in given[section]:
            yield key, {}


def _read_toml(file: str) -> dict[str, Any]:
    filesystem, path = open_filesystem(file)
    try:
        with filesystem.open_input_file(path) as stream:
            text = bytes(stream.readall()).decode("utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read --config {file}: {error}") from error
    except (RecursionError, ValueError) as error:  # TOMLDecodeError is one, and numbers too long
        raise ConfigError(f"--config {file} is not TOML: {shorten(error)}.") from error


def _parse(text: str) -> Any:
    """A TOML value; text that is not one is taken as a string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except (RecursionError, ValueError) as error:
        raise ConfigError(
            f"--set has a value of {len(text)} characters: {shorten(error)}."
        ) from None
    return parsed["value"] if len(parsed) == 1 else text


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested tables, table-valued settings included."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        is_table = isinstance(value, dict) and not _is_record(key, value)
        if is_table and (value or key in _SECTIONS):
            yield from _flatten(value, f"{key}.")
        else:
            yield key, value


def _is_record(key: str, value: Mapping[str, Any]) -> bool:
    """Whether a table is one entry of a table of records, not a level of dotted keys."""
    table = next((table for table in _RECORDS if key.startswith(f"{table}.")), None)
    return table is not None and not _RECORDS[table].isdisjoint(value)


def _leaves_given(given: Iterator[tuple[str, Any]], origin: str) -> Iterator[tuple[str, Any]]:
    """The same pairs with keys checked and values as plain JSON types."""
    for key, value in given:
        table = next((name for name in _TABLES if key.startswith(f"{name}.")), None)
        if key not in TYPES and table is None:
            raise ConfigError(_unknown(key, origin))
        hint = _ENTRIES[table] if table else TYPES[key]
        if value == "none" and NoneType in typing.get_args(hint):
            yield key, None
        else:
            yield key, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key."""
    *sections, name = _parts(key)
    for section in sections:
        values = values[section]
    values[name] = value


def _unknown(key: str, origin: str) -> str:
    where = "" if origin == f"--set {key}" else f" ({origin})"
    if key in _SECTIONS:
        inside = [name for name in TYPES if name.startswith(f"{key}.")]
        return f"{key!r}{where} is a section, not a setting. In it: {', '.join(inside)}."
    near = nearest(key)
    hint = f"The nearest are: {', '.join(near)}." if near else f"Sections: {sorted(_SECTIONS)}."
    return f"unknown setting {_shown(key)!r}{where}. {hint}"


def nearest(key: str) -> list[str]:
    """Up to three known dotted keys similar to `key`, best first."""
    last = key.rpartition(".")[2]
    same_name = [name for name in TYPES if name.rpartition(".")[2] == last]
    by_name = {name.rpartition(".")[2]: name for name in reversed(TYPES)}
    close = find_close_names(key, TYPES, cutoff=0.6)
    close_name = [by_name[name] for name in find_close_names(last, by_name, cutoff=0.6)]
    ordered = [*same_name, *close, *close_name] if "." not in key else [*close, *same_name]
    return list(dict.fromkeys([*ordered, *close_name]))[:3]


def _worded(error: ValidationError, origins: Mapping[str, str], base: str) -> str:
    """One line per wrong value: key, value, source, what is allowed."""
    lines: dict[str, str] = {}
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        longest = (".".join(path[:n]) for n in range(len(path), 0, -1))
        origin = next((origins[name] for name in longest if name in origins), base)
        allowed = item["msg"].replace("Input should be", "must be").replace("array", "list [a, b]")
        allowed = allowed.removeprefix("Value error, ")
        lines.setdefault(
            ".".join(path), f"{'.'.join(path)}={item['input']!r} ({origin}): {allowed}."
        )
    return "; ".join(lines.values())
