"""Figures of the factor and the portfolio; `drawing` says how they look."""

from __future__ import annotations

import functools
import itertools
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
from gangru_dist.report.drawing import BLUE, GREY, HALF, INK, ORANGE, PALE, PERCENT, RED, WIDE
from gangru_dist.report.text import gettext as _


@drawing.picture("ic", WIDE)
def draw_monthly_ic(figure: Figure, runs: dict[str, pd.DataFrame]) -> None:
    """Draw the monthly IC with its 12-month mean, and the cumulative IC; the first run is ours."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    table = next(iter(runs.values()))
    positions = np.arange(len(table))
    rises = table["ic"].clip(lower=0)  # two sets of bars, so that the legend's color is fixed
    left.bar(positions, rises, color=BLUE, width=0.75, label=_("IC of the month"))
    left.bar(positions, table["ic"].clip(upper=0), color=ORANGE, width=0.75)
    if table["ic_mean_12"].notna().any():
        left.plot(positions, table["ic_mean_12"], color=INK, label=_("mean of 12 months"))
    left.axhline(
        metrics.mean(table["ic"].to_numpy()), color=GREY, ls="--", lw=1, label=_("mean of all")
    )
    left.set_ylabel(_("rank IC"))
    drawing.set_month_ticks(left, table["month"])
    drawing.add_legend(left)
    values = {_("IC of the month"): table["ic"], _("mean of 12 months"): table["ic_mean_12"]}
    drawing.add_tips(left, positions, table["month"], values, text.format_signed)
    _draw_by_run(right, runs, "ic_cumulative")
    right.set_ylabel(_("cumulative rank IC"))
    right.axhline(0, color=INK, lw=0.8)  # in sight, however high the lines rise
    if len(runs) > 1:
        drawing.add_legend(right, 2)


def _draw_by_run(axes: Axes, runs: dict[str, pd.DataFrame], column: str) -> None:
    """Draw a line a run over its months; the tips are at those of the first run."""
    looks: Any = (
        {"color": BLUE, "ls": "-"},
        {"color": ORANGE, "ls": "--"},
        {"color": INK, "ls": ":"},
    )
    for (name, table), look in zip(runs.items(), looks, strict=False):
        axes.plot(pd.to_datetime(table["month"]), table[column], label=name, **look)
    months = next(iter(runs.values()))["month"]
    _set_date_ticks(axes, mdates.MonthLocator(interval=max(1, -(-len(months) // 6))))
    values = {
        name: table.set_index("month")[column].reindex(months) for name, table in runs.items()
    }
    drawing.add_tips(axes, pd.to_datetime(months), months, values, text.format_signed)


@drawing.picture("ic-context", WIDE)
def draw_ic_in_context(figure: Figure, runs: dict[str, pd.DataFrame]) -> None:
    """Draw how monthly ICs are distributed and their 12-month mean, beside the broker's levels."""
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    table = next(iter(runs.values()))
    values = metrics.drop_nonfinite(table["ic"].to_numpy())
    counts, edges = np.histogram(values, bins=min(20, max(5, len(values) // 4)))
    centers = (edges[1:] + edges[:-1]) / 2
    left.bar(centers, counts, width=np.diff(edges) * 0.92, color=PALE, edgecolor=GREY, lw=0.5)
    theirs = float(text.PUBLISHED["ic_mean"])
    left.axvline(metrics.mean(values), color=BLUE, lw=1.6, label=_("mean of all"))
    left.axvline(theirs, color=RED, ls="--", lw=1.4, label=_("broker's mean"))
    left.axvline(0, color=INK, lw=0.8)
    left.set_xlabel(_("rank IC of a month"))
    left.set_ylabel(_("months"))
    left.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    drawing.add_legend(left, 2)
    heads = [" … ".join(map(text.format_signed, ends)) for ends in itertools.pairwise(edges)]
    drawing.add_tips(left, centers, heads, {_("months"): counts}, text.format_count)
    _draw_by_run(right, runs, "ic_mean_12")
    right.axhline(theirs, color=RED, ls="--", lw=1.4)
    last = float(text.PUBLISHED["ic_mean_12"])
    right.axhline(last, color=RED, ls=":", lw=1.2, label=_("broker's last year"))
    right.axhline(0, color=INK, lw=0.8)
    dates = pd.to_datetime(table["month"])
    right.set_xlim(dates.iloc[0], dates.iloc[-1] + pd.Timedelta(days=1))
    right.set_ylabel(_("rank IC, mean of 12 months"))
    drawing.add_legend(right, 3)


def _set_date_ticks(axes: Axes, locator: mdates.DateLocator) -> None:
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.DateFormatter("%Y-%m"))


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
    dates = pd.to_datetime(months["month"])
    grown = (1 + months[[*names, "long_short"]].fillna(0.0)).cumprod()
    shades = mpl.colormaps["cividis"](np.linspace(0, 0.85, len(names)))
    for name, shade in zip(names, shades, strict=True):
        ends = {names[0]: _("lowest"), names[-1]: _("highest")}.get(name)
        axes.plot(dates, grown[name], color=shade, lw=1.6 if ends else 0.8, label=ends)
    axes.plot(dates, grown["long_short"], color=RED, ls="--", label=_("highest less lowest"))
    axes.axhline(1, color=INK, lw=0.8)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(MaxNLocator(4))
    axes.set_ylabel(_("value of 1, log scale"))
    _set_date_ticks(axes, mdates.AutoDateLocator(minticks=3, maxticks=5))
    drawing.add_legend(axes, 3)
    values = {name.upper(): grown[name] for name in names}
    values[_("highest less lowest")] = grown["long_short"]
    drawing.add_tips(axes, dates, months["month"], values, text.format_number)


@drawing.picture("values", (WIDE[0], 4.2))
def draw_values(
    figure: Figure, daily: pd.DataFrame, cost_bps: float, *, index: str | None = None
) -> None:
    """Draw daily values of long, universe and a named index, and the drawdown of long."""
    lines: dict[str, tuple[Any, Any]] = {
        _("long portfolio"): (daily["long"], {"color": BLUE}),
        _name_costs(cost_bps): (daily["long_net"], {"color": BLUE, "ls": ":"}),
        _("universe, equal weight"): (daily["universe"], {"color": GREY, "ls": "--"}),
    }
    if index:
        lines[_("index %(name)s") % {"name": index}] = (daily["index"], {"color": INK, "lw": 1})
    _draw_over_drawdown(figure, daily["date"], lines)


@drawing.picture("excess", WIDE)
def draw_excess(
    figure: Figure, daily: pd.DataFrame, cost_bps: float, others: dict[str, pd.DataFrame]
) -> None:
    """Draw long over universe on an axis of its own, and its drawdown."""
    date = daily["date"]
    lines: dict[str, tuple[Any, Any]] = {
        _("long / universe"): (daily["excess"], {"color": RED}),
        _name_costs(cost_bps): (daily["excess_net"], {"color": RED, "ls": ":"}),
    }
    for name, other in others.items():
        style = {"color": ORANGE, "ls": (0, (4, 1, 1, 1, 1, 1)), "lw": 1.2}
        theirs = other.set_index("date")["excess"].reindex(date).to_numpy()
        lines[_("long / universe, %(run)s") % {"run": name}] = (theirs, style)
    _draw_over_drawdown(figure, date, lines, level=1)


def _name_costs(cost_bps: float) -> str:
    return _("after %(cost)s bp per side") % {"cost": f"{cost_bps:g}"}


def _draw_over_drawdown(
    figure: Figure,
    date: pd.Series,
    lines: dict[str, tuple[Any, Any]],
    level: float | None = None,
) -> None:
    """Draw lines, and a level one if given, over the drawdown of the first of them."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
    if level is not None:
        upper.axhline(level, color=INK, lw=0.8)
    for name, (line, style) in lines.items():
        upper.plot(date, line, label=name, **style)
    upper.set_ylabel(_("value of 1"))
    drawing.add_legend(upper, 4)
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
    lower.bar(positions - 0.2, trades["not_bought"], color=ORANGE, width=0.4, label=_("not bought"))
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
    _set_date_ticks(axes, mdates.AutoDateLocator(minticks=3, maxticks=6))
    drawing.add_legend(axes)
    values = {_("with a factor"): table["scored"], _("traded"): table["traded"]}
    days = table["date"].dt.strftime("%Y-%m-%d")
    drawing.add_tips(axes, table["date"], days, values, text.format_count)


@drawing.picture("industries", WIDE)
def draw_industries(figure: Figure, table: pd.DataFrame) -> None:
    """Draw the IC of each industry: mean of 12 months as bars, latest month as marks."""
    figure.set_size_inches(WIDE[0], 1.1 + 0.2 * max(len(table), 4))
    left, right = figure.subplots(1, 2, sharey=True)
    ordered = table.sort_values("ic_mean_12", na_position="first")
    positions = np.arange(len(ordered))
    shows = {"ic": text.format_signed, "excess": text.format_signed_percent}
    for axes, (name, show) in zip((left, right), shows.items(), strict=True):
        mean, latest = ordered[f"{name}_mean_12"], ordered[f"{name}_latest"]
        axes.barh(positions, mean, color=PALE, label=_("mean of 12 months"))
        axes.plot(latest, positions, "o", ms=4, color=BLUE, label=_("latest month"))
        values = {_("mean of 12 months"): mean, _("latest month"): latest}
        drawing.add_tips(axes, positions, ordered["industry"], values, show, vertical=True)
        axes.axvline(0, color=INK, lw=0.8)
        axes.grid(visible=False)
    left.set_yticks(positions, list(ordered["industry"]))
    left.set_xlabel(_("rank IC within the industry"))
    right.set_xlabel(_("top of the industry less all of it, per month"))
    right.xaxis.set_major_formatter(PERCENT)
    drawing.add_legend(left, 2)
