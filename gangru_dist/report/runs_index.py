"""All runs of a storage in one page, `runs/index.html`: one table, and any of them side by side."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
from dataclasses import dataclass
from typing import Any

from gangru_dist import presets, settings
from gangru_dist.config import to_dict
from gangru_dist.errors import GangruError
from gangru_dist.evaluation.comparison import paired_ic
from gangru_dist.report import text
from gangru_dist.report.language import Language, language
from gangru_dist.runs.records import find_record
from gangru_dist.runs.run import CLAIM, MODEL_FILE, Claim, run_folder
from gangru_dist.runs.train_summary import SUMMARY, TrainSummary
from gangru_dist.storage import Storage

INDEX = "index.html"
PAIRS = 20
"""Newest runs whose months are tested against each other; each pair is a row."""
_TRIES = 5
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One run of the page."""

    name: str
    when: dt.datetime | None
    """When its last job started: its claim is written then. UTC; None if the store keeps none."""
    commit: str | None
    preset: str
    """The preset nearest to its settings; empty if they are another version's."""
    changed: tuple[str, ...]
    """`key: preset's value -> own` of every setting that differs from `preset`."""
    settings: dict[str, Any]
    """Its configuration."""
    models: int
    """Finished windows, counted once a seed."""
    failed: int
    """Windows and seeds that failed in the last training job."""
    hours: float | None
    """Of the models that the last training job trained."""
    is_scored: bool
    metrics: dict[str, Any] | None
    """metrics.json; None before the first report."""

    @property
    def state(self) -> str:
        """The last step there is: reported, scored, trained or started; or failed."""
        if self.failed:
            return "failed"
        if self.metrics is not None:
            return "reported"
        if self.is_scored:
            return "scored"
        return "trained" if self.models else "started"

    def figure(self, *path: str) -> float | None:
        """A figure of metrics.json; None if it is not there."""
        value: Any = self.metrics
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def monthly(self) -> dict[str, dict[str, Any]]:
        """Month -> its IC and returns; empty before the first report."""
        rows = (self.metrics or {}).get("monthly", [])
        return {row["month"]: row for row in rows}


def list_runs(root: Storage) -> list[Listed]:
    """All runs of a storage that can be read, the last used first."""
    files: dict[str, set[str]] = {}
    for path in root.list_files("runs"):
        run, slash, name = path.removeprefix("runs/").partition("/")
        if slash:
            files.setdefault(run, set()).add(name)
    found = []
    for name, names in sorted(files.items()):
        if CLAIM in names:
            try:
                found.append(_listed(run_folder(root, name), name, names))
            except (GangruError, ValueError) as error:
                _logger.warning("run_unreadable run=%s reason=%s", name, error)
    old = dt.datetime.min.replace(tzinfo=dt.UTC)
    return sorted(found, key=lambda run: run.when or old, reverse=True)


def _listed(folder: Storage, name: str, names: set[str]) -> Listed:
    claim = find_record(Claim, folder, CLAIM) or Claim(config={})
    trained = find_record(TrainSummary, folder, SUMMARY) if SUMMARY in names else None
    preset, changed = _nearest(claim)
    return Listed(
        name=name,
        when=folder.written(CLAIM),
        commit=claim.commit,
        preset=preset,
        changed=changed,
        settings=claim.config,
        models=sum(bool(MODEL_FILE.fullmatch(one)) for one in names),
        failed=trained.failed if trained else 0,
        hours=sum(one.seconds for one in trained.windows) / 3600 if trained else None,
        is_scored=any(one.startswith("factor/") for one in names),
        metrics=folder.read_json("report/metrics.json") if "report/metrics.json" in names else None,
    )


def _nearest(claim: Claim) -> tuple[str, tuple[str, ...]]:
    """The preset that a run's settings differ least from, and how."""
    cfg = claim.settings()
    if cfg is None:
        return "", ()
    own = to_dict(cfg)
    found = {name: settings.difference(to_dict(make()), own) for name, make in presets.ALL.items()}
    name = min(found, key=lambda one: len(found[one]))
    return name, tuple(found[name])


def write_index(root: Storage, words: str = "en") -> str:
    """Write `runs/index.html`, whole or not at all, and return its path or URI.

    Jobs that end at once each write it. What was written is made again until it stays the same, so
    the last of them leaves a page with the results of all: each job's results are there before its
    page.
    """
    folder, last = root.child("runs"), b""
    for _ in range(_TRIES):
        page = render(list_runs(root), language(words)).encode()
        if page == last:
            break
        folder.write_bytes(INDEX, page)
        last = page
    return folder.full(INDEX) if folder.is_local else folder.child(INDEX).uri


def render(runs: list[Listed], words: Language) -> str:
    """The page as HTML."""
    judged = [run for run in runs if run.monthly]
    months = sorted({month for run in judged for month in run.monthly})
    pairs = itertools.combinations(judged[:PAIRS], 2)
    return text.template("runs.html", words).render(
        runs=runs,
        judged=judged,
        months=months,
        pairs=[(one.name, other.name, paired_ic(_ics(one), _ics(other))) for one, other in pairs],
        most=PAIRS,
        curves=_curves(judged, months),
        differing=_differing(runs),
    )


def _ics(run: Listed) -> dict[str, float | None]:
    return {month: row["ic"] for month, row in run.monthly.items()}


@dataclass(frozen=True)
class _Curves:
    low: float
    high: float
    lines: dict[str, str]
    """Run -> points of its cumulative excess, in a box of 1000 by 240."""
    last: dict[str, float]


def _curves(judged: list[Listed], months: list[str]) -> _Curves:
    """Value of the monthly excess, compounded over the months that a run has."""
    values: dict[str, list[tuple[int, float]]] = {}
    for run in judged:
        first = months.index(min(run.monthly))
        value, line = 1.0, [(first, 1.0)]
        for place, month in enumerate(months):
            if month in run.monthly:
                value *= 1 + (run.monthly[month]["excess_return"] or 0.0)
                line.append((place + 1, value))
        values[run.name] = line
    flat = [1.0, *(value for line in values.values() for _, value in line)]
    low, high = min(flat), max(flat)
    room, width = max(high - low, 1e-9), 1000 / max(len(months), 1)
    lines = {
        name: " ".join(f"{x * width:.1f},{240 * (high - y) / room:.1f}" for x, y in line)
        for name, line in values.items()
    }
    return _Curves(low, high, lines, {name: line[-1][1] for name, line in values.items()})


def _differing(runs: list[Listed]) -> list[tuple[str, list[str]]]:
    """Setting -> its value in each run, of those that are not the same in all."""
    flat = [_flat(run.settings) for run in runs]
    keys = sorted({key for one in flat for key in one})
    rows = [(key, [str(one.get(key, text.DASH)) for one in flat]) for key in keys]
    return [row for row in rows if len(set(row[1])) > 1]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found
