"""All runs of a storage on one page, `runs/index.html`; some of them side by side on another.

Each run is read from its own records, and nothing else is stored: each job makes the whole page
again and writes it in one piece, so jobs that end at the same time lose nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from gangru_dist.base.errors import ConfigError, GangruError
from gangru_dist.base.records import find_record
from gangru_dist.base.storage import READERS, Storage
from gangru_dist.config import presets, sources
from gangru_dist.config.identity import to_dict
from gangru_dist.config.settings import RunConfig
from gangru_dist.evaluation.comparison import compare_runs
from gangru_dist.report import text
from gangru_dist.report.tables import METRICS
from gangru_dist.runs.run import CLAIM, FACTOR, MODEL_FILE, Claim, run_folder
from gangru_dist.runs.search import SEARCH, find_best_trial, read_search
from gangru_dist.runs.summaries import TRAIN_SUMMARY, TrainSummary

RESULTS = f"report/{METRICS}"
PAGES = ("report/report.html", "progress.html", "tune/tuning.html")
"""Pages of a run that a list of runs links to."""
INDEX, COMPARISON = "index.html", "compare"
MOST = 20
"""Runs with a report that the index holds side by side: the last used ones."""
_TRIES = 5
_LEFT, _TOP, _WIDTH, _HEIGHT = 48, 8, 944, 240
"""Of the curves' plot, in the units of their picture."""
_READ = {CLAIM, TRAIN_SUMMARY, RESULTS, f"tune/{SEARCH}", *PAGES}
_logger = logging.getLogger(__name__)


@dataclass
class Files:
    """The files of one run in a listing; equal as long as no file has changed."""

    infos: dict[str, tuple[int, dt.datetime | None]] = field(default_factory=dict)
    """Size and last write of the files that are read, below the run's folder."""
    models: int = 0
    """Finished windows, counted once a seed."""
    is_scored: bool = False


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run of the list."""

    name: str
    files: Files
    claim: Claim
    cfg: RunConfig | None
    """Its settings; None if they are another version's, or name code that is not here."""
    preset: str
    """The preset nearest to its settings; empty if these are another version's."""
    changed: tuple[str, ...]
    """`key: preset's value -> own` of every setting that differs from `preset`."""
    trained: TrainSummary | None
    """The last training job's results."""
    metrics: Mapping[str, Any]
    """metrics.json; empty before the first report."""

    @property
    def when(self) -> dt.datetime | None:
        """Start of its last job, UTC: the time of `config.json`; None if the store has no times."""
        return self.files.infos[CLAIM][1]

    @property
    def networks(self) -> str:
        """What it trains: variant and predictor."""
        names = (self.claim.config.get(key) for key in ("variant", "predictor"))
        return ", ".join(str(name) for name in names if name)

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
        return [row for row in rows if {"month", "ic"} <= row.keys()]


def find_files(root: Storage) -> dict[str, Files]:
    """Run -> its files, of every run of a storage: one listing."""
    found: dict[str, Files] = {}
    for path, info in root.list_infos("runs").items():
        run, slash, name = path.removeprefix("runs/").partition("/")
        if not slash:
            continue
        files = found.setdefault(run, Files())
        if name in _READ:
            files.infos[name] = (info.size, info.mtime)  # pyarrow's own are never equal
        files.models += bool(MODEL_FILE.fullmatch(name))
        files.is_scored |= name.startswith(f"{FACTOR}/")
    kept = {CLAIM, f"tune/{SEARCH}"}
    return {run: files for run, files in sorted(found.items()) if kept & files.infos.keys()}


def read_runs(root: Storage, found: dict[str, Files]) -> list[RunSummary]:
    """The runs that can be read, the last used first; the log names the others."""

    def read(name: str) -> RunSummary | None:
        try:
            return _read_run(run_folder(root, name), name, found[name])
        except (GangruError, FileNotFoundError, ValueError) as error:
            _logger.warning("run_unreadable run=%s reason=%s", name, error)
            return None

    names = [name for name, files in found.items() if CLAIM in files.infos]
    with ThreadPoolExecutor(READERS) as pool:
        runs = [run for run in pool.map(read, names) if run is not None]
    old = dt.datetime.min.replace(tzinfo=dt.UTC)
    return sorted(runs, key=lambda run: run.when or old, reverse=True)


def read_searches(root: Storage, found: dict[str, Files]) -> list[dict[str, Any]]:
    """Each search: run, trials, complete, objective (the best), windows, and whether it has a page.

    The log names those that cannot be read.
    """
    rows = []
    for name, files in found.items():
        if f"tune/{SEARCH}" not in files.infos:
            continue
        try:
            search = read_search(run_folder(root, name).child("tune"))
        except (GangruError, FileNotFoundError, ValueError) as error:
            _logger.warning("search_unreadable run=%s reason=%s", name, error)
            continue
        if search is not None:
            best = find_best_trial(search.trials)
            rows.append(
                {
                    "run": name,
                    "trials": len(search.trials),
                    "complete": sum(trial.objective is not None for trial in search.trials),
                    "objective": best.objective if best else None,
                    "windows": search.record.windows,
                    "has_page": "tune/tuning.html" in files.infos,
                }
            )
    return rows


def _read_run(folder: Storage, name: str, files: Files) -> RunSummary:
    claim = find_record(Claim, folder, CLAIM)
    if claim is None:
        raise FileNotFoundError(f"{CLAIM} was deleted meanwhile")
    metrics = find_record(dict[str, Any], folder, RESULTS) if RESULTS in files.infos else None
    cfg = claim.parse_settings()
    preset, changed = _nearest_preset(to_dict(cfg) if cfg else claim.config)
    return RunSummary(
        name=name,
        files=files,
        claim=claim,
        cfg=cfg,
        preset=preset,
        changed=changed,
        trained=find_record(TrainSummary, folder, TRAIN_SUMMARY)
        if TRAIN_SUMMARY in files.infos
        else None,
        metrics=metrics or {},
    )


def _nearest_preset(own: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The preset that these settings differ least from, and how; none if they are other ones."""
    known = {name: to_dict(make()) for name, make in presets.ALL.items()}
    if any(own.keys() != preset.keys() for preset in known.values()):
        return "", ()
    found = {name: sources.difference(preset, own) for name, preset in known.items()}
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
        html = render(runs, judged[:MOST], searches=read_searches(root, found))
        page = text.write_page(root.child("runs"), INDEX, html)
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


def _compare_runs(runs: list[RunSummary]) -> dict[str, Any]:
    return compare_runs({run.name: run.monthly for run in runs})


def render(
    runs: list[RunSummary],
    judged: list[RunSummary],
    *,
    tried: int | None = None,
    searches: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Render the page in the first run's language: a table of `runs`, `judged` side by side.

    Args:
        runs: All in the table.
        judged: Those of them with a report that are compared.
        tried: Runs of the storage; None = `runs` are all.
        searches: Of `read_searches`.
    """
    figures = _compare_runs(judged)
    newest = runs[0].cfg if runs else None
    with text.use_language(newest.report.language if newest else "en"):
        return text.render_page(
            "runs.html",
            runs=runs,
            judged=judged,
            searches=searches,
            tried=len(runs) if tried is None else tried,
            left_out=sum(bool(run.monthly) for run in runs) - len(judged),
            same_months=len({tuple(row["month"] for row in run.monthly) for run in judged}) < 2,
            months=figures["months"],
            pairs=figures["pairs"],
            curves=_draw_curves(figures["months"], [run.name for run in judged]),
            differing=_list_differing(judged if len(judged) > 1 else runs),
        )


def _draw_curves(months: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Draw lines from 1 at the start of a run's first month; a month without a value is skipped.

    Returns:
        `lines`: run -> points of its cumulative excess; `rows`, `columns`: position and text of
        the ticks; `step`: width of a month; `left`, `top`, `width`, `height` of the plot; `last`:
        run -> its value after its last month, None if unknown.
    """
    lines, last = {}, {}
    for name in names:
        own = [
            (number, month["runs"][name]["excess"])
            for number, month in enumerate(months, 1)
            if name in month["runs"]
        ]
        known = [(number, value) for number, value in own if value is not None]
        lines[name] = [(own[0][0] - 1, 1.0), *known]
        last[name] = own[-1][1]
    heights = [1.0, *(value for line in lines.values() for _month, value in line)]
    low, high = min(heights), max(max(heights), min(heights) + 1e-3)
    step = _WIDTH / max(len(months), 1)

    def place(value: float) -> float:
        return float(_TOP + _HEIGHT * (high - value) / (high - low))

    every = max(1, -(-len(months) // 12))
    return {
        "left": _LEFT,
        "top": _TOP,
        "width": _WIDTH,
        "height": _HEIGHT,
        "step": step,
        "lines": {
            name: " ".join(f"{_LEFT + x * step:.1f},{place(y):.1f}" for x, y in line)
            for name, line in lines.items()
        },
        "rows": [(place(value), text.format_number(value)) for value in _list_ticks(low, high)],
        "columns": [
            (_LEFT + (n + 1) * step, months[n]["month"]) for n in range(0, len(months), every)
        ],
        "last": last,
    }


def _list_ticks(low: float, high: float) -> list[float]:
    """Round values from `low` to `high`, six at most."""
    room = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(room))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= room)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def _list_differing(runs: list[RunSummary]) -> list[tuple[str, list[str]]]:
    """Setting -> its value in each run, of those that are not the same in all."""
    flat = [pd.json_normalize([run.claim.config]).to_dict("records")[0] for run in runs]
    keys = sorted({str(key) for one in flat for key in one})
    rows = [(key, [str(one.get(key, text.DASH)) for one in flat]) for key in keys]
    return [row for row in rows if len(set(row[1])) > 1]
