"""List every setting as TOML: value, type, what it affects, meaning and unit.

    gangru settings              # all sections
    gangru settings training     # one section
    gangru settings --preset report tune > mine.toml

The output can be edited and passed back with `--config mine.toml`; a single line with `--set`.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from gangru_dist.commands import Parser, tell
from gangru_dist.config import presets
from gangru_dist.config.identity import SETTINGS, to_dict, value_at
from gangru_dist.config.schema import Affects
from gangru_dist.config.sources import format_toml


def list_rows(preset: str = "default") -> Iterator[dict[str, Any]]:
    """List every setting in the order of its declaration: key, kind, value, affects, meaning."""
    values = to_dict(presets.ALL[preset]())
    for key, setting in SETTINGS.items():
        marks = (mark for mark in setting.affects if mark != Affects.IF_CHANGED)
        yield {
            "key": key,
            "kind": setting.kind,
            "value": value_at(values, key),
            "affects": [str(mark.name).lower() for mark in marks],
            "meaning": setting.meaning,
        }


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = Parser(prog="gangru settings", description=__doc__)
    sections = sorted({key.partition(".")[0] for key in SETTINGS})
    parser.add_argument("section", nargs="?", choices=sections, metavar="SECTION")
    parser.add_argument("--preset", default="default", choices=list(presets.ALL))
    parser.add_argument("--json", action="store_true", help="one JSON object per setting")
    args = parser.parse_args(argv)
    for row in list_rows(args.preset):
        if args.section in (None, row["key"].partition(".")[0]):
            tell((json.dumps(row) if args.json else _format_row(row)) + "\n")
    return 0


def _format_row(row: dict[str, Any]) -> str:
    """Write a setting as TOML with comments; of a search space, a line a range."""
    key, value = row["key"], row["value"]
    lines = {key: value} if key != "tune.space" else {f"{key}.{k}": v for k, v in value.items()}
    text = "\n".join(f"{name} = {format_toml(_drop_unset(part))}" for name, part in lines.items())
    affects = f"; affects {', '.join(row['affects'])}" if row["affects"] else ""
    meaning = textwrap.fill(row["meaning"], 96, initial_indent="#   ", subsequent_indent="#   ")
    return f"# {row['kind']}{affects}\n{meaning}\n{text}"


def _drop_unset(value: Any) -> Any:
    """Return a range of a search without the keys that say nothing."""
    if not isinstance(value, dict):
        return value
    return {k: v for k, v in value.items() if v is not None and v is not False and v != []}
