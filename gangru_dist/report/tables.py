"""Write all tables of the page as CSV and all figures as metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from gangru_dist.bars.quality import describe
from gangru_dist.base.records import write_table
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig
from gangru_dist.evaluation.comparison import Comparison
from gangru_dist.evaluation.market import UNKNOWN
from gangru_dist.evaluation.summary import Evaluation
from gangru_dist.report import training
from gangru_dist.report.sources import Sources
from gangru_dist.report.text import PUBLISHED, PUBLISHED_SOURCE
from gangru_dist.runs.search import make_trial_table

METRICS = "metrics.json"


def write_tables(
    folder: Storage,
    found: dict[str, Evaluation],
    comparisons: dict[tuple[str, str], Comparison],
    sources: Sources,
) -> None:
    """Write metrics.json and one CSV a table; what is drawn of a compared run under its name."""
    ours = found[sources.run]
    others = {name: one for name, one in found.items() if name != sources.run}
    tables = list_tables(ours, sources)
    beside = {_name_pair(pair, sources.run): one for pair, one in comparisons.items()}
    tables |= {f"correlation.{name}": one.correlation for name, one in beside.items()}
    for name, other in others.items():
        tables |= {f"monthly.{name}": other.monthly, f"daily.{name}": other.daily}
    for name, table in tables.items():
        write_table(folder, f"{name}.csv", table)
    content = {
        "run": sources.run,
        **add_published(ours.metrics),
        "compared": {name: add_published(other.metrics) for name, other in others.items()},
        "comparisons": {name: one.figures for name, one in beside.items()},
    }
    folder.write_json(METRICS, content)


def _name_pair(pair: tuple[str, str], first: str) -> str:
    """Ours beside another is called by the other's name, two others by both."""
    return pair[1] if pair[0] == first else ".".join(pair)


def add_published(metrics: dict[str, Any]) -> dict[str, Any]:
    """Add the broker's figures: what metrics.json holds of an evaluation."""
    return {**metrics, "published": {"source": PUBLISHED_SOURCE, **PUBLISHED}}


def list_tables(found: Evaluation, sources: Sources) -> dict[str, pd.DataFrame]:
    """List everything that the page shows: CSV name -> table."""
    tables = {name: table for name, table in vars(found).items() if isinstance(table, pd.DataFrame)}
    del tables["ranked"], tables["weights"]  # the whole universe; what a backtest engine takes
    if sources.search:
        tables["tuning"] = make_trial_table(sources.search)
    return tables | {
        "picks": pick(found, sources.cfg),
        "picks_by_industry": pick_by_industry(found, sources.cfg),
        "coverage": sources.coverage,
        "quality": _tabulate_quality(sources.quality),
        "training": training.tabulate_models(sources.models),
        "training_epochs": training.tabulate_epochs(sources.models),
        "gan_features": training.tabulate_features(sources.models),
        "gan_histograms": training.tabulate_histograms(sources.models),
    }


def _tabulate_quality(quality: dict[str, Any]) -> pd.DataFrame:
    """kind, reason, count, example of everything that `quality.json` found in the bars."""
    rows = [
        (kind, reason, finding.get("rows", finding.get("count")), describe(finding["example"]))
        for kind in ("quarantined", "notes")
        for reason, finding in quality.get(kind, {}).items()
    ]
    return pd.DataFrame(rows, columns=["kind", "reason", "count", "example"])


def add_names(found: Evaluation, names: Mapping[str, str]) -> Evaluation:
    """Add a column `name` beside `asset` to picks and dropped assets; none if none is known."""

    def add(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy()
        named = table["asset"].map(names).fillna("")
        table.insert(list(table.columns).index("asset") + 1, "name", named)
        return table

    if not names:
        return found
    return replace(found, ranked=add(found.ranked), dropped=add(found.dropped))


def pick(found: Evaluation, cfg: RunConfig) -> pd.DataFrame:
    """Pick the best of all, best first."""
    return found.ranked.head(cfg.evaluation.picks)


def pick_by_industry(found: Evaluation, cfg: RunConfig) -> pd.DataFrame:
    """Pick the best of each known industry, industries in alphabetical order."""
    ranked = found.ranked
    chosen = ranked["industry_rank"] <= cfg.evaluation.picks_per_industry
    known = ranked["industry"] != UNKNOWN
    return ranked[chosen & known].sort_values(["industry", "industry_rank"])
