"""What a panel store holds: `panel/manifest.json`, written last and read first.

It lists the parquet files and says what they were made from. The stock column of their rows is
`asset`; prices are currency per share, `market_cap` is currency.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, PlainValidator, ValidationError

from gangru_dist.base.errors import PanelError
from gangru_dist.base.records import Describable, describe_error, parse_record
from gangru_dist.base.storage import Storage

MANIFEST = "manifest.json"
"""Its name below `<storage>/panel`."""
VERSION = 1
"""Layout of the store; a reader refuses any other."""
ROWS_VERSION = 3
"""Version of the code that makes rows of bars. Raise it with every change after which the same bars
give other rows; `tests/panel/test_rows_version.py` fails where that was forgotten."""

_ROWS_CODE = {
    "fd1f26a2a1cefa25312bdbd0c9ef5c6537ac3738be973d0314097c3951c8c807": 1,
    "e5552de4ec8a94eafb60b43ff688298b3ed395dc9c80e23356ad3d1c7c13ad64": 1,
}
"""`source["rows_code"]` -> version. Up to commit afc845f a hash of the sources stood in place of
the number: these are that commit's, of all eighteen features, and of all but turnover_rate."""

BASE_COLUMNS = ("date", "asset", "is_st", "list_date", "adj_close")
"""Panel columns that every block needs."""
TRADING_COLUMNS = ("market_cap", "industry", "limit_up", "limit_down")
"""Panel columns that judging a portfolio needs besides."""
MEMBER = "member"
"""Panel column of a panel that was built with `panel.members`, and of no other."""

_FILE = re.compile(r"bucket=\d+/\d{4}-(?P<rows>[0-9a-f]{12})(-(?P<bytes>[0-9a-f]{32}))?\.parquet")
"""Name of a panel's file. Versions up to 0d2b8c2 wrote it without the hash of its bytes."""


def panel_schema(features: Sequence[str], *, members: bool = False) -> pa.Schema:
    """Schema of the stored rows: date, asset, the float32 features, then the rest."""
    return pa.schema(
        [
            ("date", pa.date32()),
            ("asset", pa.string()),
            *((name, pa.float32()) for name in features),
            ("is_st", pa.bool_()),
            ("list_date", pa.date32()),
            ("adj_close", pa.float64()),
            ("market_cap", pa.float64()),
            ("industry", pa.string()),
            ("limit_up", pa.bool_()),
            ("limit_down", pa.bool_()),
            *([(MEMBER, pa.bool_())] if members else []),
        ]
    )


class PanelFile(NamedTuple):
    """One parquet file: the rows of one bucket and year, sorted by (asset, date)."""

    name: str
    """Path below `<storage>/panel`."""
    bucket: int
    """Hash bucket of its assets."""
    year: int
    """Year of its dates."""
    rows: int
    """Number of its rows."""

    @property
    def digest(self) -> str | None:
        """Start of the SHA-256 of its bytes; None if its name tells the rows' hash alone."""
        named = _FILE.fullmatch(self.name)
        return named["bytes"] if named else None

    @property
    def rows_digest(self) -> str:
        """Start of the hash of its rows and columns."""
        named = _FILE.fullmatch(self.name)
        return named["rows"] if named else ""

    def is_named_so(self, buckets: int) -> bool:
        """Whether its name says the same bucket and year."""
        start = locate_files(self.bucket, self.year, buckets)
        return bool(_FILE.fullmatch(self.name)) and self.name.startswith(start)


def locate_files(bucket: int, year: int, buckets: int) -> str:
    """Return how the names of a bucket's files of a year begin: their folder and the year."""
    return f"bucket={bucket:0{max(2, len(str(buckets - 1)))}d}/{year:04d}-"


class View(NamedTuple):
    """The panel as a run sees it that names some of its features."""

    features: tuple[str, ...]
    """In the run's order."""
    months: dict[str, str]
    """As `Manifest.months`, of a panel with these features alone."""


def _parse_days(days: Any) -> np.ndarray:
    return np.array(days, dtype="datetime64[D]")


def _replace_rows_code(source: dict[str, Any]) -> dict[str, Any]:
    """A manifest's source with the version of the rows in place of the hash of their code.

    A hash that is not known leaves neither: such a panel is compared with what replaces it.
    """
    version = _ROWS_CODE.get(str(source.get("rows_code")))
    rest = {name: value for name, value in source.items() if name != "rows_code"}
    return rest if version is None else {**rest, "rows_version": version, "users_code": {}}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Manifest(Describable):
    """Description of a finished panel; files that it does not list are no part of it."""

    features: tuple[str, ...]
    """Names of the feature columns, in the model's order."""
    rows: int
    """Traded (date, asset) rows."""
    assets: int
    """Assets that ever traded."""
    buckets: int
    """Number of hash buckets."""
    has_industry: bool = True
    """Whether any row names its industry."""
    has_market_cap: bool = True
    """Whether any row has a market cap."""
    has_members: bool = False
    """Whether the rows have the column `member`."""
    source: Annotated[dict[str, Any], AfterValidator(_replace_rows_code)]
    """Bars' URI and what they looked like; settings they were read with."""
    months: dict[str, str]
    """Month ("2018-12") -> hash of its rows, whatever their order or bucket."""
    rewritten: dict[str, str] = field(default_factory=dict)
    """Month -> mark that changes whenever a build changed rows or days of it that an earlier one
    had (`--overwrite`). No part of a fingerprint: how a panel came about is not what it holds."""
    set_aside: str | None = None
    """Newest day of the bars, ISO, if not one of its rows is in the panel; a weekend is no day."""
    views: tuple[View, ...] = ()
    """Of the runs that name other features than the panel holds: what other runs add does not
    change what theirs is made from."""
    facts: tuple[str, ...] | None = None
    """Columns that have no date in the bars, for side tables by stock brought them: their values
    hold from the day on which they were first seen. None: an early version, which did not say."""
    delisted: dict[str, str] = field(default_factory=dict)
    """Asset -> the day on which it left the exchange, ISO, up to the newest one: where the bars
    say so. No part of a fingerprint, for no sample and no score reads it."""
    incomplete: str | None = None
    """The panel's newest day, ISO, if clearly fewer stocks than usual have a row of it."""
    calendar: Annotated[np.ndarray, PlainValidator(_parse_days)]
    """(days,) datetime64[D], ascending: the trading days of the bars."""
    files: tuple[PanelFile, ...]
    """Sorted by (bucket, year)."""

    def describe(self) -> dict[str, object]:
        """Its size and its span."""
        return {
            "rows": self.rows,
            "assets": self.assets,
            "days": len(self.calendar),
            "first": self.calendar[0],
            "last": self.calendar[-1],
            "features": len(self.features),
        }

    @property
    def fingerprint(self) -> str:
        """Hash of all rows, of the calendar and of the features' names."""
        return self.fingerprint_to(None)

    def fingerprint_to(self, date: dt.date | None) -> str:
        """Hash of the rows and days up to the end of `date`'s month: later bars leave it alone.

        The calendar counts beside the rows: a day on which all are suspended has no row, but
        lookbacks, labels and listing ages are counted in days.
        """
        days, months = self.calendar, sorted(self.months)
        if date is not None:
            last = f"{date:%Y-%m}"
            days = days[days < np.datetime64(last, "M") + 1]
            months = [month for month in months if month <= last]
        rows = [f"{month} {self.months[month]}" for month in months]
        text = "\n".join([str(VERSION), *self.features, "", *rows, "", *map(str, days)])
        return hashlib.sha256(text.encode()).hexdigest()

    def view(self, features: Sequence[str]) -> Manifest:
        """The panel of a run with these `panel.features`; the whole one if it is not known."""
        for view in self.views:
            if view.features == tuple(features):
                return replace(self, features=view.features, months=view.months)
        return self

    def trading_days(self, start: dt.date, end: dt.date) -> np.ndarray:
        """(D,) datetime64[D], the trading days from `start` to `end`, both included.

        Raises:
            PanelError: There is none.
        """
        days = self.calendar
        first = np.searchsorted(days, np.datetime64(start), side="left")
        last = np.searchsorted(days, np.datetime64(end), side="right")
        if last <= first:
            raise PanelError(
                f"no trading day from {start} to {end}; the panel has {days[0]} to {days[-1]}."
            )
        return np.asarray(days[first:last])

    def require_features(self, names: Sequence[str]) -> None:
        """Check that the panel holds these features.

        Raises:
            PanelError: It lacks one.
        """
        missing = [name for name in names if name not in self.features]
        if missing:
            raise PanelError(
                f"the panel lacks the feature(s) {', '.join(missing)}; it holds "
                f"{', '.join(self.features)}. Add them to panel.features and build it again with "
                "`gangru panel`, or leave them out of samples.features."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `Storage.write_json`."""
        days = [str(day) for day in self.calendar]
        values = {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "first_day": days[0],
            "last_day": days[-1],
            **asdict(self),
            "calendar": days,
        }
        return {**values, "checksum": _checksum(values)}


def read_manifest(root: Storage, features: Sequence[str] | None = None) -> Manifest:
    """Manifest of the panel below a storage root.

    Args:
        root: Storage root.
        features: `panel.features` of a run: the panel as the run sees it; None = all of it.

    Raises:
        PanelError: No panel was built there, or another version wrote it.
    """
    panel = root.child("panel")
    try:
        text = panel.read_bytes(MANIFEST)
        version = parse_record(_Version, text).version
        if version != VERSION:
            raise ValueError(f"it has layout version {version}, this program reads {VERSION}")
        manifest = parse_record(Manifest, text)
        _check_manifest(manifest, json.loads(text))
    except FileNotFoundError:
        raise PanelError(
            f"no finished panel at {panel.uri}. Build it first: "
            f"gangru panel --bars URI --storage {root.uri}"
        ) from None
    except ValueError as error:  # pydantic's too
        what = describe_error(error) if isinstance(error, ValidationError) else error
        raise PanelError(
            f"{panel.uri}/{MANIFEST} cannot be used: {what}. Build the panel again with "
            "`gangru panel --overwrite`."
        ) from error
    return manifest if features is None else manifest.view(features)


@dataclass(frozen=True)
class _Version:
    version: int


def _check_manifest(found: Manifest, values: dict[str, Any]) -> None:
    """Refuse a manifest whose parts contradict each other; `values` is all that it says."""
    days, places = found.calendar, {(file.bucket, file.year) for file in found.files}
    if not len(days) or (days[1:] <= days[:-1]).any():
        raise ValueError("the calendar's days do not follow each other")
    if len(places) < len(found.files) or not all(f.is_named_so(found.buckets) for f in found.files):
        raise ValueError("the files are not one per bucket and year, named accordingly")
    if sum(file.rows for file in found.files) != found.rows:
        raise ValueError(f"the files' rows do not add up to {found.rows}")
    if found.fingerprint != values.get("fingerprint"):
        raise ValueError("months, calendar or features are not those of its fingerprint")
    if values.get("checksum") not in (None, _checksum(values)):  # early versions wrote none
        raise ValueError("its checksum does not match: it was changed after it was written")


def _checksum(values: dict[str, Any]) -> str:
    """SHA-256 of all that a manifest says, its own checksum apart."""
    rest = {name: value for name, value in values.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def locate_listings(calendar: np.ndarray, list_date: np.ndarray) -> np.ndarray:
    """Index of each listing day in the calendar, to count the trading days since.

    Args:
        calendar: (days,) datetime64[D], ascending.
        list_date: (N,) datetime64[D]; NaT = unknown.

    Returns:
        (N,) int32. A day between two trading days counts as the later one. A day before the
        calendar gives minus the number of weekdays (Monday to Friday) up to its first day. A day
        after the calendar, or an unknown one, gives the calendar's length.
    """
    known = ~np.isnat(list_date)
    result = np.full(len(list_date), len(calendar), dtype=np.int32)
    result[known] = np.searchsorted(calendar, list_date[known])
    early = known & (list_date < calendar[0])
    result[early] = -np.busday_count(list_date[early], calendar[0])
    return result


def assign_buckets(assets: Sequence[str] | np.ndarray, buckets: int) -> np.ndarray:
    """(n,) int64 bucket of each asset's name, the same on every machine and in every run."""
    return np.array([hash_text(str(name)) % buckets for name in assets], dtype=np.int64)


def hash_text(text: str) -> int:
    """Hash a text to 64 bits, the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
