"""What a hyperparameter search found, read from its files alone.

Pictures of a hyperparameter search; see `figures` for how they look.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gangru_dist.report import text
from gangru_dist.report.drawing import BLUE, GREY, INK, ORANGE, RED, WIDE, Shown, drawn, tips
from gangru_dist.report.text import ENGLISH, Language, four, language, percent, translatable
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import SEARCH, Choices, Numbers, Search, SearchRecord, read_search

_ = translatable
_MARKS: dict[str, dict[str, Any]] = {
    "complete": {"color": BLUE, "marker": "o", "label": _("complete")},
    "pruned": {"color": ORANGE, "marker": "v", "label": _("stopped early")},
    "running": {"color": GREY, "marker": "s", "label": _("not finished")},
}
_COLUMNS = 4


def pictures(table: pd.DataFrame, search: SearchRecord, language: Language) -> dict[str, str]:
    """SVG by name, of what there is to draw: search, slices, importance."""
    found: dict[str, str] = {}
    if table["reached"].notna().any():
        found["search"] = progress(table, language)
        found["slices"] = slices(table, search.space, language)
    if search.importances:
        found["importance"] = importance(search.importances, language)
    return found


def _scatter(axes: Axes, x: pd.Series, table: pd.DataFrame, language: Language) -> None:
    for status, style in _MARKS.items():
        chosen = table["status"] == status
        if chosen.any():
            look = {**style, "label": language.gettext(style["label"])}
            axes.plot(x[chosen], table["reached"][chosen], ls="", ms=4.5, alpha=0.85, **look)


def progress(table: pd.DataFrame, language: Language) -> str:
    """Every trial, and the best so far; those without any figure as crosses at the bottom."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _scatter(axes, table["number"], table, language)
        axes.step(
            table["number"], table["best"], where="post", color=INK, lw=1.2, label=_("best so far")
        )
        lost = table[table["status"].isin(["diverged", "failed"])]
        if len(lost):
            low = [axes.get_ylim()[0]] * len(lost)
            axes.plot(lost["number"], low, "x", color=RED, label=_("diverged or failed"))
        axes.set_xlabel(_("trial"))
        axes.set_ylabel(_("objective, or mean reached"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, borderaxespad=0.2)
        shown = {_("reached"): (table["reached"], four), _("best so far"): (table["best"], four)}
        tips(axes, table["number"], shown, [f"{_('trial')} {n}" for n in table["number"]])

    return drawn("search", WIDE, draw)


def slices(table: pd.DataFrame, space: Mapping[str, Numbers | Choices], language: Language) -> str:
    """One small picture a parameter."""
    columns = min(_COLUMNS, len(space))
    rows = -(-len(space) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for place, (axes, (key, span)) in enumerate(zip(grid.flat, space.items(), strict=False)):
            _slice(axes, key, span, table, language)
            if place % columns == 0:
                axes.set_ylabel(language.gettext("objective"))
        for axes in grid.flat[len(space) :]:
            axes.set_visible(False)

    return drawn("slices", (WIDE[0], 2.3 * rows), draw)


def _slice(
    axes: Axes, key: str, span: Numbers | Choices, table: pd.DataFrame, language: Language
) -> None:
    if isinstance(span, Choices):
        texts = [json.dumps(c) if isinstance(c, list) else str(c) for c in span.choices]
        place = table[key].astype(str).map({text: at for at, text in enumerate(texts)})
        _scatter(axes, place, table, language)
        axes.set_xticks(range(len(texts)), texts)
        axes.set_xlim(-0.5, len(texts) - 0.5)
        _tips_of(axes, place, table, language, lambda at: texts[int(at)])
    else:
        if span.log:
            axes.set_xscale("log")
        _scatter(axes, table[key], table, language)
        if span.log:
            axes.xaxis.set_major_locator(LogLocator(numticks=4))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())  # else written over each other
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=span.kind == "int"))
        _tips_of(axes, table[key], table, language, lambda value: f"{value:g}")
    axes.set_xlabel(key)


def _tips_of(
    axes: Axes,
    place: pd.Series,
    table: pd.DataFrame,
    language: Language,
    show: Callable[[Any], str],
) -> None:
    """Best and number of the trials at each value of a setting; `show` says the value."""
    at = table["reached"].groupby(place).agg(["max", "size"])
    shown: Shown = {
        language.gettext("best"): (at["max"], four),
        language.gettext("trials"): (at["size"], str),
    }
    tips(axes, at.index.to_numpy(), shown, [show(value) for value in at.index])


def importance(shares: dict[str, float], language: Language) -> str:
    """Bars, the largest on top."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        keys = list(shares)[::-1]
        axes.barh(keys, [shares[key] for key in keys], color=BLUE, height=0.6)
        axes.grid(visible=False)
        axes.set_xlim(0, 1)
        axes.set_xlabel(language.gettext("share"))
        values = {"": ([shares[key] for key in keys], percent)}
        tips(axes, range(len(keys)), values, keys, vertical=True)

    return drawn("importance", (WIDE[0], 0.9 + 0.28 * len(shares)), draw)


PAGE = "tuning.html"
_ROWS = 10


def write_page(run: Run) -> str:
    """Draw the search alone, before there is any factor to report; path or URI of the page."""
    words = language(run.cfg.report.language)
    found = read_search(run.tune)
    if found is None:
        raise FileNotFoundError(f"{run.tune.uri}/{SEARCH}")
    page = text.template("search.html", words).render(run=run.name, tuning=section(found, words))
    run.tune.write_bytes(PAGE, page.encode())
    return f"{run.tune.uri}/{PAGE}" if "?" not in run.tune.uri else run.tune.child(PAGE).uri


def trial_table(search: Search) -> pd.DataFrame:
    """One row a trial: number, status, objective, reached, best, epochs, seconds, settings.

    `reached` is the objective of a complete trial, else the running mean it was stopped at;
    `best` the highest objective so far. Settings are columns by their dotted keys, lists as text.
    """
    rows, best = [], float("nan")
    for trial in search.trials:
        objective = _number(trial.objective)
        best = max(best, objective) if best == best else objective
        rows.append(
            {
                "number": trial.number,
                "status": trial.status,
                "objective": objective,
                "mean_ic": _number(trial.mean_ic),
                "reached": _number(trial.reached),
                "best": best,
                "epochs": trial.epochs,
                "seconds": trial.seconds,
                **{key: _cell(trial.settings.get(key)) for key in search.record.space},
            }
        )
    columns = ["number", "status", "objective", "mean_ic", "reached", "best", "epochs", "seconds"]
    return pd.DataFrame(rows, columns=[*columns, *search.record.space])


def section(
    search: Search, words: Language = ENGLISH, reported: Collection[str] = ()
) -> dict[str, Any]:
    """All that the template of the section asks for; `reported`: refit days on the same page."""
    table = trial_table(search)
    figures = pictures(table, search.record, words)
    return {
        "sentence": _sentence(search, table, words),
        "windows_sentence": _windows_sentence(search, words),
        "notes": _notes(search, table, words, reported),
        "pictures": [
            (name, words.gettext(title), words.gettext(caption))
            for name, title, caption in _PICTURES
            if name in figures
        ],
        "figures": {name: Markup(svg) for name, svg in figures.items()},
        "searched": list(search.record.space),
        "rows": _best_rows(table, list(search.record.space)),
    }


_PICTURES = (
    (
        "search",
        _("Trials in the order they began"),
        _(
            "Objective of complete trials, the running mean at which others were stopped, and the "
            "best objective so far."
        ),
    ),
    (
        "slices",
        _("One parameter at a time"),
        _("Each trial's objective, or the mean it had reached, over each searched setting."),
    ),
    (
        "importance",
        _("Importance"),
        _(
            "Share of each setting in what sets the best trials apart (Optuna's PED-ANOVA; stopped "
            "trials count with the mean they had reached). Few trials make it a hint, no more."
        ),
    ),
)
_STATES = (_("complete"), _("pruned"), _("diverged"), _("failed"), _("running"))


def _sentence(search: Search, table: pd.DataFrame, words: Language) -> str:
    _ = words.gettext
    counts = table["status"].value_counts()
    told = _(", ").join(f"{counts[state]} {_(state)}" for state in _STATES if state in counts)
    start = _("%(trials)s trials (%(told)s), %(epochs)s predictor epochs.") % {
        "trials": len(table),
        "told": told,
        "epochs": int(table["epochs"].sum()),
    }
    best = search.record.best_trial
    rest = _best_sentence(table, best, words) if best is not None else _("None is complete yet.")
    return start + _(" ") + rest


def _best_sentence(table: pd.DataFrame, best: int, words: Language) -> str:
    _ = words.gettext
    reached = table.loc[table["number"] == best, "objective"].iloc[0]
    said = {"trial": best, "objective": text.signed(reached, 4)}
    configured = table[(table["number"] == 0) & table["objective"].notna()]
    if configured.empty:
        return _("Trial %(trial)s is best: objective %(objective)s.") % said
    said["configured"] = text.signed(configured.iloc[0]["objective"], 4)
    return (
        _(
            "Trial %(trial)s is best: objective %(objective)s, against %(configured)s of the "
            "configuration it started from."
        )
        % said
    )


def _windows_sentence(search: Search, words: Language) -> str:
    _ = words.gettext
    record = search.record
    sentence = _(
        "Objective: mean validation IC of the refit days %(windows)s less %(penalty)s times its "
        "standard deviation over them; no later day was looked at."
    ) % {"windows": ", ".join(record.windows), "penalty": f"{record.spread_penalty:g}"}
    if record.reported_first is None:
        return sentence
    first = _("Windows reported with the result begin %(first)s.")
    return sentence + _(" ") + first % {"first": record.reported_first}


def _notes(
    search: Search, table: pd.DataFrame, words: Language, reported: Collection[str]
) -> list[str]:
    _ = words.gettext
    record = search.record
    notes = []
    if record.reported_first is None:
        notes.append(
            _(
                "No window up to windows.last is after the refit days above: a report with this "
                "windows.last is of windows that were looked at. Raise it."
            )
        )
    both = sorted({*record.overlap, *(day for day in record.windows if day in reported)})
    if both:
        message = _("Tuned on and reported as well: %(days)s. What is reported of them flatters.")
        notes.append(message % {"days": ", ".join(both)})
    if record.incomparable:
        message = _(
            "Trials differ in %(settings)s, so their validation ICs do not compare strictly."
        )
        notes.append(message % {"settings": ", ".join(record.incomparable)})
    complete = table["objective"].notna().sum()
    if complete > 1:
        message = _(
            "The best of %(complete)s validation figures is too good by construction; the unseen "
            "windows decide."
        )
        notes.append(message % {"complete": complete})
    return notes


def _best_rows(table: pd.DataFrame, keys: list[str]) -> list[dict[str, Any]]:
    complete = table[table["objective"].notna()].sort_values("objective", ascending=False)
    chosen = pd.concat([complete.head(_ROWS), table[table["number"] == 0]])
    rows = chosen.drop_duplicates("number").to_dict("records")
    return [
        {**{str(k): v for k, v in row.items()}, "cells": [_shown(row[key]) for key in keys]}
        for row in rows
    ]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
