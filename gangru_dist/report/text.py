"""Numbers and sentences as the page prints them.

The page in another language: gettext's interface over a catalogue in TOML.

English is the source text. Whatever prints asks the `Language` it was given: `_("Turnover")` in a
template, `gettext("Turnover")` in Python. A catalogue, `languages/<name>.toml`, has one
line a text: `"Turnover" = "换手率"`. Values go in by name, `%(run)s`, under the same names in every
language; what a catalogue lacks (a name that comes from data, say) stays as it is. A test keeps
texts and catalogues together, so a new text needs its line, and a new language a whole file.

What the broker printed about its own factor: shown beside ours, never mixed with it.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from gettext import NullTranslations
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


class Language(NullTranslations):
    """One language: what jinja2's i18n extension and our own sentences ask for texts."""

    def __init__(self, tag: str, texts: Mapping[str, str]) -> None:
        super().__init__()
        self.tag = tag
        """Of the page's `lang` attribute: it chooses the browser's fonts."""
        self.texts = texts
        """English text -> translation."""

    def gettext(self, message: str) -> str:
        """The text in this language, or itself if the catalogue lacks it."""
        return self.texts.get(message, message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        """The same by number; a catalogue has one form, under the English singular."""
        return self.texts.get(msgid1, msgid1 if n == 1 else msgid2)


ENGLISH = Language("en", {})
"""The source itself."""


def language(name: str) -> Language:
    """The language of `report.text`; its catalogue is read afresh."""
    if name == "en":
        return ENGLISH
    file = resources.files("gangru_dist.report") / "languages" / f"{name}.toml"
    catalogue = tomllib.loads(file.read_text(encoding="utf-8"))
    return Language(catalogue["tag"], catalogue["texts"])


def translatable(text: str) -> str:
    """The text itself: marks one that is declared here and translated where it is printed."""
    return text


SOURCE = (
    "Southwest Securities, machine-learning factor stock selection, monthly report of 2026-03: "
    "GAN_GRU factor, all China A-shares but ST and those listed less than half a year, "
    "monthly from 2019-02 to 2026-02, without costs"
)
"""Author, issue, universe and period of the figures."""

FIGURES: dict[str, float | str] = {
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
"""Fractions; ratios have no unit."""


def with_published(metrics: dict[str, Any]) -> dict[str, Any]:
    """An evaluation's figures with the broker's beside: what metrics.json holds."""
    return {**metrics, "published": {"source": SOURCE, **FIGURES}}


NARROW = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
"""Stands for "there is none"."""


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def plain(value: Any, digits: int = 2) -> str:
    """`-0.05` with a real minus sign, never of a zero; a dash if there is none."""
    return DASH if _missing(value) else f"{value:z.{digits}f}".replace("-", MINUS)


def four(value: Any) -> str:
    """With four digits after the point."""
    return plain(value, 4)


def signed(value: Any, digits: int = 3) -> str:
    """With a plus sign too."""
    return DASH if _missing(value) else f"{value:+z.{digits}f}".replace("-", MINUS)


def percent(value: Any, digits: int = 1) -> str:
    """A fraction as per cent: 0.123 -> `12.3 %`."""
    return DASH if _missing(value) else f"{value * 100:z.{digits}f}{NARROW}%".replace("-", MINUS)


def signed_percent(value: Any, digits: int = 1) -> str:
    """A fraction as per cent with its sign."""
    return DASH if _missing(value) else f"{value * 100:+z.{digits}f}{NARROW}%".replace("-", MINUS)


def share(value: Any) -> str:
    """A fraction as per cent with the digits it needs: 0.1 -> `10 %`, 0.025 -> `2.5 %`."""
    return DASH if _missing(value) else f"{value * 100:g}{NARROW}%"


def count(value: Any) -> str:
    """A whole number with thin spaces: 12 345."""
    return DASH if _missing(value) else f"{int(value):,}".replace(",", NARROW)


def hundred_millions(value: Any) -> str:
    """Currency in units of 100 million, as Chinese tables have it."""
    if _missing(value):
        return DASH
    return count(round(value / 1e8)) if value >= 1e9 else plain(value / 1e8, 1)


def month_after(day: str) -> str:
    """The month after a day: `2020-06-30` -> `2020-07`."""
    year, month = int(day[:4]), int(day[5:7])
    return f"{year + month // 12}-{month % 12 + 1:02d}"


FILTERS = {
    "plain": plain,
    "signed": signed,
    "percent": percent,
    "signed_percent": signed_percent,
    "count": count,
    "share": share,
    "month_after": month_after,
    "yi": hundred_millions,
}
"""Names in the template."""


def template(name: str, language: Language = ENGLISH) -> Template:
    """A page's template; what it is given is escaped, what it asks for must be there."""
    environment = Environment(
        loader=PackageLoader("gangru_dist.report"),
        extensions=["jinja2.ext.i18n"],
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.install_gettext_translations(language, newstyle=True)  # type: ignore[attr-defined]
    environment.globals["language"] = language
    environment.filters.update(FILTERS)
    return environment.get_template(name)


def summary_sentence(
    figures: dict[str, Any], latest: dict[str, Any], picks: int, language: Language = ENGLISH
) -> str:
    """What a portfolio manager wants to know first.

    Args:
        figures: `Evaluation.metrics`.
        latest: Last row of `Evaluation.monthly`.
        picks: Assets listed overall.
        language: Of the sentence.
    """
    _ = language.gettext
    ic, period = figures["ic"], figures["period"]
    return _(
        "In %(month)s the factor's IC was %(latest_ic)s; over %(months)s it averages %(mean_ic)s, "
        "%(judged)s, with an ICIR of %(icir)s. The long portfolio returned %(long)s that month "
        "and %(beat)s the equal-weighted universe (%(universe)s) by %(excess)s; since "
        "%(first_day)s its excess is %(annual)s a year before costs and %(annual_net)s after "
        "%(cost)s basis points per side. The newest picks are of %(day)s, for %(next)s: %(picks)s "
        "of %(members)s assets."
    ) % {
        "month": latest["month"],
        "latest_ic": signed(latest["ic"]),
        "months": _months(ic["months"], language),
        "mean_ic": signed(ic["mean"]),
        "judged": _judged(ic["stars"], language),
        "icir": plain(ic["icir"]),
        "long": signed_percent(latest["long_return"]),
        "beat": _("beat") if latest["excess_return"] >= 0 else _("lagged"),
        "universe": signed_percent(latest["universe_return"]),
        "excess": percent(abs(latest["excess_return"])),
        "first_day": period["first_day"],
        "annual": signed_percent(figures["excess"]["annualized_return"]),
        "annual_net": signed_percent(figures["excess_with_costs"]["annualized_return"]),
        "cost": f"{figures['settings']['cost_bps']:g}",
        "day": period["newest_rebalance"],
        "next": month_after(period["newest_rebalance"]),
        "picks": min(picks, period["newest_universe"]),
        "members": count(period["newest_universe"]),
    }


def _months(number: int, language: Language) -> str:
    return language.ngettext("one month", "%(num)s months", number) % {"num": number}


def _judged(stars: str, language: Language) -> str:
    level = {"***": "1", "**": "5", "*": "10"}.get(stars)
    if level is None:
        return language.gettext("not significantly different from 0")
    return language.gettext("significant at %(level)s") % {"level": f"{level}{NARROW}%"}


@dataclass(frozen=True)
class KeyFigure:
    """One row of the key table; paths lead through `Evaluation.metrics`."""

    label: str
    """English; translated where it is printed, as `note` is."""
    note: str
    path: str
    path_with_costs: str
    """Empty if costs do not touch the figure."""
    show: Callable[[Any], str]
    published: str
    """Key in `published.FIGURES`; empty if the broker prints none."""


def _two_percent(value: Any) -> str:
    return percent(value, 2)


_ = translatable
KEY_FIGURES = (
    KeyFigure(_("Rank IC"), _("monthly mean"), "ic.mean", "", four, "ic_mean"),
    KeyFigure(_("ICIR"), _("mean / std. deviation, per month"), "ic.icir", "", plain, "icir"),
    KeyFigure(_("t of the mean IC"), _("independent months"), "ic.t", "", plain, ""),
    KeyFigure(_("t, Newey-West"), _("autocorrelated months"), "ic.newey_west_t", "", plain, ""),
    KeyFigure(_("IC of the latest month"), "", "ic.latest", "", four, "ic_latest"),
    KeyFigure(
        _("IC of the last year"), _("mean of 12 months"), "ic.mean_12", "", four, "ic_mean_12"
    ),
    KeyFigure(
        _("Annualized return"),
        _("long portfolio"),
        "long.annualized_return",
        "long_with_costs.annualized_return",
        _two_percent,
        "annualized_return",
    ),
    KeyFigure(
        _("Annualized volatility"),
        _("long portfolio"),
        "long.annualized_volatility",
        "long_with_costs.annualized_volatility",
        _two_percent,
        "annualized_volatility",
    ),
    KeyFigure(
        _("IR"),
        _("return / volatility"),
        "long.information_ratio",
        "long_with_costs.information_ratio",
        plain,
        "information_ratio",
    ),
    KeyFigure(
        _("Maximum drawdown"),
        _("daily values"),
        "long.max_drawdown",
        "long_with_costs.max_drawdown",
        _two_percent,
        "max_drawdown",
    ),
    KeyFigure(
        _("Annualized excess"),
        _("over the universe, geometric"),
        "excess.annualized_return",
        "excess_with_costs.annualized_return",
        _two_percent,
        "annualized_excess",
    ),
    KeyFigure(_("Turnover"), _("one-way, per rebalance"), "turnover", "", plain, "turnover"),
)
"""Figures of the page's first table, in order of importance."""

INDEX_FIGURES = (
    KeyFigure(
        _("Annualized excess over the index"),
        _("geometric"),
        "index.excess.annualized_return",
        "index.excess_with_costs.annualized_return",
        _two_percent,
        "",
    ),
    KeyFigure(
        _("Tracking error"),
        _("against the index, annualized"),
        "index.tracking_error",
        "index.with_costs.tracking_error",
        _two_percent,
        "",
    ),
    KeyFigure(
        _("Information ratio against the index"),
        _("mean of daily active returns / tracking error"),
        "index.information_ratio",
        "index.with_costs.information_ratio",
        plain,
        "",
    ),
    KeyFigure(
        _("Beta"),
        _("to the index, daily returns"),
        "index.beta",
        "index.with_costs.beta",
        plain,
        "",
    ),
)
"""Rows that follow where `evaluation.portfolio` is given."""


MONTHS, ASSETS, HOLDINGS = 24, 300, 20
"""Fewer say little: of months judged, assets ranked, assets held."""


def cautions(metrics: dict[str, Any], language: Language = ENGLISH) -> dict[str, str]:
    """What a figure rests on, if that is little: of an `ic`, of the `portfolio`; else empty."""
    months, held = metrics["ic"]["months"], metrics["capacity"]["targets"]
    members = metrics["period"]["newest_universe"]
    few = {
        "months": language.ngettext("%(num)s month", "%(num)s months", months) % {"num": months},
        "assets": language.ngettext("%(num)s stock", "%(num)s stocks", members) % {"num": members},
        "held": language.ngettext("%(num)s holding", "%(num)s holdings", held) % {"num": held},
    }
    enough = {"months": months >= MONTHS, "assets": members >= ASSETS, "held": held >= HOLDINGS}
    kinds = {"ic": ("months", "assets"), "portfolio": ("months", "held")}
    return {
        kind: language.gettext(", ").join(few[name] for name in names if not enough[name])
        for kind, names in kinds.items()
    }


def key_rows(runs: list[dict[str, Any]], language: Language = ENGLISH) -> list[dict[str, Any]]:
    """Rows of the key table: label, note, caution, cells (two a run), published."""
    few = cautions(runs[0], language)
    has_index = all("index" in metrics for metrics in runs)
    figures = (*KEY_FIGURES, *(INDEX_FIGURES if has_index else ()))
    return [
        {
            "caution": few["ic" if figure.path.startswith("ic.") else "portfolio"],
            "label": language.gettext(figure.label),
            "note": language.gettext(figure.note),
            "cells": [cell for metrics in runs for cell in _cells(metrics, figure)],
            "published": _published(figure),
        }
        for figure in figures
    ]


def _cells(metrics: dict[str, Any], figure: KeyFigure) -> tuple[str, str]:
    stars = metrics["ic"]["stars"] if figure.path == "ic.mean" else ""
    costs = figure.path_with_costs
    return (
        _with_stars(figure.show(_at(metrics, figure.path)), stars),
        figure.show(_at(metrics, costs)) if costs else "",
    )


def _published(figure: KeyFigure) -> str:
    if not figure.published:
        return ""
    stars = str(FIGURES["ic_stars"]) if figure.published == "ic_mean" else ""
    return _with_stars(figure.show(FIGURES[figure.published]), stars)


def _with_stars(text: str, stars: str) -> str:
    return f"{text} {stars}" if stars else text


def _at(values: dict[str, Any], path: str) -> Any:
    found: Any = values
    for name in path.split("."):
        found = found[name]
    return found
