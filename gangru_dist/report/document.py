"""One self-contained page of a run or of any factor, and everything in it as JSON and CSV.

Below `<storage>/runs/<run>/report/`, or `<storage>/factors/<name>/`: `report.html`, `metrics.json`,
`<table>.csv`. Each file appears whole; the page comes last.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from gangru_dist.base import log
from gangru_dist.base.errors import ConfigError, FactorError
from gangru_dist.base.storage import Storage, check_name
from gangru_dist.evaluation.comparison import Comparison, compare_evaluations
from gangru_dist.evaluation.market import Market, to_market
from gangru_dist.evaluation.summary import Evaluation, Note, evaluate
from gangru_dist.events.callbacks import open_callbacks
from gangru_dist.events.events import ReportWritten
from gangru_dist.maths.calendar import Day, to_day
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.writer import read_names
from gangru_dist.report import figures, tables, text, training, tuning
from gangru_dist.report.factors import name_factors, place_factor, read_factor_market
from gangru_dist.report.sources import RunSources, Sources, read_index, read_market, read_sources
from gangru_dist.report.text import gettext as _
from gangru_dist.runs.run import Run, require_run
from gangru_dist.scoring.plan import warn_of_outdated
from gangru_dist.scoring.reader import read_factor

PAGE = "report.html"


def write_report(
    run: Run,
    compare: str | None = None,
    *,
    factor: object = None,
    universe: str = "run",
    neutralize: Sequence[str] = (),
    start: Day | None = None,
    overwrite: bool = False,
) -> str:
    """Evaluate a run's factor, or any other, and write its page, metrics and tables.

    Args:
        run: Whose factor table: its rows of the configuration's windows. It must be there. Of
            its settings `label.entry_lag`, `factor.quantiles` and `evaluation` decide the
            figures, `report` how the page is printed.
        compare: Another run, shown beside under the same evaluation settings, but for the
            number of quantiles, which its table has already. Beside a `factor`: any run.
        factor: In place of the run's: a table of date, asset and value (see `evaluate`), or
            several by name, side by side. The run gives market and settings and need not be there;
            the page lies in `<storage>/factors/<first name>`.
        universe: Of a `factor`: `run`, the run's universe of each day, or `all`.
        neutralize: Of a `factor`: what to remove, any of `industry` and `size`.
        start: Of a `factor`: its first day.
        overwrite: Take the run's name even if it has another configuration.

    Returns:
        URI or path of the page.

    Raises:
        PanelError: No panel is there.
        FactorError: A run has no factor table, or none of its rows is of its windows.
        EvaluationError: The table does not span two rebalances, or is not of this panel.
        BarsError: `evaluation.index` cannot be read.
        ConfigError: `compare` is the run itself; or there is no such run, or its name is taken
            by another configuration.
    """
    require_run(run)
    if factor is not None:
        if overwrite:
            raise ConfigError(
                "overwrite is of a run's name, and a factor takes none: leave it out (--overwrite)."
            )
        tables, first = name_factors(factor), to_day(start, "start")
        given = {"universe": universe, "neutralize": neutralize, "start": first}
        with log.log_waiting("report"):
            return _write_factors(run, compare, tables, given)
    if universe != "run" or neutralize or start is not None:
        raise ConfigError("universe, neutralize and start are of a factor: give one (--factor).")
    with log.log_waiting("report"), open_callbacks(run, required=False):
        return _write_run(run, compare, overwrite=overwrite)


def _write_run(run: Run, compare: str | None, *, overwrite: bool) -> str:
    if compare == run.name:
        raise ConfigError(f"--compare {compare} is the run itself; name another one.")
    names = [run.name] if compare is None else [run.name, check_name(compare, what="--compare")]
    run.check_exists()
    run = run.with_claimed_precision()
    run.check_claim(overwrite=overwrite)
    manifest = read_manifest(run.root, run.cfg.panel.features)
    tables_of_runs = {name: read_factor(run.root.uri, name) for name in names}
    sources = read_sources(run, manifest, names, {})
    for name, one in sources.runs.items():
        warn_of_outdated(name, one.outdated)
    factors = {
        name: _select_windows(table, name, sources.runs[name])
        for name, table in tables_of_runs.items()
    }
    market = read_market(run.root, manifest, list(factors.values()))
    found, others = _evaluate_all(run, sources, factors, market, {})
    run.claim(overwrite=overwrite)
    sources = replace(sources, claimed=run.read_claim())
    page = _write_all(run.report, found, others, sources)
    log.publish(ReportWritten(found[run.name].metrics, page))
    return page


def _write_factors(
    run: Run, compare: str | None, tables: dict[str, pd.DataFrame], given: dict[str, Any]
) -> str:
    if compare in tables:
        raise ConfigError(f"--compare {compare}: a factor has this name too; rename its file.")
    manifest = read_manifest(run.root)
    theirs = {} if compare is None else {compare: read_factor(run.root.uri, compare)}
    block = read_factor_market(run.root, manifest, run.cfg, {**tables, **theirs})
    placed = {name: place_factor(one, block, run.cfg, **given) for name, one in tables.items()}
    coverages = {name: one.coverage for name, one in placed.items()}
    sources = read_sources(run, manifest, [*tables, *theirs], coverages)
    factors = {name: one.table for name, one in placed.items()}
    for name, table in theirs.items():
        factors[name] = _select_windows(table, name, sources.runs[name])
    notes = {name: one.note for name, one in placed.items()}
    found, others = _evaluate_all(run, sources, factors, to_market(block), notes)
    return _write_all(run.root.child("factors", sources.run), found, others, sources)


def _evaluate_all(
    run: Run,
    sources: Sources,
    factors: dict[str, pd.DataFrame],
    market: Market,
    notes: dict[str, Note],
) -> tuple[dict[str, Evaluation], dict[tuple[str, str], Comparison]]:
    """Evaluate each factor, and compare each with each; the first gets its assets' names."""
    cfg = run.cfg.evaluation
    index = read_index(cfg.index, cfg.index_column)
    found = {
        name: evaluate(
            factor,
            market,
            cfg,
            entry_lag=run.cfg.label.entry_lag,
            quantiles=sources.runs[name].cfg.factor.quantiles,
            index=index,
            note=notes.get(name),
        )
        for name, factor in factors.items()
    }
    first = sources.run
    picked = dt.date.fromisoformat(found[first].metrics["period"]["newest_rebalance"])
    found[first] = tables.add_names(found[first], read_names(run.root, picked))
    others = {
        (one, other): compare_evaluations(
            found[one], found[other], (factors[one], factors[other]), market, cfg
        )
        for one, other in itertools.combinations(found, 2)
    }
    return found, others


def _write_all(
    folder: Storage,
    found: dict[str, Evaluation],
    others: dict[tuple[str, str], Comparison],
    sources: Sources,
) -> str:
    tables.write_tables(folder, found, others, sources)
    return text.write_page(folder, PAGE, render(found, others, sources))


def _select_windows(factor: pd.DataFrame, name: str, run: RunSources) -> pd.DataFrame:
    """The rows of the run's windows: others were scored under another configuration."""
    rows = factor[factor["window"].isin(run.windows)]
    if rows.empty and not factor.empty:
        raise FactorError(
            f"the factor table of run {name!r} has rows of the windows "
            f"{', '.join(sorted(factor['window'].unique()))}, the configuration has "
            f"{', '.join(run.windows) or 'none'}. Run `gangru train` and `gangru score` with these "
            "settings, or correct windows.*."
        )
    return rows


def render(
    found: dict[str, Evaluation], others: dict[tuple[str, str], Comparison], sources: Sources
) -> str:
    """Render the page; the first evaluation is the run's, the others stand beside."""
    ours = next(iter(found.values()))
    metrics = {name: {"index": None, **one.metrics} for name, one in found.items()}
    months = {name: one.monthly.dropna(subset="ic")["month"] for name, one in found.items()}
    search, windows = sources.search, {day.window for day in sources.runs[sources.run].days}
    with text.use_language(sources.cfg.report.language):
        return text.render_page(
            "report.html",
            sources=sources,
            cfg=sources.cfg,
            ours=ours,
            evaluations=found,
            comparisons=others,
            metrics=metrics[sources.run],
            runs=metrics,
            judged={name: tuple(days) for name, days in months.items()},
            published=text.PUBLISHED,
            source=_(text.PUBLISHED_SOURCE),
            latest=ours.monthly.iloc[-1],
            cautions=text.warn_of_few(ours.metrics),
            costs=text.format_costs(ours.metrics["settings"]),
            heats=[_list_heat(ours.monthly, name) for name in ("long_return", "excess_return")],
            figures=draw_figures(found, sources),
            picks=tables.pick(ours, sources.cfg).to_dict("records"),
            by_industry=tables.pick_by_industry(ours, sources.cfg).to_dict("records"),
            coverage=_summarize_coverage(sources.coverage),
            models=training.tabulate_models(sources.models).to_dict("records"),
            measured=training.find_newest_measured(sources.models),
            gan=training.judge_gan(sources.models),
            tuning=tuning.describe_search(search, windows) if search else None,
            settings=_list_settings(sources.settings),
            issued=f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        )


def draw_figures(found: dict[str, Evaluation], sources: Sources) -> dict[str, Markup]:
    """Draw the page's figures: SVG by name, whose texts matplotlib has escaped."""
    ours = next(iter(found.values()))
    monthly = {name: one.monthly for name, one in found.items()}
    costs = text.format_costs(ours.metrics["settings"])
    index = ours.metrics.get("index", {}).get("name")
    compared = {name: one.daily for name, one in found.items() if one is not ours}
    drawn = {
        "ic": figures.draw_monthly_ic(ours.monthly),
        "cumulative": figures.draw_cumulative_ic(monthly),
        "decay": figures.draw_decay(ours.decay),
        "distribution": figures.draw_ic_distribution(ours.monthly),
        "quantiles": figures.draw_quantile_bars(ours.quantiles),
        "curves": figures.draw_quantile_curves(ours.quantile_months),
        "excess": figures.draw_excess(ours.daily, costs, compared),
        "values": figures.draw_values(ours.daily, costs, index=index),
        "turnover": figures.draw_turnover(ours.trades),
        "coverage": figures.draw_coverage(sources.coverage),
    }
    if not ours.industries.empty:
        drawn["industries_ic"] = figures.draw_industry_ics(ours.industries)
        drawn["industries_excess"] = figures.draw_industry_excess(ours.industries)
    history = training.tabulate_epochs(sources.models)
    if "valid_ic" in history:
        drawn["validation"] = training.draw_validation(history)
    if "discriminator_accuracy" in history:
        drawn["gan"] = training.draw_gan_accuracy(history)
    measured = training.find_newest_measured(sources.models)
    if measured and measured.gan_samples:
        drawn["distributions"] = training.draw_distributions(measured.gan_samples)
    searched = tuning.draw_figures(sources.search) if sources.search else {}
    return {name: Markup(svg) for name, svg in drawn.items()} | searched


def _list_heat(monthly: pd.DataFrame, name: str) -> list[tuple[str, list[float | None]]]:
    """Year -> return of each of its twelve months, None where there is none, and of all of them."""
    found = dict(zip(monthly["month"], monthly[name], strict=True))
    rows = []
    for year in sorted({month[:4] for month in found}):
        months = [found.get(f"{year}-{n:02d}") for n in range(1, 13)]
        rows.append((year, [*months, float(np.prod([1 + x for x in months if x is not None]) - 1)]))
    return rows


def _summarize_coverage(table: pd.DataFrame) -> dict[str, Any]:
    """What the page says of the coverage in words."""
    removed = table.loc[table["scored"] > 0, "neutralized"].unique()  # `industry+size`
    words = {"industry": _("industry"), "size": _("market cap"), "": _("nothing")}
    named = {" + ".join(words[part] for part in one.split("+")) for one in removed}
    return {
        "days": len(table),
        "first": f"{table['date'].min():%Y-%m-%d}",
        "last": f"{table['date'].max():%Y-%m-%d}",
        "scored": float(table["scored"].mean()),
        "traded": float(table["traded"].replace(0, np.nan).mean()),
        "without_factor": int((table["scored"] == 0).sum()),
        "missing_industry": int(table["missing_industry"].sum()),
        "missing_market_cap": int(table["missing_market_cap"].sum()),
        "neutralized": text.join(sorted(named)),
    }


def _list_settings(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted key and value of every setting; one row a range of a search."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        key, printed = prefix + name, str(value)
        if isinstance(value, dict) and value and prefix != "tune.space.":
            rows += _list_settings(value, f"{key}.")
            continue
        if isinstance(value, dict):
            given = (f"{k} {v}" for k, v in value.items() if v is not False and v not in (None, []))
            printed = ", ".join(given) or text.DASH
        elif isinstance(value, list):
            printed = ", ".join(map(str, value)) or text.DASH
        rows.append((key, printed))
    return rows
