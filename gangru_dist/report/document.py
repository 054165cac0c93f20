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
from gangru_dist.base.storage import checked_name
from gangru_dist.evaluation.comparison import Comparison, compare_evaluations
from gangru_dist.evaluation.summary import Evaluation, evaluate
from gangru_dist.events.callbacks import Callbacks, told
from gangru_dist.panel.store import read_manifest
from gangru_dist.panel.writer import names_on
from gangru_dist.report import figures, tables, text, training, tuning
from gangru_dist.report.sources import RunSources, Sources, index_closes, read_market, read_sources
from gangru_dist.report.text import SOURCE, Language, language
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
    with log.waiting("report"), told(run) as callbacks:
        return _written(run, compare, callbacks, overwrite=overwrite)


def _written(run: Run, compare: str | None, callbacks: Callbacks, *, overwrite: bool) -> str:
    if compare == run.name:
        raise ConfigError(f"--compare {compare} is the run itself; name another one.")
    names = [run.name] if compare is None else [run.name, checked_name(compare, what="--compare")]
    run.require()
    run = run.as_claimed()
    run.claim(overwrite=overwrite)
    manifest = read_manifest(run.root)
    tables_of_runs = {name: read_factor(run.root.uri, name) for name in names}
    sources = read_sources(run, manifest, names)
    _log_outdated(sources)
    factors = {
        name: _of_windows(table, name, sources.runs[name]) for name, table in tables_of_runs.items()
    }
    index = index_closes(run.cfg.evaluation.index)
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
    found[run.name] = tables.with_names(found[run.name], names_on(run.root, picked))
    others = {
        name: compare_evaluations(found[run.name], one, factors[run.name], factors[name])
        for name, one in found.items()
        if name != run.name
    }
    tables.write_tables(run.report, found, others, sources)
    run.report.write_bytes(PAGE, render(found, others, sources).encode())
    page = run.report.full(PAGE) if run.report.is_local else run.report.child(PAGE).uri
    callbacks.report(found[run.name].metrics, page)
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


def _of_windows(factor: pd.DataFrame, name: str, run: RunSources) -> pd.DataFrame:
    """The rows of the run's windows: others were scored under another configuration."""
    kept = factor[factor["window"].isin(run.windows)]
    if kept.empty and not factor.empty:
        raise FactorError(
            f"the factor table of run {name!r} has rows of the windows "
            f"{', '.join(sorted(factor['window'].unique()))}, the configuration has "
            f"{', '.join(run.windows) or 'none'}. Run `gangru train` and `gangru score` with these "
            "settings, or correct windows.*."
        )
    return kept


def render(found: dict[str, Evaluation], others: dict[str, Comparison], sources: Sources) -> str:
    """The page as HTML; the first evaluation is the run's, the others stand beside."""
    ours = next(iter(found.values()))
    words = language(sources.cfg.report.language)
    latest = _rows(ours.monthly.tail(1))[0]
    return text.template("report.html", words).render(
        sources=sources,
        cfg=sources.cfg,
        metrics={"index": None, **ours.metrics},
        runs=list(found),
        source=words.gettext(SOURCE),
        summary=text.summary_sentence(ours.metrics, latest, sources.cfg.evaluation.picks, words),
        key_rows=text.key_rows([one.metrics for one in found.values()], words),
        cautions=text.cautions(ours.metrics, words),
        comparisons={name: one.figures for name, one in others.items()},
        heat=_heat(ours.monthly),
        autocorrelation=_rows(ours.autocorrelation),
        weights=_rows(ours.industry_weights),
        styles=_rows_of_styles(ours.metrics, words),
        dropped=_rows(ours.dropped),
        tried=_tried(sources, words) if others else "",
        notes=_notes(found, sources, words),
        figures=_figures(found, sources, words),
        quantile_rows=_rows(ours.quantiles),
        yearly=_rows(ours.yearly),
        industries=_rows(ours.industries),
        is_named="name" in ours.ranked,
        picks=_rows(tables.picks(ours, sources.cfg)),
        by_industry=_grouped(tables.picks_by_industry(ours, sources.cfg)),
        trades=ours.trades.mean(numeric_only=True).to_dict(),
        coverage=_coverage_row(sources.coverage, words),
        models=_by_window(training.model_table(sources.models)),
        measured=training.newest_measured(sources.models),
        gan_sentence=training.gan_sentence(training.model_table(sources.models), words),
        tuning=_tuning(sources, words),
        settings=_flat(sources.settings),
        lineage=_lineage(sources, words),
    )


def _notes(found: dict[str, Evaluation], sources: Sources, words: Language) -> list[str]:
    """Everything a reader is warned of."""
    return [
        *_evaluation_notes(found, sources, words),
        *_outdated_notes(sources, words),
        *_period_note(found, words),
        *training.gan_warnings(training.model_table(sources.models), words),
        *training.spread_warnings(training.feature_table(sources.models), words),
    ]


def _outdated_notes(sources: Sources, words: Language) -> list[str]:
    """A sentence for each run whose table is not of today's models, settings and panel."""
    return [
        _named(name, sources, _outdated_note(run.outdated, words), words)
        for name, run in sources.runs.items()
        if run.outdated
    ]


def _outdated_note(days: tuple[dt.date, ...], words: Language) -> str:
    message = words.ngettext(
        "%(num)s day of the factor table, %(first)s, is not of today's models, settings and "
        "panel: run gangru train, then gangru score.",
        "%(num)s days of the factor table, %(first)s to %(last)s, are not of today's models, "
        "settings and panel: run gangru train, then gangru score.",
        len(days),
    )
    return message % {"num": text.count(len(days)), "first": days[0], "last": days[-1]}


def _named(name: str, sources: Sources, note: str, words: Language) -> str:
    """The note, under the run's name if it is not the page's own."""
    if name == sources.run:
        return note
    return words.gettext("%(run)s: %(note)s") % {"run": name, "note": note}


def _evaluation_notes(found: dict[str, Evaluation], sources: Sources, words: Language) -> list[str]:
    """The run's notes and those that a compared run has beyond them."""
    said: list[str] = []
    for name, one in found.items():
        notes = (words.gettext(note.message) % note.facts for note in one.notes)
        said += [_named(name, sources, note, words) for note in notes if note not in said]
    return said


def _period_note(found: dict[str, Evaluation], words: Language) -> list[str]:
    """Runs that are judged over other months must not be compared unawares."""
    judged = {name: _judged_months(one) for name, one in found.items()}
    if len(set(judged.values())) < 2:
        return []
    listed = words.gettext(", ").join(
        f"{name}: {_months(months, words)}" for name, months in judged.items()
    )
    message = words.gettext(
        "The runs cover different months, so their figures do not compare (%(listed)s)."
    )
    return [message % {"listed": listed}]


def _tried(sources: Sources, words: Language) -> str:
    """How many runs and trials there were, since the best of many looks better than it is."""
    trials = len(sources.search.trials) if sources.search else 0
    message = words.gettext(
        "Runs in this storage: %(runs)s; trials of this run's search: %(trials)s. The best of "
        "several looks better than it is: the more were tried, the less a lead means."
    )
    return message % {"runs": sources.runs_there, "trials": trials}


def _judged_months(found: Evaluation) -> tuple[str, ...]:
    """Months with an IC, ascending."""
    return tuple(found.monthly.loc[found.monthly["ic"].notna(), "month"])


def _months(months: tuple[str, ...], words: Language) -> str:
    """`18 months (2019-02 to 2020-08)`."""
    if not months:
        return text.DASH
    number = words.ngettext("%(num)s month", "%(num)s months", len(months)) % {"num": len(months)}
    return f"{number} ({_span(months[0], months[-1], words)})"


def _span(first: str, last: str, words: Language) -> str:
    return words.gettext("%(first)s to %(last)s") % {"first": first, "last": last}


def _figures(found: dict[str, Evaluation], sources: Sources, words: Language) -> dict[str, Markup]:
    """SVG by name. They are ours, hence not escaped; matplotlib escapes the texts in them."""
    ours, *others = found.items()
    history = training.history_table(sources.models)
    drawn = {
        "ic": figures.monthly_ic({name: one.monthly for name, one in found.items()}, words),
        "decay": figures.decay(ours[1].decay, words),
        "ic_context": figures.ic_in_context({n: one.monthly for n, one in found.items()}, words),
        "quantiles": figures.quantile_bars(ours[1].quantiles, words),
        "curves": figures.quantile_curves(ours[1].quantile_months, words),
        "excess": figures.excess(
            ours[1].daily,
            sources.cfg.evaluation.cost_bps,
            {name: one.daily for name, one in others},
            words,
        ),
        "values": figures.values(
            ours[1].daily,
            sources.cfg.evaluation.cost_bps,
            words,
            index=ours[1].metrics.get("index", {}).get("name"),
        ),
        "turnover": figures.turnover(ours[1].trades, words),
        "coverage": figures.coverage(sources.coverage, words),
    }
    if not ours[1].industries.empty:
        drawn["industries"] = figures.industries(ours[1].industries, words)
    if not history.empty and "valid_ic" in history:
        drawn["validation"] = figures.validation_curves(history, words)
    if not history.empty and "discriminator_accuracy" in history:
        drawn["gan"] = figures.gan_curves(history, words)
    measured = training.newest_measured(sources.models)
    if measured and measured.gan_samples:
        drawn["distributions"] = training.distributions(measured.gan_samples, words)
    return {name: Markup(svg) for name, svg in drawn.items()}


def _heat(monthly: pd.DataFrame) -> list[tuple[str, list[float | None]]]:
    """Year -> excess of each of its twelve months, None where there is none."""
    found = dict(zip(monthly["month"], monthly["excess_return"], strict=True))
    years = sorted({month[:4] for month in found})
    return [(year, [found.get(f"{year}-{n:02d}") for n in range(1, 13)]) for year in years]


def _rows_of_styles(metrics: dict[str, Any], words: Language) -> list[dict[str, Any]]:
    """Exposures to size, volatility and turnover, with their names in words."""
    _ = words.gettext
    names = {"size": _("size"), "volatility": _("volatility"), "turnover": _("turnover")}
    return [{**row, "label": names[row["style"]]} for row in metrics["exposures"]["styles"]]


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _grouped(table: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(str(name), _rows(rows)) for name, rows in table.groupby("industry")]


def _by_window(models: pd.DataFrame) -> list[list[dict[str, Any]]]:
    """Rows of each window's models, one a seed."""
    return [_rows(rows) for _, rows in models.groupby("window")] if len(models) else []


def _coverage_row(table: pd.DataFrame, words: Language) -> dict[str, Any]:
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
        "neutralized": ", ".join(sorted({_removed(name, words) for name in removed})),
    }


def _removed(neutralized: str, words: Language) -> str:
    """`industry+size` in words."""
    _ = words.gettext
    names = {"industry": _("industry"), "size": _("market cap"), "": _("nothing")}
    return " + ".join(names[part] for part in neutralized.split("+"))


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted key and value of every setting; one row a range of a search."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict) and value and prefix != "tune.space.":
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            given = {k: v for k, v in value.items() if not (v is None or v is False or v == [])}
            rows.append(
                (prefix + name, ", ".join(f"{k} {v}" for k, v in given.items()) or text.DASH)
            )
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((prefix + name, shown))
    return rows


def _tuning(sources: Sources, words: Language) -> dict[str, Any] | None:
    """What was searched under this run's name; of some of its windows, perhaps."""
    if sources.search is None:
        return None
    judged = {day.window for day in sources.runs[sources.run].days}
    return tuning.section(sources.search, words, judged)


def _lineage(sources: Sources, words: Language) -> list[tuple[str, str]]:
    """From which bars and code the figures come."""
    _ = words.gettext
    manifest, claimed, models = sources.manifest, sources.claimed, sources.models
    rows = [
        (_("models: package version"), _distinct(model.package_version for model in models)),
        (_("models: commit"), _distinct(model.commit for model in models)),
        (_("last job: package version"), claimed and claimed.package_version),
        (_("last job: commit"), claimed and claimed.commit),
        (_("panel fingerprint"), manifest["fingerprint"]),
        (_("panel days"), _span(manifest["first_day"], manifest["last_day"], words)),
        (_("panel rows"), text.count(manifest["rows"])),
        (_("panel assets"), text.count(manifest["assets"])),
        *((_("bars: %(key)s") % {"key": key}, value) for key, value in manifest["source"].items()),
        (_("models"), ", ".join(model.model for model in models) or None),
        (_("written"), f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, {}, [])]


def _distinct(said: Iterable[str | None]) -> str | None:
    """What the models say, each once, in their order; None if none does."""
    return ", ".join(dict.fromkeys(text for text in said if text)) or None
