"""Build the panel store from a vendor's bars, as two small Ray Data jobs; small bars here [Ray].

    units of files -> map columns, check -> staging, cut by bucket
    buckets        -> sort, duplicates, features, limits -> panel files
    driver         -> quality.json, manifest.json (last), staging and older files removed

Tasks get a unit or a bucket's number and return counts; rows go through the storage, so bars may
be larger than the memory of all nodes. Any task may run twice. Until the manifest is swapped a
reader sees the old panel, afterwards the new one; the old one's files stay until the next build,
for jobs that still read them.

Grown bars go the same way: everything is computed again, what an earlier build had must come out
the same, and its files are kept (docs/decisions/0008-append.md).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from gangru_dist import log, runtime
from gangru_dist.bars.codes import check_spellings
from gangru_dist.bars.files import BarsFile, list_files
from gangru_dist.bars.formats import BarsFormat, bars_format
from gangru_dist.bars.quality import QUALITY, Quality, check_share, merge
from gangru_dist.bars.reader import BarsPart, cut_parts, group_units
from gangru_dist.calendar import distinct_days
from gangru_dist.cluster_map import Runner, here, on_cluster, value
from gangru_dist.config import RunConfig
from gangru_dist.errors import PanelError
from gangru_dist.panel.bucket import BucketTask, Tables
from gangru_dist.panel.headers import check_columns, check_names
from gangru_dist.panel.history import continued
from gangru_dist.panel.manifest import MANIFEST, Manifest, read_manifest
from gangru_dist.panel.rows_code import rows_code
from gangru_dist.panel.side_tables import stage_table, stage_tables
from gangru_dist.panel.stages import Bucketed, Staged, build_bucket, stage_unit
from gangru_dist.panel.staging import new_staging, remove_staging
from gangru_dist.panel.writer import add_hashes
from gangru_dist.storage import Storage

_logger = logging.getLogger(__name__)

_OPTIONAL = ("turnover_rate", "market_cap", "industry", "is_st", "list_date")
SMALL_BYTES = 16 * 2**20
"""Bars up to that size are built in this process: they take less time than Ray's start."""


def build_panel(
    bars_uri: str,
    root: Storage,
    cfg: RunConfig,
    *,
    overwrite: bool = False,
    runner: Runner | None = None,
) -> Manifest:
    """Build `<storage>/panel`, or add days to it; with the same bars and settings, do nothing.

    Args:
        bars_uri: Folder or file of the bars, any URI.
        root: Storage root.
        cfg: Its sections `bars` and `panel` count.
        overwrite: Build even if nothing has changed, and even if the bars rewrite history.
        runner: Where units and buckets are worked on; None = in this process if the bars are small
            (`SMALL_BYTES`), else on Ray.

    Raises:
        BarsError: The bars cannot be trusted; an earlier panel stays as it was.
        PanelError: A feature is unknown or cannot be computed from these bars; or, with the
            settings of the panel that is there, the bars change days that it has.
    """
    form = bars_format(cfg.bars)
    check_names(cfg.panel)
    files = list_files(bars_uri)
    source = _source(bars_uri, files, cfg)
    old = _old_manifest(root)
    if old is not None and old.source == source and not overwrite and _dated(files):
        _logger.info("panel_kept reason=same_bars_and_settings rows=%d uri=%s", old.rows, root.uri)
        return old
    panel = root.child("panel")
    remove_staging(panel)
    before = frozenset(panel.list_files())
    try:
        is_small = sum(file.size for file in files) <= SMALL_BYTES
        runner = runner or (here if is_small else on_cluster)
        kept = frozenset() if overwrite else _files(old)
        with runtime.session(cfg) if runner is on_cluster else nullcontext():
            staged, parts, tables = _stage(bars_uri, files, panel, form, cfg, runner)
            task = _bucket_task(staged, tables, files, form, cfg)
            built = _build(staged, task, panel, cfg, kept, runner)
        quality = merge([*(s.quality for s in staged), *map(_set_aside, built)])
        check_share(quality, allowed=cfg.bars.max_quarantined)
        manifest = _manifest(built, task, source, cfg)
        if old is not None:
            try:
                manifest = continued(root, old, manifest, overwrite=overwrite)
            except PanelError:
                _remove_unlisted(panel, before)
                raise
        panel.write_json(QUALITY, _quality_json(quality, staged, manifest, len(parts)))
        panel.write_json(MANIFEST, manifest.to_json())
    finally:
        remove_staging(panel)
    _remove_unlisted(panel, _files(manifest) | _files(old))
    _logger.info(
        "panel_done rows=%d assets=%d days=%d quarantined=%d fingerprint=%s uri=%s",
        manifest.rows,
        manifest.assets,
        len(manifest.calendar),
        quality.set_aside,
        manifest.fingerprint[:12],
        panel.uri,
    )
    return manifest


def _stage(
    uri: str,
    files: Sequence[BarsFile],
    panel: Storage,
    form: BarsFormat,
    cfg: RunConfig,
    runner: Runner,
) -> tuple[list[Staged], list[BarsPart], Tables]:
    """Stage 1 over all units; then what only the whole can tell is checked; then side tables."""
    parts = cut_parts(uri, files, form)
    units = group_units([part for part in parts if part.table is None])
    _logger.info("panel_read files=%d units=%d uri=%s", len(files), len(units), uri)
    staging = new_staging()
    common: dict[str, Any] = {"form": form, "panel": panel, "buckets": cfg.panel.buckets}
    work = partial(stage_unit, uri, **common)
    named = [(unit, f"{staging}/unit-{i:05d}") for i, unit in enumerate(units)]
    staged: list[Staged] = _all("panel_read", runner, cfg, lambda item: work(*item), named)
    check_share(merge(s.quality for s in staged), allowed=cfg.bars.max_quarantined)
    codes = {code: file for unit in staged for code, file in unit.codes.items()}
    check_spellings(codes)
    side_work = partial(stage_table, uri, codes=codes, **common)
    of_table = partial(_all, "panel_tables", runner, cfg, lambda item: side_work(*item))
    side = [part for part in parts if part.table is not None]
    tables = stage_tables(of_table, side, staging, form, codes)
    return staged, parts, tables


def _build(
    staged: Sequence[Staged],
    task: BucketTask,
    panel: Storage,
    cfg: RunConfig,
    kept: frozenset[str],
    runner: Runner,
) -> list[Bucketed]:
    """Stage 2 over all buckets."""
    names = [name for unit in staged for name in unit.names]
    buckets = cfg.panel.buckets
    work = partial(build_bucket, names=names, task=task, panel=panel, buckets=buckets, kept=kept)
    return _all("panel_features", runner, cfg, work, range(buckets))


def _all(
    name: str, runner: Runner, cfg: RunConfig, work: Callable[[Any], Any], items: Sequence[Any]
) -> list[Any]:
    """Results of all items, in their order.

    Raises:
        GangruError: Of the first item that has one, once all are through.
    """
    results: dict[int, Any] = {}
    with log.progress(name, total=len(items)) as progress:
        for number, result in runner(cfg, lambda: work, items):
            results[number] = result
            progress.advance()
    return [value(results[number]) for number in range(len(items))]


def _bucket_task(
    staged: Sequence[Staged],
    tables: Tables,
    files: Sequence[BarsFile],
    form: BarsFormat,
    cfg: RunConfig,
) -> BucketTask:
    """What stage 2 needs to know of all bars together."""
    there = check_columns(_columns(staged), cfg.panel.features)
    return BucketTask(
        features=cfg.panel.features,
        calendar=distinct_days(np.concatenate([unit.dates for unit in staged])),
        has_turnover_rate="turnover_rate" in there,
        price_limits=form.price_limits,
        files=tuple(file.name for file in files),
        tables=tables,
    )


def _columns(staged: Sequence[Staged]) -> dict[str, frozenset[str]]:
    """File -> its columns, of all files."""
    return {name: having for unit in staged for name, having in unit.columns.items()}


def _set_aside(bucket: Bucketed) -> Quality:
    return Quality(quarantined=bucket.quarantined)


def _manifest(
    built: Sequence[Bucketed], task: BucketTask, source: dict[str, Any], cfg: RunConfig
) -> Manifest:
    written = [bucket.written for bucket in built]
    files = tuple(file for bucket in written for file in bucket.files)
    months = add_hashes(bucket.months for bucket in written)
    return Manifest(
        features=cfg.panel.features,
        buckets=cfg.panel.buckets,
        calendar=task.calendar,
        files=files,
        rows=sum(file.rows for file in files),
        assets=sum(bucket.assets for bucket in written),
        months={month: f"{months[month]:064x}" for month in sorted(months)},
        source=source,
        has_industry=any(bucket.has_industry for bucket in written),
        has_market_cap=any(bucket.has_market_cap for bucket in written),
    )


def _quality_json(
    quality: Quality, staged: Sequence[Staged], manifest: Manifest, parts: int
) -> dict[str, Any]:
    """Content of quality.json."""
    columns = _columns(staged)
    lacking = {}
    for name in ("adj_factor", *_OPTIONAL):
        without = sorted(file for file, having in columns.items() if name not in having)
        if without:
            lacking[name] = {"files": len(without), "example": without[0]}
    return {
        "bars": manifest.source["uri"],
        "files": len(columns),
        "parts": parts,
        "rows_kept": manifest.rows,
        "assets": manifest.assets,
        "first_day": str(manifest.calendar[0]),
        "last_day": str(manifest.calendar[-1]),
        **quality.to_json(),
        "optional_columns_missing": lacking,
    }


def _source(uri: str, files: Sequence[BarsFile], cfg: RunConfig) -> dict[str, Any]:
    """What the panel is made from; equal sources give equal panels, if the files are dated."""
    listing = "\n".join(f"{file.name} {file.size} {file.modified}" for file in files)
    return {
        "uri": uri,
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "rows_code": rows_code(cfg.panel.features),
        "bars": asdict(cfg.bars),
        "buckets": cfg.panel.buckets,
        "features": list(cfg.panel.features),
    }


def _dated(files: Sequence[BarsFile]) -> bool:
    """Whether a changed file would show: its size may be the same, so its time must be known."""
    undated = [file.name for file in files if file.modified is None]
    if undated:
        _logger.info(
            "panel_not_kept reason=storage_gives_no_modification_time files=%d example=%s",
            len(undated),
            undated[0],
        )
    return not undated


def _old_manifest(root: Storage) -> Manifest | None:
    """The panel that is there; None if there is none, or none that can be read."""
    try:
        return read_manifest(root)
    except PanelError:
        return None


def _files(manifest: Manifest | None) -> frozenset[str]:
    return frozenset(file.name for file in manifest.files) if manifest else frozenset()


def _remove_unlisted(panel: Storage, listed: Collection[str]) -> None:
    """Delete all panel files but these.

    An accepted build lists its own files and those of the build before, which a job that runs
    may still read; a refused one lists what was there before it.
    """
    for name in panel.list_files():
        if name.startswith("bucket=") and name not in listed:
            panel.delete(name)
