"""The system from Python; the `gangru` commands call the same functions.

    import gangru_dist as g

    run = g.open_run("data", "mine", preset="demo", settings={"training.epochs": 5})
    g.build_panel(run, "synthetic")
    g.train_windows(run)
    g.score_days(run)
    g.evaluate(run, g.read_factor("data", "mine")).monthly

`gangru_dist.__all__` lists everything meant for users. All of it is imported on first use.
Stages communicate through storage only. Each one skips what is done already, so a repeated run is
cheap and a killed one continues.
"""

from __future__ import annotations

import bisect
import datetime as dt
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gangru_dist.bars.files import check_apart
from gangru_dist.bars.headings import Bars, open_bars
from gangru_dist.base.errors import EvaluationError, FactorError
from gangru_dist.base.filesystems import Place, to_uri
from gangru_dist.base.records import find_record
from gangru_dist.cluster import session
from gangru_dist.config.settings import RunConfig
from gangru_dist.evaluation import summary
from gangru_dist.evaluation.factor import respell_assets, to_factor_table
from gangru_dist.evaluation.market import to_market
from gangru_dist.evaluation.picks import pick_best
from gangru_dist.evaluation.summary import Evaluation
from gangru_dist.features.price_volume import list_inputs
from gangru_dist.maths.calendar import Day, to_day
from gangru_dist.panel import build
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.checks import check_headings
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.panel.store import read_block
from gangru_dist.panel.writer import read_names
from gangru_dist.report.progress import ProgressPage
from gangru_dist.report.sources import read_index, read_market
from gangru_dist.report.tables import METRICS
from gangru_dist.report.training import tabulate_models
from gangru_dist.runs.run import Run, require_run
from gangru_dist.runs.summaries import DayCoverage
from gangru_dist.scoring.plan import find_outdated, warn_of_outdated
from gangru_dist.scoring.reader import read_factor
from gangru_dist.scoring.table import FactorTable
from gangru_dist.synthetic.market import write_bars
from gangru_dist.training.launch import train_windows
from gangru_dist.training.plan import require_native, resolve_run

_logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic"
"""Given in place of a bars URI: use the synthetic market of `cfg.synthetic`."""


@dataclass(frozen=True, kw_only=True)
class PipelineSummary:
    """Result of a pipeline."""

    report: str
    """Path or URI of report.html."""
    ok: bool
    """Whether every window was trained and scored; the log's tables list those that were not."""


def run_pipeline(run: Run, *, bars: Place, overwrite: bool = False) -> PipelineSummary:
    """Run every stage: bars → panel → models → factor → report.

    Training and scoring share a Ray session.

    Args:
        run: What to run; claimed when it trains.
        bars: URI of the vendor's bars, or `synthetic`.
        overwrite: Rebuild the panel even if bars and settings are unchanged, and take the run's
            name even if it has another configuration.

    Raises:
        ConfigError: The run's name is taken by another configuration.
        ResourceError: A device does not support `training.precision`.
        GangruError: The bars cannot be trusted, no window has enough history, there are too few
            rebalance days, or another error of a stage. A failed window does not stop the others.
    """
    require_run(run)
    uri = to_uri(bars, what="bars")
    opened = check_bars(uri, run.cfg)
    if uri != SYNTHETIC:
        check_apart(uri, run.root)
    run = resolve_run(run, anew=overwrite)
    if overwrite or run.read_claim() is None:
        require_native(run.cfg)
    run.check_claim(overwrite=overwrite)
    with ProgressPage(run).show():
        # Ray starts beside the panel; where models are already there, perhaps nobody needs it
        with session.share_session(run.cfg, at_once=not run.list_models()):
            with _stage("panel"):
                _build_panel(run, opened, overwrite=overwrite)
            with _stage("train"):
                training = train_windows(run, overwrite=overwrite)
            from gangru_dist.scoring.score import score_days  # torch: not before the workers run

            with _stage("score"):
                scores = score_days(run)
        from gangru_dist.report.document import write_report  # matplotlib

        with _stage("report"):
            report = write_report(run)
    return PipelineSummary(report=report, ok=training.ok and scores.ok)


def build_panel(run: Run, bars: Place, *, overwrite: bool = False) -> Manifest:
    """Build the panel of a run's storage, or add new days to it.

    Args:
        run: Its storage and settings.
        bars: Folder or URI of the vendor's bars, or `synthetic`.
        overwrite: Accept bars that change days of the existing panel.

    Raises:
        GangruError: Bars that cannot be trusted, or an unknown feature.
    """
    require_run(run)
    return _build_panel(run, check_bars(to_uri(bars, what="bars"), run.cfg), overwrite=overwrite)


def check_bars(bars: str, cfg: RunConfig) -> str | Bars:
    """Check feature names and the bars' files and headings before the slow start of Ray.

    Returns:
        The bars, opened; `synthetic` as it is.

    Raises:
        GangruError: As `open_bars` and `check_headings`.
    """
    if bars == SYNTHETIC:
        list_inputs((*cfg.panel.features, *cfg.panel.without))
        return bars
    opened = open_bars(bars, cfg)
    check_headings(opened, cfg.panel.features)
    return opened


def _build_panel(run: Run, bars: str | Bars, *, overwrite: bool) -> Manifest:
    """Build the panel of checked bars; the synthetic market is written to `<storage>/bars`."""
    if bars == SYNTHETIC:
        folder = run.root.child("bars")
        write_bars(folder, run.cfg.synthetic)
        bars = folder.uri
    return build.build_panel(bars, run.root, run.cfg, overwrite=overwrite)


def read_panel(
    run: Run,
    start: Day | None = None,
    end: Day | None = None,
    *,
    features: Sequence[str] | str = (),
) -> PanelBlock:
    """Read prices, trading conditions and, if asked for, features of a run's storage.

    Args:
        run: Its storage.
        start: First day; None = the panel's first.
        end: Last day, inclusive; None = the panel's last.
        features: Names of panel features.

    Raises:
        PanelError: There is no panel, no trading day in the span, or no such feature.
    """
    require_run(run)
    manifest = read_manifest(run.root)
    first, last = (manifest.calendar[day].astype(dt.date) for day in (0, -1))
    return read_block(
        run.root,
        manifest,
        start=to_day(start, "start") or first,
        end=to_day(end, "end") or last,
        features=(features,) if isinstance(features, str) else features,
        trading=True,
    )


def evaluate(
    run: Run, factor: pd.DataFrame | pd.Series, *, market: PanelBlock | None = None
) -> Evaluation:
    """Evaluate any factor on a run's panel, under its trading rules, costs and quantiles.

    Args:
        run: Its storage and the settings `label.entry_lag`, `factor.quantiles` and `evaluation`.
        factor: Columns date, asset and factor, such as `read_factor` returns; or a series with an
            index of (date, asset), or days x assets. Other names, spellings of codes and kinds of
            days are taken where they can mean one thing only.
        market: From `read_panel`, from the first day of the factor on; None = read it. Give it to
            evaluate many factors; with the feature `amount`, capacity is estimated too.

    Raises:
        EvaluationError: The factor is empty, has other days or assets than the panel, or spans
            less than one period.
        PanelError: There is no panel.
        BarsError: `evaluation.index` cannot be read.
    """
    require_run(run)
    table = to_factor_table(factor)
    if market is None:
        known = read_market(run.root, read_manifest(run.root), [table])
    elif isinstance(market, PanelBlock):
        known = to_market(market)
    else:
        raise EvaluationError(
            f"the market is a {type(market).__name__}. Give what read_panel returns, or leave it "
            "out."
        )
    return summary.evaluate(
        respell_assets(table, known.assets),
        known,
        run.cfg.evaluation,
        entry_lag=run.cfg.label.entry_lag,
        quantiles=run.cfg.factor.quantiles,
        index=read_index(run.cfg.evaluation.index, run.cfg.evaluation.index_column),
    )


def read_picks(run: Run, day: Day | None = None, *, top: int | None = None) -> pd.DataFrame:
    """Best assets by the factor of one day, best first; ties go to the alphabetically first.

    Columns: date, rank, asset, name (as known that day), industry (`unknown` without one), factor,
    score, quantile, market_cap (currency), at_limit (`up` or `down` if the close was at a price
    limit), model.

    Args:
        run: A run with scores.
        day: A scored day; None = the newest.
        top: Number of assets; None = `evaluation.picks`.

    Raises:
        ConfigError: There is no such run.
        FactorError: The run has no scores, or none of that day, or too few for a factor, or of
            assets that the panel has lost since; or `top` is below 1.
    """
    require_run(run)
    if top is not None and top < 1:
        raise FactorError(f"top={top} picks nothing. Give 1 or more.")
    covered = FactorTable(run.factor).read_coverage()
    if not covered:
        run.check_exists()
        raise FactorError(f"run {run.name!r} has no scores. Run gangru score.")
    date = to_day(day, "day") or max(covered)
    if date not in covered:
        raise FactorError(
            f"run {run.name!r} has no scores of {date}. {_name_neighbors(date, sorted(covered))}"
        )
    _warn_of_outdated(run, {date: covered[date]})
    found, rules = read_factor(run.root.uri, run.name, date, date), run.cfg.evaluation
    found = pick_best(
        found,
        to_market(read_panel(run, date, date)),
        rules.picks if top is None else top,
        members_only=rules.members,
    )
    names = read_names(run.root, date)
    found.insert(3, "name", [names.get(asset, "") for asset in found["asset"]])
    return found


def _name_neighbors(day: dt.date, scored: Sequence[dt.date]) -> str:
    """What is scored beside a day that is not, and what would change that."""
    if day > scored[-1]:
        return f"The last scored day is {scored[-1]}. Add bars with gangru panel; gangru score."
    if day < scored[0]:
        return f"The first scored day is {scored[0]}: that of the first model."
    later = bisect.bisect(scored, day)
    return f"It is no trading day, or none of a model; {scored[later - 1]} and {scored[later]} are."


def _warn_of_outdated(run: Run, covered: Mapping[dt.date, DayCoverage]) -> None:
    """Warn of a day that is not what scoring it now would give."""
    claimed = run.with_claimed_precision()
    manifest = read_manifest(run.root, run.cfg.panel.features)
    days = find_outdated(manifest, claimed.cfg, claimed.read_models(), covered)
    warn_of_outdated(run.name, days)


def read_models(run: Run) -> pd.DataFrame:
    """List the finished models of a run; columns as in `report.training.tabulate_models`."""
    require_run(run)
    return tabulate_models(list(run.read_models().values()))


def read_metrics(run: Run) -> dict[str, Any]:
    """Read the figures of a run's report, as in its metrics.json.

    Raises:
        EvaluationError: It has no report yet.
        StorageError: The file is damaged.
    """
    require_run(run)
    found = find_record(dict[str, Any], run.report, METRICS)
    if found is None:
        raise EvaluationError(f"no {METRICS} at {run.report.uri}. Make one with `gangru report`.")
    return found


@contextmanager
def _stage(name: str) -> Iterator[None]:
    started = time.monotonic()
    _logger.info("stage_start stage=%s", name)
    yield
    _logger.info("stage_done stage=%s seconds=%.1f", name, time.monotonic() - started)
