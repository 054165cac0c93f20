"""One self-contained page of a run, and everything in it as JSON and CSV.

Below `<storage>/runs/<run>/report/`: `report.html`, `metrics.json`, `<table>.csv`. Each file
appears whole; the page comes last.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from gangru_dist.config import RunConfig, to_dict
from gangru_dist.errors import ConfigError
from gangru_dist.evaluation.picks import UNKNOWN
from gangru_dist.evaluation.summary import Evaluation, evaluate
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.quality import QUALITY, describe
from gangru_dist.panel.store import Manifest, read_block, read_manifest
from gangru_dist.report import figures, gan_figures, text, training, tuning
from gangru_dist.report.language import Language, language
from gangru_dist.scoring.table import covered_days, factor_storage, read_factor
from gangru_dist.storage import Storage, checked_name

PAGE, METRICS = "report.html", "metrics.json"
"""Names of the two main outputs."""


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
    variants: dict[str, str]
    """What each run shown trains, gan_gru or gru; empty text if unknown."""
    quantiles: dict[str, int]
    """Of each run's factor table: a compared run keeps its own."""
    models: list[dict[str, Any]]
    """Every finished model's `model.json`."""
    search: tuning.Search | None
    """The run's hyperparameter search, if there is one."""
    coverage: pd.DataFrame
    """date, traded, universe, scored, missing_industry, missing_market_cap, neutralized."""


def write_report(root: Storage, run: str, cfg: RunConfig, compare: str | None = None) -> str:
    """Evaluate a run's factor and write its page, metrics and tables.

    Args:
        root: Storage root.
        run: Whose factor table.
        cfg: `label.entry_lag`, `factor.quantiles` and `evaluation` decide the figures,
            `report` how the page is printed.
        compare: Another run, shown beside under the same evaluation settings, but for the
            number of quantiles, which its table has already.

    Returns:
        URI or path of the page.

    Raises:
        PanelError: No panel is there.
        FactorError: A run has no factor table.
        EvaluationError: The table does not span two rebalances, or is not of this panel.
        ConfigError: `compare` is the run itself.
    """
    if compare == run:
        raise ConfigError(f"--compare {compare} is the run itself; name another one.")
    names = [run] if compare is None else [run, checked_name(compare, what="--compare")]
    manifest = read_manifest(root)
    tables = {name: read_factor(root.uri, name) for name in names}
    block = _market_block(root, manifest, list(tables.values()))
    sources = _sources(root, manifest, names, cfg)
    found = {
        name: evaluate(table, block, _with_quantiles(cfg, sources.quantiles[name]))
        for name, table in tables.items()
    }
    folder = root.child("runs", run, "report")
    _write_tables(folder, found, sources)
    folder.write_bytes(PAGE, render(found, sources).encode())
    return folder.full(PAGE) if folder.is_local else folder.child(PAGE).uri


def _market_block(root: Storage, manifest: Manifest, tables: list[pd.DataFrame]) -> PanelBlock:
    """Prices and trading conditions from the first day with a factor to the panel's end."""
    last = manifest.calendar[-1].astype(dt.date)
    firsts = [table["date"].min().date() for table in tables if not table.empty]
    start = min([last, *firsts])
    return read_block(root, manifest, start=start, end=last, features=(), trading=True)


def _sources(root: Storage, manifest: Manifest, names: list[str], cfg: RunConfig) -> Sources:
    """What is known of the first of the runs, and what the others are."""
    run = names[0]
    folder = root.child("runs", run)
    claims = {name: _json_if_there(root.child("runs", name), "config.json") for name in names}
    days = [asdict(day) for day in covered_days(factor_storage(root, run)).values()]
    columns = ["date", "traded", "universe", "ranked", "missing_industry", "missing_market_cap"]
    coverage = pd.DataFrame(days)[[*columns, "neutralized"]].rename(columns={"ranked": "scored"})
    coverage["date"] = pd.to_datetime(coverage["date"])
    long_lists = ("calendar", "files", "months")
    return Sources(
        run=run,
        cfg=cfg,
        manifest={k: v for k, v in manifest.to_json().items() if k not in long_lists},
        quality=_json_if_there(root.child("panel"), QUALITY),
        claimed=claims[run],
        variants={
            name: claim.get("config", {}).get("variant", "") for name, claim in claims.items()
        },
        quantiles={
            name: cfg.factor.quantiles if name == run else _quantiles(claim, cfg)
            for name, claim in claims.items()
        },
        models=training.read_models(folder),
        search=tuning.read_search(folder),
        coverage=coverage,
    )


def _quantiles(claim: dict[str, Any], cfg: RunConfig) -> int:
    """Of a run's `config.json`; `cfg`'s own if it does not say."""
    return int(claim.get("config", {}).get("factor", {}).get("quantiles", cfg.factor.quantiles))


def _with_quantiles(cfg: RunConfig, quantiles: int) -> RunConfig:
    return replace(cfg, factor=replace(cfg.factor, quantiles=quantiles))


def _json_if_there(folder: Storage, name: str) -> dict[str, Any]:
    return dict(folder.read_json(name)) if folder.exists(name) else {}


def _write_tables(folder: Storage, found: dict[str, Evaluation], sources: Sources) -> None:
    """metrics.json and one CSV a table; what is drawn of a compared run under its name."""
    ours, *others = found.items()
    content: dict[str, Any] = {"run": sources.run, **ours[1].metrics}
    content["compared"] = {name: other.metrics for name, other in others}
    tables = tables_of(ours[1], sources)
    for name, other in others:
        tables |= {f"monthly.{name}": other.monthly, f"daily.{name}": other.daily}
    for name, table in tables.items():
        csv = table.to_csv(index=False, date_format="%Y-%m-%d", lineterminator="\n")
        folder.write_bytes(f"{name}.csv", csv.encode())
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
        "picks": _picks(found, sources.cfg),
        "picks_by_industry": _picks_by_industry(found, sources.cfg),
        "coverage": sources.coverage,
        "quality": _quality_table(sources.quality),
        **({"tuning": tuning.trial_table(sources.search)} if sources.search else {}),
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


def _picks(found: Evaluation, cfg: RunConfig) -> pd.DataFrame:
    return found.ranked.head(cfg.evaluation.picks)


def _picks_by_industry(found: Evaluation, cfg: RunConfig) -> pd.DataFrame:
    """The best of each known industry, industries in alphabetical order."""
    ranked = found.ranked
    chosen = ranked["industry_rank"] <= cfg.evaluation.picks_per_industry
    known = ranked["industry"] != UNKNOWN
    return ranked[chosen & known].sort_values(["industry", "industry_rank"])


def render(found: dict[str, Evaluation], sources: Sources) -> str:
    """The page as HTML; the first evaluation is the run's, the others stand beside."""
    ours = next(iter(found.values()))
    words = language(sources.cfg.report.language)
    latest = _rows(ours.monthly.tail(1))[0]
    return text.template("report.html", words).render(
        sources=sources,
        cfg=sources.cfg,
        metrics=ours.metrics,
        runs=list(found),
        source=words.gettext(ours.metrics["published"]["source"]),
        summary=text.summary_sentence(ours.metrics, latest, sources.cfg.evaluation.picks, words),
        key_rows=text.key_rows([one.metrics for one in found.values()], words),
        notes=_notes(found, sources, words),
        figures=_figures(found, sources, words),
        quantile_rows=_rows(ours.quantiles),
        yearly=_rows(ours.yearly),
        industries=_rows(ours.industries),
        picks=_rows(_picks(ours, sources.cfg)),
        by_industry=_grouped(_picks_by_industry(ours, sources.cfg)),
        trades=ours.trades.mean(numeric_only=True).to_dict(),
        coverage=_coverage_row(sources.coverage, words),
        models=_by_window(training.model_table(sources.models)),
        measured=training.newest_measured(sources.models),
        tuning=tuning.section(sources.search, words) if sources.search else None,
        settings=_flat(to_dict(sources.cfg)),
        lineage=_lineage(sources, words),
    )


def _notes(found: dict[str, Evaluation], sources: Sources, words: Language) -> list[str]:
    """Everything a reader is warned of."""
    ours = next(iter(found.values()))
    return [
        *(words.gettext(note.message) % note.facts for note in ours.notes),
        *_period_note(found, words),
        *training.gan_warnings(training.model_table(sources.models), words),
        *training.spread_warnings(training.feature_table(sources.models), words),
    ]


def _period_note(found: dict[str, Evaluation], words: Language) -> list[str]:
    """Runs that are judged over other months must not be compared unawares."""
    periods = {name: one.metrics["period"] for name, one in found.items()}
    spans = {
        name: _span(period["first_month"], period["last_month"], words)
        for name, period in periods.items()
    }
    if len(set(spans.values())) < 2:
        return []
    listed = ", ".join(f"{name}: {span}" for name, span in spans.items())
    message = words.gettext(
        "The runs cover different months, so their figures do not compare (%(listed)s)."
    )
    return [message % {"listed": listed}]


def _span(first: str, last: str, words: Language) -> str:
    return words.gettext("%(first)s to %(last)s") % {"first": first, "last": last}


def _figures(found: dict[str, Evaluation], sources: Sources, words: Language) -> dict[str, Markup]:
    """SVG by name. They are ours, hence not escaped; matplotlib escapes the texts in them."""
    ours, *others = found.items()
    history = training.history_table(sources.models)
    drawn = {
        "ic": figures.monthly_ic({name: one.monthly for name, one in found.items()}, words),
        "decay": figures.decay(ours[1].decay, words),
        "quantiles": figures.quantile_bars(ours[1].quantiles, words),
        "values": figures.values(
            ours[1].daily,
            sources.cfg.evaluation.cost_bps,
            {name: one.daily for name, one in others},
            words,
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
    if measured:
        drawn["distributions"] = gan_figures.distributions(measured["gan_samples"], words)
    return {name: Markup(svg) for name, svg in drawn.items()}


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _grouped(table: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(str(name), _rows(rows)) for name, rows in table.groupby("industry")]


def _by_window(models: pd.DataFrame) -> list[list[dict[str, Any]]]:
    """Rows of each window's models, one a seed."""
    return [_rows(rows) for _, rows in models.groupby("window")] if len(models) else []


def _coverage_row(table: pd.DataFrame, words: Language) -> dict[str, Any]:
    """What the page says of the coverage in words."""
    return {
        "days": len(table),
        "first": f"{table['date'].min():%Y-%m-%d}",
        "last": f"{table['date'].max():%Y-%m-%d}",
        "scored": float(table["scored"].mean()),
        "traded": float(table["traded"].replace(0, np.nan).mean()),
        "without_factor": int((table["scored"] == 0).sum()),
        "missing_industry": int(table["missing_industry"].sum()),
        "missing_market_cap": int(table["missing_market_cap"].sum()),
        "neutralized": ", ".join(sorted({_removed(name, words) for name in table["neutralized"]})),
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


def _lineage(sources: Sources, words: Language) -> list[tuple[str, str]]:
    """From which bars and code the figures come."""
    _ = words.gettext
    manifest, claimed = sources.manifest, sources.claimed
    rows = [
        (_("package version"), claimed.get("package_version")),
        (_("commit"), claimed.get("commit")),
        (_("panel fingerprint"), manifest["fingerprint"]),
        (_("panel days"), _span(manifest["first_day"], manifest["last_day"], words)),
        (_("panel rows"), text.count(manifest["rows"])),
        (_("panel assets"), text.count(manifest["assets"])),
        *((_("bars: %(key)s") % {"key": key}, value) for key, value in manifest["source"].items()),
        (_("models"), ", ".join(str(model.get("model")) for model in sources.models) or None),
        (_("written"), f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, {}, [])]
