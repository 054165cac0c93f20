"""Pictures of a hyperparameter search; see `figures` for how they look."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gangru_dist.report.drawing import BLUE, GREY, INK, ORANGE, RED, WIDE, Shown, drawn, tips
from gangru_dist.report.language import Language, translatable
from gangru_dist.report.text import four, percent
from gangru_dist.runs.search import Choices, Numbers, SearchRecord

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
