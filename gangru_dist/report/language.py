"""The page in another language: gettext's interface over a catalogue in TOML.

English is the source text. Whatever prints asks the `Language` it was given: `_("Turnover")` in a
template, `gettext("Turnover")` in Python. A catalogue, `languages/<name>.toml`, has one
line a text: `"Turnover" = "换手率"`. Values go in by name, `%(run)s`, under the same names in every
language; what a catalogue lacks (a name that comes from data, say) stays as it is. A test keeps
texts and catalogues together, so a new text needs its line, and a new language a whole file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from gettext import NullTranslations
from importlib import resources


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
    """The language of `report.language`; its catalogue is read afresh."""
    if name == "en":
        return ENGLISH
    file = resources.files("gangru_dist.report") / "languages" / f"{name}.toml"
    catalogue = tomllib.loads(file.read_text(encoding="utf-8"))
    return Language(catalogue["tag"], catalogue["texts"])


def translatable(text: str) -> str:
    """The text itself: marks one that is declared here and translated where it is printed."""
    return text
