"""Output files of a search: best.toml, trials.csv, search.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from gangru_dist.config import MODEL_SECTIONS, RunConfig, to_dict
from gangru_dist.runs.csv_tables import write_table
from gangru_dist.runs.records import write_record
from gangru_dist.runs.search import SEARCH, SearchRecord, TrialRecord, best_of
from gangru_dist.storage import Storage
from gangru_dist.tuning.objective import mean, spread
from gangru_dist.tuning.proposals import importances
from gangru_dist.tuning.space import Parameter, apply, incomparable
from gangru_dist.tuning.windows import TuningWindows

BEST, TABLE = "best.toml", "trials.csv"


def best_toml(
    cfg: RunConfig, space: Sequence[Parameter], best: TrialRecord, windows: TuningWindows
) -> str:
    """Settings of the best trial, as a file for `--config`.

    It has every setting that decides a model, so the preset beneath it does not matter, and
    `windows.first`, so that the tuning windows are not reported.
    """
    values = to_dict(apply(cfg, best.settings))
    first = _reported_first(cfg, windows)
    if first is not None:
        values["windows"]["first"] = first
    lines = [
        f"# Trial {best.number}: objective {best.objective:+.4f}, mean validation IC "
        f"{best.mean_ic:+.4f} on {', '.join(windows.names)}.",
        f"# Searched: {', '.join(p.key for p in space)}.",
        f"# {_reported(windows, is_left=first is not None)}",
        *(f"{name} = {_toml(values[name])}" for name in ("variant", "predictor")),
    ]
    sections = [name for name in MODEL_SECTIONS if name != "variant"]
    tables = {"panel": {"features": values["panel"]["features"]}}
    tables |= {name: values[name] for name in sections}
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _reported_first(cfg: RunConfig, windows: TuningWindows) -> str | None:
    """First refit day not used for tuning; None if `windows.last` is before it."""
    is_left = cfg.windows.last is None or windows.reported_first <= cfg.windows.last
    return windows.reported_first.isoformat() if is_left else None


def _reported(windows: TuningWindows, *, is_left: bool) -> str:
    """Comment on which of the reported windows were used for tuning."""
    if not is_left:
        return (
            "windows.last leaves no window after those named above, so a report would be of "
            "windows used for tuning. Raise windows.last."
        )
    but = " except the windows named above" if windows.overlap else ""
    return f"No window from windows.first on was used for tuning{but}."


def _toml(value: Any) -> str:
    """A JSON value as TOML; None as the word "none", as `settings.load` reads it."""
    return '"none"' if value is None else json.dumps(value, ensure_ascii=False)


def trial_table(
    space: Sequence[Parameter], records: Sequence[TrialRecord], windows: Sequence[str]
) -> pd.DataFrame:
    """One row per trial: figures, IC of each window, searched settings; unknown = empty."""
    rows = []
    for record in records:
        ics = record.window_ics
        row: dict[str, Any] = {
            "trial": record.number,
            "status": record.status,
            "objective": record.objective,
            "mean_valid_ic": mean(ics) if ics else None,
            "std_valid_ic": spread(ics) if ics else None,
            "windows_done": record.windows_done,
            "epochs": record.epochs,
            "gan_epochs": record.gan_epochs,
            "seconds": round(record.seconds, 1),
            "starts": record.starts,
        }
        known = [*ics, *[None] * (len(windows) - len(ics))]
        row |= {f"valid_ic {name}": ic for name, ic in zip(windows, known, strict=True)}
        row |= {p.key: _cell(record.settings.get(p.key)) for p in space}
        rows.append({**row, "reason": record.reason})
    return pd.DataFrame(rows)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def search_record(
    cfg: RunConfig,
    space: Sequence[Parameter],
    records: Sequence[TrialRecord],
    windows: TuningWindows,
    identity: Mapping[str, Any],
) -> SearchRecord:
    """Content of search.json; the report reads it."""
    best = best_of(records)
    return SearchRecord(
        identity=dict(identity),
        windows=windows.names,
        reported_first=_reported_first(cfg, windows),
        overlap=windows.overlap,
        incomparable=tuple(incomparable(space)),
        space={p.key: p.span for p in space},
        asked_trials=cfg.tune.trials,
        spread_penalty=cfg.tune.spread_penalty,
        best_trial=best.number if best else None,
        importances=importances(space, records),
    )


def publish(
    folder: Storage,
    cfg: RunConfig,
    space: Sequence[Parameter],
    records: Sequence[TrialRecord],
    windows: TuningWindows,
    identity: Mapping[str, Any],
) -> None:
    """Write all three files; best.toml once a trial is complete."""
    best = best_of(records)
    if best:
        folder.write_bytes(BEST, best_toml(cfg, space, best, windows).encode())
    write_table(folder, TABLE, trial_table(space, records, windows.names))
    write_record(folder, SEARCH, search_record(cfg, space, records, windows, identity))
