"""The section and the page about a hyperparameter search, made of its files alone."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gangru_dist.report import text
from gangru_dist.report.drawing import BLUE, GREY, INK, ORANGE, RED, WIDE, Shown, drawn, tips
from gangru_dist.report.text import ENGLISH, Language, language, translatable
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import SEARCH, Choices, Numbers, Search, read_search, trial_table

PAGE = "tuning.html"
_ROWS = 10
_COLUMNS = 4
"""Of small pictures."""

_ = translatable
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
_MARKS: dict[str, dict[str, Any]] = {
    "complete": {"color": BLUE, "marker": "o", "label": _("complete")},
    "pruned": {"color": ORANGE, "marker": "v", "label": _("stopped early")},
    "running": {"color": GREY, "marker": "s", "label": _("not finished")},
}


def write_page(run: Run) -> str:
    """Draw the search alone, before there is any factor to report; path or URI of the page."""
    words = language(run.cfg.report.language)
    found = read_search(run.tune)
    if found is None:
        raise FileNotFoundError(f"{run.tune.uri}/{SEARCH}")
    page = text.template("search.html", words).render(run=run.name, tuning=section(found, words))
    run.tune.write_bytes(PAGE, page.encode())
    return f"{run.tune.uri}/{PAGE}" if "?" not in run.tune.uri else run.tune.child(PAGE).uri


def section(
    search: Search, words: Language = ENGLISH, reported: Collection[str] = ()
) -> dict[str, Any]:
    """All that the template of the section asks for; `reported`: refit days on the same page."""
    table = trial_table(search)
    figures = _draw(search, table, words)
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


def _sentence(search: Search, table: pd.DataFrame, words: Language) -> str:
    _ = words.gettext
    counts = table["status"].value_counts()
    states = _(", ").join(f"{counts[state]} {_(state)}" for state in _STATES if state in counts)
    start = _("%(trials)s trials (%(told)s), %(epochs)s predictor epochs.") % {
        "trials": len(table),
        "told": states,
        "epochs": int(table["epochs"].sum()),
    }
    best = search.record.best_trial
    if best is None:
        return start + _(" ") + _("None is complete yet.")
    objectives = table.set_index("trial")["objective"]
    said = {"trial": best, "objective": text.signed(objectives[best], 4)}
    if pd.isna(objectives.get(0)):
        return start + _(" ") + _("Trial %(trial)s is best: objective %(objective)s.") % said
    said["configured"] = text.signed(objectives[0], 4)
    compared = _(
        "Trial %(trial)s is best: objective %(objective)s, against %(configured)s of the "
        "configuration it started from."
    )
    return start + _(" ") + compared % said


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
    complete = table.dropna(subset="objective").sort_values("objective", ascending=False)
    chosen = pd.concat([complete.head(_ROWS), table[table["trial"] == 0]])
    return [
        {**{str(k): v for k, v in row.items()}, "cells": [_format(row[key]) for key in keys]}
        for row in chosen.drop_duplicates("trial").to_dict("records")
    ]


def _format(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _draw(search: Search, table: pd.DataFrame, words: Language) -> dict[str, str]:
    """SVG by name, of what there is to draw: search, slices, importance."""
    figures: dict[str, str] = {}
    record = search.record
    if table["reached"].notna().any():
        figures["search"] = drawn("search", WIDE, lambda figure: _draw_all(figure, table, words))
        size = (WIDE[0], 2.3 * -(-len(record.space) // _COLUMNS))
        figures["slices"] = drawn(
            "slices", size, lambda figure: _draw_slices(figure, search, table, words)
        )
    if record.importances:
        size = (WIDE[0], 0.9 + 0.28 * len(record.importances))
        figures["importance"] = drawn(
            "importance", size, lambda figure: _draw_importance(figure, record.importances, words)
        )
    return figures


def _scatter(axes: Axes, x: pd.Series, table: pd.DataFrame, words: Language) -> None:
    for status, style in _MARKS.items():
        chosen = table["status"] == status
        if chosen.any():
            look = {**style, "label": words.gettext(style["label"])}
            axes.plot(x[chosen], table["reached"][chosen], ls="", ms=4.5, alpha=0.85, **look)


def _draw_all(figure: Figure, table: pd.DataFrame, words: Language) -> None:
    """Every trial, and the best so far; those without any figure as crosses at the bottom."""
    _ = words.gettext
    axes, number, best = figure.subplots(), table["trial"], table["best"]
    _scatter(axes, number, table, words)
    axes.step(number, best, where="post", color=INK, lw=1.2, label=_("best so far"))
    lost = table[table["status"].isin(["diverged", "failed"])]
    if len(lost):
        low = [axes.get_ylim()[0]] * len(lost)
        axes.plot(lost["trial"], low, "x", color=RED, label=_("diverged or failed"))
    axes.set_xlabel(_("trial"))
    axes.set_ylabel(_("objective, or mean reached"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, borderaxespad=0.2)
    values = {_("reached"): (table["reached"], text.four), _("best so far"): (best, text.four)}
    tips(axes, number, values, [f"{_('trial')} {n}" for n in number])


def _draw_slices(figure: Figure, search: Search, table: pd.DataFrame, words: Language) -> None:
    """One small picture a parameter."""
    space = search.record.space
    columns = min(_COLUMNS, len(space))
    grid = figure.subplots(-(-len(space) // columns), columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(space) :]:
        axes.set_visible(False)
    for axes, (key, span) in zip(grid.flat, space.items(), strict=False):
        _draw_slice(axes, table[key], span, table, words)
        axes.set_xlabel(key)
    for axes in grid[:, 0]:
        axes.set_ylabel(words.gettext("objective"))


def _draw_slice(
    axes: Axes, values: pd.Series, span: Numbers | Choices, table: pd.DataFrame, words: Language
) -> None:
    """Every trial over one setting, with the best and the count at each value as tips."""
    choices: list[str] = []
    if isinstance(span, Choices):
        choices = [json.dumps(c) if isinstance(c, list) else str(c) for c in span.choices]
        values = values.astype(str).map({choice: at for at, choice in enumerate(choices)})
    elif span.log:
        axes.set_xscale("log")
    _scatter(axes, values, table, words)
    if choices:
        axes.set_xticks(range(len(choices)), choices)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    elif isinstance(span, Numbers) and span.log:
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())  # else written over each other
    else:
        whole = isinstance(span, Numbers) and span.kind == "int"
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=whole))
    at = table["reached"].groupby(values).agg(["max", "size"])
    shown: Shown = {
        words.gettext("best"): (at["max"], text.four),
        words.gettext("trials"): (at["size"], str),
    }
    names = [choices[int(x)] if choices else f"{x:g}" for x in at.index]
    tips(axes, at.index.to_numpy(), shown, names)


def _draw_importance(figure: Figure, shares: dict[str, float], words: Language) -> None:
    """Bars, the largest on top."""
    axes = figure.subplots()
    keys, values = list(shares)[::-1], list(shares.values())[::-1]
    axes.barh(keys, values, color=BLUE, height=0.6)
    axes.grid(visible=False)
    axes.set_xlim(0, 1)
    axes.set_xlabel(words.gettext("share"))
    tips(axes, range(len(keys)), {"": (values, text.percent)}, keys, vertical=True)
