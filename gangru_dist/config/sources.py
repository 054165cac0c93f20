"""Make one checked RunConfig of a preset, TOML files and `--set`.

Later sources win: preset, then each `--config FILE.toml`, then each `--set key=value`. Every
source is TOML, nested as the settings are. Error messages give the key, its source and the
nearest known keys.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from gangru_dist.base.errors import ConfigError, shorten
from gangru_dist.base.filesystems import open_filesystem
from gangru_dist.base.registry import find_close_names
from gangru_dist.config import presets
from gangru_dist.config.identity import SETTINGS, flatten_space, from_dict, to_dict
from gangru_dist.config.schema import Setting
from gangru_dist.config.settings import RunConfig

REMOVED = {"training.tensorboard": "Give callbacks=['tensorboard']."}
"""Dotted key of a setting that is gone -> what replaces it."""
_SECTIONS = {key.rpartition(".")[0] for key in SETTINGS} - {""}
_DEEPEST = 16
"""Levels of tables and lists that are read; no setting has more than six."""

Source = tuple[str, dict[str, Any]]
"""Where settings were given, for messages, and the nested settings themselves."""


def load(
    preset: str, file: str | Sequence[str] | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """Resolve a run's configuration.

    Args:
        preset: A name from `config.presets.ALL`.
        file: Path or URI of a TOML file, or several, of which later ones win; its tables are the
            sections of RunConfig.
        overrides: `key=value`, a line of TOML. A bare word is a string; `none` unsets an optional
            setting.

    Raises:
        ConfigError: Unknown preset or key, wrong type, out of range, impossible combination.
    """
    if preset not in presets.ALL:
        raise ConfigError(f"no preset {preset!r}; choose one of {', '.join(presets.ALL)}.")
    cfg, given = presets.ALL[preset](), map(_parse_flag, overrides)
    files = [file] if isinstance(file, str) else file or []
    tables = [(f"file {name}", _read_file(name)) for name in files]
    for _, table in tables:
        if isinstance(tune := table.get("tune"), dict) and "space" in tune:  # replaces the preset's
            cfg = replace(cfg, tune=replace(cfg.tune, space={}))
    return _apply(cfg, [*tables, *given], f"preset {preset}")


def override(cfg: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return a run's own configuration with `key=value` on top; errors as in `load`."""
    return _apply(cfg, map(_parse_flag, overrides), "the run's config.json")


def with_values(cfg: RunConfig, given: Mapping[str, Any], origin: str) -> RunConfig:
    """Return the configuration with some settings replaced.

    Args:
        cfg: A checked configuration.
        given: Dotted key -> value, plain JSON types.
        origin: Source of the values, for messages.

    Raises:
        ConfigError: As `load`.
    """
    return _apply(cfg, ((origin, _nest(key, given[key])) for key in given), "configuration")


def require_setting(key: str, origin: str) -> Setting:
    """Return a declared setting; ConfigError with the nearest keys if it does not exist."""
    if key not in SETTINGS:
        raise ConfigError(_describe_unknown(key, origin))
    return SETTINGS[key]


def difference(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List one line `section.key: old -> new` per differing setting, sorted by key."""
    lines: list[str] = []
    for key in sorted(set(a) | set(b)):
        name, old, new = f"{prefix}{key}", a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += difference(old, new, f"{name}.")
        elif old != new:
            lines.append(f"{name}: {old!r} -> {new!r}")
    return lines


def find_nearest(key: str) -> list[str]:
    """Find up to three known dotted keys similar to `key`, best first."""
    last = key.rpartition(".")[2]
    same_name = [name for name in SETTINGS if name.rpartition(".")[2] == last]
    by_name = {name.rpartition(".")[2]: name for name in reversed(SETTINGS)}
    close = find_close_names(key, SETTINGS, cutoff=0.6)
    close_name = [by_name[name] for name in find_close_names(last, by_name, cutoff=0.6)]
    ordered = [*same_name, *close, *close_name] if "." not in key else [*close, *same_name]
    return list(dict.fromkeys([*ordered, *close_name]))[:3]


def format_toml(value: Any) -> str:
    """Write a JSON value as TOML; None as the word "none", as `load` reads it."""
    if value is None:
        return '"none"'
    if isinstance(value, dict):
        items = (f"{_format_key(key)} = {format_toml(item)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(format_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _format_key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key, ensure_ascii=False)


def _parse_flag(text: str) -> Source:
    """Read `--set`: a line of TOML, where a key needs no quotes and a value may be a bare word."""
    key, equals, value = text.partition("=")
    origin = f"--set {_shorten(text)}"
    is_quoted = '"' in key or "'" in key
    name = key if is_quoted else ".".join(_format_key(part.strip()) for part in key.split("."))
    for line in (f"{name}={value}", f"{name}={json.dumps(value.strip(), ensure_ascii=False)}"):
        try:
            if equals and key.strip():
                return origin, tomllib.loads(line)
        except tomllib.TOMLDecodeError:
            continue
        except (RecursionError, ValueError) as error:
            raise ConfigError(
                f"--set has a value of {len(value)} characters: {shorten(error)}."
            ) from None
    raise ConfigError(
        f"--set {_shorten(text)!r} is not key=value. Write for example --set training.epochs=5."
    )


def _read_file(file: str) -> dict[str, Any]:
    filesystem, path = open_filesystem(file)
    try:
        with filesystem.open_input_file(path) as stream:
            text = bytes(stream.readall()).decode("utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read --config {file}: {error}") from error
    except (RecursionError, ValueError) as error:  # TOMLDecodeError is one, and numbers too long
        raise ConfigError(f"--config {file} is not TOML: {shorten(error)}.") from error


def _nest(key: str, value: Any) -> dict[str, Any]:
    """Nest a value by its dotted key."""
    name, dot, rest = key.partition(".")
    return {name: _nest(rest, value) if dot else value}


def _apply(cfg: RunConfig, given: Iterable[Source], base: str) -> RunConfig:
    """Put settings on top of a configuration; `base` is where the others are from."""
    values, origins = to_dict(cfg), dict[str, str]()
    for origin, table in given:
        _merge(values, _to_json(table, origin), origin, origins)
    try:
        return from_dict(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins, base)) from error


def _to_json(value: Any, origin: str, depth: int = 0) -> Any:
    """Convert values of TOML, Python and numpy to JSON types; refuse what no setting can be.

    Raises:
        ConfigError: Tables and lists are nested more than `_DEEPEST` deep, or a whole number has
            more than 64 bits.
    """
    if depth > _DEEPEST:
        raise ConfigError(
            f"{origin} has tables or lists nested more than {_DEEPEST} deep; no setting is so "
            "deep. `gangru settings` shows them all."
        )
    if hasattr(value, "tolist"):  # numpy's
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        return {name: _to_json(item, origin, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item, origin, depth + 1) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError(f"{origin} has a number of more than 64 bits.")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if not isinstance(value, str | int | float | None):
        raise ConfigError(f"{origin} has a {type(value).__name__}, which no setting can be.")
    return value


def _merge(
    values: dict[str, Any],
    given: Mapping[str, Any],
    origin: str,
    origins: dict[str, str],
    prefix: str = "",
) -> None:
    """Set nested settings in `values`, and their origins; a range of a search is set whole."""
    for name, value in given.items():
        key, old = f"{prefix}{name}", values.get(name)
        is_range = prefix == "tune.space."
        if key == "tune.space" and isinstance(value, dict):
            value = flatten_space(value)
        is_level = not is_range and (value or not prefix)  # {} clears a setting, no section
        if is_level and isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value, origin, origins, f"{key}.")
            continue
        is_optional = is_range or (key in SETTINGS and SETTINGS[key].is_optional)
        values[name] = None if value == "none" and is_optional else value
        origins[key] = origin


def _explain(error: ValidationError, origins: Mapping[str, str], base: str) -> str:
    """One line per wrong value: key, value, source, what is allowed."""
    lines: dict[str, str] = {}
    errors = error.errors()
    for item in errors:
        size = len(item["loc"])
        if any(len(e["loc"]) > size and e["loc"][:size] == item["loc"] for e in errors):
            continue  # a list is wrong because one of its values is
        path = [str(part) for part in item["loc"]]
        key = ".".join(path)
        longest = (".".join(path[:n]) for n in range(len(path), 0, -1))
        origin = next((origins[name] for name in longest if name in origins), base)
        is_unknown = item["type"] == "unexpected_keyword_argument" and path[:2] != ["tune", "space"]
        if is_unknown or key in _SECTIONS:
            lines[key] = _describe_unknown(_complete(key, item["input"]), origin)
            continue
        allowed = item["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
        allowed = allowed.replace("array", "list [a, b]").replace("an object", "a table")
        lines.setdefault(key, f"{key}={_shorten(repr(item['input']))} ({origin}): {allowed}.")
    return " ".join(lines.values())


def _complete(key: str, value: Any) -> str:
    """The dotted key as it was typed: down to the first value that is no table."""
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        key = f"{key}.{name}"
    return key


def _describe_unknown(key: str, origin: str) -> str:
    where = "" if origin == f"--set {key}" else f" ({origin})"
    if key in REMOVED:
        return f"{key!r}{where} is no longer a setting. {REMOVED[key]}"
    if key in _SECTIONS:
        inside = [name for name in SETTINGS if name.startswith(f"{key}.")]
        return f"{key!r}{where} is a section, not a setting. In it: {', '.join(inside)}."
    near = find_nearest(key)
    hint = f"The nearest are: {', '.join(near)}." if near else f"Sections: {sorted(_SECTIONS)}."
    return f"unknown setting {_shorten(key)!r}{where}. {hint}"


def _shorten(text: str) -> str:
    """Cut what was typed to what a message can take."""
    return text if len(text) <= 200 else f"{text[:200]} …"
