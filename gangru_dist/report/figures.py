"""Tables -> pictures of factor, portfolio and training; `drawing` says how they look."""

from __future__ import annotations

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
from gangru_dist.report.drawing import (
    BLUE,
    GREY,
    HALF,
    INK,
    ORANGE,
    PALE,
    PERCENT,
    RED,
    TENTHS,
    WIDE,
    drawn,
    legend_above,
    month_ticks,
    tips,
)
from gangru_dist.report.text import (
    ENGLISH,
    FIGURES,
    Language,
    count,
    four,
    percent,
    plain,
    signed,
    signed_percent,
)


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
        month_ticks(left, table["month"])
        legend_above(left)
        shown = {
            _("IC of the month"): (table["ic"], signed),
            _("mean of 12 months"): (table["ic_mean_12"], signed),
        }
        tips(left, place, shown, list(table["month"]))
        for (name, other), style in zip(runs.items(), _LINES, strict=False):
            dates = pd.to_datetime(other["month"])
            right.plot(dates, other["ic_cumulative"], label=name, **style)
        right.set_ylabel(_("cumulative rank IC"))
        right.axhline(0, color=INK, lw=0.8)  # in sight, however high the lines rise
        right.xaxis.set_major_locator(_month_locator(len(table)))
        right.xaxis.set_major_formatter(mdates.DateFormatter("%Y-%m"))
        if len(runs) > 1:
            legend_above(right, 2)
        totals = {
            name: (_of_months(one, "ic_cumulative", table), signed) for name, one in runs.items()
        }
        tips(right, pd.to_datetime(table["month"]), totals, list(table["month"]))

    return drawn("ic", WIDE, draw)


def _of_months(table: pd.DataFrame, column: str, like: pd.DataFrame) -> np.ndarray:
    """A column at another table's months; NaN where this table lacks one."""
    return np.asarray(table.set_index("month")[column].reindex(like["month"]))


def ic_in_context(runs: dict[str, pd.DataFrame], language: Language = ENGLISH) -> str:
    """How monthly ICs are distributed, and their 12-month mean, beside the broker's levels."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        table = next(iter(runs.values()))
        values = metrics.finite(table["ic"].to_numpy())
        counts, edges = np.histogram(values, bins=min(20, max(5, len(values) // 4)))
        centers = (edges[1:] + edges[:-1]) / 2
        left.bar(centers, counts, width=np.diff(edges) * 0.92, color=PALE, edgecolor=GREY, lw=0.5)
        theirs = float(FIGURES["ic_mean"])
        left.axvline(metrics.mean(values), color=BLUE, lw=1.6, label=_("mean of all"))
        left.axvline(theirs, color=RED, ls="--", lw=1.4, label=_("broker's mean"))
        left.axvline(0, color=INK, lw=0.8)
        left.set_xlabel(_("rank IC of a month"))
        left.set_ylabel(_("months"))
        left.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        legend_above(left, 2)
        heads = [f"{signed(a)} … {signed(b)}" for a, b in itertools.pairwise(edges)]
        tips(left, centers, {_("months"): (counts, count)}, heads)
        dates = pd.to_datetime(table["month"])
        for (name, other), style in zip(runs.items(), _LINES, strict=False):
            right.plot(pd.to_datetime(other["month"]), other["ic_mean_12"], label=name, **style)
        right.axhline(theirs, color=RED, ls="--", lw=1.4)
        last = float(FIGURES["ic_mean_12"])
        right.axhline(last, color=RED, ls=":", lw=1.2, label=_("broker's last year"))
        right.axhline(0, color=INK, lw=0.8)
        right.set_xlim(dates.iloc[0], dates.iloc[-1] + pd.Timedelta(days=1))
        right.set_ylabel(_("rank IC, mean of 12 months"))
        right.xaxis.set_major_locator(_month_locator(len(table)))
        right.xaxis.set_major_formatter(mdates.DateFormatter("%Y-%m"))
        legend_above(right, 3)
        rolling = {
            name: (_of_months(one, "ic_mean_12", table), signed) for name, one in runs.items()
        }
        tips(right, dates, rolling, list(table["month"]))

    return drawn("ic-context", WIDE, draw)


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
        days = language.gettext("%(days)s days")
        heads = [days % {"days": number} for number in table["horizon"]]
        tips(axes, place, {"IC": (table["ic"], signed), "±": (error, four)}, heads)

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
        axes.yaxis.set_major_formatter(TENTHS)
        heads = [_("quantile %(number)s") % {"number": n} for n in table["quantile"]]
        tips(axes, table["quantile"], {"": (excess, _hundredths)}, heads)

    return drawn("quantiles", HALF, draw)


def _hundredths(value: Any) -> str:
    return signed_percent(value, 2)


def quantile_curves(months: pd.DataFrame, language: Language = ENGLISH) -> str:
    """Value of one unit in each quantile, and of highest less lowest, month by month."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
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
        axes.xaxis.set_major_locator(mdates.AutoDateLocator(minticks=3, maxticks=5))
        axes.xaxis.set_major_formatter(mdates.DateFormatter("%Y-%m"))
        legend_above(axes, 3)
        shown: dict[str, Any] = {name.upper(): (grown[name], plain) for name in names}
        tips(
            axes,
            dates,
            shown | {_("highest less lowest"): (grown["long_short"], plain)},
            list(months["month"]),
        )

    return drawn("curves", HALF, draw)


def values(
    daily: pd.DataFrame,
    cost_bps: float,
    language: Language = ENGLISH,
    *,
    index: str | None = None,
) -> str:
    """Daily values of long, universe and, if it is named, the index; and the drawdown of long."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
        date = daily["date"]
        after = _("after %(cost)s bp per side") % {"cost": f"{cost_bps:g}"}
        shown: dict[str, tuple[Any, Any]] = {
            _("long portfolio"): (daily["long"], {"color": BLUE}),
            after: (daily["long_net"], {"color": BLUE, "ls": ":"}),
            _("universe, equal weight"): (daily["universe"], {"color": GREY, "ls": "--"}),
        }
        if index:
            shown[_("index %(name)s") % {"name": index}] = (daily["index"], {"color": INK, "lw": 1})
        _over_drawdown(upper, lower, date, shown, language)

    return drawn("values", (WIDE[0], 4.2), draw)


def excess(
    daily: pd.DataFrame,
    cost_bps: float,
    others: dict[str, pd.DataFrame],
    language: Language = ENGLISH,
) -> str:
    """Long over universe on an axis of its own, and its drawdown."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
        date = daily["date"]
        after = _("after %(cost)s bp per side") % {"cost": f"{cost_bps:g}"}
        shown: dict[str, tuple[Any, Any]] = {
            _("long / universe"): (daily["excess"], {"color": RED}),
            after: (daily["excess_net"], {"color": RED, "ls": ":"}),
        }
        for name, other in others.items():
            style = {"color": ORANGE, "ls": (0, (4, 1, 1, 1, 1, 1)), "lw": 1.2}
            theirs = other.set_index("date")["excess"].reindex(date).to_numpy()
            shown[_("long / universe, %(run)s") % {"run": name}] = (theirs, style)
        upper.axhline(1, color=INK, lw=0.8)
        _over_drawdown(upper, lower, date, shown, language)

    return drawn("excess", (WIDE[0], 3.6), draw)


def _over_drawdown(
    upper: Axes, lower: Axes, date: pd.Series, shown: dict[str, tuple[Any, Any]], language: Language
) -> None:
    """Lines over the drawdown of the first of them."""
    _ = language.gettext
    for name, (line, style) in shown.items():
        upper.plot(date, line, label=name, **style)
    upper.set_ylabel(_("value of 1"))
    legend_above(upper, 4)
    first, style = next(iter(shown.values()))
    fall = metrics.drawdown(np.asarray(first))
    lower.fill_between(date, fall, 0, color=PALE, lw=0)
    lower.plot(date, fall, color=style["color"], lw=0.8)
    lower.set_ylabel(_("drawdown"))
    lower.yaxis.set_major_formatter(PERCENT)
    lower.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    lower.set_xlim(date.iloc[0], date.iloc[-1])
    days = list(date.dt.strftime("%Y-%m-%d"))
    tips(upper, date, {name: (line, four) for name, (line, _) in shown.items()}, days)
    tips(lower, date, {_("drawdown"): (fall, percent)}, days)


def turnover(trades: pd.DataFrame, language: Language = ENGLISH) -> str:
    """Turnover of each rebalance, and how many targets could not be bought or sold."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        place = np.arange(len(trades))
        upper.bar(place, trades["turnover"].fillna(0), color=BLUE, width=0.75)
        upper.set_ylabel(_("one-way turnover"))
        upper.yaxis.set_major_formatter(PERCENT)
        upper.set_ylim(0, 1)
        lower.bar(place - 0.2, trades["not_bought"], color=ORANGE, width=0.4, label=_("not bought"))
        lower.bar(place + 0.2, trades["not_sold"], color=INK, width=0.4, label=_("not sold"))
        lower.set_ylabel(_("assets"))
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True, steps=[1, 2, 5, 10]))
        legend_above(lower)
        months = trades["entry"].dt.strftime("%Y-%m")
        month_ticks(lower, months)
        tips(upper, place, {"": (trades["turnover"], percent)}, list(months))
        lost = {_("not bought"): (trades["not_bought"], count)}
        lost |= {_("not sold"): (trades["not_sold"], count)}
        tips(lower, place, lost, list(months))

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
        legend_above(axes)
        shown = {_("with a factor"): (table["scored"], count)}
        if "traded" in table:
            shown |= {_("traded"): (table["traded"], count)}
        tips(axes, table["date"], shown, list(table["date"].dt.strftime("%Y-%m-%d")))

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
        right.xaxis.set_major_formatter(PERCENT)
        legend_above(left, 2)
        for axes, name, show in ((left, "ic", signed), (right, "excess", signed_percent)):
            shown = {_("mean of 12 months"): (ordered[f"{name}_mean_12"], show)}
            shown |= {_("latest month"): (ordered[f"{name}_latest"], show)}
            tips(axes, place, shown, list(ordered["industry"]), vertical=True)

    return drawn("industries", (WIDE[0], 1.1 + 0.2 * max(len(table), 4)), draw)


def validation_curves(history: pd.DataFrame, language: Language = ENGLISH) -> str:
    """Validation IC by epoch of every window; several seeds thin, their mean thick."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        predictor = history[history["stage"] != "gan"]
        _window_lines(axes, predictor, "valid_ic", language)
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_xlabel(_("epoch"))
        axes.set_ylabel(_("validation IC"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if predictor["window"].nunique() <= _LEGEND_HOLDS:
            legend_above(axes, 3)

    return drawn("validation", HALF, draw)


def gan_curves(history: pd.DataFrame, language: Language = ENGLISH) -> str:
    """Discriminator accuracy by GAN epoch; one half = it cannot tell real from generated."""
    _ = language.gettext

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _window_lines(axes, history[history["stage"] == "gan"], "discriminator_accuracy", language)
        axes.axhline(0.5, color=INK, lw=0.8, ls="--")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(_("GAN epoch"))
        axes.set_ylabel(_("discriminator accuracy"))
        axes.yaxis.set_major_formatter(PERCENT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return drawn("gan", HALF, draw)


_LEGEND_HOLDS = 9


def _window_lines(
    axes: Axes, history: pd.DataFrame, column: str, language: Language = ENGLISH
) -> None:
    """A line a window, dark for early ones: its only seed, or the mean as far as all seeds go."""
    windows = sorted(history["window"].unique())
    shades = mpl.colormaps["cividis"](np.linspace(0, 0.85, max(len(windows), 2)))
    shown: dict[str, pd.Series] = {}
    for number, window in enumerate(windows):
        seeds = history[history["window"] == window].pivot_table(
            index="epoch", columns="seed", values=column
        )
        if len(seeds.columns) > 1:
            axes.plot(seeds.index, seeds, color=shades[number], lw=0.5, alpha=0.45)
        mean = seeds.dropna().mean(axis=1)
        shown[window] = mean
        dashes = ("-", "--", "-.", ":")[number % 4]
        axes.plot(mean.index, mean, color=shades[number], ls=dashes, label=window)
    epochs = sorted({epoch for mean in shown.values() for epoch in mean.index})
    told = {name: (mean.reindex(epochs), signed) for name, mean in shown.items()}
    head = language.gettext("epoch %(number)s")
    tips(axes, epochs, told, [head % {"number": epoch} for epoch in epochs])
