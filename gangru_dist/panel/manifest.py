"""What a panel store holds: `panel/manifest.json`, written last, read first."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gangru_dist.errors import PanelError
from gangru_dist.storage import Storage

VERSION = 1
"""Layout of the store; a reader refuses any other."""

MANIFEST = "manifest.json"
"""Its name below `<storage>/panel`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PanelFile:
    """One parquet file: the rows of one bucket and year, sorted by (asset, date)."""

    name: str
    """Path below `<storage>/panel`."""
    bucket: int
    """Hash bucket of its assets."""
    year: int
    """Year of its dates."""
    rows: int
    """Number of its rows."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Manifest:
    """Description of a finished panel; files that it does not list are no part of it."""

    features: tuple[str, ...]
    """Names of the feature columns, in the model's order."""
    buckets: int
    """Number of hash buckets."""
    calendar: np.ndarray
    """(days,) datetime64[D], ascending: every date in the bars, suspended rows included."""
    files: tuple[PanelFile, ...]
    """Sorted by (bucket, year)."""
    rows: int
    """Traded (date, asset) rows."""
    assets: int
    """Assets that ever traded."""
    months: dict[str, str]
    """Month ("2018-12") -> hash of its rows, whatever their order or bucket."""
    source: dict[str, Any]
    """Bars' URI and what they looked like; settings they were read with."""
    has_industry: bool = True
    """Whether any row names its industry."""
    has_market_cap: bool = True
    """Whether any row has a market cap."""
    has_members: bool = False
    """Whether the rows have the column `member`."""
    rewritten: dict[str, str] = field(default_factory=dict)
    """Month -> mark that changes whenever a build changed rows or days of it that an earlier one
    had (`--overwrite`). No part of a fingerprint: how a panel came about is not what it holds."""

    set_aside: str | None = None
    """Newest day of the bars, ISO, if not one of its rows is in the panel; a weekend is no day."""

    @property
    def fingerprint(self) -> str:
        """Hash of all rows, of the calendar and of the features' names."""
        return self._digest(self.months)

    def fingerprint_to(self, date: dt.date) -> str:
        """Hash of the rows and days up to the end of `date`'s month: later bars leave it alone.

        The calendar counts beside the rows: a day on which all are suspended has no row, but
        lookbacks, labels and listing ages are counted in days.
        """
        month = f"{date:%Y-%m}"
        return self._digest({k: v for k, v in self.months.items() if k <= month}, month)

    def _digest(self, months: dict[str, str], last: str | None = None) -> str:
        days = self.calendar
        if last is not None:
            days = days[days < np.datetime64(last, "M") + 1]
        rows = [f"{month} {months[month]}" for month in sorted(months)]
        text = "\n".join([str(VERSION), *self.features, "", *rows, "", *map(str, days)])
        return hashlib.sha256(text.encode()).hexdigest()

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
                f"{', '.join(self.features)}. Build it again with `gangru panel --overwrite`, or "
                "leave them out of samples.features."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `Storage.write_json`."""
        return {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "rows": self.rows,
            "assets": self.assets,
            "buckets": self.buckets,
            "features": list(self.features),
            "first_day": str(self.calendar[0]),
            "last_day": str(self.calendar[-1]),
            "has_industry": self.has_industry,
            "has_market_cap": self.has_market_cap,
            "has_members": self.has_members,
            "source": self.source,
            "months": self.months,
            "rewritten": self.rewritten,
            "set_aside": self.set_aside,
            "calendar": [str(day) for day in self.calendar],
            "files": [[f.name, f.bucket, f.year, f.rows] for f in self.files],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Manifest:
        """Inverse of `to_json`.

        Raises:
            PanelError: Another version wrote it, or it is damaged.
        """
        if values.get("version") != VERSION:
            raise PanelError(
                f"the panel has layout version {values.get('version')}, this program reads "
                f"{VERSION}. Build it again with `gangru panel --overwrite`."
            )
        try:
            return cls(
                features=tuple(values["features"]),
                buckets=values["buckets"],
                calendar=np.array(values["calendar"], dtype="datetime64[D]"),
                files=tuple(
                    PanelFile(name=name, bucket=bucket, year=year, rows=rows)
                    for name, bucket, year, rows in values["files"]
                ),
                rows=values["rows"],
                assets=values["assets"],
                months=dict(values["months"]),
                source=dict(values["source"]),
                has_industry=values["has_industry"],
                has_market_cap=values["has_market_cap"],
                has_members=values.get("has_members", False),
                rewritten=dict(values.get("rewritten", {})),
                set_aside=values.get("set_aside"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PanelError(
                f"the panel's {MANIFEST} is damaged ({type(error).__name__}: {error}). "
                "Build it again with `gangru panel --overwrite`."
            ) from error


def read_manifest(root: Storage) -> Manifest:
    """Manifest of the panel below a storage root.

    Raises:
        PanelError: No panel was built there, or another version wrote it.
    """
    panel = root.child("panel")
    try:
        values = panel.read_json(MANIFEST)
    except FileNotFoundError:
        raise PanelError(
            f"no finished panel at {panel.uri}. Build it first: "
            f"gangru panel --bars URI --storage {root.uri}"
        ) from None
    except ValueError as error:
        raise PanelError(
            f"{panel.uri}/{MANIFEST} is no JSON ({error}). Build the panel again with "
            "`gangru panel --overwrite`."
        ) from error
    return Manifest.from_json(values)


def bucket_of(assets: Sequence[str] | np.ndarray, buckets: int) -> np.ndarray:
    """(n,) int64 bucket of each asset's name, the same on every machine and in every run."""
    digests = (hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in assets)
    return np.array([int.from_bytes(d, "big") % buckets for d in digests], dtype=np.int64)
