"""Words and numbers as the pages print them.

English is the source text, and gettext's functions ask for its translation. A catalogue,
`languages/<name>.toml`, has one line per text: `"Turnover" = "换手率"`. Values are inserted by
name, `%(run)s`, under the same names in every language; what a catalogue lacks (such as a name from
the data) stays as it is. `use_language` sets the language once per page, for the thread that
renders it.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gangru_dist.base.storage import Storage

NARROW = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
"""Stands for "there is none"."""


_ENGLISH: dict[str, Any] = {"tag": "en", "texts": {}}
_language = ContextVar("language", default=_ENGLISH)
"""A catalogue. `tag`: the page's `lang` attribute, which chooses the browser's fonts. `texts`:
English text -> translation."""


@contextmanager
def use_language(name: str) -> Iterator[None]:
    """Translate into `name`, a value of `report.language`, while the block runs."""
    chosen = _ENGLISH
    if name != "en":
        file = resources.files("gangru_dist.report") / "languages" / f"{name}.toml"
        chosen = tomllib.loads(file.read_text(encoding="utf-8"))
    token = _language.set(chosen)
    try:
        yield
    finally:
        _language.reset(token)


def gettext(message: str) -> str:
    """Translate a text; one that the catalogue lacks stays as it is."""
    return str(_language.get()["texts"].get(message, message))


def ngettext(singular: str, plural: str, number: int) -> str:
    """Translate by number; a catalogue has one form, under the English singular."""
    return str(_language.get()["texts"].get(singular, singular if number == 1 else plural))


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


def format_four(value: Any) -> str:
    """Format with four digits after the point."""
    return format_number(value, 4)


def format_percent(value: Any, digits: int = 1, sign: str = "") -> str:
    """Format a fraction as per cent: 0.123 -> `12.3 %`."""
    text = format_number(value if value is None else value * 100, digits, sign)
    return text if text == DASH else text + _percent()


def format_signed_percent(value: Any, digits: int = 1) -> str:
    """Format a fraction as per cent with its sign."""
    return format_percent(value, digits, "+")


def format_short_percent(value: float) -> str:
    """Format a fraction as per cent with the digits it needs: 0.1 -> `10 %`, 0.025 -> `2.5 %`."""
    return f"{value * 100:g}{_percent()}"


def _percent() -> str:
    """The sign with the space before it: Chinese has none."""
    return gettext("\N{NARROW NO-BREAK SPACE}%")


def format_count(value: Any) -> str:
    """Format a whole number with thin spaces: 12 345."""
    return DASH if format_number(value) == DASH else f"{int(value):,}".replace(",", NARROW)


def format_duration(seconds: float | None) -> str:
    """Format `40 s`, `12 min`, `2.5 h`; a dash if it is not known."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return gettext("%(time)s\N{NARROW NO-BREAK SPACE}s") % {"time": f"{seconds:.0f}"}
    if seconds < 3600:
        return gettext("%(time)s\N{NARROW NO-BREAK SPACE}min") % {"time": f"{seconds / 60:.0f}"}
    return gettext("%(time)s\N{NARROW NO-BREAK SPACE}h") % {"time": f"{seconds / 3600:.1f}"}


def month_after(day: str) -> str:
    """Return the month after a day: `2020-06-30` -> `2020-07`."""
    year, month = int(day[:4]), int(day[5:7])
    return f"{year + month // 12}-{month % 12 + 1:02d}"


def keep_whole(text: Any) -> Markup:
    """Mark a date that no line may end in: browsers break at its hyphens."""
    return Markup('<span class="whole">{}</span>').format(text)


def translate_reason(reason: str) -> str:
    """Translate what `quality.json` calls a finding, also one that names a column or a number."""
    for pattern in (
        mark("amount / volume is %(part)s x the price"),
        mark("day on which most stocks lack %(part)s"),
        mark("%(part)s missing or infinite"),
    ):
        start, end = pattern.split("%(part)s")
        if reason.startswith(start) and reason.endswith(end):
            part = reason.removeprefix(start).removesuffix(end)
            if " " not in part:
                return gettext(pattern) % {"part": part}
    return gettext(reason)


def join(texts: Iterable[str]) -> str:
    """Join the texts of a list as the language does."""
    return gettext(", ").join(texts)


def find_figure(metrics: Mapping[str, Any], path: str) -> Any:
    """Return a figure of metrics.json by its dotted path; None if it is not there."""
    found: Any = metrics
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


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
    "duration": format_duration,
    "month_after": month_after,
    "figure": find_figure,
    "translate": gettext,
    "reason": translate_reason,
    "whole": keep_whole,
    "listed": join,
}
_TEMPLATES.filters.update(_FILTERS)


def render_page(template: str, **values: Any) -> str:
    """Fill a template in the language in use; values are escaped, and all it asks for is there."""
    return _TEMPLATES.get_template(template).render(language=_language.get()["tag"], **values)


def write_page(folder: Storage, name: str, page: str) -> str:
    """Write a page and return its path or URI."""
    folder.write_bytes(name, page.encode())
    return folder.full_path(name) if folder.is_local else folder.child(name).uri


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


MONTHS, ASSETS, HOLDINGS = 24, 300, 20
"""Fewer say little: of months judged, assets ranked, assets held."""


def warn_of_few(metrics: dict[str, Any]) -> dict[str, str]:
    """Say what figures rest on if that is little: of `ic`, of `portfolio`, of `all`; else empty."""
    months, held = metrics["ic"]["months"], metrics["capacity"]["targets"]
    members = metrics["period"]["newest_universe"]
    few_months = [format_months(months)] if months < MONTHS else []
    few_assets = ngettext("%(num)s stock", "%(num)s stocks", members) % {"num": members}
    few_held = ngettext("%(num)s holding", "%(num)s holdings", held) % {"num": held}
    assets, holdings = [few_assets] * (members < ASSETS), [few_held] * (held < HOLDINGS)
    found = {"ic": few_months + assets, "portfolio": few_months + holdings}
    return {name: join(few) for name, few in (found | {"all": found["ic"] + holdings}).items()}


def format_costs(settings: Mapping[str, Any]) -> str:
    """Format `15 bp per side`, or what purchases and sales cost."""
    buy, sell = settings["cost_bps"], settings["sell_cost_bps"]
    if sell is None or sell == buy:
        return gettext("%(cost)s bp per side") % {"cost": f"{buy:g}"}
    return gettext("%(buy)s bp bought, %(sell)s bp sold") % {"buy": f"{buy:g}", "sell": f"{sell:g}"}


def format_months(number: int) -> str:
    """Format `18 months`."""
    return ngettext("%(num)s month", "%(num)s months", number) % {"num": number}
