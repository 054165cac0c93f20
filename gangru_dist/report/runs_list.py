"""All runs of a storage, each from its own records: what the page of all runs is made of."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gangru_dist import presets, settings
from gangru_dist.config import RunConfig, to_dict
from gangru_dist.errors import GangruError
from gangru_dist.report.tables import METRICS
from gangru_dist.runs.records import find_record
from gangru_dist.runs.run import CLAIM, FACTOR, MODEL_FILE, Claim, run_folder
from gangru_dist.runs.train_summary import SUMMARY, TrainSummary
from gangru_dist.storage import Stamp, Storage

RESULTS = f"report/{METRICS}"
PAGES = ("report/report.html", "progress.html")
"""Pages of a run that a list of runs links to."""
_READ = {CLAIM, SUMMARY, RESULTS, *PAGES}
_logger = logging.getLogger(__name__)


@dataclass
class Files:
    """What a listing of a storage tells of one run; equal as long as the run says the same."""

    stamps: dict[str, Stamp] = field(default_factory=dict)
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
        """When its last job began, UTC: its claim is written then. None if the store is silent."""
        return self.files.stamps[CLAIM].written

    @property
    def language(self) -> str:
        """Of its report."""
        return self.cfg.report.language if self.cfg else "en"

    @property
    def failed(self) -> int:
        """Windows and seeds that failed in the last training job."""
        return self.trained.failed if self.trained else 0

    @property
    def hours(self) -> float | None:
        """What the models took that the last training job trained."""
        if self.trained is None:
            return None
        return sum(one.seconds for one in self.trained.windows) / 3600

    @property
    def state(self) -> str:
        """`failed`, or the last step there is: `reported`, `scored`, `trained` or `started`."""
        if self.failed:
            return "failed"
        if self.metrics:
            return "reported"
        if self.files.is_scored:
            return "scored"
        return "trained" if self.files.models else "started"

    def figure(self, path: str) -> float | None:
        """A figure of metrics.json by its dotted path; None if it is not there."""
        value: Any = self.metrics
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, int | float) else None

    @property
    def monthly(self) -> list[dict[str, Any]]:
        """Each month's IC and returns; empty before the first report."""
        rows: list[dict[str, Any]] = self.metrics.get("monthly", [])
        return [row for row in rows if {"month", "ic", "excess_return"} <= row.keys()]


def find_files(root: Storage) -> dict[str, Files]:
    """Run -> its files, of every run of a storage: one listing."""
    found: dict[str, Files] = {}
    for path, stamp in root.stamps("runs").items():
        run, slash, name = path.removeprefix("runs/").partition("/")
        if not slash:
            continue
        files = found.setdefault(run, Files())
        if name in _READ:
            files.stamps[name] = stamp
        files.models += bool(MODEL_FILE.fullmatch(name))
        files.is_scored |= name.startswith(f"{FACTOR}/")
    return {run: files for run, files in sorted(found.items()) if CLAIM in files.stamps}


def read_runs(root: Storage, found: dict[str, Files]) -> list[Listed]:
    """The runs that can be read, the last used first; the log names the others."""
    runs = []
    for name, files in found.items():
        try:
            runs.append(_listed(run_folder(root, name), name, files))
        except (GangruError, FileNotFoundError, ValueError) as error:
            _logger.warning("run_unreadable run=%s reason=%s", name, error)
    old = dt.datetime.min.replace(tzinfo=dt.UTC)
    return sorted(runs, key=lambda run: run.when or old, reverse=True)


def _listed(folder: Storage, name: str, files: Files) -> Listed:
    claim = find_record(Claim, folder, CLAIM)
    if claim is None:
        raise FileNotFoundError(f"{CLAIM} was deleted meanwhile")
    metrics = folder.read_json(RESULTS) if RESULTS in files.stamps else {}
    cfg = claim.settings()
    preset, changed = _nearest_preset(cfg) if cfg else ("", ())
    return Listed(
        name=name,
        files=files,
        claim=claim,
        cfg=cfg,
        preset=preset,
        changed=changed,
        trained=find_record(TrainSummary, folder, SUMMARY) if SUMMARY in files.stamps else None,
        metrics=metrics if isinstance(metrics, dict) else {},
    )


def _nearest_preset(cfg: RunConfig) -> tuple[str, tuple[str, ...]]:
    """The preset that these settings differ least from, and how."""
    own = to_dict(cfg)
    found = {name: settings.difference(to_dict(make()), own) for name, make in presets.ALL.items()}
    name = min(found, key=lambda one: len(found[one]))
    return name, tuple(found[name])
