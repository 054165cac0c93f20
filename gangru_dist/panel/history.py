"""Check that a new build of the panel only adds days to the existing one.

Scores, models and reports depend on rows that must not change unnoticed. So every row up to the old
panel's last day must come out the same, bit for bit. A closed month is compared by its hash in the
manifest, the month that was still growing by the hash of its rows up to that day.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.bars.days import to_days
from gangru_dist.bars.side_tables import make_keys
from gangru_dist.bars.values import encode
from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.config.identity import SETTINGS, to_dict
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.manifest import Manifest, panel_schema
from gangru_dist.panel.store import read_files, read_rows, select_files
from gangru_dist.panel.writer import add_hashes, hash_row_groups

_logger = logging.getLogger(__name__)
_CODE = ("rows_version", "users_code")
"""What a manifest's source says of the code. A panel of an earlier version has neither."""
_UNKNOWN = (
    " An earlier version of this program built the panel, by code that is not known: if the bars "
    "are as they were, it is the program that computes these rows differently."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryDiff:
    """Days and rows of the old panel that a new build changes."""

    months: tuple[str, ...] = ()
    """Months whose rows differ, ascending."""
    gone: tuple[str, ...] = ()
    """Trading days that the new calendar lacks, ISO, ascending."""
    added: tuple[str, ...] = ()
    """Trading days that only the new calendar has, up to the old one's last day."""

    @property
    def all_months(self) -> tuple[str, ...]:
        """Months with any difference, of rows or of trading days, ascending."""
        return tuple(sorted({*self.months, *(day[:7] for day in (*self.gone, *self.added))}))


@dataclass(frozen=True, kw_only=True)
class KnownFacts:
    """What the panel that is there knows of its stocks: facts that have no date in the bars."""

    root: Storage
    """Storage root."""
    manifest: Manifest
    """Of that panel."""
    columns: tuple[str, ...]
    """Out of industry and list_date; days of delisting are the manifest's."""

    def keep(self, bars: pa.Table, bucket: int, buckets: int) -> pa.Table:
        """A bucket's bars with these facts in place of those that a side table gives today.

        Up to the panel's last day, a stock's industry is that of its newest panel row up to the
        day; its listing day, of which there is one, stays for good.
        """
        if not self.columns:
            return bars
        first, last = (self.manifest.calendar[place].astype(dt.date) for place in (0, -1))
        own = [bucket] if buckets == self.manifest.buckets else None
        files = select_files(self.manifest, first, last, own)
        columns = ("date", "asset", *self.columns)
        tables = list(read_files(self.root, files, first, last, columns))
        if not tables:
            return bars
        known = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        code, asset = encode(bars["code"]), encode(known["asset"])
        numbers = pc.fill_null(pc.index_in(code.dictionary, asset.dictionary), -1)
        stock = numbers.to_numpy()[code.indices.to_numpy()].astype(np.int64)
        key = make_keys(asset.indices.to_numpy(), known["date"])
        order = np.argsort(key)
        at = np.searchsorted(key[order], make_keys(stock, bars["date"]), side="right") - 1
        at = np.maximum(at, np.searchsorted(key[order], stock << 32))  # the first row at least
        there = stock >= 0
        row = pa.array(order[np.where(there, at, 0)])
        early = there & (to_days(bars["date"]) <= self.manifest.calendar[-1])
        for name in self.columns:
            field, mask = bars.schema.field(name), there if name == "list_date" else early
            plain = pa.string() if name == "industry" else field.type
            old, new = known[name].take(row).cast(plain), bars[name].cast(plain)
            column = pc.if_else(pa.array(mask), old, new)
            coded = column.dictionary_encode() if name == "industry" else column
            bars = bars.set_column(bars.schema.get_field_index(name), field, coded.cast(field.type))
        return bars


def find_known_facts(
    root: Storage, old: Manifest | None, source: dict[str, Any], facts: tuple[str, ...]
) -> KnownFacts | None:
    """What a panel knows that a build must keep which reads these facts in the same way.

    Args:
        root: Storage root.
        old: The panel that is there, if any.
        source: What the new manifest will say of the bars.
        facts: Columns that side tables by stock give now.
    """
    if old is None or _select_reading(old.source, facts) != _select_reading(source, facts):
        return None
    had = set(facts if old.facts is None else old.facts)
    had -= set() if old.has_industry else {"industry"}
    columns = tuple(name for name in facts if name in had)
    return KnownFacts(root=root, manifest=old, columns=columns)


def compare(root: Storage, old: Manifest, new: Manifest, last: np.datetime64) -> HistoryDiff:
    """What `new` changes of the days up to `last`, a day of `old`; files of both must be there."""
    was, now = (manifest.calendar[manifest.calendar <= last] for manifest in (old, new))
    newest = str(last.astype("datetime64[M]"))
    before, after = (_hash_months(root, manifest, newest) for manifest in (old, new))
    if before.get(newest) != after.get(newest):
        after |= _hash_months(root, new, newest, last)
        if last < old.calendar[-1]:
            before |= _hash_months(root, old, newest, last)
    months = {*before, *after}
    return HistoryDiff(
        months=tuple(sorted(m for m in months if before.get(m) != after.get(m))),
        gone=tuple(str(day) for day in np.setdiff1d(was, now)),
        added=tuple(str(day) for day in np.setdiff1d(now, was)),
    )


def _hash_months(
    root: Storage, manifest: Manifest, newest: str, last: np.datetime64 | None = None
) -> dict[str, str | None]:
    """Hashes of the months up to `newest`; with `last`, of the rows of `newest` up to that day."""
    if last is None:
        return {month: value for month, value in manifest.months.items() if month <= newest}
    groups = hash_row_groups(_read_month(root, manifest, newest, last))
    sums = add_hashes({month: value} for (_, month), value in groups.items())
    return {newest: f"{sums[newest]:064x}" if newest in sums else None}


def continue_history(
    root: Storage,
    old: Manifest,
    new: Manifest,
    *,
    overwrite: bool,
    late_days: int = 0,
    others: Sequence[str] = (),
) -> Manifest:
    """`new` as the successor of `old`, with the marks of what it rewrites.

    Args:
        root: Storage root.
        old: The panel that is there.
        new: The one that is to replace it.
        overwrite: Whether any difference is accepted.
        late_days: Number of `old`'s newest days that may differ, but not be missing.
        others: Runs of the storage with other settings of the bars, which rest on `old`.

    Raises:
        PanelError: It changes days that `old` has, by other bars rather than other settings, and
            not `overwrite`. The message has an example and the way out.
    """
    now = new.view(old.features)  # columns may come and go: those of both are compared
    was = old if now.features == old.features else old.view(now.features)
    rewritten = compare(root, was, now, old.calendar[-1])
    months, refused = rewritten.all_months, rewritten
    if months and not rewritten.gone and 0 < late_days < len(old.calendar):
        refused = compare(root, was, now, old.calendar[-1 - late_days])
    is_alike = now.features == was.features and _is_made_alike(old.source, new.source)
    if not _is_code_known(old):
        _logger.info(
            "panel_code_unknown: an earlier version built the panel; its rows are compared"
        )
    if refused.all_months and not overwrite and not is_alike and others:
        raise PanelError(
            f"these settings of the bars change {len(refused.all_months)} month(s) of the panel, "
            f"on which other runs rest that were made with other settings: {', '.join(others)}. "
            "The panel stays as it was. Take another --storage, or run again with --overwrite if "
            "those runs are to be trained and scored anew."
        )
    if refused.all_months and not overwrite and is_alike:
        by_whom = "" if _is_code_known(old) else _UNKNOWN
        raise PanelError(
            f"these bars rewrite history: {_describe_rewrite(root, was, now, refused)}{by_whom} "
            f"The panel that is there ends on {old.calendar[-1]} and stays as it was; models and "
            "scores depend on it. --bars must name all bars, the old days unchanged and the new "
            "ones after them (with a backward adj_factor: a forward one changes all earlier prices "
            "at each dividend). If the correction is intended, run again with --overwrite: "
            "`gangru train` and `gangru score` then redo what depends on it."
        )
    if months:
        reason = "overwrite" if overwrite else "other_settings_or_features"
        reason = reason if refused.all_months else "late_or_corrected_newest_days"
        text = "panel_rewritten reason=%s months=%d first=%s"
        _logger.warning(text, reason, len(months), months[0])
    return replace(new, rewritten=_mark_months(was, now, rewritten))


def _is_made_alike(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the same settings and code make rows of both sources' bars.

    Code that is not known counts as the same: so the panels of earlier versions are guarded too.
    """
    if "users_code" in old and not old["users_code"].items() <= new["users_code"].items():
        return False
    version = old.get("rows_version", new["rows_version"])
    same = _select_settings(old) == _select_settings(new)
    return same and bool(version == new["rows_version"])


def _is_code_known(manifest: Manifest) -> bool:
    return all(name in manifest.source for name in _CODE)


def _select_settings(source: dict[str, Any]) -> dict[str, Any]:
    """What decides the rows beside bars and code; the number of buckets does not."""
    given = to_dict(RunConfig())["bars"] | source.get("bars", {})  # settings of later versions
    affecting = {key for key, setting in SETTINGS.items() if setting.affects}
    bars = {name: value for name, value in given.items() if f"bars.{name}" in affecting}
    return {"bars": bars, "members": source.get("members")}


def _select_reading(source: dict[str, Any], facts: tuple[str, ...]) -> list[Any]:
    """How stocks and these facts of theirs are read."""
    bars = _select_settings(source)["bars"]
    columns = {name: column for name, column in bars["columns"].items() if name in ("code", *facts)}
    return [bars["format"], bars["code_from_name"], bars["encoding"], columns]


def _mark_months(old: Manifest, new: Manifest, rewritten: HistoryDiff) -> dict[str, str]:
    """Return the old marks and one for each month that has changed."""
    marks = dict(old.rewritten)
    for month in rewritten.all_months:
        facts = [marks.get(month), old.months.get(month), new.months.get(month), *rewritten.added]
        text = repr([*facts, *rewritten.gone])
        marks[month] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return dict(sorted(marks.items()))


def _describe_rewrite(root: Storage, old: Manifest, new: Manifest, rewritten: HistoryDiff) -> str:
    if rewritten.gone:
        lost = rewritten.gone
        return (
            f"they lack {len(lost)} of the panel's {len(old.calendar)} trading days, {lost[0]} to "
            f"{lost[-1]}."
        )
    if rewritten.added:
        return (
            f"they have {len(rewritten.added)} trading day(s), first {rewritten.added[0]}, that "
            "the panel lacks."
        )
    month = rewritten.months[0]
    last = old.calendar[-1]
    was, now = (_read_month(root, manifest, month, last) for manifest in (old, new))
    count, example = _count_differences(was, now)
    months = ", ".join(rewritten.months)
    if len(rewritten.months) > 12:
        months = f"{', '.join(rewritten.months[:6])} ... {rewritten.months[-1]}"
    return (
        f"rows of {len(rewritten.months)} month(s) differ, {months}; in {month} "
        f"{count} row(s), e.g. {example}."
    )


def _read_month(root: Storage, manifest: Manifest, month: str, last: np.datetime64) -> pa.Table:
    """Rows of a month up to a day, every column."""
    first = np.datetime64(month, "M").astype("datetime64[D]")
    end = min((np.datetime64(month, "M") + 1).astype("datetime64[D]") - 1, last)
    names = panel_schema(manifest.features, members=manifest.has_members).names
    days = (first.astype(object), end.astype(object))
    return read_rows(root, manifest, start=days[0], end=days[1], columns=names)


def _count_differences(old: pa.Table, new: pa.Table) -> tuple[int, str]:
    """Number of differing rows, and the first of them in words."""
    names = [name for name in old.column_names if name in new.column_names]
    before, after = (_index_rows(rows.select(names)) for rows in (old, new))
    rows = before.index.union(after.index)
    gone, added = ~rows.isin(after.index), ~rows.isin(before.index)
    before, after = before.reindex(rows), after.reindex(rows)
    differs = np.asarray((before != after) & ~(before.isna() & after.isna()))
    wrong = differs.any(axis=1) | gone | added
    row = int(np.argmax(wrong))
    where = " ".join(str(key).removesuffix(" 00:00:00") for key in rows[row])
    if gone[row] or added[row]:
        words = "is not in the bars any more" if gone[row] else "was not in the panel"
        return int(wrong.sum()), f"{where} {words}"
    column = int(np.argmax(differs[row]))
    was, now = (str(frame.iloc[row, column]) for frame in (before, after))
    example = f"{where} {before.columns[column]}: {was} in the panel, {now} in the bars"
    return int(wrong.sum()), example


def _index_rows(rows: pa.Table) -> pd.DataFrame:
    """Rows by (date, asset), in that order."""
    frame: pd.DataFrame = rows.to_pandas().astype({"asset": object, "industry": object})
    return frame.assign(date=pd.to_datetime(frame["date"])).set_index(["date", "asset"])
