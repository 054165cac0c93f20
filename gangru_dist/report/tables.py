"""Everything that the page shows as CSV, and all figures as metrics.json."""

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
from gangru_dist.evaluation.decomposition import UNKNOWN
from gangru_dist.evaluation.summary import Evaluation
from gangru_dist.report import training
from gangru_dist.report.sources import Sources
from gangru_dist.report.text import with_published
from gangru_dist.runs.search import trial_table

METRICS = "metrics.json"


def write_tables(
    folder: Storage,
    found: dict[str, Evaluation],
    comparisons: dict[str, Comparison],
    sources: Sources,
) -> None:
    """metrics.json and one CSV a table; what is drawn of a compared run under its name."""
    ours, *others = found.items()
    content: dict[str, Any] = {"run": sources.run, **with_published(ours[1].metrics)}
    content["compared"] = {name: with_published(other.metrics) for name, other in others}
    content["comparisons"] = {name: one.figures for name, one in comparisons.items()}
    tables = tables_of(ours[1], sources)
    tables |= {f"correlation.{name}": one.correlation for name, one in comparisons.items()}
    for name, other in others:
        tables |= {f"monthly.{name}": other.monthly, f"daily.{name}": other.daily}
    for name, table in tables.items():
        write_table(folder, f"{name}.csv", table)
    folder.write_json(METRICS, content)


def tables_of(found: Evaluation, sources: Sources) -> dict[str, pd.DataFrame]:
    """CSV name -> table: everything that the page shows."""
    return {
        "monthly": found.monthly,
        "decay": found.decay,
        "quantiles": found.quantiles,
        "quantile_months": found.quantile_months,
        "daily": found.daily,
        "trades": found.trades,
        "yearly": found.yearly,
        "industries": found.industries,
        "decomposition": found.decomposition,
        "industry_weights": found.industry_weights,
        "exposures": found.exposures,
        "autocorrelation": found.autocorrelation,
        "dropped": found.dropped,
        "picks": picks(found, sources.cfg),
        "picks_by_industry": picks_by_industry(found, sources.cfg),
        "coverage": sources.coverage,
        "quality": _quality_table(sources.quality),
        **({"tuning": trial_table(sources.search)} if sources.search else {}),
        "training": training.model_table(sources.models),
        "training_epochs": training.history_table(sources.models),
        "gan_features": training.feature_table(sources.models),
        "gan_histograms": training.histogram_table(sources.models),
    }


def _quality_table(quality: dict[str, Any]) -> pd.DataFrame:
    """kind, reason, count, example of everything that `quality.json` found in the bars."""
    rows = [
        (kind, reason, finding.get("rows", finding.get("count")), describe(finding["example"]))
        for kind in ("quarantined", "notes")
        for reason, finding in quality.get(kind, {}).items()
    ]
    return pd.DataFrame(rows, columns=["kind", "reason", "count", "example"])


def with_names(found: Evaluation, names: Mapping[str, str]) -> Evaluation:
    """Picks and dropped assets with a column `name` beside `asset`; without, if none is known."""
    if not names:
        return found
    return replace(
        found, ranked=_with_names(found.ranked, names), dropped=_with_names(found.dropped, names)
    )


def _with_names(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    table = table.copy()
    table.insert(
        list(table.columns).index("asset") + 1, "name", table["asset"].map(names).fillna("")
    )
    return table


def picks(found: Evaluation, cfg: RunConfig) -> pd.DataFrame:
    """The best of all, best first."""
    return found.ranked.head(cfg.evaluation.picks)


def picks_by_industry(found: Evaluation, cfg: RunConfig) -> pd.DataFrame:
    """The best of each known industry, industries in alphabetical order."""
    ranked = found.ranked
    chosen = ranked["industry_rank"] <= cfg.evaluation.picks_per_industry
    known = ranked["industry"] != UNKNOWN
    return ranked[chosen & known].sort_values(["industry", "industry_rank"])
