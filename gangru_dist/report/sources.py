"""What is known of a run beside its factor, read from its folder and the panel's."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
from pydantic import ValidationError

from gangru_dist.bars.quality import QUALITY
from gangru_dist.config import RunConfig, from_dict, to_dict
from gangru_dist.errors import GangruError
from gangru_dist.panel.store import Manifest
from gangru_dist.report import training, tuning
from gangru_dist.runs.run import Run
from gangru_dist.runs.score_summary import DayCoverage
from gangru_dist.scoring.plan import outdated_days
from gangru_dist.scoring.table import covered_days
from gangru_dist.splits import make_windows
from gangru_dist.storage import Storage


@dataclass(frozen=True, kw_only=True)
class RunSources:
    """What a run's figures come from."""

    cfg: RunConfig
    """Of a compared run: its own, as far as its `config.json` can be read."""
    variant: str
    """What it trains, gan_gru or gru; empty text if unknown."""
    windows: tuple[str, ...]
    """The configuration's refit days: rows of others are not reported."""
    models: list[dict[str, Any]]
    """`model.json` of every finished model of those windows and the configuration's seeds."""
    days: tuple[DayCoverage, ...]
    """What the factor table holds of those windows."""
    outdated: tuple[dt.date, ...]
    """Days of them that are not of today's models, settings and panel."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What is known of a run beside its factor."""

    run: str
    cfg: RunConfig
    manifest: dict[str, Any]
    """Of the panel, without its long lists."""
    quality: dict[str, Any]
    """`panel/quality.json`; empty if there is none."""
    claimed: dict[str, Any]
    """`config.json` of the run: version and commit; empty if there is none."""
    runs: dict[str, RunSources]
    """By name, the run itself first, then the one it is compared with."""
    search: tuning.Search | None
    """The run's hyperparameter search, if there is one."""
    coverage: pd.DataFrame
    """date, traded, universe, scored, missing_industry, missing_market_cap, neutralized."""

    @property
    def models(self) -> list[dict[str, Any]]:
        """`model.json` of the run's models."""
        return self.runs[self.run].models

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration; bars and buckets are the panel's, whatever this job was told."""
        values = to_dict(self.cfg)
        values["bars"] = self.manifest["source"].get("bars", values["bars"])
        values["panel"]["buckets"] = self.manifest["buckets"]
        return values


def read_sources(run: Run, manifest: Manifest, names: list[str]) -> Sources:
    """What is known of the first of the runs, and what the others are."""
    every = {name: replace(run, name=name) for name in names}
    claims = {name: _json_if_there(one.folder, "config.json") for name, one in every.items()}
    runs = {
        name: _run_sources(
            one if name == run.name else replace(one, cfg=_own(claims[name], run.cfg)),
            manifest,
            claims[name],
        )
        for name, one in every.items()
    }
    long_lists = ("calendar", "files", "months")
    return Sources(
        run=run.name,
        cfg=run.cfg,
        manifest={k: v for k, v in manifest.to_json().items() if k not in long_lists},
        quality=_json_if_there(run.root.child("panel"), QUALITY),
        claimed=claims[run.name],
        runs=runs,
        search=tuning.read_search(run.folder),
        coverage=_coverage(runs[run.name].days),
    )


def _run_sources(run: Run, manifest: Manifest, claim: dict[str, Any]) -> RunSources:
    """Table and models of a run beside its configuration."""
    cfg = run.cfg
    found, _ = make_windows(
        manifest.calendar, cfg.windows, cfg.label, lookback=cfg.samples.lookback
    )
    windows = tuple(window.name for window in found)
    models = [
        model
        for model in training.read_models(run.folder)
        if model["window"] in windows and model["seed"] in cfg.training.seeds
    ]
    covered = covered_days(run.factor)
    covered = {date: day for date, day in covered.items() if day.window in windows}
    return RunSources(
        cfg=cfg,
        variant=claim.get("config", {}).get("variant", ""),
        windows=windows,
        models=models,
        days=tuple(covered.values()),
        outdated=tuple(outdated_days(manifest, cfg, run.models(), covered)),
    )


def _own(claim: dict[str, Any], cfg: RunConfig) -> RunConfig:
    """Of a run's `config.json`; `cfg` with its number of quantiles if it is not of this version.

    From which refit day to which is `cfg`'s: both runs are judged over the same, and a run's
    `config.json` has those of the last job alone.
    """
    try:
        own = from_dict(claim["config"])
    except (ValidationError, GangruError, KeyError, TypeError):
        quantiles = claim.get("config", {}).get("factor", {}).get("quantiles")
        factor = replace(cfg.factor, quantiles=int(quantiles or cfg.factor.quantiles))
        return replace(cfg, factor=factor)
    windows = replace(own.windows, first=cfg.windows.first, last=cfg.windows.last)
    return replace(own, windows=windows)


def _coverage(days: tuple[DayCoverage, ...]) -> pd.DataFrame:
    """One row a day of the factor table."""
    columns = ["date", "traded", "universe", "ranked", "missing_industry", "missing_market_cap"]
    table = pd.DataFrame([asdict(day) for day in days], columns=[*columns, "neutralized"])
    table["date"] = pd.to_datetime(table["date"])
    return table.rename(columns={"ranked": "scored"})


def _json_if_there(folder: Storage, name: str) -> dict[str, Any]:
    return dict(folder.find_json(name) or {})
