"""Build the panel store from a vendor's bars, as two small Ray Data jobs [Ray].

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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gangru_dist import log
from gangru_dist.bars.days import DayRule, MarketDays, day_rule
from gangru_dist.bars.files import BarsFile, list_files
from gangru_dist.bars.formats import BarsFormat, bars_format
from gangru_dist.bars.quality import QUALITY, Quality, merge
from gangru_dist.bars.reader import BarsPart, cut_parts, group_units
from gangru_dist.cluster_map import Runner, on_cluster, value
from gangru_dist.config import RunConfig, to_dict
from gangru_dist.errors import BarsError, PanelError
from gangru_dist.features.price_volume import check_inputs, inputs_of
from gangru_dist.panel.bucket import BucketTask
from gangru_dist.panel.history import continued
from gangru_dist.panel.manifest import MANIFEST, Manifest, read_manifest
from gangru_dist.panel.rows_code import rows_code
from gangru_dist.panel.stages import Bucketed, Staged, build_bucket, stage_unit
from gangru_dist.panel.staging import new_staging, remove_staging
from gangru_dist.panel.verdict import check_built, check_staged, days_of, newest_set_aside
from gangru_dist.panel.writer import add_hashes
from gangru_dist.storage import Storage

_logger = logging.getLogger(__name__)

_OPTIONAL = ("turnover_rate", "market_cap", "industry", "is_st", "list_date")
_ALL_OR_NONE = {
    "adj_factor": "adjusted prices would jump between them",
    "turnover_rate": "amount / market cap stands in for it only if no file has it",
}
"""Column -> what would come of a mix of files with and without it."""


def build_panel(
    bars_uri: str,
    root: Storage,
    cfg: RunConfig,
    *,
    overwrite: bool = False,
    runner: Runner = on_cluster,
) -> Manifest:
    """Build `<storage>/panel`, or add days to it; with the same bars and settings, do nothing.

    Args:
        bars_uri: Folder or file of the bars, any URI.
        root: Storage root.
        cfg: Its sections `bars` and `panel` count.
        overwrite: Build even if nothing has changed, and even if the bars rewrite history.
        runner: Where units and buckets are worked on.

    Raises:
        BarsError: The bars cannot be trusted; an earlier panel stays as it was.
        PanelError: A feature is unknown or cannot be computed from these bars; or, with the
            settings of the panel that is there, the bars change days that it has.
    """
    form = bars_format(cfg.bars)
    rule = day_rule(cfg.bars, form)
    inputs_of(cfg.panel.features)  # a wrong name is refused before bars are read
    files = list_files(bars_uri)
    source = _source(bars_uri, files, cfg, rule)
    old = _old_manifest(root)
    if old is not None and old.source == source and not overwrite and _dated(files):
        _logger.info("panel_kept reason=same_bars_and_settings rows=%d uri=%s", old.rows, root.uri)
        _warn_of_newest_day(old)
        return old
    panel = root.child("panel")
    remove_staging(panel)
    before = frozenset(panel.list_files())
    try:
        staged, parts = stage_all(bars_uri, files, panel, form, cfg, rule, runner)
        check_staged(staged, form, cfg.bars)
        market = days_of(staged, rule)
        task = bucket_task(staged, files, form, cfg, market)
        kept = frozenset() if overwrite else _files(old)
        built = _build(staged, task, panel, cfg, kept, runner)
        quality = merge([*(s.quality for s in staged), market.quality, *(b.quality for b in built)])
        check_built((bucket.moves for bucket in built), quality, cfg.bars)
        manifest = _manifest(built, task, source, cfg)
        manifest = replace(manifest, set_aside=newest_set_aside(staged, manifest.calendar))
        if old is not None:
            manifest = continued(root, old, manifest, overwrite=overwrite)
        panel.write_json(QUALITY, _quality_json(quality, staged, manifest, len(parts)))
        panel.write_json(MANIFEST, manifest.to_json())
    except PanelError:
        _remove_unlisted(panel, before)
        raise
    finally:
        remove_staging(panel)
    _remove_unlisted(panel, _files(manifest) | _files(old))
    _warn_of_newest_day(manifest)
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


def _warn_of_newest_day(manifest: Manifest) -> None:
    if manifest.set_aside:
        _logger.warning(
            "newest_day_set_aside date=%s panel_ends=%s reason=no_row_or_too_few see=%s",
            manifest.set_aside,
            manifest.calendar[-1],
            QUALITY,
        )


def stage_all(
    uri: str,
    files: Sequence[BarsFile],
    panel: Storage,
    form: BarsFormat,
    cfg: RunConfig,
    rule: DayRule,
    runner: Runner,
) -> tuple[list[Staged], list[BarsPart]]:
    """Stage 1 over all units."""
    parts = cut_parts(uri, files, form)
    units = group_units(parts)
    _logger.info("panel_read files=%d units=%d uri=%s", len(files), len(units), uri)
    staging = new_staging()
    work = partial(stage_unit, uri, form=form, panel=panel, buckets=cfg.panel.buckets, days=rule)
    named = [(unit, f"{staging}/unit-{i:05d}") for i, unit in enumerate(units)]
    staged: list[Staged] = do_all("panel_read", runner, cfg, lambda item: work(*item), named)
    return staged, parts


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
    return do_all("panel_features", runner, cfg, work, range(buckets))


def do_all(
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


def bucket_task(
    staged: Sequence[Staged],
    files: Sequence[BarsFile],
    form: BarsFormat,
    cfg: RunConfig,
    market: MarketDays,
) -> BucketTask:
    """What stage 2 needs to know of all bars together."""
    columns = _columns(staged)
    for name, consequence in _ALL_OR_NONE.items():
        if name in ("adj_factor", *inputs_of(cfg.panel.features)):
            _check_mix(columns, name, consequence)
    there = frozenset().union(*columns.values())
    if "total_shares" in there:
        there |= {"market_cap"}
    check_inputs(cfg.panel.features, there)
    if "adj_factor" not in there:
        _logger.warning("bars_without_adj_factor: prices are taken as adjusted already")
    return BucketTask(
        features=cfg.panel.features,
        calendar=market.calendar,
        closed=market.closed,
        has_turnover_rate="turnover_rate" in there,
        price_limits=form.price_limits,
        files=tuple(file.name for file in files),
    )


def _check_mix(columns: Mapping[str, Collection[str]], name: str, consequence: str) -> None:
    """Refuse a column that some files have and others lack; `columns`: by file."""
    having = sorted(file for file in columns if name in columns[file])
    lacking = sorted(file for file in columns if name not in columns[file])
    if having and lacking:
        raise BarsError(
            f"{lacking[0]} has no column {name} and {having[0]} has: {consequence}. Export it with "
            "every file, or with none."
        )


def _columns(staged: Sequence[Staged]) -> dict[str, frozenset[str]]:
    """File -> its columns, of all files."""
    return {name: having for unit in staged for name, having in unit.columns.items()}


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
        without = sorted(
            file
            for file, having in columns.items()
            if name not in having and not (name == "market_cap" and "total_shares" in having)
        )
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
        "newest_day_set_aside": manifest.set_aside,
        **quality.to_json(),
        "optional_columns_missing": lacking,
    }


def _source(uri: str, files: Sequence[BarsFile], cfg: RunConfig, rule: DayRule) -> dict[str, Any]:
    """What the panel is made from; equal sources give equal panels, if the files are dated."""
    listing = "\n".join(f"{file.name} {file.size} {file.modified}" for file in files)
    return {
        "uri": uri,
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "rows_code": rows_code(cfg.panel.features),
        "bars": to_dict(cfg)["bars"],
        "trading_days": None if rule.calendar is None else _hash_of_days(rule.calendar),
        "buckets": cfg.panel.buckets,
        "features": list(cfg.panel.features),
    }


def _hash_of_days(days: np.ndarray) -> str:
    return hashlib.sha256(days.astype("datetime64[D]").tobytes()).hexdigest()


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
