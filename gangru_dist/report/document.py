"""One self-contained page of a run, and everything in it as JSON and CSV.

Below `<storage>/runs/<run>/report/`: `report.html`, `metrics.json`, `<table>.csv`. Each file
appears whole; the page comes last.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from gangru_dist.base import log
from gangru_dist.base.errors import ConfigError, FactorError
from gangru_dist.base.storage import check_name
from gangru_dist.evaluation.comparison import Comparison, compare_evaluations
from gangru_dist.evaluation.summary import Evaluation, evaluate
from gangru_dist.events.callbacks import open_callbacks
from gangru_dist.events.events import ReportWritten
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.writer import names_on
from gangru_dist.report import figures, tables, text, training, tuning
from gangru_dist.report.sources import RunSources, Sources, read_index, read_market, read_sources
from gangru_dist.report.text import gettext as _
from gangru_dist.runs.run import Run
from gangru_dist.scoring.table import read_factor

PAGE = "report.html"
_logger = logging.getLogger(__name__)


def write_report(run: Run, compare: str | None = None, *, overwrite: bool = False) -> str:
    """Evaluate a run's factor and write its page, metrics and tables.

    Args:
        run: Whose factor table: its rows of the configuration's windows. It must be there. Of
            its settings `label.entry_lag`, `factor.quantiles` and `evaluation` decide the
            figures, `report` how the page is printed.
        compare: Another run, shown beside under the same evaluation settings, but for the
            number of quantiles, which its table has already.
        overwrite: Take the run's name even if it has another configuration.

    Returns:
        URI or path of the page.

    Raises:
        PanelError: No panel is there.
        FactorError: A run has no factor table, or none of its rows is of its windows.
        EvaluationError: The table does not span two rebalances, or is not of this panel.
        BarsError: `evaluation.portfolio` cannot be read.
        ConfigError: `compare` is the run itself; or there is no such run, or its name is taken
            by another configuration; or a callback lacks its package or a setting.
    """
    with log.log_waiting("report"), open_callbacks(run):
        return _write(run, compare, overwrite=overwrite)


def _write(run: Run, compare: str | None, *, overwrite: bool) -> str:
    if compare == run.name:
        raise ConfigError(f"--compare {compare} is the run itself; name another one.")
    names = [run.name] if compare is None else [run.name, check_name(compare, what="--compare")]
    run.check_exists()
    run = run.with_claimed_precision()
    run.claim(overwrite=overwrite)
    manifest = read_manifest(run.root)
    tables_of_runs = {name: read_factor(run.root.uri, name) for name in names}
    sources = read_sources(run, manifest, names)
    _log_outdated(sources)
    factors = {
        name: _select_windows(table, name, sources.runs[name])
        for name, table in tables_of_runs.items()
    }
    index = read_index(run.cfg.evaluation.index)
    market = read_market(run.root, manifest, list(factors.values()))
    found = {
        name: evaluate(
            factor,
            market,
            run.cfg.evaluation,
            entry_lag=run.cfg.label.entry_lag,
            quantiles=sources.runs[name].cfg.factor.quantiles,
            index=index,
        )
        for name, factor in factors.items()
    }
    picked = dt.date.fromisoformat(found[run.name].metrics["period"]["newest_rebalance"])
    found[run.name] = tables.add_names(found[run.name], names_on(run.root, picked))
    others = {
        name: compare_evaluations(found[run.name], one, factors[run.name], factors[name])
        for name, one in found.items()
        if name != run.name
    }
    tables.write_tables(run.report, found, others, sources)
    page = text.write_page(run.report, PAGE, render(found, others, sources))
    log.publish(ReportWritten(found[run.name].metrics, page))
    return page


def _log_outdated(sources: Sources) -> None:
    """Warn of days that are not what scoring them now would give."""
    for name, run in sources.runs.items():
        if run.outdated:
            _logger.warning(
                "factor_outdated run=%s days=%d first=%s last=%s models_settings_or_panel=changed "
                "mend_with=gangru_train,gangru_score",
                name,
                len(run.outdated),
                run.outdated[0],
                run.outdated[-1],
            )


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


def render(found: dict[str, Evaluation], others: dict[str, Comparison], sources: Sources) -> str:
    """Render the page; the first evaluation is the run's, the others stand beside."""
    ours = next(iter(found.values()))
    metrics = {name: {"index": None, **one.metrics} for name, one in found.items()}
    models = training.tabulate_models(sources.models)
    with text.use_language(sources.cfg.report.language):
        return text.render_page(
            "report.html",
            sources=sources,
            cfg=sources.cfg,
            metrics=metrics[sources.run],
            runs=metrics,
            source=_(text.PUBLISHED_SOURCE),
            published=text.PUBLISHED,
            latest=_rows(ours.monthly)[-1],
            cautions=text.warn_of_few(ours.metrics),
            comparisons={name: one.figures for name, one in others.items()},
            heat=_list_heat(ours.monthly),
            autocorrelation=_rows(ours.autocorrelation),
            weights=_rows(ours.industry_weights),
            styles=_list_styles(ours.metrics),
            dropped=_rows(ours.dropped),
            tried=_warn_of_tries(sources) if others else "",
            notes=_list_notes(found, sources),
            figures=draw_figures(found, sources),
            quantile_rows=_rows(ours.quantiles),
            yearly=_rows(ours.yearly),
            industries=_rows(ours.industries),
            is_named="name" in ours.ranked,
            picks=_rows(tables.pick(ours, sources.cfg)),
            by_industry=_group(tables.pick_by_industry(ours, sources.cfg), "industry"),
            trades=ours.trades.mean(numeric_only=True).to_dict(),
            coverage=_summarize_coverage(sources.coverage),
            models=[rows for _window, rows in _group(models, "window")] if len(models) else [],
            measured=training.find_newest_measured(sources.models),
            gan_sentence=training.describe_gan(models),
            tuning=_describe_search(sources),
            settings=_list_settings(sources.settings),
            lineage=_list_lineage(sources),
        )


def _list_notes(found: dict[str, Evaluation], sources: Sources) -> list[str]:
    """Everything a reader is warned of."""
    notes: list[str] = []
    for name, one in found.items():  # a compared run has those that the page's own lacks
        texts = (_(note.message) % note.facts for note in one.notes)
        notes += [_name_run(name, sources, text) for text in texts if text not in notes]
    notes += [
        _name_run(name, sources, _warn_of_outdated(run.outdated))
        for name, run in sources.runs.items()
        if run.outdated
    ]
    return [*notes, *_warn_of_months(found), *training.warn_of_gan(sources.models)]


def _warn_of_outdated(days: tuple[dt.date, ...]) -> str:
    message = text.ngettext(
        "%(num)s day of the factor table, %(first)s, is not of today's models, settings and "
        "panel: run gangru train, then gangru score.",
        "%(num)s days of the factor table, %(first)s to %(last)s, are not of today's models, "
        "settings and panel: run gangru train, then gangru score.",
        len(days),
    )
    return message % {"num": text.format_count(len(days)), "first": days[0], "last": days[-1]}


def _name_run(name: str, sources: Sources, note: str) -> str:
    """The note, under the run's name if it is not the page's own."""
    return note if name == sources.run else _("%(run)s: %(note)s") % {"run": name, "note": note}


def _warn_of_months(found: dict[str, Evaluation]) -> list[str]:
    """Runs that are judged over other months must not be compared unawares."""
    judged = {
        name: tuple(one.monthly.loc[one.monthly["ic"].notna(), "month"])
        for name, one in found.items()
    }
    if len(set(judged.values())) < 2:
        return []
    listed = text.join(f"{name}: {_format_months(months)}" for name, months in judged.items())
    message = _("The runs cover different months, so their figures do not compare (%(listed)s).")
    return [message % {"listed": listed}]


def _format_months(months: tuple[str, ...]) -> str:
    """`18 months (2019-02 to 2020-08)`."""
    if not months:
        return text.DASH
    return f"{text.format_months(len(months))} ({text.format_span(months[0], months[-1])})"


def _warn_of_tries(sources: Sources) -> str:
    """How many runs and trials there were, since the best of many looks better than it is."""
    trials = len(sources.search.trials) if sources.search else 0
    message = _(
        "Runs in this storage: %(runs)s; trials of this run's search: %(trials)s. The best of "
        "several looks better than it is: the more were tried, the less a lead means."
    )
    return message % {"runs": sources.runs_there, "trials": trials}


def draw_figures(found: dict[str, Evaluation], sources: Sources) -> dict[str, Markup]:
    """Draw the page's figures: SVG by name, whose texts matplotlib has escaped."""
    ours = next(iter(found.values()))
    monthly = {name: one.monthly for name, one in found.items()}
    cost_bps = sources.cfg.evaluation.cost_bps
    index = ours.metrics.get("index", {}).get("name")
    compared = {name: one.daily for name, one in found.items() if one is not ours}
    drawn = {
        "ic": figures.draw_monthly_ic(monthly),
        "decay": figures.draw_decay(ours.decay),
        "ic_context": figures.draw_ic_in_context(monthly),
        "quantiles": figures.draw_quantile_bars(ours.quantiles),
        "curves": figures.draw_quantile_curves(ours.quantile_months),
        "excess": figures.draw_excess(ours.daily, cost_bps, compared),
        "values": figures.draw_values(ours.daily, cost_bps, index=index),
        "turnover": figures.draw_turnover(ours.trades),
        "coverage": figures.draw_coverage(sources.coverage),
    }
    if not ours.industries.empty:
        drawn["industries"] = figures.draw_industries(ours.industries)
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


def _list_heat(monthly: pd.DataFrame) -> list[tuple[str, list[float | None]]]:
    """Year -> excess of each of its twelve months, None where there is none."""
    found = dict(zip(monthly["month"], monthly["excess_return"], strict=True))
    years = sorted({month[:4] for month in found})
    return [(year, [found.get(f"{year}-{n:02d}") for n in range(1, 13)]) for year in years]


def _list_styles(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Exposures to size, volatility and turnover, with their names in words."""
    names = {"size": _("size"), "volatility": _("volatility"), "turnover": _("turnover")}
    return [{**row, "label": names[row["style"]]} for row in metrics["exposures"]["styles"]]


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _group(table: pd.DataFrame, column: str) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(str(name), _rows(rows)) for name, rows in table.groupby(column)]


def _summarize_coverage(table: pd.DataFrame) -> dict[str, Any]:
    """What the page says of the coverage in words."""
    removed = table.loc[table["scored"] > 0, "neutralized"]
    return {
        "days": len(table),
        "first": f"{table['date'].min():%Y-%m-%d}",
        "last": f"{table['date'].max():%Y-%m-%d}",
        "scored": float(table["scored"].mean()),
        "traded": float(table["traded"].replace(0, np.nan).mean()),
        "without_factor": int((table["scored"] == 0).sum()),
        "missing_industry": int(table["missing_industry"].sum()),
        "missing_market_cap": int(table["missing_market_cap"].sum()),
        "neutralized": ", ".join(sorted({_name_removed(name) for name in removed})),
    }


def _name_removed(neutralized: str) -> str:
    """`industry+size` in words."""
    names = {"industry": _("industry"), "size": _("market cap"), "": _("nothing")}
    return " + ".join(names[part] for part in neutralized.split("+"))


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
            printed = ", ".join(map(str, value))
        rows.append((key, printed))
    return rows


def _describe_search(sources: Sources) -> dict[str, Any] | None:
    """What was searched under this run's name; of some of its windows, perhaps."""
    if sources.search is None:
        return None
    judged = {day.window for day in sources.runs[sources.run].days}
    return tuning.describe_search(sources.search, judged)


def _list_lineage(sources: Sources) -> list[tuple[str, str]]:
    """From which bars and code the figures come."""
    manifest, claimed, models = sources.manifest, sources.claimed, sources.models
    rows = [
        (_("models: package version"), _distinct(model.package_version for model in models)),
        (_("models: commit"), _distinct(model.commit for model in models)),
        (_("last job: package version"), claimed and claimed.package_version),
        (_("last job: commit"), claimed and claimed.commit),
        (_("panel fingerprint"), manifest["fingerprint"]),
        (_("panel days"), text.format_span(manifest["first_day"], manifest["last_day"])),
        (_("panel rows"), text.format_count(manifest["rows"])),
        (_("panel assets"), text.format_count(manifest["assets"])),
        *((_("bars: %(key)s") % {"key": key}, value) for key, value in manifest["source"].items()),
        (_("models"), ", ".join(model.model for model in models) or None),
        (_("written"), f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, {}, [])]


def _distinct(said: Iterable[str | None]) -> str | None:
    """What the models say, each once, in their order; None if none does."""
    return ", ".join(dict.fromkeys(text for text in said if text)) or None
