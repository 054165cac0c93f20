"""Counts of what was wrong with the bars, with examples: the content of quality.json.

`Findings.take` is the one way to set rows aside, `Findings.note` the one way to count odd rows
that stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gangru_dist.base.errors import BarsError, format_flag

QUALITY = "quality.json"
"""Its name below `<storage>/panel`."""

PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume", "amount", "adj_factor", "turnover_rate", "market_cap")
"""Columns that are held against each other, and shown with a row that contradicts itself."""

Example = dict[str, Any]

_EXAMPLES = 5  # of one kind


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A count of rows (or files) of one kind, with an example."""

    count: int
    """How many."""
    example: Example
    """The first of them: file, row, date, code and the values in question."""
    more: tuple[Example, ...] = ()
    """A few others."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A file, or some row groups of it, whose rows share one contradiction."""

    file: str
    """Its name."""
    reason: str
    """The contradiction, as rows are counted under it."""
    finding: Finding
    """Rows of the file that show it."""
    rows: int
    """Traded rows of the file."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What was found in some rows of the bars; sums over parts with `merge`."""

    rows: int = 0
    """Rows read."""
    suspended: int = 0
    """Rows of days without trading, dropped; their dates stay in the calendar."""
    quarantined: dict[str, Finding] = field(default_factory=dict)
    """Reason -> rows set aside."""
    notes: dict[str, Finding] = field(default_factory=dict)
    """What was repaired or passed over without losing a row, by kind."""
    suspects: tuple[Suspect, ...] = ()
    """Files of which most rows contradict themselves in one way."""

    @property
    def set_aside(self) -> int:
        """Rows quarantined, all reasons."""
        return sum(finding.count for finding in self.quarantined.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values; reasons with the most rows first."""
        values: dict[str, Any] = {
            "rows_read": self.rows,
            "rows_suspended": self.suspended,
            "rows_quarantined": self.set_aside,
            "quarantined_share": self.set_aside / self.rows if self.rows else 0.0,
        }
        kinds = (("quarantined", "rows", self.quarantined), ("notes", "count", self.notes))
        for kind, unit, findings in kinds:
            values[kind] = {
                key: {unit: found.count, "example": found.example}
                | ({"more": list(found.more)} if found.more else {})
                for key, found in _sort(findings)
            }
        return values


@dataclass(kw_only=True)
class Findings:
    """Collects what is found in the rows of some files."""

    files: Sequence[str] | Mapping[int, str]
    """Names of the files by number; the rows' column `file` holds the number."""
    first_row: int | None = None
    """Rows of the file before these, if the rows are one batch of one file."""
    quality: Quality = field(default_factory=Quality)
    """What was found so far."""

    def take(
        self, rows: pa.Table, reasons: Mapping[str, np.ndarray], **shown: Sequence[str]
    ) -> np.ndarray:
        """Set rows aside, each under its first reason.

        Args:
            rows: n rows with the columns file, date and code.
            reasons: Reason -> (n,) bool.
            shown: As of `note`.

        Returns:
            (n,) bool, the rows that stay.
        """
        stays = np.ones(len(rows), dtype=bool)
        for reason, mask in reasons.items():
            self.note(rows, {reason: mask & stays}, into=self.quality.quarantined, **shown)
            stays &= ~mask
        return stays

    def note(
        self,
        rows: pa.Table,
        kinds: Mapping[str, np.ndarray],
        *,
        show: Sequence[str] = NUMBERS,
        previous: Sequence[str] = (),
        into: dict[str, Finding] | None = None,
    ) -> None:
        """Count rows that stay.

        Args:
            rows: n rows with the columns file, date and code.
            kinds: Kind -> (n,) bool.
            show: Columns that an example shows.
            previous: Columns of the row before that an example shows as well.
            into: Where they are counted; None = notes.
        """
        for kind, mask in kinds.items():
            places = np.flatnonzero(mask)
            if len(places):
                spread = np.unique(np.linspace(0, len(places) - 1, _EXAMPLES).astype(int))
                examples = [self._show(rows, int(i), show, previous) for i in places[spread]]
                found = Finding(count=len(places), example=examples[0], more=tuple(examples[1:]))
                (self.quality.notes if into is None else into)[kind] = found

    def _show(
        self, rows: pa.Table, index: int, show: Sequence[str], previous: Sequence[str]
    ) -> Example:
        row = _read_row(rows, index, ["file", "date", "code", *show])
        before = _read_row(rows, max(index - 1, 0), previous)
        values = {f"previous_{name}": before[name] for name in previous}
        values |= {name: row[name] for name in show}
        start = {"file": self.files[row["file"]]}
        if self.first_row is not None:
            start["row"] = self.first_row + index
        # what is no finite number becomes its text
        return (
            start
            | {"date": row["date"] or "NaT", "code": row["code"]}
            | {
                name: value if isinstance(value, float) and math.isfinite(value) else str(value)
                for name, value in values.items()
            }
        )


def _read_row(rows: pa.Table, index: int, names: Sequence[str]) -> dict[str, Any]:
    """Values of a row; days as text, for Python has none after the year 9999."""
    row = rows.select(dict.fromkeys(names)).slice(index, 1)
    return {
        name: str(row[name].cast(pa.int32()).to_numpy().astype("datetime64[D]")[0])
        if pa.types.is_date32(row[name].type) and row[name][0].is_valid
        else row[name][0].as_py()
        for name in row.column_names
    }


def count_examples(found: Mapping[str, Sequence[Example]]) -> Quality:
    """Note each kind of which there is an example, with the first few."""
    return Quality(
        notes={
            kind: Finding(count=len(some), example=some[0], more=tuple(some[1:_EXAMPLES]))
            for kind, some in found.items()
            if some
        }
    )


def merge(parts: Iterable[Quality]) -> Quality:
    """Sum; of the examples the one of the first part stays."""
    parts = list(parts)
    return Quality(
        rows=sum(part.rows for part in parts),
        suspended=sum(part.suspended for part in parts),
        quarantined=_sum(part.quarantined for part in parts),
        notes=_sum(part.notes for part in parts),
        suspects=tuple(suspect for part in parts for suspect in part.suspects),
    )


def _sum(parts: Iterable[Mapping[str, Finding]]) -> dict[str, Finding]:
    total: dict[str, Finding] = {}
    for part in parts:
        for key, new in part.items():
            if (old := total.get(key)) is not None:
                more = (*old.more, new.example, *new.more)[: _EXAMPLES - 1]
                new = Finding(count=old.count + new.count, example=old.example, more=more)
            total[key] = new
    return total


def check_share(quality: Quality, *, allowed: float, hint: str = "") -> None:
    """Refuse bars of which too many rows had to be set aside, or none was left.

    Args:
        quality: Of all rows.
        allowed: `bars.max_quarantined`.
        hint: What would mend the commonest reason.

    Raises:
        BarsError: Names the shares, and every reason with an example.
    """
    reasons = "; ".join(
        f"{finding.count} x {reason}, e.g. {describe(finding.example)}"
        for reason, finding in _sort(quality.quarantined)
    )
    if quality.rows == 0:
        raise BarsError("the bars have no rows at all. Export them again.")
    if quality.set_aside > allowed * quality.rows:
        share = quality.set_aside / quality.rows
        enough = format_flag("bars.max_quarantined", math.ceil(1e4 * share) / 1e4)
        raise BarsError(
            f"{quality.set_aside} of {quality.rows} rows ({share:.2%}) would be set aside, "
            f"bars.max_quarantined allows {allowed:.2%}: {reasons}. Correct the bars or "
            f"their mapping, or allow more: {enough}{hint}"
        )
    if quality.set_aside + quality.suspended >= quality.rows:
        raise BarsError(
            f"no traded row is left of {quality.rows}. {reasons or 'All volumes are 0'}."
        )


def describe(example: Example) -> str:
    """An example row in a message."""
    return " ".join(f"{key}={value}" for key, value in example.items())


def _sort(findings: Mapping[str, Finding]) -> list[tuple[str, Finding]]:
    return sorted(findings.items(), key=lambda item: (-item[1].count, item[0]))
