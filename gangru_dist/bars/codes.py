"""Which spellings of a stock's code mean the same stock: 600000.SH, sh600000, 600000.XSHG.

Codes stay as the bars spell them; this finds one stock under two names, and a side table's rows
of a stock that the bars spell another way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from gangru_dist.base.errors import BarsError

_EXCHANGES = {
    "sh": "sh", "ss": "sh", "sse": "sh", "xshg": "sh",
    "sz": "sz", "szse": "sz", "xshe": "sz",
    "bj": "bj", "bse": "bj", "xbse": "bj",
}  # fmt: skip
_ANY = "|".join(sorted(_EXCHANGES, key=len, reverse=True))
_CODE = re.compile(rf"(?:({_ANY})[._-]?)?(\d{{1,6}})(?:\.0)?(?:[._-]?({_ANY}))?")
_SUFFIX = re.compile(r"\.(parquet|pq|parq|csv(\.(gz|bz2|zst|lz4))?)$", re.IGNORECASE)
_IN_NAME = re.compile(
    rf"(?<![a-z0-9])(?:(?:{_ANY})[._-]?)?\d{{6}}(?:[._-](?:{_ANY}))?(?![a-z0-9])", re.IGNORECASE
)


def stock_key(code: str) -> str:
    """One spelling of all that mean the same stock: `600000sh`; bare digits name no exchange."""
    plain = re.sub(r"[\s\x00]", "", code).casefold()
    found = _CODE.fullmatch(plain)
    if found is None:
        return plain
    exchange = _EXCHANGES.get(found[1] or found[3] or "", "")
    return found[2].zfill(6) + exchange


def check_spellings(codes: Mapping[str, str]) -> None:
    """Refuse one stock under two codes.

    Args:
        codes: Every code of the bars -> a file that has it.

    Raises:
        BarsError: Names both spellings and a file of each.
    """
    first: dict[str, str] = {}
    for code in sorted(codes):
        other = first.setdefault(stock_key(code), code)
        if other != code:
            raise _two_spellings(codes, other, code)
    for key, code in first.items():
        if len(key) > 6 and key[:6].isdigit() and key[:6] in first:
            raise _two_spellings(codes, first[key[:6]], code)


class Spellings:
    """Finds the bars' spelling of a code that a side table spells its own way."""

    def __init__(self, codes: Mapping[str, str]) -> None:
        keys = {stock_key(code): code for code in codes}
        bare: dict[str, list[str]] = {}
        for key, code in keys.items():
            bare.setdefault(key[:6], []).append(code)
        self._by_key = {digits: found[0] for digits, found in bare.items() if len(found) == 1}
        self._by_key |= keys

    def find(self, code: str) -> str | None:
        """The bars' code; None if they do not have the stock."""
        key = stock_key(code)
        found = self._by_key.get(key)
        if found is None and key[:6].isdigit():
            bare = self._by_key.get(key[:6])
            # bars without exchanges take any; bars with one take none of another exchange
            found = bare if bare is not None and stock_key(bare) == key[:6] else None
        return found


def code_in_name(file: str, *, any_name: bool) -> str | None:
    """The stock's code in a file's name: `sh600000_daily.csv`, `000001.SZ.csv.gz`.

    None if there is none; with `any_name`, a name without six digits is the code itself,
    unless it is a date of eight.
    """
    name = PurePosixPath(file).name
    found = _IN_NAME.search(name)
    if found:
        return found[0]
    stem = _SUFFIX.sub("", name)
    return stem if any_name and not re.fullmatch(r"\d{8}|\d{4}-\d\d-\d\d", stem) else None


def _two_spellings(codes: Mapping[str, str], one: str, two: str) -> BarsError:
    return BarsError(
        f"one stock is spelt two ways: {one!r} in {codes[one]} and {two!r} in {codes[two]}. It "
        "would count as two stocks with half a history each; spell it one way in all files."
    )
