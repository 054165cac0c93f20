"""The panel that all tasks of a job share: Ray Data reads it once into Ray's object store.

Where the storage is remote or there are several nodes, the driver has Ray Data read the files of
the job's whole span into one dense block per bucket. Windows, seeds, trials and scoring tasks take
their days from these blocks; each copies what it takes and nothing else. If a node is lost, Ray
makes its blocks again from the files. If anything fails, a task reads its own files: the bytes are
the same.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.cluster.map import StoreError, keep_on_ray, load_kept
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.block import PanelBlock, cut_blocks
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.store import read_block, read_bucket

_logger = logging.getLogger(__name__)
STORE_SHARE = 0.4
"""Of each node's object store that the blocks may take; what a task reads is copied to its node."""


@dataclass(frozen=True, kw_only=True)
class SharedPanel:
    """The panel as the job was planned with it; sent to each of its tasks."""

    root: Storage
    manifest: Manifest
    blocks: tuple[Any, ...] = ()
    """By bucket, where the object store has it; empty if tasks read their own files."""

    def read(
        self,
        *,
        start: dt.date,
        end: dt.date,
        buckets: Sequence[int] | None = None,
        features: tuple[str, ...],
        trading: bool,
    ) -> PanelBlock:
        """Read the trading days from `start` to `end`, and nothing of later ones.

        Args as of `panel.store.read_block`; a shared panel holds the days and columns that
        `share_panel` was given.
        """
        days: dict[str, Any] = {
            "start": start,
            "end": end,
            "features": features,
            "trading": trading,
        }
        chosen = range(self.manifest.buckets) if buckets is None else buckets
        if self.blocks and len(chosen):  # of more workers than buckets, some have none
            try:
                return cut_blocks(
                    lambda bucket: load_kept(self.blocks[bucket]), self.manifest, chosen, **days
                )
            except StoreError as error:
                _logger.warning("panel_block_lost reason=%s: read from the files", error)
        return read_block(self.root, self.manifest, buckets=buckets, **days)


def share_panel(
    root: Storage,
    manifest: Manifest,
    cfg: RunConfig,
    *,
    start: dt.date,
    end: dt.date,
    features: tuple[str, ...],
    trading: bool,
    readers: int,
) -> SharedPanel:
    """Read the panel of a job's days into the object store, if that pays and there is room.

    Args:
        root: Storage root.
        manifest: The panel's.
        cfg: Its section `resources` counts.
        start: First day that any task reads.
        end: Last day.
        features: All that any task reads.
        trading: Whether any task reads market cap, industry and price limits.
        readers: Tasks that read.

    Raises:
        ResourceError: The cluster never has room for a worker, hence none for a reading task.
    """
    alone = SharedPanel(root=root, manifest=manifest)
    if session.is_here() or readers < 2 or (root.is_local and session.count_nodes() < 2):
        return alone
    session.find_room("reading the panel", cfg.resources)
    needed = _count_bytes(manifest, start, end, len(features), trading=trading)
    room = STORE_SHARE * session.count_store_bytes()
    if needed > room:
        text = "panel_not_shared needed_gb=%.2f room_gb=%.2f: %.0f %% of a node's object store"
        _logger.info(text, needed / 1e9, room / 1e9, 100 * STORE_SHARE)
        return alone
    read = partial(
        read_bucket, root, manifest, start=start, end=end, features=features, trading=trading
    )
    try:
        blocks = keep_on_ray(cfg, read, range(manifest.buckets))
    except StoreError as error:
        _logger.warning("panel_not_shared reason=%s: each task reads its files", error)
        return alone
    _logger.info(
        "panel_shared blocks=%d gb=%.2f room_gb=%.2f", len(blocks), needed / 1e9, room / 1e9
    )
    return SharedPanel(root=root, manifest=manifest, blocks=tuple(blocks))


def _count_bytes(
    manifest: Manifest, start: dt.date, end: dt.date, features: int, *, trading: bool
) -> float:
    """Size of the blocks, at most: of every asset that the panel has ever had."""
    each = 4 * features + 8 + 4 + 2 + 12 * trading + manifest.has_members
    return float(len(manifest.trading_days(start, end)) * manifest.assets * each)
