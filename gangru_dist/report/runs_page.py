"""All runs of a storage in one page, `runs/index.html`; any of them side by side in another.

Nothing is kept beside the runs' own records: each job makes the whole page again and writes it
in one piece, so jobs that end at the same time lose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gangru_dist.errors import ConfigError
from gangru_dist.evaluation.comparison import side_by_side
from gangru_dist.report import text
from gangru_dist.report.language import Language, language
from gangru_dist.report.runs_list import Listed, find_files, read_runs
from gangru_dist.storage import Storage

INDEX, COMPARED = "index.html", "compare"
MOST = 20
"""Runs with a report that the index holds side by side: the last used ones."""
_TRIES = 5
_WIDTH, _HEIGHT = 1000, 240


def write_index(root: Storage) -> str:
    """Write `runs/index.html`, in the last used run's language, and return its path or URI.

    Jobs that end at once each write it. Who writes looks again afterwards, and starts over if a run
    has changed: each job's results are there before its page, so the last page has them all.
    """
    folder, found = root.child("runs"), find_files(root)
    for _ in range(_TRIES):
        runs = read_runs(root, found)
        judged = [run for run in runs if run.monthly]
        words = language(runs[0].language if runs else "en")
        folder.write_bytes(INDEX, render(runs, judged[:MOST], words).encode())
        before, found = found, find_files(root)
        if found == before:
            break
    return _place(folder, INDEX)


def write_comparison(root: Storage, names: Sequence[str]) -> str:
    """Write `runs/compare.html` and the figures in it, `compare.json`; return the page's place.

    Raises:
        ConfigError: Fewer than two runs are named, or one is not there or has no report.
    """
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        raise ConfigError(f"--compare {' '.join(names)}: name two runs or more.")
    runs = {run.name: run for run in read_runs(root, find_files(root))}
    ready = [name for name, run in runs.items() if run.monthly]
    for name in names:
        if name not in ready:
            what = "has no report yet: run `gangru report`" if name in runs else "is not there"
            raise ConfigError(
                f"--compare: run {name!r} {what}. Runs of {root.uri} with a report: "
                f"{', '.join(sorted(ready)) or 'none'}."
            )
    chosen, folder = [runs[name] for name in names], root.child("runs")
    folder.write_json(f"{COMPARED}.json", _side_by_side(chosen))
    page = render(chosen, chosen, language(chosen[0].language), tried=len(runs))
    folder.write_bytes(f"{COMPARED}.html", page.encode())
    return _place(folder, f"{COMPARED}.html")


def _place(folder: Storage, name: str) -> str:
    return folder.full(name) if folder.is_local else folder.child(name).uri


def _side_by_side(runs: list[Listed]) -> dict[str, Any]:
    return side_by_side({run.name: run.monthly for run in runs})


def render(
    runs: list[Listed], judged: list[Listed], words: Language, *, tried: int | None = None
) -> str:
    """The page as HTML: a table of `runs`, and `judged` side by side.

    Args:
        runs: All in the table.
        judged: Those of them with a report that are compared.
        words: The page's language.
        tried: Runs of the storage; None = `runs` are all.
    """
    figures = _side_by_side(judged)
    return text.template("runs.html", words).render(
        runs=runs,
        judged=judged,
        tried=len(runs) if tried is None else tried,
        key_rows=_key_rows(judged, words),
        left_out=sum(bool(run.monthly) for run in runs) - len(judged),
        same_months=len({tuple(row["month"] for row in run.monthly) for run in judged}) < 2,
        months=figures["months"],
        pairs=figures["pairs"],
        curves=_curves(figures["months"], [run.name for run in judged]),
        differing=_differing(judged if len(judged) > 1 else runs),
    )


def _key_rows(runs: list[Listed], words: Language) -> list[tuple[str, list[str]]]:
    """Label and cell of each run, of the report's key table."""
    rows = [(words.gettext("months"), [text.plain(run.figure("ic.months"), 0) for run in runs])]
    for one in text.KEY_FIGURES:
        rows.append((words.gettext(one.label), [one.show(run.figure(one.path)) for run in runs]))
        if one.path.startswith("excess."):
            cells = [one.show(run.figure(one.path_with_costs)) for run in runs]
            label = words.gettext(", ").join(map(words.gettext, (one.label, "with costs")))
            rows.append((label, cells))
    return rows


@dataclass(frozen=True)
class _Curves:
    low: float
    high: float
    level: float
    """Height of the value 1 in the box."""
    lines: dict[str, str]
    """Run -> points of its cumulative excess, in a box of `_WIDTH` by `_HEIGHT`."""
    last: dict[str, float]
    step: float
    """Width of a month."""


def _curves(months: list[dict[str, Any]], names: list[str]) -> _Curves:
    """Lines from 1 at the start of a run's first month; a month that it lacks is skipped."""
    values = {
        name: [
            (place, month["runs"][name]["excess"])
            for place, month in enumerate(months, 1)
            if name in month["runs"]
        ]
        for name in names
    }
    lines = {name: [(line[0][0] - 1, 1.0), *line] for name, line in values.items()}
    heights = [1.0, *(value for line in lines.values() for _, value in line)]
    low, high = min(heights), max(heights)
    room, step = max(high - low, 1e-9), _WIDTH / max(len(months), 1)

    def point(place: int, value: float) -> str:
        return f"{place * step:.1f},{_HEIGHT * (high - value) / room:.1f}"

    return _Curves(
        low=low,
        high=high,
        level=_HEIGHT * (high - 1) / room,
        lines={name: " ".join(point(*at) for at in line) for name, line in lines.items()},
        last={name: line[-1][1] for name, line in lines.items()},
        step=step,
    )


def _differing(runs: list[Listed]) -> list[tuple[str, list[str]]]:
    """Setting -> its value in each run, of those that are not the same in all."""
    flat = [_flat(run.claim.config) for run in runs]
    keys = sorted({key for one in flat for key in one})
    rows = [(key, [str(one.get(key, text.DASH)) for one in flat]) for key in keys]
    return [row for row in rows if len(set(row[1])) > 1]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found
