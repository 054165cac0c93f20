"""Malformed and ambiguous bars: what each must come to; docs/malformed-bars.md is its table.

python -m tests.bars.corpus         # prints the table
python -m tests.bars.corpus write   # puts it into docs/malformed-bars.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from tests.bars import corpus_days, corpus_files, corpus_tables, corpus_units, corpus_values
from tests.bars.corpus_case import Case

GROUPS: dict[str, Iterable[Case]] = {
    "Values, texts, types": corpus_values.cases(),
    "Units, factors, moves": corpus_units.cases(),
    "Days": corpus_days.cases(),
    "Files": corpus_files.cases(),
    "Side tables, names, codes": corpus_tables.cases(),
}
CASES: dict[str, list[Case]] = {name: list(cases) for name, cases in GROUPS.items()}
DOC = Path(__file__).parents[2] / "docs/malformed-bars.md"
BEGIN, END = "<!-- corpus: python -m tests.bars.corpus write -->", "<!-- end of corpus -->"


def table() -> str:
    """Markdown: one line a case, by group."""
    lines = []
    for name, cases in CASES.items():
        lines += ["", f"## {name} ({len(cases)})", "", "| input | outcome |", "|---|---|"]
        lines += [f"| {_plain(case.wrong)} | {_outcome(case)} |" for case in cases]
    return "\n".join([*lines, ""])


def documented() -> str:
    """What docs/malformed-bars.md says now."""
    return DOC.read_text().split(BEGIN)[1].split(END)[0]


def _outcome(case: Case) -> str:
    if case.outcome == "same panel":
        return "read as meant"
    words = _plain(case.words)
    return {
        "set aside": f"set aside: {words}",
        "noted": f"kept, and noted: {words}",
        "accepted": f"accepted: {words}",
        "refused": f"refused: … {words} …",
    }[case.outcome]


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        head, rest = DOC.read_text().split(BEGIN)
        DOC.write_text(head + BEGIN + table() + END + rest.split(END)[1])
    else:
        sys.stdout.write(table())
