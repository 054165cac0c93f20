"""The system from Python, for notebooks; `gangru` commands call the same functions.

    import gangru_dist as g

    run = g.open_run("data", "mine", preset="demo", settings={"training.epochs": 5})
    g.build_panel(run, "synthetic")
    g.train_windows(run)
    g.score_days(run)
    g.evaluate(run, g.read_factor("data", "mine")).monthly

`gangru_dist.__all__` lists everything meant for users. All of it is imported on first use.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pandas as pd

from gangru_dist.errors import EvaluationError
from gangru_dist.evaluation import summary
from gangru_dist.evaluation.market import FACTOR_COLUMNS, to_market
from gangru_dist.evaluation.summary import Evaluation
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.panel.store import read_block
from gangru_dist.pipeline import check_bars, panel_from
from gangru_dist.report.sources import index_closes, read_market
from gangru_dist.report.tables import METRICS
from gangru_dist.report.training import model_table
from gangru_dist.runs.run import Run


def build_panel(run: Run, bars: str, *, overwrite: bool = False) -> Manifest:
    """Build the panel of a run's storage, or add new days to it.

    Args:
        run: Its storage and settings.
        bars: Folder or URI of the vendor's bars, or `synthetic`.
        overwrite: Accept bars that change days of the existing panel.

    Raises:
        GangruError: Bars that cannot be trusted, or an unknown feature.
    """
    check_bars(bars, run.cfg)
    return panel_from(run.root, run.cfg, bars=bars, overwrite=overwrite)


def read_panel(
    run: Run,
    start: dt.date | None = None,
    end: dt.date | None = None,
    *,
    features: Sequence[str] = (),
) -> PanelBlock:
    """Prices, trading conditions and, if asked for, features of a run's storage.

    Args:
        run: Its storage.
        start: First day; None = the panel's first.
        end: Last day, inclusive; None = the panel's last.
        features: Names of panel features.

    Raises:
        PanelError: There is no panel, no trading day in the span, or no such feature.
    """
    manifest = read_manifest(run.root)
    first, last = (manifest.calendar[day].astype(dt.date) for day in (0, -1))
    return read_block(
        run.root, manifest, start=start or first, end=end or last, features=features, trading=True
    )


def evaluate(
    run: Run, factor: pd.DataFrame | pd.Series, *, market: PanelBlock | None = None
) -> Evaluation:
    """Evaluate any factor on a run's panel, under its trading rules, costs and quantiles.

    Args:
        run: Its storage and the settings `label.entry_lag`, `factor.quantiles` and `evaluation`.
        factor: Columns date, asset and factor, such as `read_factor` returns; or a series with an
            index of (date, asset).
        market: From `read_panel`, from the first day of the factor on; None = read it. Give it to
            evaluate many factors; with the feature `amount`, capacity is estimated too.

    Raises:
        EvaluationError: The factor is empty, has other days or assets than the panel, or spans
            less than one period.
        PanelError: There is no panel.
        BarsError: `evaluation.index` cannot be read.
    """
    table = factor if isinstance(factor, pd.DataFrame) else _table(factor)
    if market is None:
        known = read_market(run.root, read_manifest(run.root), [table])
    else:
        known = to_market(market)
    return summary.evaluate(
        table,
        known,
        run.cfg.evaluation,
        entry_lag=run.cfg.label.entry_lag,
        quantiles=run.cfg.factor.quantiles,
        index=index_closes(run.cfg.evaluation.index),
    )


def read_models(run: Run) -> pd.DataFrame:
    """One row per finished model of a run; columns as in `report.training.model_table`."""
    return model_table(list(run.models().values()))


def read_metrics(run: Run) -> dict[str, Any]:
    """The figures of a run's report, as in its metrics.json.

    Raises:
        EvaluationError: It has no report yet.
    """
    if not run.report.exists(METRICS):
        raise EvaluationError(f"no {METRICS} at {run.report.uri}. Make one with `gangru report`.")
    found: dict[str, Any] = run.report.read_json(METRICS)
    return found


def _table(factor: pd.Series) -> pd.DataFrame:
    table = factor.rename("factor").reset_index()
    return table.set_axis(list(FACTOR_COLUMNS), axis=1)
