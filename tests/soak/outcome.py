"""What a storage holds in the end, in a form in which two of them can be compared."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from gangru_dist.base.errors import PanelError
from gangru_dist.base.records import hash_bytes
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.build import remove_leftovers
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.runs.run import CLAIM, Run
from gangru_dist.runs.search import read_trials
from gangru_dist.scoring.reader import read_factor
from gangru_dist.scoring.table import FactorTable
from tests.soak.jobs import RUN

TIMED = ("seconds", "starts", "minutes", "_at", "commit", "written", "step", "resumed")
"""What may differ in tables and metrics: how long it took, when, and how often it was tried."""


def outcome(folder: Path) -> dict[str, str]:
    """Name of a result -> its hash or figure; checked against its own files."""
    root = Storage(str(folder))
    run = Run(root, RUN, RunConfig())
    found = {**_panel(root), **_models(run), **_factor(run), **_report(run), **_search(run)}
    return {**found, **_index(run)}


def _hash(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def _panel(root: Storage) -> dict[str, str]:
    try:
        manifest = read_manifest(root)
    except PanelError:
        return {}
    panel = root.child("panel")
    for file in manifest.files:
        assert hash_bytes(panel.read_bytes(file.name)) == file.digest, file.name
    return {
        "panel": manifest.fingerprint,
        "panel_files": _hash([file.name for file in manifest.files]),
        "panel_quality": _hash(panel.read_bytes("quality.json")),
    }


def _models(run: Run) -> dict[str, str]:
    found = {}
    for (window, seed), model in run.read_models().items():
        weights = run.folder.read_bytes(f"{run.model_folder(window, seed)}/model.safetensors")
        assert hashlib.sha256(weights).hexdigest() == model.sha256, (window, seed)
        found[f"model {window} {seed}"] = model.sha256
        found[f"history {window} {seed}"] = _hash([asdict(epoch) for epoch in model.history])
    return found


def _factor(run: Run) -> dict[str, str]:
    days = FactorTable(run.factor).read_coverage()
    if not days:
        return {}
    rows = read_factor(run.root.uri, RUN)
    assert not rows.duplicated(["date", "asset"]).any()
    rows = rows.astype({"date": str}).round({"factor": 12})  # a regression's last bit
    values = pd.util.hash_pandas_object(rows, index=False)
    return {
        "factor": _hash(values.to_numpy().tobytes()),
        "factor_rows": str(len(rows)),
        "factor_days": _hash(sorted(map(str, days.items()))),
    }


def _report(run: Run) -> dict[str, str]:
    if not run.report.exists("report.html"):
        return {}
    metrics = json.loads(run.report.read_bytes("metrics.json"))
    found = {f"metrics {name}": _hash(_untimed(value)) for name, value in metrics.items()}
    for name in run.report.list_files():
        if name.endswith(".csv"):
            found[f"report {name}"] = _table(Path(run.report.full_path(name)))
    return found


def _table(file: Path) -> str:
    frame = pd.read_csv(file)
    return _hash(frame.drop(columns=[c for c in frame if _is_timed(str(c))]).to_csv())


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _untimed(v) for k, v in value.items() if not _is_timed(k)}
    return [_untimed(v) for v in value] if isinstance(value, list) else value


def _is_timed(name: str) -> bool:
    return any(word in name for word in TIMED)


def _search(run: Run) -> dict[str, str]:
    trials = read_trials(run.tune)
    facts = {
        f"trial {t.number}": _hash([t.status, t.settings, t.objective, t.window_ics, t.reports])
        for t in trials
    }
    if run.tune.exists("best.toml"):
        facts["best"] = _hash(run.tune.read_bytes("best.toml"))
    return facts


def _index(run: Run) -> dict[str, str]:
    """The page of all runs names each that is there, once a job has claimed it."""
    if not run.folder.exists(CLAIM):
        return {}
    page = run.root.read_bytes("runs/index.html").decode()
    return {"index": str(f">{RUN}<" in page)}


def files_of(folder: Path) -> set[str]:
    """Names of all files, whatever wrote them."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def leftovers(folder: Path, allowed: set[str]) -> list[str]:
    """Files that neither the start nor the undisturbed end has.

    The panel keeps files of killed builds for a day, the factor table for a week (`--vacuum`): they
    are made sure to go.
    """
    table = f"runs/{RUN}/factor/"
    found = {name for name in files_of(folder) - allowed if not name.startswith(table)}
    copy = folder.with_name(f"{folder.name}-vacuumed")
    panel = {name for name in found if name.startswith("panel/")}
    if panel:
        shutil.copytree(folder / "panel", copy / "panel")
        for name in panel:
            os.utime(copy / name, (0, 0))  # as a build of another day finds them
        named = {name.removeprefix("panel/") for name in allowed}
        remove_leftovers(Storage(str(copy / "panel")), named)
        found -= panel - files_of(copy)
        shutil.rmtree(copy)
    if (folder / table).exists():
        shutil.copytree(folder / table, copy / "factor")
        factor = Storage(str(copy / "factor"))
        if FactorTable(factor).read_coverage():
            from deltalake import DeltaTable

            FactorTable(factor).vacuum(retention_hours=0)
            listed = {Path(uri).name for uri in DeltaTable(factor.path).file_uris()}
            logs = ("json", "parquet", "_last_checkpoint")
            for name in files_of(copy / "factor"):
                is_log = name.startswith("_delta_log/") and name.endswith(logs)
                if not is_log and Path(name).name not in listed:
                    found.add(f"{table}{name}")
        shutil.rmtree(copy)
    return sorted(found)
