"""Figures of the factor and the portfolio; `drawing` says how they look."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gangru_dist.maths import metrics
from gangru_dist.report import drawing, text
from gangru_dist.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    HALF,
    INK,
    ORANGE,
    PALE,
    PERCENT,
    RED,
)
from gangru_dist.report.text import gettext as _


@drawing.picture("ic", HALF)
def draw_monthly_ic(figure: Figure, table: pd.DataFrame) -> None:
    """Draw the monthly IC and its mean of 12 months, where there is one."""
    axes, positions = figure.subplots(), np.arange(len(table))
    rises = table["ic"].clip(lower=0)  # two sets of bars, so that the legend's color is fixed
    axes.bar(positions, rises, color=BLUE, width=0.75, label=_("IC of the month"))
    axes.bar(positions, table["ic"].clip(upper=0), color=ORANGE, width=0.75)
    values = {_("IC of the month"): table["ic"]}
    if table["ic_mean_12"].notna().any():
        values[_("mean of 12 months")] = table["ic_mean_12"]
        axes.plot(positions, table["ic_mean_12"], color=INK, label=_("mean of 12 months"))
    mean = metrics.mean(table["ic"].to_numpy())
    axes.axhline(mean, color=GREY, ls="--", lw=1, label=_("mean of all"))
    axes.set_ylabel(_("rank IC"))
    drawing.set_month_ticks(axes, table["month"])
    drawing.add_legend(axes, 3)
    drawing.add_tips(axes, positions, table["month"], values, text.format_signed)


@drawing.picture("cumulative", HALF)
def draw_cumulative_ic(figure: Figure, runs: dict[str, pd.DataFrame]) -> None:
    """Draw the cumulative IC, a line a run; the first is ours, and the tips are at its months."""
    axes = figure.subplots()
    months = next(iter(runs.values()))["month"]
    for (name, table), look in zip(runs.items(), itertools.cycle(_LOOKS), strict=False):
        axes.plot(*_start_at(0.0, table["month"], table["ic_cumulative"]), label=name, **look)
    axes.axhline(0, color=INK, lw=0.8)  # in sight, however high the lines rise
    axes.set_ylabel(_("cumulative rank IC"))
    _set_month_ticks(axes, pd.concat([table["month"] for table in runs.values()]))
    values = {
        name: table.set_index("month")["ic_cumulative"].reindex(months)
        for name, table in runs.items()
    }
    drawing.add_tips(axes, pd.to_datetime(months), months, values, text.format_signed)
    if len(runs) > 1:
        drawing.add_legend(axes, 3)


_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": BLUE},
    {"color": GREEN, "ls": "--"},
    {"color": INK, "ls": ":"},
    {"color": RED, "ls": "-."},
)
"""Of the lines of runs: ours, then the others."""


@drawing.picture("distribution", HALF)
def draw_ic_distribution(figure: Figure, table: pd.DataFrame) -> None:
    """Draw how the monthly ICs are distributed, with their mean and the broker's."""
    axes = figure.subplots()
    values = metrics.drop_nonfinite(table["ic"].to_numpy())
    counts, edges = np.histogram(values, bins=min(20, max(5, len(values) // 4)))
    centers = (edges[1:] + edges[:-1]) / 2
    axes.bar(centers, counts, width=np.diff(edges) * 0.92, color=PALE, edgecolor=GREY, lw=0.5)
    theirs = float(text.PUBLISHED["ic_mean"])
    axes.axvline(metrics.mean(values), color=BLUE, lw=1.6, label=_("mean of all"))
    axes.axvline(theirs, color=RED, ls="--", lw=1.4, label=_("broker's mean"))
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_xlabel(_("rank IC of a month"))
    axes.set_ylabel(_("months"))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    drawing.add_legend(axes, 2)
    heads = [" … ".join(map(text.format_signed, ends)) for ends in itertools.pairwise(edges)]
    drawing.add_tips(axes, centers, heads, {_("months"): counts}, text.format_count)


def _start_at(
    value: float, months: pd.Series, values: pd.Series
) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """The points of a line that is at `value` a month before its first: one month makes a line."""
    dates = pd.DatetimeIndex(months)
    before = dates[0] - pd.DateOffset(months=1)
    return pd.DatetimeIndex([before, *dates]), np.append(value, values)


def _set_month_ticks(axes: Axes, months: pd.Series) -> None:
    """Six at most; months without a point leave their room."""
    shown = pd.PeriodIndex(months, freq="M")
    span = (shown.max() - shown.min()).n + 2
    every = next(number for number in (1, 2, 3, 6, 12, 24, 36, span) if 6 * number >= span)
    axes.xaxis.set_major_locator(mdates.MonthLocator(interval=every))
    axes.xaxis.set_major_formatter(mdates.DateFormatter("%Y-%m"))


def _set_day_ticks(axes: Axes, dates: pd.Series) -> None:
    """Months; days where they are fewer than three."""
    is_short = dates.iloc[-1] - dates.iloc[0] < pd.Timedelta(days=95)
    axes.xaxis.set_major_locator(mdates.AutoDateLocator(minticks=3, maxticks=6))
    axes.xaxis.set_major_formatter(mdates.DateFormatter("%m-%d" if is_short else "%Y-%m"))


@drawing.picture("decay", HALF)
def draw_decay(figure: Figure, table: pd.DataFrame) -> None:
    """Draw the mean IC over holding periods, with two Newey-West standard errors."""
    axes = figure.subplots()
    positions = np.arange(len(table))
    axes.bar(positions, table["ic"], color=BLUE, width=0.6)
    error = 2 * table["std_error"].abs()
    axes.errorbar(positions, table["ic"], yerr=error, fmt="none", ecolor=INK, capsize=3, lw=1)
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xticks(positions, [str(days) for days in table["horizon"]])
    axes.set_xlabel(_("trading days held"))
    axes.set_ylabel(_("mean rank IC (± 2 s.e.)"))
    days = _("%(days)s days")
    heads = [days % {"days": number} for number in table["horizon"]]
    values = {"IC": table["ic"].map(text.format_signed), "±": error.map(text.format_four)}
    drawing.add_tips(axes, positions, heads, values, str)


@drawing.picture("quantiles", HALF)
def draw_quantile_bars(figure: Figure, table: pd.DataFrame) -> None:
    """Draw the mean monthly excess of each quantile over the universe."""
    axes = figure.subplots()
    excess = table["mean_excess"]
    colors = list(np.where(excess >= 0, BLUE, ORANGE))
    axes.bar(table["quantile"], excess, color=colors, width=0.7)
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xticks(table["quantile"])
    axes.set_xlabel(_("quantile of the factor (1 = lowest)"))
    axes.set_ylabel(_("mean monthly excess"))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(drawing.TENTHS)
    heads = [_("quantile %(number)s") % {"number": n} for n in table["quantile"]]
    show = functools.partial(text.format_signed_percent, digits=2)
    drawing.add_tips(axes, table["quantile"], heads, {"": excess}, show)


@drawing.picture("curves", HALF)
def draw_quantile_curves(figure: Figure, months: pd.DataFrame) -> None:
    """Draw the value of one unit in each quantile, and of highest less lowest, by month."""
    axes = figure.subplots()
    names = [str(name) for name in months if str(name)[:1] == "q"]
    grown = (1 + months[[*names, "long_short"]].fillna(0.0)).cumprod()
    shades = mpl.colormaps["Greys"](np.linspace(0.4, 0.75, len(names)))
    lines = {name: _start_at(1.0, months["month"], grown[name]) for name in grown}
    for name, shade in zip(names, shades, strict=True):
        axes.plot(*lines[name], color=shade, lw=0.8)
    axes.plot(*lines[names[0]], color=ORANGE, lw=1.8, label=_("lowest"))
    axes.plot(*lines[names[-1]], color=BLUE, lw=2.4, label=_("highest"))
    axes.plot(*lines["long_short"], color=INK, ls="--", label=_("highest less lowest"))
    axes.axhline(1, color=INK, lw=0.8)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(MaxNLocator(4))
    axes.set_ylabel(_("value of 1, log scale"))
    _set_month_ticks(axes, months["month"])
    drawing.add_legend(axes, 3)
    values = {name.upper(): grown[name] for name in names}
    values[_("highest less lowest")] = grown["long_short"]
    dates = pd.to_datetime(months["month"])
    drawing.add_tips(axes, dates, months["month"], values, text.format_number)


@drawing.picture("values", (HALF[0], 4.3))
def draw_values(
    figure: Figure, daily: pd.DataFrame, costs: str, *, index: str | None = None
) -> None:
    """Draw daily values of long, universe and a named index, and the drawdown of long."""
    lines: dict[str, tuple[Any, Any]] = {
        _("long portfolio"): (daily["long"], {"color": BLUE}),
        _("after %(costs)s") % {"costs": costs}: (daily["long_net"], {"color": BLUE, "ls": ":"}),
        _("universe, equal weight"): (daily["universe"], {"color": GREY, "ls": "--"}),
    }
    if index:
        lines[_("index %(name)s") % {"name": index}] = (daily["index"], {"color": INK, "lw": 1})
    _draw_over_drawdown(figure, daily["date"], lines)


@drawing.picture("excess", (HALF[0], 3.6))
def draw_excess(
    figure: Figure, daily: pd.DataFrame, costs: str, others: dict[str, pd.DataFrame]
) -> None:
    """Draw long over universe on an axis of its own, and its drawdown."""
    date = daily["date"]
    lines: dict[str, tuple[Any, Any]] = {
        _("long / universe"): (daily["excess"], {"color": BLUE}),
        _("after %(costs)s") % {"costs": costs}: (daily["excess_net"], {"color": BLUE, "ls": ":"}),
    }
    for (name, other), look in zip(others.items(), itertools.cycle(_LOOKS[1:]), strict=False):
        style = {**look, "lw": 1.2}
        theirs = other.set_index("date")["excess"].reindex(date)
        from_one = theirs / theirs.dropna().head(1).sum()  # of the days that are drawn
        lines[_("long / universe, %(run)s") % {"run": name}] = (from_one.to_numpy(), style)
    _draw_over_drawdown(figure, date, lines)


def _draw_over_drawdown(figure: Figure, date: pd.Series, lines: dict[str, tuple[Any, Any]]) -> None:
    """Draw lines that start at 1, over the drawdown of the first of them."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
    upper.axhline(1, color=INK, lw=0.8)
    for name, (line, style) in lines.items():
        upper.plot(date, line, label=name, **style)
    upper.set_ylabel(_("value of 1"))
    drawing.add_legend(upper, 2)
    _set_day_ticks(lower, date)
    first, style = next(iter(lines.values()))
    fall = metrics.drawdown(np.asarray(first))
    lower.fill_between(date, fall, 0, color=PALE, lw=0)
    lower.plot(date, fall, color=style["color"], lw=0.8)
    lower.set_ylabel(_("drawdown"))
    lower.yaxis.set_major_formatter(PERCENT)
    lower.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    lower.set_xlim(date.iloc[0], date.iloc[-1])
    days = date.dt.strftime("%Y-%m-%d")
    values = {name: line for name, (line, style) in lines.items()}
    drawing.add_tips(upper, date, days, values, text.format_four)
    drawing.add_tips(lower, date, days, {_("drawdown"): fall}, text.format_percent)


@drawing.picture("turnover", HALF)
def draw_turnover(figure: Figure, trades: pd.DataFrame) -> None:
    """Draw the turnover of each rebalance and how many targets could not be bought or sold."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    positions = np.arange(len(trades))
    upper.bar(positions, trades["turnover"].fillna(0), color=BLUE, width=0.75)
    upper.set_ylabel(_("one-way turnover"))
    upper.yaxis.set_major_formatter(PERCENT)
    upper.set_ylim(0, 1)
    lower.bar(positions - 0.2, trades["not_bought"], color=GREY, width=0.4, label=_("not bought"))
    lower.bar(positions + 0.2, trades["not_sold"], color=INK, width=0.4, label=_("not sold"))
    lower.set_ylabel(_("assets"))
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True, steps=[1, 2, 5, 10]))
    drawing.add_legend(lower)
    months = trades["entry"].dt.strftime("%Y-%m")
    drawing.set_month_ticks(lower, months)
    drawing.add_tips(upper, positions, months, {"": trades["turnover"]}, text.format_percent)
    lost = {_("not bought"): trades["not_bought"], _("not sold"): trades["not_sold"]}
    drawing.add_tips(lower, positions, months, lost, text.format_count)


@drawing.picture("coverage", HALF)
def draw_coverage(figure: Figure, table: pd.DataFrame) -> None:
    """Draw the assets with a factor on each day, and those with a bar."""
    axes = figure.subplots()
    axes.plot(table["date"], table["traded"], color=GREY, ls="--", label=_("traded"))
    axes.plot(table["date"], table["scored"], color=BLUE, label=_("with a factor"))
    axes.set_ylim(bottom=0)
    axes.set_ylabel(_("assets"))
    _set_day_ticks(axes, table["date"])
    drawing.add_legend(axes)
    values = {_("with a factor"): table["scored"], _("traded"): table["traded"]}
    days = table["date"].dt.strftime("%Y-%m-%d")
    drawing.add_tips(axes, table["date"], days, values, text.format_count)


@drawing.picture("industries-ic", HALF)
def draw_industry_ics(figure: Figure, table: pd.DataFrame) -> None:
    """Draw the IC within each industry: mean of 12 months as bars, latest month as marks."""
    _draw_industries(figure, table, "ic", text.format_signed)
    figure.axes[0].set_xlabel(_("rank IC within the industry"))


@drawing.picture("industries-excess", HALF)
def draw_industry_excess(figure: Figure, table: pd.DataFrame) -> None:
    """Draw what the top of each industry earns over all of it, in the same way."""
    _draw_industries(figure, table, "excess", text.format_signed_percent)
    figure.axes[0].set_xlabel(_("top of the industry less all of it, per month"))
    figure.axes[0].xaxis.set_major_formatter(PERCENT)


def _draw_industries(
    figure: Figure, table: pd.DataFrame, name: str, show: Callable[[Any], str]
) -> None:
    figure.set_size_inches(HALF[0], 1.1 + 0.2 * max(len(table), 4))
    axes, ordered = figure.subplots(), table.sort_values("ic_mean_12", na_position="first")
    positions = np.arange(len(ordered))
    mean, latest = ordered[f"{name}_mean_12"], ordered[f"{name}_latest"]
    values = {_("latest month"): latest}
    if mean.notna().any():
        values[_("mean of 12 months")] = mean
        axes.barh(positions, mean, color=PALE, edgecolor=GREY, lw=0.5, label=_("mean of 12 months"))
    axes.plot(latest, positions, "o", ms=4, color=BLUE, label=_("latest month"))
    drawing.add_tips(axes, positions, ordered["industry"], values, show, vertical=True)
    axes.axvline(0, color=INK, lw=0.8)
    axes.grid(visible=False)
    axes.set_yticks(positions, list(ordered["industry"]))
    drawing.add_legend(axes, 2)
