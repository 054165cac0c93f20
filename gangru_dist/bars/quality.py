"""Counts of what was wrong with the bars, with an example each: the content of quality.json."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gangru_dist.base.errors import BarsError, flag

QUALITY = "quality.json"
"""Its name below `<storage>/panel`."""

Example = dict[str, Any]

_MORE = 4  # examples beside the first


@dataclass(frozen=True, kw_only=True)
class Finding:
    """So many rows (or files) of one kind."""

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
    quarantined: Mapping[str, Finding] = field(default_factory=dict)
    """Reason -> rows set aside."""
    notes: Mapping[str, Finding] = field(default_factory=dict)
    """What was repaired or passed over without losing a row, by kind."""
    suspects: tuple[Suspect, ...] = ()
    """Files of which most rows contradict themselves in one way."""

    @property
    def set_aside(self) -> int:
        """Rows quarantined, all reasons."""
        return sum(finding.count for finding in self.quarantined.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values; reasons with the most rows first."""
        return {
            "rows_read": self.rows,
            "rows_suspended": self.suspended,
            "rows_quarantined": self.set_aside,
            "quarantined_share": self.set_aside / self.rows if self.rows else 0.0,
            "quarantined": _findings(self.quarantined, "rows"),
            "notes": _findings(self.notes, "count"),
        }


def merge(parts: Iterable[Quality]) -> Quality:
    """Sum; of the examples the one of the first part stays."""
    rows = suspended = 0
    quarantined: dict[str, Finding] = {}
    notes: dict[str, Finding] = {}
    suspects: list[Suspect] = []
    for part in parts:
        rows += part.rows
        suspended += part.suspended
        _add(quarantined, part.quarantined)
        _add(notes, part.notes)
        suspects.extend(part.suspects)
    return Quality(
        rows=rows,
        suspended=suspended,
        quarantined=quarantined,
        notes=notes,
        suspects=tuple(suspects),
    )


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
        for reason, finding in _sorted(quality.quarantined)
    )
    if quality.rows == 0:
        raise BarsError("the bars have no rows at all. Export them again.")
    if quality.set_aside > allowed * quality.rows:
        share = quality.set_aside / quality.rows
        enough = flag("bars.max_quarantined", math.ceil(1e4 * share) / 1e4)
        raise BarsError(
            f"{quality.set_aside} of {quality.rows} rows ({share:.2%}) would be set aside, "
            f"bars.max_quarantined allows {allowed:.2%}: {reasons}. Correct the bars or "
            f"their mapping, or allow more: {enough}{hint}"
        )
    if quality.set_aside + quality.suspended >= quality.rows:
        raise BarsError(
            f"no traded row is left of {quality.rows}. {reasons or 'All volumes are 0'}."
        )


def plain(value: float | None) -> float | str:
    """A number for JSON: what is not finite becomes its name."""
    return float(value) if value is not None and math.isfinite(value) else str(value)


def describe(example: Example) -> str:
    """An example row in a message."""
    return " ".join(f"{key}={value}" for key, value in example.items())


def _add(total: dict[str, Finding], more: Mapping[str, Finding]) -> None:
    for key, finding in more.items():
        old = total.get(key)
        total[key] = (
            finding
            if old is None
            else Finding(
                count=old.count + finding.count,
                example=old.example,
                more=(*old.more, finding.example, *finding.more)[:_MORE],
            )
        )


def _sorted(findings: Mapping[str, Finding]) -> list[tuple[str, Finding]]:
    return sorted(findings.items(), key=lambda item: (-item[1].count, item[0]))


def _findings(findings: Mapping[str, Finding], unit: str) -> dict[str, Any]:
    return {
        key: {unit: finding.count, "example": finding.example}
        | ({"more": list(finding.more)} if finding.more else {})
        for key, finding in _sorted(findings)
    }
