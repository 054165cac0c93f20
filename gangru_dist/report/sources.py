"""Read what the report needs besides the factor: models, coverage, quality, search, market."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from gangru_dist.bars.indices import read_closes
from gangru_dist.bars.quality import QUALITY
from gangru_dist.base.records import find_record
from gangru_dist.base.storage import Storage
from gangru_dist.config.identity import to_dict
from gangru_dist.config.settings import RunConfig
from gangru_dist.evaluation.market import AMOUNT, Market, to_market
from gangru_dist.maths.calendar import make_windows
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.store import read_block
from gangru_dist.runs.model import ModelRecord
from gangru_dist.runs.run import Claim, Run, list_runs
from gangru_dist.runs.search import Search, read_search
from gangru_dist.runs.summaries import DayCoverage
from gangru_dist.scoring.plan import find_outdated
from gangru_dist.scoring.table import FactorTable
from gangru_dist.synthetic.assets import is_synthetic


@dataclass(frozen=True, kw_only=True)
class RunSources:
    """Configuration, windows and scored days behind a run's figures."""

    cfg: RunConfig
    """Of a compared run: its own, as far as its `config.json` can be read."""
    variant: str
    """What it trains, gan_gru or gru; empty text if unknown."""
    windows: tuple[str, ...]
    """The configuration's refit days: rows of others are not reported."""
    models: list[ModelRecord]
    """Finished models of those windows and the configuration's seeds."""
    days: tuple[DayCoverage, ...]
    """What the factor table holds of those windows."""
    outdated: tuple[dt.date, ...]
    """Days of them that are not of today's models, settings and panel."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the report needs of a run beside its factor."""

    run: str
    cfg: RunConfig
    manifest: dict[str, Any]
    """Of the panel, without its long lists."""
    quality: dict[str, Any]
    """`panel/quality.json`; empty if there is none."""
    claimed: Claim | None
    """Of the run: version and commit of its last job."""
    runs: dict[str, RunSources]
    """By name, the run itself first, then the one it is compared with."""
    search: Search | None
    """The run's hyperparameter search, if there is one."""
    runs_there: int
    """Runs of the storage, this one too."""
    is_synthetic: bool
    """Whether the bars are the made-up market's."""
    coverage: pd.DataFrame
    """date, traded, universe, scored, missing_industry, missing_market_cap, neutralized."""
    is_run: bool = True
    """False: of a factor table that no run made, on the market and settings of `cfg`."""

    @property
    def models(self) -> list[ModelRecord]:
        """The run's models."""
        return self.runs[self.run].models

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration, with the bars and buckets that the panel was built with."""
        values = to_dict(self.cfg)
        values["bars"] = self.manifest["source"].get("bars", values["bars"])
        values["panel"]["buckets"] = self.manifest["buckets"]
        return values


def read_sources(
    run: Run, manifest: Manifest, names: list[str], coverages: Mapping[str, pd.DataFrame]
) -> Sources:
    """Read the sources of the first name, and of the compared ones.

    Args:
        run: The run, or whose settings evaluate the tables.
        manifest: Of its panel.
        names: Of runs and of tables.
        coverages: Of the tables that no run made, by name.
    """
    runs = {}
    for name in names:
        if name in coverages:
            runs[name] = RunSources(
                cfg=run.cfg, variant="", windows=(), models=[], days=(), outdated=()
            )
            continue
        one = replace(run, name=name)
        if name != run.name:
            one = replace(one, cfg=_read_settings(one.read_claim(), run.cfg))
        runs[name] = _read_run(one, manifest)
    first = names[0]
    long_lists = ("calendar", "files", "months")
    is_below = str(manifest.source.get("uri", "")).endswith("/bars")  # what --bars synthetic writes
    return Sources(
        run=first,
        cfg=run.cfg,
        manifest={k: v for k, v in manifest.to_json().items() if k not in long_lists},
        quality=find_record(dict, run.root.child("panel"), QUALITY) or {},
        claimed=run.read_claim() if first not in coverages else None,
        runs=runs,
        search=read_search(run.tune) if first not in coverages else None,
        runs_there=len(list_runs(run.root)),
        is_synthetic=is_below and is_synthetic(run.root.child("bars")),
        coverage=coverages[first] if first in coverages else _tabulate_coverage(runs[first].days),
        is_run=first not in coverages,
    )


def _read_run(run: Run, manifest: Manifest) -> RunSources:
    """Table and models of a run beside its configuration."""
    cfg, claim = run.cfg, run.read_claim()
    found, _ = make_windows(
        manifest.calendar, cfg.windows, cfg.label, lookback=cfg.samples.lookback
    )
    windows = tuple(window.name for window in found)
    models = run.read_models()
    covered = FactorTable(run.factor).read_coverage()
    covered = {date: day for date, day in covered.items() if day.window in windows}
    return RunSources(
        cfg=cfg,
        variant=str(claim.config.get("variant", "")) if claim else "",
        windows=windows,
        models=[
            model
            for (window, seed), model in models.items()
            if window in windows and seed in cfg.training.seeds
        ],
        days=tuple(covered.values()),
        outdated=tuple(find_outdated(manifest, cfg, models, covered)),
    )


def _read_settings(claim: Claim | None, cfg: RunConfig) -> RunConfig:
    """Settings of a run's `config.json`; of another version, `cfg` with its number of quantiles.

    From which refit day to which is `cfg`'s: both runs are judged over the same, and a run's
    `config.json` has those of the last job alone.
    """
    if claim is None:
        return cfg
    own = claim.parse_settings()
    if own is None:
        factor = claim.config.get("factor")
        quantiles = factor.get("quantiles") if isinstance(factor, dict) else None
        chosen = replace(cfg.factor, quantiles=int(quantiles or cfg.factor.quantiles))
        return replace(cfg, factor=chosen)
    windows = replace(own.windows, first=cfg.windows.first, last=cfg.windows.last)
    return replace(own, windows=windows)


def _tabulate_coverage(days: tuple[DayCoverage, ...]) -> pd.DataFrame:
    """One row a day of the factor table."""
    columns = ["date", "traded", "universe", "ranked", "missing_industry", "missing_market_cap"]
    table = pd.DataFrame([asdict(day) for day in days], columns=[*columns, "neutralized"])
    table["date"] = pd.to_datetime(table["date"])
    return table.rename(columns={"ranked": "scored"})


def read_market(root: Storage, manifest: Manifest, factors: Iterable[pd.DataFrame]) -> Market:
    """Prices and trading conditions from the first day with a factor to the panel's end."""
    first, last = (manifest.calendar[day].astype(dt.date) for day in (0, -1))
    firsts = [pd.to_datetime(one["date"]).min().date() for one in factors if not one.empty]
    start = max(first, min([last, *firsts]))
    features = tuple({AMOUNT} & set(manifest.features))
    block = read_block(root, manifest, start=start, end=last, features=features, trading=True)
    return to_market(block)


def read_index(uri: str | None, column: str = "close") -> pd.Series | None:
    """Closes of `evaluation.index`, the second benchmark; None if none is given.

    Its name is the file's, or that of the `column` where it is another than `close`.

    Raises:
        BarsError: They cannot be read.
    """
    if uri is None:
        return None
    dates, close = read_closes(uri, column)
    name = PurePosixPath(uri).stem if column == "close" else column
    return pd.Series(close, index=pd.DatetimeIndex(dates), name=name)
