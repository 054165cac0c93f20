"""Stock codes: one spelling for all that mean the same stock, and codes in the names of files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from gangru_dist.base.errors import BarsError

_EXCHANGES = {
    **dict.fromkeys(("sh", "ss", "sse", "xshg", "shse", "sha", "shh", "cg", "c1"), "sh"),
    **dict.fromkeys(("sz", "szse", "xshe", "she", "shz", "cs", "c2"), "sz"),
    **dict.fromkeys(("bj", "bse", "xbse", "bjse"), "bj"),
    **dict.fromkeys(("ch", "cn"), ""),
}
"""Marks of vendors and terminals -> exchange; a country's names none."""
_ANY = "|".join(sorted(_EXCHANGES, key=len, reverse=True))
_CODE = re.compile(rf"(?:({_ANY})[._:#-]?)?(\d{{1,6}})(?:\.0)?(?:[._:#-]?({_ANY})(?:equity)?)?")
_MARKET = re.compile(r"([01])\.(\d{6})")  # as eastmoney writes it: 1 is Shanghai, 0 the others
_BEIJING = ("4", "8", "92")
_DAY = r"(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12]\d|3[01]))?"
_DATED = re.compile(rf"(?<![0-9]){_DAY}(?![0-9])")
_YEAR = re.compile(r"(.*[A-Za-z].*?)[-_ .](?:19|20)\d\d")
_SUFFIX = re.compile(r"\.(parquet|pq|parq|(csv|txt)(\.(gz|bz2|zst|lz4))?)$", re.IGNORECASE)
_IN_NAME = re.compile(
    rf"(?<![a-z0-9])(?:(?:{_ANY})[._#-]?)?\d{{6}}(?:[._-](?:{_ANY}))?(?![a-z0-9])", re.IGNORECASE
)


def normalize_code(code: str) -> str:
    """One spelling of all that mean the same stock: `600000sh`; bare digits name no exchange."""
    plain = re.sub(r"[\s\x00'\"=]", "", code).casefold()  # Excel's marks of text too
    if (market := _MARKET.fullmatch(plain)) is not None:
        other = "bj" if market[2].startswith(_BEIJING) else "sz"
        return market[2] + ("sh" if market[1] == "1" else other)
    found = _CODE.fullmatch(plain)
    if found is None:
        return plain
    exchange = _EXCHANGES.get(found[1] or found[3] or "", "")
    return found[2].zfill(6) + exchange


def find_code(file: str, *, any_name: bool) -> str | None:
    """The stock's code in a file's name: `sh600000_daily.csv`, `000001.SZ.csv.gz`.

    None if there is none; with `any_name`, a name without six digits is the code itself,
    unless it is a date of eight.

    Raises:
        BarsError: What would be the code has a date in it.
    """
    name = PurePosixPath(file).name
    stem, found = _SUFFIX.sub("", name), _IN_NAME.search(name)
    if found and not _DATED.fullmatch(found[0]):
        return found[0]
    if re.fullmatch(r"\d{8}|\d{4}-\d\d-\d\d", stem) or not (found or any_name):
        return None
    if dated := _DATED.search(stem):
        raise _explain_dated(file, dated[0])
    return stem


def check_years(codes: Mapping[str, str]) -> None:
    """Refuse codes that differ only by a year at their end: AAPL_2018, AAPL_2019.

    Args:
        codes: Code that a file's name gives -> the file.

    Raises:
        BarsError: Names a file.
    """
    first: dict[str, str] = {}
    for code, file in codes.items():
        if (year := _YEAR.fullmatch(code)) and first.setdefault(year[1], code) != code:
            raise _explain_dated(file, code[-4:])


def _explain_dated(file: str, date: str) -> BarsError:
    return BarsError(
        f"{file}: the file name should be the stock's code, but {date} in it looks like a date: "
        "each file would be a stock of its own. Add a column with the code, or rename the files to "
        "the code alone, in one folder per date."
    )


def check_spellings(codes: Mapping[str, str]) -> None:
    """Refuse one stock under two codes.

    Args:
        codes: Every code of the bars -> a file that has it.

    Raises:
        BarsError: Names both spellings and a file of each.
    """
    first: dict[str, str] = {}
    pairs = [(first.setdefault(normalize_code(code), code), code) for code in sorted(codes)]
    bare = [(first.get(key[:6], code), code) for key, code in first.items() if key[:6].isdigit()]
    for one, two in (*pairs, *bare):
        if one != two:
            raise BarsError(
                f"one stock is spelt two ways: {one!r} in {codes[one]} and {two!r} in "
                f"{codes[two]}. It would count as two stocks with half a history each; spell it "
                "one way in all files."
            )
