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
import inspect
import logging
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from gangru_dist import log, runtime
from gangru_dist.config import RunConfig
from gangru_dist.errors import BarsError, GangruError, PanelError
from gangru_dist.features import price_volume
from gangru_dist.features.bucket import BucketTask
from gangru_dist.features.price_volume import check_inputs, feature_named
from gangru_dist.features.stages import Bucketed, Staged, as_value, build_bucket, stage_unit
from gangru_dist.panel.calendar import trading_days
from gangru_dist.panel.files import BarsFile, list_files
from gangru_dist.panel.formats import BarsFormat, bars_format
from gangru_dist.panel.history import continued
from gangru_dist.panel.manifest import MANIFEST, Manifest, read_manifest
from gangru_dist.panel.quality import QUALITY, Quality, check_share, merge
from gangru_dist.panel.reader import BarsPart, cut_parts, group_units
from gangru_dist.panel.staging import new_staging, remove_staging
from gangru_dist.panel.writer import add_hashes
from gangru_dist.storage import Storage

_logger = logging.getLogger(__name__)

_OPTIONAL = ("turnover_rate", "market_cap", "industry", "is_st", "list_date")
_ALL_OR_NONE = {
    "adj_factor": "adjusted prices would jump between them",
    "turnover_rate": "amount / market cap stands in for it only if no file has it",
}
"""Column -> what would come of a mix of files with and without it."""
SMALL_BYTES = 16 * 2**20
"""Bars up to that size are built in this process: they take less time than Ray's start."""
Work = Callable[..., Any]
Runner = Callable[[Work, Sequence[tuple[Any, ...]]], Iterator[tuple[int, Any]]]
_MAX_BLOCKS = 4096  # of Ray Data; more units share a task


def build_panel(
    bars_uri: str, root: Storage, cfg: RunConfig, *, overwrite: bool = False
) -> Manifest:
    """Build `<storage>/panel`, or add days to it; with the same bars and settings, do nothing.

    Args:
        bars_uri: Folder or file of the bars, any URI.
        root: Storage root.
        cfg: Its sections `bars` and `panel` count.
        overwrite: Build even if nothing has changed, and even if the bars rewrite history.

    Raises:
        BarsError: The bars cannot be trusted; an earlier panel stays as it was.
        PanelError: A feature is unknown or cannot be computed from these bars; or, with the
            settings of the panel that is there, the bars change days that it has.
    """
    form = bars_format(cfg.bars)
    for name in cfg.panel.features:
        feature_named(name)
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
        parts = cut_parts(bars_uri, files, form)
        here = sum(file.size for file in files) <= SMALL_BYTES
        kept = frozenset() if overwrite else _files(old)
        with nullcontext() if here else runtime.session(cfg):
            run = _run_here if here else _run_on_cluster
            staged = _stage(run, bars_uri, parts, panel, form, cfg)
            task = _bucket_task(staged, files, form, cfg)
            built = _build(run, staged, task, panel, cfg, kept)
        quality = merge([*(s.quality for s in staged), *map(_duplicates, built)])
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
    run: Runner,
    uri: str,
    parts: Sequence[BarsPart],
    panel: Storage,
    form: BarsFormat,
    cfg: RunConfig,
) -> list[Staged]:
    """Stage 1 over all units; then what only the whole can tell is checked."""
    units = group_units(parts)
    files = len({part.file.name for part in parts})
    _logger.info("panel_read files=%d units=%d uri=%s", files, len(units), uri)
    staging = new_staging()
    work = partial(stage_unit, uri, form=form, panel=panel, buckets=cfg.panel.buckets)
    units_and_names = [(unit, f"{staging}/unit-{i:05d}") for i, unit in enumerate(units)]
    staged: list[Staged] = _all("panel_read", run, work, units_and_names)
    check_share(merge(s.quality for s in staged), allowed=cfg.bars.max_quarantined)
    return staged


def _build(
    run: Runner,
    staged: Sequence[Staged],
    task: BucketTask,
    panel: Storage,
    cfg: RunConfig,
    kept: frozenset[str],
) -> list[Bucketed]:
    """Stage 2 over all buckets."""
    names = [name for unit in staged for name in unit.names]
    buckets = cfg.panel.buckets
    work = partial(build_bucket, names=names, task=task, panel=panel, buckets=buckets, kept=kept)
    return _all("panel_features", run, work, [(number,) for number in range(buckets)])


def _all(name: str, run: Runner, work: Work, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """`work(*a)` for each `a` of `arguments`, in their order.

    Raises:
        GangruError: The first that a call returned as its value.
    """
    results: list[Any] = [None] * len(arguments)
    with log.progress(name, total=len(arguments)) as progress:
        for number, result in run(work, arguments):
            results[number] = result
            progress.advance()
    for result in results:
        if isinstance(result, GangruError):
            raise result
    return results


def _run_here(work: Work, arguments: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """In this process, one after the other."""
    for number, given in enumerate(arguments):
        yield number, as_value(partial(work, *given))


def _run_on_cluster(work: Work, arguments: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """Each a row of a Ray Data map, as they come."""
    import ray.data  # seconds; small bars need none of it

    items = [{"number": i, "arguments": pickle.dumps(a)} for i, a in enumerate(arguments)]
    blocks = min(len(items), _MAX_BLOCKS)
    tasks = ray.data.from_items(items, override_num_blocks=blocks).map(partial(_call, work))
    for row in tasks.iter_rows():
        yield row["number"], pickle.loads(row["result"])


def _call(work: Work, row: dict[str, Any]) -> dict[str, Any]:
    """Runs on a worker: one call; an error the user can act on is a result like any other.

    The pickles never leave Ray's memory: they carry our own objects through a Ray Data row.
    """
    call = partial(work, *pickle.loads(row["arguments"]))
    return {"number": row["number"], "result": pickle.dumps(as_value(call))}


def _bucket_task(
    staged: Sequence[Staged], files: Sequence[BarsFile], form: BarsFormat, cfg: RunConfig
) -> BucketTask:
    """What stage 2 needs to know of all bars together."""
    columns = _columns(staged)
    for name, consequence in _ALL_OR_NONE.items():
        if name in ("adj_factor", *cfg.panel.features):
            _check_mix(columns, name, consequence)
    there = frozenset().union(*columns.values())
    if "total_shares" in there:
        there |= {"market_cap"}
    check_inputs(cfg.panel.features, there)
    if "adj_factor" not in there:
        _logger.warning("bars_without_adj_factor: prices are taken as adjusted already")
    return BucketTask(
        features=cfg.panel.features,
        calendar=trading_days(np.concatenate([unit.dates for unit in staged])),
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


def _duplicates(bucket: Bucketed) -> Quality:
    return Quality(quarantined=bucket.duplicates)


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
        **quality.to_json(),
        "optional_columns_missing": lacking,
    }


def _source(uri: str, files: Sequence[BarsFile], cfg: RunConfig) -> dict[str, Any]:
    """What the panel is made from; equal sources give equal panels, if the files are dated."""
    listing = "\n".join(f"{file.name} {file.size} {file.modified}" for file in files)
    code = inspect.getsource(price_volume)
    return {
        "uri": uri,
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "features_code": hashlib.sha256(code.encode()).hexdigest(),
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
