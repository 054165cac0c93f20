"""Build the panel store from a vendor's bars, on Ray; small bars in this process.

    units of files -> map columns, check -> staging, cut by bucket
    buckets        -> sort, duplicates, features, limits -> panel files
    driver         -> names.parquet, quality.json, manifest.json (last); staging and old files go

A task gets a unit or the number of a bucket and returns counts; rows go through the storage, so
bars may be larger than the memory of all nodes. Any task may run twice. A check of bars is the same
without the features and the driver's part.

Grown bars go the same way: everything is computed again, what an earlier build had must come out
the same, and its files are kept (docs/decisions/0008-append.md).

No lock is needed. Files are named by their content, the rows of a build are staged in a folder of
its own, and until the manifest is swapped a reader sees the old panel, afterwards the new one. If
two builds run at once, the second finds another manifest than it began with, and stops. Only files
that no manifest names and that are a day old are deleted: those of the previous panel stay for jobs
that still read them, and so do those that another build has just written.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from typing import Any

from pydantic import ValidationError

from gangru_dist.bars.files import check_apart
from gangru_dist.bars.headings import Bars, open_bars
from gangru_dist.bars.quality import QUALITY, Finding, describe
from gangru_dist.base.errors import GangruError, PanelError, StorageError, shorten
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.cluster.map import Runner, map_here, map_on_ray
from gangru_dist.config.identity import from_dict, select_settings
from gangru_dist.config.schema import Affects
from gangru_dist.config.settings import RunConfig
from gangru_dist.features.price_volume import FEATURES, list_inputs
from gangru_dist.panel.checks import find_lacking
from gangru_dist.panel.history import continue_history, find_known_facts
from gangru_dist.panel.manifest import MANIFEST, ROWS_VERSION, Manifest, read_manifest
from gangru_dist.panel.stages import BuildResult, compute_panel
from gangru_dist.panel.staging import STAGING
from gangru_dist.panel.writer import write_names
from gangru_dist.runs.run import Run, list_runs

_logger = logging.getLogger(__name__)

SMALL_BYTES = 16 * 2**20
"""Bars up to that size are built in this process: they take less time than Ray's start."""
LEFTOVER_AGE = dt.timedelta(days=1)
"""Age from which on a file that no manifest names is no running build's: longer than any takes."""


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
    panel, old, claims = root.child("panel"), find_manifest(root), _read_claims(root)
    own, (cfg, views) = cfg, _join_features(cfg, old, claims)
    if isinstance(bars, str) or cfg is not own:
        bars = open_bars(bars if isinstance(bars, str) else bars.uri, cfg)
    source = _describe_source(bars, cfg)
    if len(views) > 1:
        source["views"] = [list(view) for view in views]
    if old is not None and not overwrite and old.source == source and _are_dated(bars):
        _logger.info("panel_kept reason=same_bars_and_settings rows=%d uri=%s", old.rows, root.uri)
        _warn_of_newest_day(old)
        return old
    if runner is None:
        size = sum(file.size for file in bars.files)
        runner = map_here if size <= SMALL_BYTES else map_on_ray
    before = frozenset(file.name for file in old.files) if old else frozenset()
    try:
        with session.open_session(cfg) if runner is map_on_ray else nullcontext():
            existing = () if overwrite else before
            known = None if overwrite else find_known_facts(root, old, source, bars.facts)
            computed = compute_panel(
                bars,
                panel,
                cfg,
                runner,
                source=source,
                existing=existing,
                known=known,
                views=_list_views(views, cfg, old),
            )
        if computed.problem is not None:
            raise computed.problem
        assert computed.manifest is not None
        manifest = computed.manifest
        if old is not None:
            others = _find_others(claims, cfg)
            manifest = continue_history(
                root,
                old,
                manifest,
                overwrite=overwrite,
                late_days=cfg.panel.late_days,
                others=others,
            )
    except GangruError:
        remove_leftovers(panel, None)
        raise
    there = find_manifest(root)
    if there is not None and (old is None or there.to_json() != old.to_json()):
        return _accept_other_build(there, manifest, panel)
    _publish(panel, computed, manifest, parts=len(bars.parts))
    remove_leftovers(panel, before | {file.name for file in manifest.files})
    return manifest


def _publish(panel: Storage, computed: BuildResult, manifest: Manifest, *, parts: int) -> None:
    """From the swap of the manifest on readers see the new panel, and what stands beside it."""
    write_names(panel, computed.names)
    panel.write_json(QUALITY, _quality_json(computed, manifest, parts=parts))
    panel.write_json(MANIFEST, manifest.to_json())
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


def _read_claims(root: Storage) -> dict[str, dict[str, Any]]:
    """Run -> its configuration, as far as it can be read."""
    found = {}
    for name in list_runs(root):
        with suppress(StorageError):
            if (claim := Run(root, name, RunConfig()).read_claim()) is not None:
                found[name] = claim.config
    return found


def _join_features(
    cfg: RunConfig, old: Manifest | None, claims: Mapping[str, dict[str, Any]]
) -> tuple[RunConfig, list[tuple[str, ...]]]:
    """The configuration with the features of all runs, and the distinct lists of them.

    Those of the panel that is there stand first, in its order, so that a build for another run
    of the storage gives the same columns.

    Raises:
        PanelError: A run names a feature that this command cannot compute.
    """
    by_run = {
        name: tuple(config.get("panel", {}).get("features", ())) for name, config in claims.items()
    }
    views = sorted({cfg.panel.features, *filter(None, by_run.values())})
    if len(views) == 1:
        return cfg, views
    wanted = dict.fromkeys([*cfg.panel.features, *(name for view in views for name in view)])
    order = [name for name in (old.features if old else ()) if name in wanted]
    features = tuple(dict.fromkeys([*order, *wanted]))
    try:
        list_inputs(features)
        return replace(cfg, panel=replace(cfg.panel, features=features, without=())), views
    except (GangruError, ValidationError) as error:
        own = set(cfg.panel.features)
        runs = [name for name, names in by_run.items() if not own.issuperset(names)]
        raise PanelError(
            f"the panel must keep the features of the storage's other runs ({', '.join(runs)}), "
            f"and this command cannot compute one: {shorten(error)}. Give it their code, take "
            "another --storage, or delete the run's folder below runs/."
        ) from error


def _list_views(
    views: Sequence[tuple[str, ...]], cfg: RunConfig, old: Manifest | None
) -> list[tuple[str, ...]]:
    """The lists of features to hash rows by, beside all: the runs', and the one to compare with."""
    there = {*views, *([old.features] if old and {*old.features} <= {*cfg.panel.features} else [])}
    return sorted(there - {cfg.panel.features})


def _find_others(claims: Mapping[str, dict[str, Any]], cfg: RunConfig) -> tuple[str, ...]:
    """Runs that read the bars, or their members, in another way than this configuration."""
    own = select_settings(cfg, Affects.PANEL)
    found = []
    for name, config in claims.items():
        with suppress(ValidationError, GangruError):
            theirs = select_settings(from_dict(config, stored=True), Affects.PANEL)
            for values in (own, theirs):
                values.get("panel", {}).pop("features", None)
            found += (
                []
                if {k: v for k, v in theirs.items() if v} == {k: v for k, v in own.items() if v}
                else [name]
            )
    return tuple(found)


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
        computed = compute_panel(bars, Storage(folder), cfg, map_here, source={}, existing=None)
    return _quality_table(computed), computed.problem


def _are_dated(bars: Bars) -> bool:
    """Whether all files have a time, by which a change without a new size is noticed."""
    undated = [file.name for file in bars.files if file.modified is None]
    if undated:
        _logger.info(
            "panel_not_kept reason=storage_gives_no_modification_time files=%d example=%s",
            len(undated),
            undated[0],
        )
    return not undated


def _describe_source(bars: Bars, cfg: RunConfig) -> dict[str, Any]:
    """Describe what a panel is made from; equal descriptions give equal panels."""
    listing = "\n".join(f"{file.name} {file.size} {file.modified}" for file in bars.files)
    own = [FEATURES.hash_user_code(name) for name in cfg.panel.features]
    days = bars.rule.calendar
    days_bytes = None if days is None else days.astype("datetime64[D]").tobytes()
    return {
        "uri": bars.uri,
        "files": len(bars.files),
        "bytes": sum(file.size for file in bars.files),
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
        "rows_version": ROWS_VERSION,
        "users_code": {name: code for feature in own for name, code in feature.items()},
        "bars": asdict(cfg.bars),
        "trading_days": None if days_bytes is None else hashlib.sha256(days_bytes).hexdigest(),
        "members": cfg.panel.members,
        "member_lists": None if bars.members is None else bars.members.digest,
        "buckets": cfg.panel.buckets,
        "features": list(cfg.panel.features),
    }


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
            panel.discard(name)
    staged = {name for name in written if name.startswith(STAGING)}
    for folder in {name.split("/")[0] for name in staged & old}:
        if all(name in old for name in staged if name.startswith(f"{folder}/")):
            panel.discard(folder)
    panel.delete_unfinished(last)


def _warn_of_newest_day(manifest: Manifest) -> None:
    if manifest.set_aside:
        _logger.warning(
            "newest_day_set_aside date=%s panel_ends=%s reason=no_row_or_too_few see=%s",
            manifest.set_aside,
            manifest.calendar[-1],
            QUALITY,
        )
    if manifest.incomplete:
        _logger.warning("newest_day_incomplete date=%s see=%s", manifest.incomplete, QUALITY)


def _quality_json(computed: BuildResult, manifest: Manifest, *, parts: int) -> dict[str, Any]:
    """Content of quality.json."""
    return {
        "bars": manifest.source["uri"],
        "files": len(computed.columns),
        "parts": parts,
        "rows_kept": manifest.rows,
        "assets": manifest.assets,
        "first_day": str(manifest.calendar[0]),
        "last_day": str(manifest.calendar[-1]),
        "newest_day_set_aside": manifest.set_aside,
        "newest_day_incomplete": manifest.incomplete,
        **computed.quality.to_json(),
        "optional_columns_missing": {
            name: {"files": found.count, "example": found.example["file"]}
            for name, found in find_lacking(computed.columns).items()
        },
    }


def _quality_table(computed: BuildResult) -> list[str]:
    """Counts, then reasons, notes and lacking columns with an example each, as lines of text."""
    quality, manifest = computed.quality, computed.manifest
    counts: dict[str, Any] = {
        "rows read": quality.rows,
        "rows suspended": quality.suspended,
        "rows set aside": quality.set_aside,
    }
    if manifest is not None:
        days = manifest.calendar
        counts |= {"stocks": manifest.assets, "trading days": len(days)}
        counts |= {"first day": days[0], "last day": days[-1]}
        newest = {"set aside": manifest.set_aside, "incomplete": manifest.incomplete}
        counts |= {f"newest day {what}": day for what, day in newest.items() if day}
    lines = [f"{name:<24}{value}" for name, value in counts.items()]
    sections: dict[str, Mapping[str, Finding]] = {
        "rows set aside, by reason": quality.quarantined,
        "files in another unit": {f"{s.file}: {s.reason}": s.finding for s in quality.suspects},
        "odd, but kept": quality.notes,
        "columns that files lack": find_lacking(computed.columns),
    }
    for title, findings in sections.items():
        if findings:
            lines += ["", title]
            lines += [
                f"{finding.count:>10}  {name}, e.g. {describe(finding.example)}"
                for name, finding in findings.items()
            ]
    return lines
