"""The section and the page about a hyperparameter search, made from its files alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gangru_dist.report import drawing, text
from gangru_dist.report.drawing import BLUE, GREEN, GREY, INK, PERCENT, RED, WIDE
from gangru_dist.report.text import gettext as _
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import SEARCH, Choices, Numbers, Search, make_trial_table, read_search

PAGE = "tuning.html"
_ROWS = 10
_COLUMNS = 4
"""Of small pictures."""


def write_page(run: Run) -> str:
    """Draw the search alone, before there is any factor to report; path or URI of the page."""
    found = read_search(run.tune)
    if found is None:
        raise FileNotFoundError(f"{run.tune.uri}/{SEARCH}")
    with text.use_language(run.cfg.report.language):
        page = text.render_page(
            "search.html",
            run=run.name,
            tuning=describe_search(found),
            figures=draw_figures(found),
        )
    return text.write_page(run.tune, PAGE, page)


def describe_search(search: Search, reported: Collection[str] = ()) -> dict[str, Any]:
    """Prepare what the section's template asks for; `reported`: refit days on the same page."""
    table, record = make_trial_table(search), search.record
    complete = table.dropna(subset="objective").sort_values("objective", ascending=False)
    best = pd.concat([complete.head(_ROWS), table[table["trial"] == 0]]).drop_duplicates("trial")
    return {
        "record": record,
        "counts": table["status"].value_counts().to_dict(),
        "epochs": table["epochs"].sum(),
        "objectives": dict(zip(complete["trial"], complete["objective"], strict=True)),
        "reported": sorted({*record.overlap, *(day for day in record.windows if day in reported)}),
        "best": best.to_dict("records"),
    }


def draw_figures(search: Search) -> dict[str, Markup]:
    """Draw the section's figures: SVG by name."""
    table, record = make_trial_table(search), search.record
    drawn: dict[str, str] = {}
    if table["reached"].notna().any():
        drawn |= {"search": draw_progress(table), "slices": draw_slices(table, record.space)}
    if record.importances:
        drawn["importance"] = draw_importance(record.importances)
    return {name: Markup(svg) for name, svg in drawn.items()}


def _draw_trials(axes: Axes, x: pd.Series, table: pd.DataFrame) -> None:
    looks = (
        ("complete", BLUE, "o", _("complete")),
        ("pruned", GREEN, "v", _("stopped early")),
        ("running", GREY, "s", _("not finished")),
    )
    for status, color, marker, label in looks:
        y = table["reached"][table["status"] == status]
        if len(y):
            axes.plot(x[y.index], y, marker, color=color, ms=4.5, alpha=0.85, label=label)


@drawing.picture("search", WIDE)
def draw_progress(figure: Figure, table: pd.DataFrame) -> None:
    """Draw every trial and the best so far; those without any figure as crosses at the bottom."""
    axes, number, best = figure.subplots(), table["trial"], table["best"]
    _draw_trials(axes, number, table)
    axes.step(number, best, where="post", color=INK, lw=1.2, label=_("best so far"))
    lost = table[table["status"].isin(["diverged", "failed"])]
    if len(lost):
        low = [axes.get_ylim()[0]] * len(lost)
        axes.plot(lost["trial"], low, "x", color=RED, label=_("diverged or failed"))
    axes.set_xlabel(_("trial"))
    axes.set_ylabel(_("objective, or mean reached"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawing.add_legend(axes, 5)
    values = {_("reached"): table["reached"], _("best so far"): best}
    heads = [f"{_('trial')} {n}" for n in number]
    drawing.add_tips(axes, number, heads, values, text.format_four)


@drawing.picture("slices", WIDE)
def draw_slices(
    figure: Figure, table: pd.DataFrame, space: Mapping[str, Numbers | Choices]
) -> None:
    """Draw a small picture a parameter."""
    columns = min(_COLUMNS, len(space))
    rows = -(-len(space) // columns)
    figure.set_size_inches(WIDE[0], 2.3 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(space) :]:
        axes.set_visible(False)
    for axes, (key, span) in zip(grid.flat, space.items(), strict=False):
        _draw_slice(axes, table[key], span, table)
        axes.set_xlabel(key)
    for axes in grid[:, 0]:
        axes.set_ylabel(_("objective"))


def _draw_slice(
    axes: Axes, values: pd.Series, span: Numbers | Choices, table: pd.DataFrame
) -> None:
    """Draw every trial over one setting, with the best and the count at each value as tips."""
    choices: list[str] = []
    if isinstance(span, Choices):
        choices = [json.dumps(c) if isinstance(c, list) else str(c) for c in span.choices]
        values = values.astype(str).map({choice: at for at, choice in enumerate(choices)})
    elif span.log:
        axes.set_xscale("log")
    _draw_trials(axes, values, table)
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
    tips = {_("best"): at["max"].map(text.format_four), _("trials"): at["size"]}
    names = [choices[int(x)] if choices else f"{x:g}" for x in at.index]
    drawing.add_tips(axes, at.index.to_numpy(), names, tips, str)


@drawing.picture("importance", WIDE)
def draw_importance(figure: Figure, shares: dict[str, float]) -> None:
    """Draw bars, the largest on top."""
    figure.set_size_inches(WIDE[0], 0.9 + 0.28 * len(shares))
    axes = figure.subplots()
    keys, values = list(shares)[::-1], list(shares.values())[::-1]
    axes.barh(keys, values, color=BLUE, height=0.6)
    axes.grid(visible=False)
    axes.set_xlim(0, 1)
    axes.set_xlabel(_("share"))
    axes.xaxis.set_major_formatter(PERCENT)
    drawing.add_tips(axes, range(len(keys)), keys, {"": values}, text.format_percent, vertical=True)
