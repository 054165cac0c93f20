"""Words and numbers as the pages print them.

English is the source text, and gettext's functions ask for its translation. A catalogue,
`languages/<name>.toml`, has one line a text: `"Turnover" = "换手率"`. Values go in by name,
`%(run)s`, under the same names in every language; what a catalogue lacks (a name that comes from
data, say) stays as it is. `use_language` sets the language once a page, for the thread that renders
it.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gangru_dist.base.storage import Storage

NARROW = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
"""Stands for "there is none"."""


@dataclass(frozen=True)
class Language:
    """One catalogue."""

    tag: str
    """The page's `lang` attribute: it chooses the browser's fonts."""
    texts: Mapping[str, str]
    """English text -> translation."""


_ENGLISH = Language("en", {})
_language = ContextVar("language", default=_ENGLISH)


@contextmanager
def use_language(name: str) -> Iterator[None]:
    """Translate into `name`, a value of `report.language`, while the block runs."""
    if name == "en":
        chosen = _ENGLISH
    else:
        file = resources.files("gangru_dist.report") / "languages" / f"{name}.toml"
        chosen = Language(**tomllib.loads(file.read_text(encoding="utf-8")))
    token = _language.set(chosen)
    try:
        yield
    finally:
        _language.reset(token)


def gettext(message: str) -> str:
    """Translate a text; one that the catalogue lacks stays as it is."""
    return _language.get().texts.get(message, message)


def ngettext(singular: str, plural: str, number: int) -> str:
    """Translate by number; a catalogue has one form, under the English singular."""
    return _language.get().texts.get(singular, singular if number == 1 else plural)


def mark(text: str) -> str:
    """Return the text itself: it is declared here and translated where it is printed."""
    return text


def format_number(value: Any, digits: int = 2, sign: str = "") -> str:
    """Format `-0.05` with a real minus sign, never of a zero; a dash if there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    return f"{value:{sign}z.{digits}f}".replace("-", MINUS)


def format_signed(value: Any, digits: int = 3) -> str:
    """Format with a plus sign too."""
    return format_number(value, digits, "+")


def format_percent(value: Any, digits: int = 1, sign: str = "") -> str:
    """Format a fraction as per cent: 0.123 -> `12.3 %`."""
    text = format_number(value if value is None else value * 100, digits, sign)
    return text if text == DASH else f"{text}{NARROW}%"


def format_signed_percent(value: Any, digits: int = 1) -> str:
    """Format a fraction as per cent with its sign."""
    return format_percent(value, digits, "+")


def format_short_percent(value: float) -> str:
    """Format a fraction as per cent with the digits it needs: 0.1 -> `10 %`, 0.025 -> `2.5 %`."""
    return f"{value * 100:g}{NARROW}%"


def format_count(value: Any) -> str:
    """Format a whole number with thin spaces: 12 345."""
    return DASH if format_number(value) == DASH else f"{int(value):,}".replace(",", NARROW)


def month_after(day: str) -> str:
    """Return the month after a day: `2020-06-30` -> `2020-07`."""
    year, month = int(day[:4]), int(day[5:7])
    return f"{year + month // 12}-{month % 12 + 1:02d}"


def format_span(first: str, last: str) -> str:
    """Format `2019-02 to 2020-08`."""
    return gettext("%(first)s to %(last)s") % {"first": first, "last": last}


def join(texts: Iterable[str]) -> str:
    """Join the texts of a list as the language does."""
    return gettext(", ").join(texts)


_TEMPLATES = Environment(
    loader=PackageLoader("gangru_dist.report"),
    extensions=["jinja2.ext.i18n"],
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]
_FILTERS: dict[str, Any] = {
    "number": format_number,
    "signed": format_signed,
    "percent": format_percent,
    "signed_percent": format_signed_percent,
    "short_percent": format_short_percent,
    "count": format_count,
    "month_after": month_after,
    "translate": gettext,
}
_TEMPLATES.filters.update(_FILTERS)


def render_page(template: str, **values: Any) -> str:
    """Fill a template in the language in use; values are escaped, and all it asks for is there."""
    return _TEMPLATES.get_template(template).render(language=_language.get().tag, **values)


def write_page(folder: Storage, name: str, page: str) -> str:
    """Write a page and return its path or URI."""
    folder.write_bytes(name, page.encode())
    return folder.full(name) if folder.is_local else folder.child(name).uri


PUBLISHED_SOURCE = mark(
    "Southwest Securities, machine-learning factor stock selection, monthly report of 2026-03: "
    "GAN_GRU factor, all China A-shares but ST and those listed less than half a year, "
    "monthly from 2019-02 to 2026-02, without costs"
)
"""Author, issue, universe and period of `PUBLISHED`."""
PUBLISHED: dict[str, float | str] = {
    "ic_mean": 0.1096,
    "ic_stars": "***",
    "ic_latest": -0.0105,
    "ic_mean_12": 0.0517,
    "icir": 0.87,
    "turnover": 0.82,
    "annualized_return": 0.3813,
    "annualized_volatility": 0.2318,
    "information_ratio": 1.64,
    "max_drawdown": 0.2729,
    "annualized_excess": 0.2232,
}
"""What the broker printed of its own factor, shown beside ours; fractions, ratios have no unit."""


def summarize(figures: dict[str, Any], latest: dict[str, Any], picks: int) -> str:
    """Say what a portfolio manager wants to know first.

    Args:
        figures: `Evaluation.metrics`.
        latest: Last row of `Evaluation.monthly`.
        picks: Assets listed overall.
    """
    _ = gettext
    ic, period = figures["ic"], figures["period"]
    level = {"***": "1", "**": "5", "*": "10"}.get(ic["stars"])
    return _(
        "In %(month)s the factor's IC was %(latest_ic)s; over %(months)s it averages %(mean_ic)s, "
        "%(judged)s, with an ICIR of %(icir)s. The long portfolio returned %(long)s that month "
        "and %(beat)s the equal-weighted universe (%(universe)s) by %(excess)s; since "
        "%(first_day)s its excess is %(annual)s a year before costs and %(annual_net)s after "
        "%(cost)s basis points per side. The newest picks are of %(day)s, for %(next)s: %(picks)s "
        "of %(members)s assets."
    ) % {
        "month": latest["month"],
        "latest_ic": format_signed(latest["ic"]),
        "months": ngettext("one month", "%(num)s months", ic["months"]) % {"num": ic["months"]},
        "mean_ic": format_signed(ic["mean"]),
        "judged": _("significant at %(level)s") % {"level": f"{level}{NARROW}%"}
        if level
        else _("not significantly different from 0"),
        "icir": format_number(ic["icir"]),
        "long": format_signed_percent(latest["long_return"]),
        "beat": _("beat") if latest["excess_return"] >= 0 else _("lagged"),
        "universe": format_signed_percent(latest["universe_return"]),
        "excess": format_percent(abs(latest["excess_return"])),
        "first_day": period["first_day"],
        "annual": format_signed_percent(figures["excess"]["annualized_return"]),
        "annual_net": format_signed_percent(figures["excess_with_costs"]["annualized_return"]),
        "cost": f"{figures['settings']['cost_bps']:g}",
        "day": period["newest_rebalance"],
        "next": month_after(period["newest_rebalance"]),
        "picks": min(picks, period["newest_universe"]),
        "members": format_count(period["newest_universe"]),
    }


@dataclass(frozen=True)
class KeyFigure:
    """One row of the key table."""

    label: str
    """English; translated where it is printed, as `note` is."""
    note: str
    path: str
    """Leads through `Evaluation.metrics`."""
    format: Callable[[Any], str] = format_number
    published: str = ""
    """Key in `PUBLISHED`; empty if the broker prints none."""

    @property
    def path_with_costs(self) -> str:
        """Where the figure with costs stands; empty if costs do not touch it."""
        group, _, name = self.path.rpartition(".")
        if group in ("long", "excess", "index.excess"):
            return f"{group}_with_costs.{name}"
        return f"index.with_costs.{name}" if group == "index" else ""


def format_four(value: Any) -> str:
    """Format with four digits after the point."""
    return format_number(value, 4)


def _two_percent(value: Any) -> str:
    return format_percent(value, 2)


KEY_FIGURES = (
    KeyFigure(mark("Rank IC"), mark("monthly mean"), "ic.mean", format_four, "ic_mean"),
    KeyFigure(mark("ICIR"), mark("mean / std. deviation, per month"), "ic.icir", published="icir"),
    KeyFigure(mark("t of the mean IC"), mark("independent months"), "ic.t"),
    KeyFigure(mark("t, Newey-West"), mark("autocorrelated months"), "ic.newey_west_t"),
    KeyFigure(mark("IC of the latest month"), "", "ic.latest", format_four, "ic_latest"),
    KeyFigure(
        mark("IC of the last year"),
        mark("mean of 12 months"),
        "ic.mean_12",
        format_four,
        "ic_mean_12",
    ),
    KeyFigure(
        mark("Annualized return"),
        mark("long portfolio"),
        "long.annualized_return",
        _two_percent,
        "annualized_return",
    ),
    KeyFigure(
        mark("Annualized volatility"),
        mark("long portfolio"),
        "long.annualized_volatility",
        _two_percent,
        "annualized_volatility",
    ),
    KeyFigure(
        mark("IR"),
        mark("return / volatility"),
        "long.information_ratio",
        published="information_ratio",
    ),
    KeyFigure(
        mark("Maximum drawdown"),
        mark("daily values"),
        "long.max_drawdown",
        _two_percent,
        "max_drawdown",
    ),
    KeyFigure(
        mark("Annualized excess"),
        mark("over the universe, geometric"),
        "excess.annualized_return",
        _two_percent,
        "annualized_excess",
    ),
    KeyFigure(mark("Turnover"), mark("one-way, per rebalance"), "turnover", published="turnover"),
)
"""Figures of the page's first table, in order of importance."""
INDEX_FIGURES = (
    KeyFigure(
        mark("Annualized excess over the index"),
        mark("geometric"),
        "index.excess.annualized_return",
        _two_percent,
    ),
    KeyFigure(
        mark("Tracking error"),
        mark("against the index, annualized"),
        "index.tracking_error",
        _two_percent,
    ),
    KeyFigure(
        mark("Information ratio against the index"),
        mark("mean of daily active returns / tracking error"),
        "index.information_ratio",
    ),
    KeyFigure(mark("Beta"), mark("to the index, daily returns"), "index.beta"),
)
"""Rows that follow where `evaluation.index` is given."""
MONTHS, ASSETS, HOLDINGS = 24, 300, 20
"""Fewer say little: of months judged, assets ranked, assets held."""


def warn_of_few(metrics: dict[str, Any]) -> dict[str, str]:
    """Say what a figure rests on if that is little: of `ic` and of `portfolio`; else empty."""
    months, held = metrics["ic"]["months"], metrics["capacity"]["targets"]
    members = metrics["period"]["newest_universe"]
    few_months = [format_months(months)] if months < MONTHS else []
    few_assets = ngettext("%(num)s stock", "%(num)s stocks", members) % {"num": members}
    few_held = ngettext("%(num)s holding", "%(num)s holdings", held) % {"num": held}
    return {
        "ic": join(few_months + [few_assets] * (members < ASSETS)),
        "portfolio": join(few_months + [few_held] * (held < HOLDINGS)),
    }


def format_months(number: int) -> str:
    """Format `18 months`."""
    return ngettext("%(num)s month", "%(num)s months", number) % {"num": number}


def list_key_rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the key table: label, note, caution, cells (two a run), published."""
    few = warn_of_few(runs[0])
    has_index = all("index" in metrics for metrics in runs)
    return [
        {
            "caution": few["ic" if figure.path.startswith("ic.") else "portfolio"],
            "label": gettext(figure.label),
            "note": gettext(figure.note),
            "cells": [cell for metrics in runs for cell in _list_cells(metrics, figure)],
            "published": _format_published(figure),
        }
        for figure in (*KEY_FIGURES, *(INDEX_FIGURES if has_index else ()))
    ]


def _list_cells(metrics: dict[str, Any], figure: KeyFigure) -> tuple[str, str]:
    stars = metrics["ic"]["stars"] if figure.path == "ic.mean" else ""
    costs = figure.path_with_costs
    return (
        f"{figure.format(find_figure(metrics, figure.path))} {stars}".strip(),
        figure.format(find_figure(metrics, costs)) if costs else "",
    )


def _format_published(figure: KeyFigure) -> str:
    if not figure.published:
        return ""
    stars = PUBLISHED["ic_stars"] if figure.published == "ic_mean" else ""
    return f"{figure.format(PUBLISHED[figure.published])} {stars}".strip()


def find_figure(metrics: Mapping[str, Any], path: str) -> Any:
    """Return a figure of metrics.json by its dotted path; None if it is not there."""
    found: Any = metrics
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
