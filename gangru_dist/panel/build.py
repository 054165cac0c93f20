"""Build the panel store from a vendor's bars, as two small Ray Data jobs; small bars here [Ray].

    units of files -> map columns, check -> staging, cut by bucket
    buckets        -> sort, duplicates, features, limits -> panel files
    driver         -> names, quality.json, manifest.json (last), staging and older files removed

Tasks get a unit or a bucket's number and return counts; rows go through the storage, so bars may
be larger than the memory of all nodes. Any task may run twice. Until the manifest is swapped a
reader sees the old panel, afterwards the new one; the old one's files stay until the next build,
for jobs that still read them.

Grown bars go the same way: everything is computed again, what an earlier build had must come out
the same, and its files are kept (docs/decisions/0008-append.md).

Which code a panel's rows follow from: what a build must know beside bars and settings.

Dry run of a panel build: bars are read and checked, nothing is written to storage.

Both stages run in this process, one unit after the other, staged in a temporary folder; features
are left out.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gangru_dist.bars.files import BarsFile, check_apart
from gangru_dist.bars.quality import QUALITY, Finding, Quality, describe, merge
from gangru_dist.base.errors import GangruError, PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.cluster.map import Runner, as_value, here, on_cluster
from gangru_dist.config.settings import RunConfig
from gangru_dist.features.price_volume import FEATURES
from gangru_dist.panel.bucket import BucketTask, traded_rows
from gangru_dist.panel.checks import check_built, check_staged, days_of, newest_set_aside
from gangru_dist.panel.history import continued
from gangru_dist.panel.intake import (
    Bars,
    Intake,
    bucket_task,
    check_names,
    do_all,
    open_bars,
    stage_bars,
)
from gangru_dist.panel.lock import TURN, Turn, turn
from gangru_dist.panel.manifest import MANIFEST, ROWS_VERSION, Manifest, read_manifest
from gangru_dist.panel.moves import Moves
from gangru_dist.panel.stages import (
    Bucketed,
    bucket_rows,
    build_bucket,
    find_staging,
    remove_staging,
)
from gangru_dist.panel.writer import add_hashes, write_names


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found."""

    lines: tuple[str, ...]
    """The quality table."""
    problems: tuple[str, ...]
    """What would stop the build."""


def check_panel(bars_uri: str, cfg: RunConfig) -> Verdict:
    """Read and check bars as a build would.

    Raises:
        BarsError: Files cannot be read, so that there is nothing to count.
        PanelError: A feature cannot be computed from these bars.
    """
    check_names(cfg.panel)
    bars = open_bars(bars_uri, cfg)
    with tempfile.TemporaryDirectory(prefix="gangru-check-") as folder:
        panel = Storage(folder)
        intake = stage_bars(bars, panel, cfg, here)
        read = intake.quality
        problem = as_value(partial(check_staged, intake, bars.form, cfg.bars))
        if isinstance(problem, GangruError):
            return Verdict(lines=_table(read, {}, intake), problems=(str(problem),))
        market = days_of(intake, bars.rule)
        task = bucket_task(bars, intake, market, panel=panel, cfg=cfg, runner=here)
        work = partial(_check_bucket, panel, intake.names, task)
        built = do_all("check_stocks", here, cfg, work, range(cfg.panel.buckets))
    quality = merge([read, market.quality, *(found for found, _ in built)])
    moves = [sums for _, sums in built]
    facts = {
        "stocks": sum(sums.assets for sums in moves),
        "trading days": len(market.calendar),
        "first day": market.calendar[0] if len(market.calendar) else None,
        "last day": market.calendar[-1] if len(market.calendar) else None,
        "newest day set aside": newest_set_aside(intake, market.calendar),
    }
    problem = as_value(partial(check_built, moves, quality, bars.form, cfg.bars))
    problems = (str(problem),) if isinstance(problem, GangruError) else ()
    return Verdict(lines=_table(quality, facts, intake), problems=problems)


def _check_bucket(
    panel: Storage, names: Sequence[str], task: BucketTask, number: int
) -> tuple[Quality, Moves]:
    rows, beside = bucket_rows(panel, names, number, task)
    _, quality, moves = traded_rows(rows, task)
    return merge([beside, quality]), moves


def _table(quality: Quality, facts: dict[str, Any], intake: Intake) -> tuple[str, ...]:
    """Counts, then reasons, notes and lacking columns with an example each."""
    counts = {
        "rows read": quality.rows,
        "rows suspended": quality.suspended,
        "rows set aside": quality.set_aside,
        **{name: value for name, value in facts.items() if value is not None},
    }
    suspected = {
        f"{suspect.file}: {suspect.reason}": suspect.finding for suspect in quality.suspects
    }
    lacking = {
        name: Finding(count=files["files"], example={"file": files["example"]})
        for name, files in intake.lacking.items()
    }
    return (
        *(f"{name:<24}{value}" for name, value in counts.items()),
        *_section("rows set aside, by reason", quality.quarantined),
        *_section("files in another unit", suspected),
        *_section("odd, but kept", quality.notes),
        *_section("columns that files lack", lacking),
    )


def _section(title: str, findings: Any) -> list[str]:
    if not findings:
        return []

    def line(name: str, finding: Finding) -> str:
        return f"{finding.count:>10}  {name}, e.g. {describe(finding.example)}"

    return ["", title, *(line(name, finding) for name, finding in findings.items())]


_logger = logging.getLogger(__name__)

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
        BarsError: The bars cannot be trusted, or lie where our own files do; an earlier panel
            stays as it was.
        PanelError: A feature is unknown or cannot be computed from these bars; or, with the
            settings of the panel that is there, the bars change days that it has.
    """
    check_names(cfg.panel)
    check_apart(bars_uri, root)
    bars = open_bars(bars_uri, cfg)
    old = None if overwrite else _kept(bars, root, cfg)
    if old is not None and not _is_under_way(root.child("panel")):
        return old
    with turn(root.child("panel")) as held:
        remove_staging(held.panel)
        old = None if overwrite else _kept(bars, root, cfg)  # by another build meanwhile
        return old or _built(bars, root, cfg, held, overwrite=overwrite, runner=runner)


def _kept(bars: Bars, root: Storage, cfg: RunConfig) -> Manifest | None:
    """The panel that is there, if it is of these bars and settings; else None."""
    old = _old_manifest(root)
    if old is None or old.source != _source(bars, cfg) or not _dated(bars.files):
        return None
    _logger.info("panel_kept reason=same_bars_and_settings rows=%d uri=%s", old.rows, root.uri)
    _warn_of_newest_day(old)
    return old


def _is_under_way(panel: Storage) -> bool:
    """Whether somebody builds, or a build that was killed has left something behind."""
    return panel.exists(TURN) or bool(find_staging(panel))


def _built(
    bars: Bars,
    root: Storage,
    cfg: RunConfig,
    held: Turn,
    *,
    overwrite: bool,
    runner: Runner | None,
) -> Manifest:
    """The panel after a build."""
    panel, old = held.panel, _old_manifest(root)
    source = _source(bars, cfg)
    before = frozenset(panel.list_files())
    try:
        is_small = sum(file.size for file in bars.files) <= SMALL_BYTES
        runner = runner or (here if is_small else on_cluster)
        kept = frozenset() if overwrite else _files(old)
        with session.session(cfg) if runner is on_cluster else nullcontext():
            intake = stage_bars(bars, panel, cfg, runner)
            check_staged(intake, bars.form, cfg.bars)
            market = days_of(intake, bars.rule)
            task = bucket_task(bars, intake, market, panel=panel, cfg=cfg, runner=runner)
            built = _build(intake, task, panel, cfg, kept, runner)
        quality = merge([intake.quality, market.quality, *(bucket.quality for bucket in built)])
        check_built((bucket.moves for bucket in built), quality, bars.form, cfg.bars)
        manifest = _manifest(built, task, source, cfg)
        manifest = replace(manifest, set_aside=newest_set_aside(intake, manifest.calendar))
        if old is not None:
            manifest = continued(root, old, manifest, overwrite=overwrite)
        held.require()
        write_names(panel, (bucket.names for bucket in built))
        panel.write_json(QUALITY, _quality_json(quality, intake, manifest))
        panel.write_json(MANIFEST, manifest.to_json())
    except GangruError:
        if held.is_held():
            _remove_unlisted(panel, before)
        raise
    finally:
        if held.is_held():
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


def _build(
    intake: Intake,
    task: BucketTask,
    panel: Storage,
    cfg: RunConfig,
    kept: frozenset[str],
    runner: Runner,
) -> list[Bucketed]:
    """Stage 2 over all buckets."""
    buckets = cfg.panel.buckets
    common: dict[str, Any] = {"panel": panel, "buckets": buckets, "kept": kept}
    work = partial(build_bucket, names=intake.names, task=task, **common)
    return do_all("panel_features", runner, cfg, work, range(buckets))


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
        has_members=task.members is not None,
    )


def _quality_json(quality: Quality, intake: Intake, manifest: Manifest) -> dict[str, Any]:
    """Content of quality.json."""
    return {
        "bars": manifest.source["uri"],
        "files": len(intake.columns),
        "parts": len(intake.parts),
        "rows_kept": manifest.rows,
        "assets": manifest.assets,
        "first_day": str(manifest.calendar[0]),
        "last_day": str(manifest.calendar[-1]),
        "newest_day_set_aside": manifest.set_aside,
        **quality.to_json(),
        "optional_columns_missing": intake.lacking,
    }


def _source(bars: Bars, cfg: RunConfig) -> dict[str, Any]:
    """What the panel is made from; equal sources give equal panels, if the files are dated."""
    listing = "\n".join(f"{file.name} {file.size} {file.modified}" for file in bars.files)
    days = bars.rule.calendar
    return {
        "uri": bars.uri,
        "files": len(bars.files),
        "bytes": sum(file.size for file in bars.files),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "rows_version": ROWS_VERSION,
        "users_code": _users_code(cfg.panel.features),
        "bars": asdict(cfg.bars),
        "trading_days": None if days is None else _hash_of_days(days),
        "members": cfg.panel.members,
        "member_lists": None if bars.members is None else bars.members.digest,
        "buckets": cfg.panel.buckets,
        "features": list(cfg.panel.features),
    }


def _users_code(features: Sequence[str]) -> dict[str, str]:
    """Hash of the source of each feature that is the user's own."""
    return {k: v for name in features for k, v in FEATURES.users_code(name).items()}


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
