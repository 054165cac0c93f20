"""Tables -> crisp SVG, readable in grey and by colour-blind readers.

Colours are Okabe and Ito's; every line also differs in its dashes, every pair of bars in
lightness. Text stays text, so that it is sharp at any size and can be searched.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gangru_dist import metrics
from gangru_dist.report.language import ENGLISH, Language

INK, GREY, PALE = "#222222", "#8c8c8c", "#c9d6df"
BLUE, ORANGE, RED = "#0072b2", "#e69f00", "#d55e00"
WIDE, HALF = (10.4, 3.6), (5.1, 3.1)
"""Inches: the whole width of the page, half of it."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # an industry's name may hold a dollar sign
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "figure.constrained_layout.use": True,
}
_FULL_WIDTH = re.compile(
    "[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
"""CJK letters and punctuation: one em each in every font that has them."""
_EM = "\N{EM DASH}"
_FAMILIES = (
    "'DejaVu Sans', 'Noto Sans CJK SC', 'Source Han Sans SC', 'PingFang SC', 'Microsoft YaHei', "
    "'WenQuanYi Micro Hei', 'WenQuanYi Zen Hei', sans-serif"
)
"""In place of the one font that matplotlib knows: it warns of each that it cannot find."""
_PERCENT = FuncFormatter(lambda value, _: f"{value:.0%}".replace("-", "\N{MINUS SIGN}"))
_TENTHS = FuncFormatter(lambda value, _: f"{value:.1%}".replace("-", "\N{MINUS SIGN}"))


@contextmanager
def _style(name: str, size: float) -> Iterator[None]:
    settings: Any = {**_STYLE, "svg.hashsalt": name, "font.size": size}
    with mpl.rc_context(settings):
        yield


class _Renderer(RendererSVG):
    """Measures Chinese text by a glyph as wide as it will be, for matplotlib's font has none.

    The reader's browser draws it in a font of its own, where each such glyph is one em wide.
    """

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> Any:
        return super().get_text_width_height_descent(_FULL_WIDTH.sub(_EM, s), prop, ismath)


class _Canvas(FigureCanvasSVG):
    """Hands the same renderer to the layout."""

    def get_renderer(self) -> _Renderer:
        return _Renderer(*self.figure.bbox.size, io.StringIO())


def drawn(name: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """SVG element of a figure; `name` keeps its ids apart from other figures' in the page."""
    with _style(name, 9.5 if size[0] == WIDE[0] else 8.5):
        figure = Figure(figsize=size, dpi=_Canvas.fixed_dpi)
        _Canvas(figure)
        draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        renderer = _Renderer(*figure.bbox.size, buffer, metadata=nothing)
        figure.draw(renderer)
        renderer.finalize()
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("'DejaVu Sans'", _FAMILIES)
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)


def _legend_above(axes: Axes, columns: int = 4) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2)


def _month_ticks(axes: Axes, months: pd.Series) -> None:
    """At most nine month names below bars at 0, 1, 2 and so on."""
    step = max(1, -(-len(months) // 9))
    places = np.arange(0, len(months), step)
    axes.set_xticks(places, [months.iloc[place] for place in places])
    axes.tick_params(axis="x", length=2)


def monthly_ic(runs: dict[str, pd.DataFrame], language: Language = ENGLISH) -> str:
    """Monthly IC as bars with its 12-month mean, and the cumulative IC; first run = ours."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        table = next(iter(runs.values()))
        place = np.arange(len(table))
        rises = table["ic"].clip(lower=0)  # two sets of bars, so that the legend's color is fixed
        left.bar(place, rises, color=BLUE, width=0.75, label=_("IC of the month"))
        left.bar(place, table["ic"].clip(upper=0), color=ORANGE, width=0.75)
        if table["ic_mean_12"].notna().any():
            left.plot(place, table["ic_mean_12"], color=INK, label=_("mean of 12 months"))
        left.axhline(
            metrics.mean(table["ic"].to_numpy()), color=GREY, ls="--", lw=1, label=_("mean of all")
        )
        left.set_ylabel(_("rank IC"))
        _month_ticks(left, table["month"])
        _legend_above(left)
        for (name, other), style in zip(runs.items(), _LINES, strict=False):
            dates = pd.to_datetime(other["month"])
            right.plot(dates, other["ic_cumulative"], label=name, **style)
        right.set_ylabel(_("cumulative rank IC"))
        right.axhline(0, color=INK, lw=0.8)  # in sight, however high the lines rise
        right.xaxis.set_major_locator(_month_locator(len(table)))
        right.xaxis.set_major_formatter(mdates.DateFormatter("%Y-%m"))
        if len(runs) > 1:
            _legend_above(right, 2)

    return drawn("ic", WIDE, draw)


_LINES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "ls": "-"},
    {"color": ORANGE, "ls": "--"},
    {"color": INK, "ls": ":"},
)


def _month_locator(months: int) -> mdates.MonthLocator:
    return mdates.MonthLocator(interval=max(1, -(-months // 6)))


def decay(table: pd.DataFrame, language: Language = ENGLISH) -> str:
    """Mean IC over holding periods, with two Newey-West standard errors."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        place = np.arange(len(table))
        axes.bar(place, table["ic"], color=BLUE, width=0.6)
        error = 2 * table["std_error"].abs()
        axes.errorbar(place, table["ic"], yerr=error, fmt="none", ecolor=INK, capsize=3, lw=1)
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_xticks(place, [str(days) for days in table["horizon"]])
        axes.set_xlabel(_("trading days held"))
        axes.set_ylabel(_("mean rank IC (± 2 s.e.)"))

    return drawn("decay", HALF, draw)


def quantile_bars(table: pd.DataFrame, language: Language = ENGLISH) -> str:
    """Mean monthly excess of each quantile over the universe."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        excess = table["mean_excess"]
        colors = list(np.where(excess >= 0, BLUE, ORANGE))
        axes.bar(table["quantile"], excess, color=colors, width=0.7)
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_xticks(table["quantile"])
        axes.set_xlabel(_("quantile of the factor (1 = lowest)"))
        axes.set_ylabel(_("mean monthly excess"))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(_TENTHS)

    return drawn("quantiles", HALF, draw)


def values(
    daily: pd.DataFrame,
    cost_bps: float,
    others: dict[str, pd.DataFrame],
    language: Language = ENGLISH,
) -> str:
    """Daily values of long, universe and excess, and the drawdown of long and excess."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
        date = daily["date"]
        upper.plot(date, daily["long"], color=BLUE, label=_("long portfolio"))
        after = _("after %(cost)s bp per side") % {"cost": f"{cost_bps:g}"}
        upper.plot(date, daily["long_net"], color=BLUE, ls=":", label=after)
        upper.plot(date, daily["universe"], color=GREY, ls="--", label=_("universe, equal weight"))
        upper.plot(date, daily["excess"], color=RED, ls="-.", lw=1.8, label=_("long / universe"))
        for name, other in others.items():
            style = {"color": ORANGE, "ls": (0, (4, 1, 1, 1, 1, 1)), "lw": 1.2}
            label = _("long / universe, %(run)s") % {"run": name}
            upper.plot(other["date"], other["excess"], label=label, **style)
        upper.set_ylabel(_("value of 1"))
        _legend_above(upper, 5 if len(others) == 0 else 3)  # one wide row would narrow the axes
        long, excess = (metrics.drawdown(daily[name].to_numpy()) for name in ("long", "excess"))
        lower.fill_between(date, long, 0, color=PALE, lw=0, label=_("long portfolio"))
        lower.plot(date, excess, color=RED, lw=1, label=_("long / universe"))
        lower.set_ylabel(_("drawdown"))
        lower.yaxis.set_major_formatter(_PERCENT)
        lower.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        lower.set_xlim(date.iloc[0], date.iloc[-1])

    return drawn("values", (WIDE[0], 4.8), draw)


def turnover(trades: pd.DataFrame, language: Language = ENGLISH) -> str:
    """Turnover of each rebalance, and how many targets could not be bought or sold."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        place = np.arange(len(trades))
        upper.bar(place, trades["turnover"].fillna(0), color=BLUE, width=0.75)
        upper.set_ylabel(_("one-way turnover"))
        upper.yaxis.set_major_formatter(_PERCENT)
        upper.set_ylim(0, 1)
        lower.bar(place - 0.2, trades["not_bought"], color=ORANGE, width=0.4, label=_("not bought"))
        lower.bar(place + 0.2, trades["not_sold"], color=INK, width=0.4, label=_("not sold"))
        lower.set_ylabel(_("assets"))
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True, steps=[1, 2, 5, 10]))
        _legend_above(lower)
        _month_ticks(lower, trades["entry"].dt.strftime("%Y-%m"))

    return drawn("turnover", HALF, draw)


def coverage(table: pd.DataFrame, language: Language = ENGLISH) -> str:
    """Assets with a factor on each day, and assets with a bar where that is known."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if "traded" in table:
            axes.plot(table["date"], table["traded"], color=GREY, ls="--", label=_("traded"))
        axes.plot(table["date"], table["scored"], color=BLUE, label=_("with a factor"))
        axes.set_ylim(bottom=0)
        axes.set_ylabel(_("assets"))
        axes.xaxis.set_major_locator(mdates.AutoDateLocator(minticks=3, maxticks=6))
        axes.xaxis.set_major_formatter(mdates.DateFormatter("%Y-%m"))
        _legend_above(axes)

    return drawn("coverage", HALF, draw)


def industries(table: pd.DataFrame, language: Language = ENGLISH) -> str:
    """IC of each industry: mean of 12 months as bars, latest month as marks."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        ordered = table.sort_values("ic_mean_12", na_position="first")
        place = np.arange(len(ordered))
        for axes, name in ((left, "ic"), (right, "excess")):
            axes.barh(place, ordered[f"{name}_mean_12"], color=PALE, label=_("mean of 12 months"))
            axes.plot(
                ordered[f"{name}_latest"], place, "o", ms=4, color=BLUE, label=_("latest month")
            )
            axes.axvline(0, color=INK, lw=0.8)
            axes.grid(visible=False)
        left.set_yticks(place, list(ordered["industry"]))
        left.set_xlabel(_("rank IC within the industry"))
        right.set_xlabel(_("top of the industry less all of it, per month"))
        right.xaxis.set_major_formatter(_PERCENT)
        _legend_above(left, 2)

    return drawn("industries", (WIDE[0], 1.1 + 0.2 * max(len(table), 4)), draw)


def validation_curves(history: pd.DataFrame, language: Language = ENGLISH) -> str:
    """Validation IC by epoch of every window; several seeds thin, their mean thick."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        predictor = history[history["stage"] != "gan"]
        _window_lines(axes, predictor, "valid_ic")
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_xlabel(_("epoch"))
        axes.set_ylabel(_("validation IC"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if predictor["window"].nunique() <= _LEGEND_HOLDS:
            _legend_above(axes, 3)

    return drawn("validation", HALF, draw)


def gan_curves(history: pd.DataFrame, language: Language = ENGLISH) -> str:
    """Discriminator accuracy by GAN epoch; one half = it cannot tell real from generated."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _window_lines(axes, history[history["stage"] == "gan"], "discriminator_accuracy")
        axes.axhline(0.5, color=INK, lw=0.8, ls="--")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(_("GAN epoch"))
        axes.set_ylabel(_("discriminator accuracy"))
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return drawn("gan", HALF, draw)


_LEGEND_HOLDS = 9


def _window_lines(axes: Axes, history: pd.DataFrame, column: str) -> None:
    """A line a window, dark for early ones: its only seed, or the mean as far as all seeds go."""
    windows = sorted(history["window"].unique())
    shades = mpl.colormaps["cividis"](np.linspace(0, 0.85, max(len(windows), 2)))
    for number, window in enumerate(windows):
        seeds = history[history["window"] == window].pivot_table(
            index="epoch", columns="seed", values=column
        )
        if len(seeds.columns) > 1:
            axes.plot(seeds.index, seeds, color=shades[number], lw=0.5, alpha=0.45)
        mean = seeds.dropna().mean(axis=1)
        dashes = ("-", "--", "-.", ":")[number % 4]
        axes.plot(mean.index, mean, color=shades[number], ls=dashes, label=window)
