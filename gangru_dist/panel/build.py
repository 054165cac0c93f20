"""Build the panel store from a vendor's bars, on Ray; small bars in this process [Ray].

    units of files -> map columns, check -> staging, cut by bucket
    buckets        -> sort, duplicates, features, limits -> panel files
    driver         -> names.parquet, quality.json, manifest.json (last); staging and old files go

Tasks get a unit or a bucket's number and return counts; rows go through the storage, so bars may
be larger than the memory of all nodes. Any task may run twice. A check of bars is the same but for
the features and the driver's part.

Grown bars go the same way: everything is computed again, what an earlier build had must come out
the same, and its files are kept (docs/decisions/0008-append.md).

No lock is needed. Files are named by their content, the rows of a build are staged in a folder of
its own, and until the manifest is swapped a reader sees the old panel, afterwards the new one. Of
two builds at once the second finds another manifest than it began with, and stops. Only files that
no manifest names and that are a day old are deleted: those of the panel before stay, for jobs that
still read them, and so do those that another build has just written.
"""

from __future__ import annotations

import datetime as dt
import logging
import tempfile
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gangru_dist.bars.days import find_market_days
from gangru_dist.bars.files import check_apart
from gangru_dist.bars.quality import QUALITY, Finding, Quality, describe, merge
from gangru_dist.bars.side_tables import check_spellings
from gangru_dist.base.errors import GangruError, PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.cluster.map import Runner, catch_error, map_here, map_on_ray
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.bucket import BucketTask
from gangru_dist.panel.checks import check_built, check_staged
from gangru_dist.panel.history import continue_history
from gangru_dist.panel.intake import (
    Bars,
    are_dated,
    check_columns,
    describe_source,
    find_lacking,
    open_bars,
    select_members,
)
from gangru_dist.panel.manifest import MANIFEST, Manifest, read_manifest
from gangru_dist.panel.stages import Staged, build_bucket, map_items, stage_bars, stage_tables
from gangru_dist.panel.writer import WrittenBucket, add_hashes, write_names

_logger = logging.getLogger(__name__)

SMALL_BYTES = 16 * 2**20
"""Bars up to that size are built in this process: they take less time than Ray's start."""
LEFTOVER_AGE = dt.timedelta(days=1)
"""Age from which on a file that no manifest names is no running build's: longer than any takes."""
_STAGING = "staging-"


@dataclass(frozen=True, kw_only=True)
class Computed:
    """How far a build came; readers see nothing of it yet."""

    staged: Staged
    """What stage 1 tells of all bars."""
    quality: Quality
    """Counts, of the days and of all buckets too if it came so far."""
    calendar: np.ndarray
    """(days,) datetime64[D], the trading days; empty if it did not come so far."""
    buckets: Sequence[WrittenBucket] = ()
    """What is known of each bucket."""
    problem: GangruError | None = None
    """Why the bars cannot be trusted."""

    @property
    def set_aside(self) -> str | None:
        """The newest day of the bars, ISO, if all its rows were set aside; weekends apart."""
        newest, calendar = self.staged.newest, self.calendar
        return str(newest) if len(calendar) and newest > calendar[-1] else None


def build_panel(
    bars: str | Bars,
    root: Storage,
    cfg: RunConfig,
    *,
    overwrite: bool = False,
    runner: Runner | None = None,
) -> Manifest:
    """Build `<storage>/panel`, or add days to it; with the same bars and settings, do nothing.

    Args:
        bars: Folder or file of the bars, any URI; or the bars already opened.
        root: Storage root.
        cfg: Its sections `bars` and `panel` count.
        overwrite: Build even if nothing has changed, and even if the bars rewrite history.
        runner: Where units and buckets are worked on; None = in this process if the bars are small
            (`SMALL_BYTES`), else on Ray.

    Raises:
        BarsError: The bars cannot be trusted, or lie where our own files do; an earlier panel
            stays as it was.
        PanelError: A feature is unknown or cannot be computed from these bars; with the settings
            of the panel that is there, the bars change days that it has; or another build of other
            bars or settings has ended meanwhile.
    """
    check_apart(bars if isinstance(bars, str) else bars.uri, root)
    if isinstance(bars, str):
        bars = open_bars(bars, cfg)
    panel, old = root.child("panel"), find_manifest(root)
    source = describe_source(bars, cfg)
    if old is not None and not overwrite and old.source == source and are_dated(bars):
        _logger.info("panel_kept reason=same_bars_and_settings rows=%d uri=%s", old.rows, root.uri)
        _warn_of_newest_day(old)
        return old
    if runner is None:
        size = sum(file.size for file in bars.files)
        runner = map_here if size <= SMALL_BYTES else map_on_ray
    before = _file_names(old)
    try:
        with session.open_session(cfg) if runner is map_on_ray else nullcontext():
            computed = compute_panel(bars, panel, cfg, runner, kept=() if overwrite else before)
        if computed.problem is not None:
            raise computed.problem
        manifest = make_manifest(computed, source, cfg)
        if old is not None:
            manifest = continue_history(root, old, manifest, overwrite=overwrite)
    except GangruError:
        remove_leftovers(panel, None)
        raise
    there = find_manifest(root)
    if there is not None and (old is None or there.to_json() != old.to_json()):
        return _accept_other_build(there, manifest, panel)
    write_names(panel, (bucket.names for bucket in computed.buckets))
    panel.write_json(QUALITY, _quality_json(computed, manifest, parts=len(bars.parts)))
    panel.write_json(MANIFEST, manifest.to_json())
    remove_leftovers(panel, before | _file_names(manifest))
    _warn_of_newest_day(manifest)
    _logger.info(
        "panel_done rows=%d assets=%d days=%d quarantined=%d fingerprint=%s uri=%s",
        manifest.rows,
        manifest.assets,
        len(manifest.calendar),
        computed.quality.set_aside,
        manifest.fingerprint[:12],
        panel.uri,
    )
    return manifest


def check_panel(bars_uri: str, cfg: RunConfig) -> tuple[list[str], GangruError | None]:
    """Read and check bars as a build would, in this process; storage is left alone.

    Returns:
        The quality table, and what would stop the build, if anything.

    Raises:
        BarsError: Files cannot be read, so that there is nothing to count.
        PanelError: A feature cannot be computed from these bars.
    """
    bars = open_bars(bars_uri, cfg)
    with tempfile.TemporaryDirectory(prefix="gangru-check-") as folder:
        computed = compute_panel(bars, Storage(folder), cfg, map_here, kept=None)
    return _quality_table(computed), computed.problem


def compute_panel(
    bars: Bars,
    panel: Storage,
    cfg: RunConfig,
    runner: Runner,
    *,
    kept: Collection[str] | None,
) -> Computed:
    """Both stages, with the checks of all rows together after each.

    Args:
        bars: What is read.
        panel: The folder `<storage>/panel`.
        cfg: Its sections `bars`, `panel` and `resources` count.
        runner: Where units and buckets are worked on.
        kept: Panel files that are not written again; None = only check, write none at all.

    Raises:
        BarsError: A file, a row or a side table cannot be understood, one stock goes by two
            codes, or `panel.members` has no stock or no day of these bars.
        PanelError: A feature cannot be computed from these columns.
    """
    folder = f"{_STAGING}{uuid.uuid4().hex[:12]}"
    where: dict[str, Any] = {"panel": panel, "cfg": cfg, "runner": runner}
    try:
        staged = stage_bars(bars, folder, **where)
        problem = _find_problem(check_staged, staged, bars.form, cfg.bars)
        if problem is not None:
            calendar = np.empty(0, "datetime64[D]")
            return Computed(
                staged=staged, quality=staged.quality, calendar=calendar, problem=problem
            )
        market = find_market_days([staged.dates], [staged.traded], bars.rule)
        check_spellings(staged.codes)
        there = check_columns(staged.columns, cfg.panel.features, bars.form)
        task = BucketTask(
            features=cfg.panel.features,
            calendar=market.calendar,
            closed=market.closed,
            has_turnover_rate="turnover_rate" in there,
            form=bars.form,
            files=tuple(file.name for file in bars.files),
            tables=stage_tables(bars, staged.codes, folder, **where),
            members=bars.members and select_members(bars.members, staged.codes, market),
        )
        work = partial(
            build_bucket,
            names=staged.names,
            task=task,
            panel=panel,
            buckets=cfg.panel.buckets,
            kept=kept,
        )
        numbers = [(number,) for number in range(cfg.panel.buckets)]
        buckets = map_items("panel_features", work, numbers, cfg=cfg, runner=runner)
    finally:
        panel.delete_folder(folder)
    quality = merge([staged.quality, market.quality, *(bucket.quality for bucket in buckets)])
    sums = [bucket.sums for bucket in buckets]
    return Computed(
        staged=staged,
        quality=quality,
        calendar=market.calendar,
        buckets=buckets,
        problem=_find_problem(check_built, sums, quality, bars.form, cfg.bars),
    )


def _find_problem(check: Callable[..., None], *args: Any) -> GangruError | None:
    """What a check refuses."""
    return catch_error(partial(check, *args))


def make_manifest(computed: Computed, source: dict[str, Any], cfg: RunConfig) -> Manifest:
    """The manifest of what was computed."""
    buckets = computed.buckets
    files = tuple(file for bucket in buckets for file in bucket.files)
    months = add_hashes(bucket.months for bucket in buckets)
    return Manifest(
        features=cfg.panel.features,
        buckets=cfg.panel.buckets,
        calendar=computed.calendar,
        files=files,
        rows=sum(file.rows for file in files),
        assets=sum(bucket.assets for bucket in buckets),
        months={month: f"{months[month]:064x}" for month in sorted(months)},
        source=source,
        has_industry=any(bucket.has_industry for bucket in buckets),
        has_market_cap=any(bucket.has_market_cap for bucket in buckets),
        has_members=cfg.panel.members is not None,
        set_aside=computed.set_aside,
    )


def find_manifest(root: Storage) -> Manifest | None:
    """The panel that is there; None if there is none, or none that can be read."""
    try:
        return read_manifest(root)
    except PanelError:
        return None


def _accept_other_build(there: Manifest, ours: Manifest, panel: Storage) -> Manifest:
    """Return the panel of a build that has ended since ours began, if ours is the same."""
    if (there.source, there.fingerprint) == (ours.source, ours.fingerprint):
        _logger.info("panel_kept reason=another_build_of_the_same uri=%s", panel.uri)
        return there
    raise PanelError(
        f"another build has replaced the panel at {panel.uri} while this one ran, with other bars "
        "or settings; its panel stays. Run the same command again."
    )


def remove_leftovers(panel: Storage, named: Collection[str] | None) -> None:
    """Delete panel files that nobody names, and staged rows of builds that were killed.

    Only what is `LEFTOVER_AGE` older than the newest file, by the storage's own clock: what is
    younger may be of a build that runs. A storage that gives no times keeps all.

    Args:
        panel: The folder `<storage>/panel`.
        named: Panel files of the manifest and of the one before; None = a build was refused: all
            files that are older than the manifest stay.
    """
    written = {name: at for name, info in panel.list_infos().items() if (at := info.mtime)}
    if not written:
        return
    last = max(written.values()) - LEFTOVER_AGE
    first = written.get(MANIFEST) if named is None else None
    old = {name for name, at in written.items() if at < last and (first is None or at > first)}
    for name in old - frozenset(named or ()):
        if name.startswith("bucket="):
            panel.delete(name)
    staged = {name for name in written if name.startswith(_STAGING)}
    for folder in {name.split("/")[0] for name in staged & old}:
        if all(name in old for name in staged if name.startswith(f"{folder}/")):
            panel.delete_folder(folder)
    panel.delete_unfinished(last)


def _file_names(manifest: Manifest | None) -> frozenset[str]:
    return frozenset(file.name for file in manifest.files) if manifest else frozenset()


def _warn_of_newest_day(manifest: Manifest) -> None:
    if manifest.set_aside:
        _logger.warning(
            "newest_day_set_aside date=%s panel_ends=%s reason=no_row_or_too_few see=%s",
            manifest.set_aside,
            manifest.calendar[-1],
            QUALITY,
        )


def _quality_json(computed: Computed, manifest: Manifest, *, parts: int) -> dict[str, Any]:
    """Content of quality.json."""
    return {
        "bars": manifest.source["uri"],
        "files": len(computed.staged.columns),
        "parts": parts,
        "rows_kept": manifest.rows,
        "assets": manifest.assets,
        "first_day": str(manifest.calendar[0]),
        "last_day": str(manifest.calendar[-1]),
        "newest_day_set_aside": manifest.set_aside,
        **computed.quality.to_json(),
        "optional_columns_missing": {
            name: {"files": len(files), "example": files[0]}
            for name, files in find_lacking(computed.staged.columns).items()
        },
    }


def _quality_table(computed: Computed) -> list[str]:
    """Counts, then reasons, notes and lacking columns with an example each, as lines of text."""
    quality, calendar = computed.quality, computed.calendar
    lines = [
        f"{'rows read':<24}{quality.rows}",
        f"{'rows suspended':<24}{quality.suspended}",
        f"{'rows set aside':<24}{quality.set_aside}",
    ]
    if len(calendar):
        lines += [
            f"{'stocks':<24}{sum(bucket.assets for bucket in computed.buckets)}",
            f"{'trading days':<24}{len(calendar)}",
            f"{'first day':<24}{calendar[0]}",
            f"{'last day':<24}{calendar[-1]}",
        ]
    if computed.set_aside:
        lines.append(f"{'newest day set aside':<24}{computed.set_aside}")
    sections: dict[str, Mapping[str, Finding]] = {
        "rows set aside, by reason": quality.quarantined,
        "files in another unit": {f"{s.file}: {s.reason}": s.finding for s in quality.suspects},
        "odd, but kept": quality.notes,
        "columns that files lack": {
            name: Finding(count=len(files), example={"file": files[0]})
            for name, files in find_lacking(computed.staged.columns).items()
        },
    }
    for title, findings in sections.items():
        if findings:
            lines += ["", title]
            lines += [
                f"{finding.count:>10}  {name}, e.g. {describe(finding.example)}"
                for name, finding in findings.items()
            ]
    return lines
