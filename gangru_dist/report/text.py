"""Numbers and sentences as the page prints them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

NARROW = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
"""Stands for "there is none"."""


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def plain(value: Any, digits: int = 2) -> str:
    """`-0.05` with a real minus sign; a dash if there is none."""
    return DASH if _missing(value) else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: Any, digits: int = 3) -> str:
    """With a plus sign too."""
    return DASH if _missing(value) else f"{value:+.{digits}f}".replace("-", MINUS)


def percent(value: Any, digits: int = 1) -> str:
    """A fraction as per cent: 0.123 -> `12.3 %`."""
    return DASH if _missing(value) else f"{value * 100:.{digits}f}{NARROW}%".replace("-", MINUS)


def signed_percent(value: Any, digits: int = 1) -> str:
    """A fraction as per cent with its sign."""
    return DASH if _missing(value) else f"{value * 100:+.{digits}f}{NARROW}%".replace("-", MINUS)


def count(value: Any) -> str:
    """A whole number with thin spaces: 12 345."""
    return DASH if _missing(value) else f"{int(value):,}".replace(",", NARROW)


def hundred_millions(value: Any) -> str:
    """Currency in units of 100 million, as Chinese tables have it."""
    if _missing(value):
        return DASH
    return count(round(value / 1e8)) if value >= 1e9 else plain(value / 1e8, 1)


FILTERS = {
    "plain": plain,
    "signed": signed,
    "percent": percent,
    "signed_percent": signed_percent,
    "count": count,
    "yi": hundred_millions,
}
"""Names in the template."""


def template(name: str) -> Template:
    """A page's template; what it is given is escaped, what it asks for must be there."""
    environment = Environment(
        loader=PackageLoader("gangru_dist.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template(name)


def summary_sentence(figures: dict[str, Any], latest: dict[str, Any], picks: int) -> str:
    """What a portfolio manager wants to know first.

    Args:
        figures: `Evaluation.metrics`.
        latest: Last row of `Evaluation.monthly`.
        picks: Assets listed overall.
    """
    ic, period = figures["ic"], figures["period"]
    strong = {"***": "1", "**": "5", "*": "10"}.get(ic["stars"])
    judged = f"significant at {strong}{NARROW}%" if strong else "not significantly different from 0"
    beat = "beat" if latest["excess_return"] >= 0 else "lagged"
    months = f"{period['months']} months" if period["months"] > 1 else "one month"
    return (
        f"In {latest['month']} the factor's IC was {signed(latest['ic'])}; over {months} it "
        f"averages {signed(ic['mean'])}, {judged}, with an ICIR of {plain(ic['icir'])}. The long "
        f"portfolio returned {signed_percent(latest['long_return'])} that month and {beat} the "
        f"equal-weighted universe ({signed_percent(latest['universe_return'])}) by "
        f"{percent(abs(latest['excess_return']))}; since {period['first_day']} its excess is "
        f"{signed_percent(figures['excess']['annualized_return'])} a year before costs and "
        f"{signed_percent(figures['excess_with_costs']['annualized_return'])} after "
        f"{figures['settings']['cost_bps']:g} basis points per side. The newest picks are of "
        f"{period['newest_rebalance']}: {min(picks, period['newest_universe'])} out of "
        f"{count(period['newest_universe'])} assets."
    )


@dataclass(frozen=True)
class KeyFigure:
    """One row of the key table; paths lead through `Evaluation.metrics`."""

    label: str
    note: str
    path: str
    path_with_costs: str
    """Empty if costs do not touch the figure."""
    show: Callable[[Any], str]
    published: str
    """Key in `published.FIGURES`; empty if the broker prints none."""


def _four(value: Any) -> str:
    return plain(value, 4)


def _two_percent(value: Any) -> str:
    return percent(value, 2)


KEY_FIGURES = (
    KeyFigure("Rank IC", "monthly mean", "ic.mean", "", _four, "ic_mean"),
    KeyFigure("ICIR", "mean / std. deviation, per month", "ic.icir", "", plain, "icir"),
    KeyFigure("t of the mean IC", "independent months", "ic.t", "", plain, ""),
    KeyFigure("t, Newey-West", "autocorrelated months", "ic.newey_west_t", "", plain, ""),
    KeyFigure("IC of the latest month", "", "ic.latest", "", _four, "ic_latest"),
    KeyFigure("IC of the last year", "mean of 12 months", "ic.mean_12", "", _four, "ic_mean_12"),
    KeyFigure(
        "Annualized return",
        "long portfolio",
        "long.annualized_return",
        "long_with_costs.annualized_return",
        _two_percent,
        "annualized_return",
    ),
    KeyFigure(
        "Annualized volatility",
        "long portfolio",
        "long.annualized_volatility",
        "long_with_costs.annualized_volatility",
        _two_percent,
        "annualized_volatility",
    ),
    KeyFigure(
        "IR",
        "return / volatility",
        "long.information_ratio",
        "long_with_costs.information_ratio",
        plain,
        "information_ratio",
    ),
    KeyFigure(
        "Maximum drawdown",
        "daily values",
        "long.max_drawdown",
        "long_with_costs.max_drawdown",
        _two_percent,
        "max_drawdown",
    ),
    KeyFigure(
        "Annualized excess",
        "over the universe, geometric",
        "excess.annualized_return",
        "excess_with_costs.annualized_return",
        _two_percent,
        "annualized_excess",
    ),
    KeyFigure("Turnover", "one-way, per rebalance", "turnover", "", plain, "turnover"),
)
"""SPEC 7's table, in its order of importance."""


def key_rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the key table: label, note, cells (two a run: without, with costs), published."""
    return [
        {
            "label": figure.label,
            "note": figure.note,
            "cells": [cell for metrics in runs for cell in _cells(metrics, figure)],
            "published": _published(runs[0]["published"], figure),
        }
        for figure in KEY_FIGURES
    ]


def _cells(metrics: dict[str, Any], figure: KeyFigure) -> tuple[str, str]:
    stars = metrics["ic"]["stars"] if figure.path == "ic.mean" else ""
    costs = figure.path_with_costs
    return (
        _with_stars(figure.show(_at(metrics, figure.path)), stars),
        figure.show(_at(metrics, costs)) if costs else "",
    )


def _published(theirs: dict[str, Any], figure: KeyFigure) -> str:
    if not figure.published:
        return ""
    stars = theirs["ic_stars"] if figure.published == "ic_mean" else ""
    return _with_stars(figure.show(theirs[figure.published]), stars)


def _with_stars(text: str, stars: str) -> str:
    return f"{text} {stars}" if stars else text


def _at(values: dict[str, Any], path: str) -> Any:
    found: Any = values
    for name in path.split("."):
        found = found[name]
    return found
