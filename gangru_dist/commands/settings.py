"""List every setting, from the code: default, what it decides, meaning and unit.

    gangru settings              # all sections
    gangru settings training     # one
    gangru settings --preset report training

A setting is changed by `--set section.name=value` or in a `--config FILE.toml`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Sequence
from typing import Any

from gangru_dist.config import presets, sources
from gangru_dist.config.identity import DECIDES, TYPES, to_dict
from gangru_dist.config.settings import Decides, RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting, as its declaration says."""

    key: str
    kind: str
    """Its type, and the bounds."""
    value: Any
    """Of the preset that was asked for; JSON types."""
    decides: tuple[str, ...]
    """panel, model, run, search; none: no result."""
    meaning: str


def reference(preset: str = "default") -> list[Setting]:
    """Every setting there is, in the order of its declaration."""
    values, meanings = to_dict(presets.ALL[preset]()), _meanings(RunConfig)
    return [
        Setting(
            key=key,
            kind=_kind(hint, meanings[key][0]),
            value=sources.value_at(values, key),
            decides=tuple(
                str(part.name).lower() for part in DECIDES[key] if part != Decides.IF_CHANGED
            ),
            meaning=meanings[key][1],
        )
        for key, hint in TYPES.items()
    ]


def run(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="gangru settings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sections = sorted({key.partition(".")[0] for key in TYPES})
    parser.add_argument("section", nargs="?", choices=sections, metavar="SECTION")
    parser.add_argument("--preset", default="default", choices=list(presets.ALL))
    parser.add_argument("--json", action="store_true", help="one JSON object per setting")
    args = parser.parse_args(argv)
    for one in reference(args.preset):
        if args.section in (None, one.key.partition(".")[0]):
            plain = dataclasses.asdict(one)
            sys.stdout.write((json.dumps(plain) if args.json else _text(one)) + "\n")
    return 0


def _text(one: Setting) -> str:
    decides = f"  decides: {', '.join(one.decides)}" if one.decides else ""
    head = f"{one.key} = {json.dumps(one.value)}  ({one.kind}){decides}"
    return f"{head}\n{textwrap.indent(textwrap.fill(one.meaning, 92), '    ')}"


def _meanings(cls: type[Any], prefix: str = "") -> dict[str, tuple[str, str]]:
    """Dotted key -> the bounds and the text below each declaration."""
    found: dict[str, tuple[str, str]] = {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    hints = typing.get_type_hints(cls)
    body = typing.cast("ast.ClassDef", tree).body
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name = node.target.id
        if dataclasses.is_dataclass(hints[name]):
            found |= _meanings(hints[name], f"{prefix}{name}.")
            continue
        text = after.value if isinstance(after, ast.Expr) else None
        meaning = text.value if isinstance(text, ast.Constant) else ""
        found[f"{prefix}{name}"] = _bounds(node), " ".join(str(meaning).split())
    return found


def _bounds(node: ast.AnnAssign) -> str:
    """`>= 1, < 2` out of the declaration's `Field(ge=1, lt=2)`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    return ", ".join(
        f"{signs[word.arg]} {ast.unparse(word.value)}"
        for call in calls
        for word in call.keywords
        if word.arg in signs
    )


def _kind(hint: Any, bounds: str) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(repr, typing.get_args(hint)))
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    text = re.sub(r"Annotated\[(\w+), .*?\)\]|(\w+\.)+", r"\1", text)
    return f"{text} {bounds}".strip()
