"""All runs of a storage in one page, `runs/index.html`; any of them side by side in another.

Each run is read from its own records, and nothing is kept beside them: each job makes the whole
page again and writes it in one piece, so jobs that end at the same time lose nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from pyarrow.fs import FileInfo

from gangru_dist.base.errors import ConfigError, GangruError
from gangru_dist.base.records import find_record
from gangru_dist.base.storage import Storage
from gangru_dist.config import presets, sources
from gangru_dist.config.identity import to_dict
from gangru_dist.config.settings import RunConfig
from gangru_dist.evaluation.comparison import compare_runs
from gangru_dist.report import text
from gangru_dist.report.tables import METRICS
from gangru_dist.runs.run import CLAIM, FACTOR, MODEL_FILE, Claim, run_folder
from gangru_dist.runs.summaries import TRAIN_SUMMARY, TrainSummary

RESULTS = f"report/{METRICS}"
PAGES = ("report/report.html", "progress.html")
"""Pages of a run that a list of runs links to."""
INDEX, COMPARISON = "index.html", "compare"
MOST = 20
"""Runs with a report that the index holds side by side: the last used ones."""
_TRIES = 5
_WIDTH, _HEIGHT = 1000, 240
_READ = {CLAIM, TRAIN_SUMMARY, RESULTS, *PAGES}
_logger = logging.getLogger(__name__)


@dataclass
class Files:
    """The files of one run in a listing; equal as long as no file has changed."""

    infos: dict[str, FileInfo] = field(default_factory=dict)
    """Of the files that are read, below the run's folder."""
    models: int = 0
    """Finished windows, counted once a seed."""
    is_scored: bool = False


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One run of the list."""

    name: str
    files: Files
    claim: Claim
    cfg: RunConfig | None
    """Its settings; None if they are another version's."""
    preset: str
    """The preset nearest to `cfg`; empty without one."""
    changed: tuple[str, ...]
    """`key: preset's value -> own` of every setting that differs from `preset`."""
    trained: TrainSummary | None
    """The last training job's results."""
    metrics: Mapping[str, Any]
    """metrics.json; empty before the first report."""

    @property
    def when(self) -> dt.datetime | None:
        """Start of its last job, UTC: the time of `config.json`; None if the store has no times."""
        written: dt.datetime | None = self.files.infos[CLAIM].mtime
        return written

    @property
    def failures(self) -> int:
        """Windows and seeds that failed in the last training job."""
        return self.trained.failures if self.trained else 0

    @property
    def hours(self) -> float | None:
        """Hours that the models of the last training job took."""
        if self.trained is None:
            return None
        return sum(one.seconds for one in self.trained.windows) / 3600

    @property
    def state(self) -> str:
        """`failed`, or the last step there is: `reported`, `scored`, `trained` or `started`."""
        if self.failures:
            return "failed"
        if self.metrics:
            return "reported"
        if self.files.is_scored:
            return "scored"
        return "trained" if self.files.models else "started"

    def figure(self, path: str) -> float | None:
        """A figure of metrics.json by its dotted path; None if it is not there."""
        value = text.find_figure(self.metrics, path)
        return value if isinstance(value, int | float) else None

    @property
    def monthly(self) -> list[dict[str, Any]]:
        """Each month's IC and returns; empty before the first report."""
        rows: list[dict[str, Any]] = self.metrics.get("monthly", [])
        return [row for row in rows if {"month", "ic", "excess_return"} <= row.keys()]


def find_files(root: Storage) -> dict[str, Files]:
    """Run -> its files, of every run of a storage: one listing."""
    found: dict[str, Files] = {}
    for path, info in root.list_infos("runs").items():
        run, slash, name = path.removeprefix("runs/").partition("/")
        if not slash:
            continue
        files = found.setdefault(run, Files())
        if name in _READ:
            files.infos[name] = info
        files.models += bool(MODEL_FILE.fullmatch(name))
        files.is_scored |= name.startswith(f"{FACTOR}/")
    return {run: files for run, files in sorted(found.items()) if CLAIM in files.infos}


def read_runs(root: Storage, found: dict[str, Files]) -> list[Listed]:
    """The runs that can be read, the last used first; the log names the others."""
    runs = []
    for name, files in found.items():
        try:
            runs.append(_read_run(run_folder(root, name), name, files))
        except (GangruError, FileNotFoundError, ValueError) as error:
            _logger.warning("run_unreadable run=%s reason=%s", name, error)
    old = dt.datetime.min.replace(tzinfo=dt.UTC)
    return sorted(runs, key=lambda run: run.when or old, reverse=True)


def _read_run(folder: Storage, name: str, files: Files) -> Listed:
    claim = find_record(Claim, folder, CLAIM)
    if claim is None:
        raise FileNotFoundError(f"{CLAIM} was deleted meanwhile")
    metrics = folder.read_json(RESULTS) if RESULTS in files.infos else {}
    cfg = claim.parse_settings()
    preset, changed = _nearest_preset(cfg) if cfg else ("", ())
    return Listed(
        name=name,
        files=files,
        claim=claim,
        cfg=cfg,
        preset=preset,
        changed=changed,
        trained=find_record(TrainSummary, folder, TRAIN_SUMMARY)
        if TRAIN_SUMMARY in files.infos
        else None,
        metrics=metrics if isinstance(metrics, dict) else {},
    )


def _nearest_preset(cfg: RunConfig) -> tuple[str, tuple[str, ...]]:
    """The preset that these settings differ least from, and how."""
    own = to_dict(cfg)
    found = {name: sources.difference(to_dict(make()), own) for name, make in presets.ALL.items()}
    name = min(found, key=lambda one: len(found[one]))
    return name, tuple(found[name])


def write_index(root: Storage) -> str:
    """Write `runs/index.html`, in the last used run's language, and return its path or URI.

    Jobs that end at once each write it. Who writes looks again afterwards, and starts over if a run
    has changed: each job's results are there before its page, so the last page has them all.
    """
    found = find_files(root)
    for _attempt in range(_TRIES):
        runs = read_runs(root, found)
        judged = [run for run in runs if run.monthly]
        page = text.write_page(root.child("runs"), INDEX, render(runs, judged[:MOST]))
        before, found = found, find_files(root)
        if found == before:
            break
    return page


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
    folder.write_json(f"{COMPARISON}.json", _compare_runs(chosen))
    page = render(chosen, chosen, tried=len(runs))
    return text.write_page(folder, f"{COMPARISON}.html", page)


def _compare_runs(runs: list[Listed]) -> dict[str, Any]:
    return compare_runs({run.name: run.monthly for run in runs})


def render(runs: list[Listed], judged: list[Listed], *, tried: int | None = None) -> str:
    """Render the page in the first run's language: a table of `runs`, `judged` side by side.

    Args:
        runs: All in the table.
        judged: Those of them with a report that are compared.
        tried: Runs of the storage; None = `runs` are all.
    """
    figures = _compare_runs(judged)
    newest = runs[0].cfg if runs else None
    with text.use_language(newest.report.language if newest else "en"):
        return text.render_page(
            "runs.html",
            runs=runs,
            judged=judged,
            tried=len(runs) if tried is None else tried,
            left_out=sum(bool(run.monthly) for run in runs) - len(judged),
            same_months=len({tuple(row["month"] for row in run.monthly) for run in judged}) < 2,
            months=figures["months"],
            pairs=figures["pairs"],
            curves=_draw_curves(figures["months"], [run.name for run in judged]),
            differing=_list_differing(judged if len(judged) > 1 else runs),
        )


def _draw_curves(months: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Draw lines from 1 at the start of a run's first month; a month that it lacks is skipped.

    Returns:
        `lines`: run -> points of its cumulative excess, in a box of `_WIDTH` by `_HEIGHT`;
        `level`: height of the value 1 in the box; `step`: width of a month; `low`, `high`: lowest
        and highest value; `last`: run -> its last value.
    """
    lines = {}
    for name in names:
        line = [
            (number, month["runs"][name]["excess"])
            for number, month in enumerate(months, 1)
            if name in month["runs"]
        ]
        lines[name] = [(line[0][0] - 1, 1.0), *line]
    heights = [1.0, *(value for line in lines.values() for _month, value in line)]
    low, high = min(heights), max(heights)
    room, step = max(high - low, 1e-9), _WIDTH / max(len(months), 1)
    return {
        "lines": {
            name: " ".join(f"{x * step:.1f},{_HEIGHT * (high - y) / room:.1f}" for x, y in line)
            for name, line in lines.items()
        },
        "level": _HEIGHT * (high - 1) / room,
        "step": step,
        "low": low,
        "high": high,
        "last": {name: line[-1][1] for name, line in lines.items()},
    }


def _list_differing(runs: list[Listed]) -> list[tuple[str, list[str]]]:
    """Setting -> its value in each run, of those that are not the same in all."""
    flat = [pd.json_normalize([run.claim.config]).to_dict("records")[0] for run in runs]
    keys = sorted({str(key) for one in flat for key in one})
    rows = [(key, [str(one.get(key, text.DASH)) for one in flat]) for key in keys]
    return [row for row in rows if len(set(row[1])) > 1]
