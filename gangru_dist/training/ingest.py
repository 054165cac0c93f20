"""A rank's share of a window's panel, straight into its dense tensor, in one of two ways [Ray].

`direct`: the rank reads its bucket files. `ray`: Ray Data reads them for it, wherever the
cluster has room: a rank's own buckets, for Train's way of cutting rows evenly would cut within a
stock, and drop the remainder. Both hand the same tables to the same `scatter`, so the block is
the same. Reading tasks ask for no CPU: Train's workers may hold every one, and nothing can starve.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from gangru_dist.cluster_map import tables
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import Manifest, PanelFile
from gangru_dist.panel.store import (
    asset_names,
    block_columns,
    files_of,
    read_block,
    read_files,
    scatter,
)
from gangru_dist.storage import Storage

_BLOCKS = 16
"""Reading tasks of a rank and window, at most."""
_READERS = 2
"""Of them at once."""


def own_buckets(buckets: int, rank: int, size: int) -> list[int]:
    """Rank r of N owns the buckets b with b mod N = r."""
    return list(range(rank, buckets, size))


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which rows a window needs; `files` narrows them to a rank's buckets."""

    root: Storage
    manifest: Manifest
    start: dt.date
    end: dt.date
    features: tuple[str, ...]
    trading: bool = False
    """Whether market cap and industry are needed too."""

    def buckets(self, rank: int, size: int) -> list[int]:
        """Buckets of a rank."""
        return own_buckets(self.manifest.buckets, rank, size)

    def files(self, rank: int, size: int) -> list[PanelFile]:
        """Files of a rank, in the manifest's order."""
        return files_of(self.manifest, self.start, self.end, self.buckets(rank, size))

    def read(self, file: PanelFile) -> Iterator[pa.Table]:
        """One file's rows of the span."""
        members = self.manifest.has_members
        columns = block_columns(self.features, trading=self.trading, members=members)
        return read_files(self.root, [file], self.start, self.end, columns)


def read_share(share: Share, rank: int, size: int, *, through_ray: bool) -> PanelBlock:
    """The dense block of a rank's assets, read once.

    Args:
        share: The window's rows.
        rank: Of this worker.
        size: Number of workers.
        through_ray: Whether Ray Data reads; else this process does.
    """
    if not through_ray:
        return read_block(
            share.root,
            share.manifest,
            start=share.start,
            end=share.end,
            buckets=share.buckets(rank, size),
            features=share.features,
            trading=share.trading,
        )
    files = share.files(rank, size)
    read = tables(files, share.read, tasks=_BLOCKS, at_once=_READERS)
    return scatter(
        read.iter_batches(batch_size=None, batch_format="pyarrow"),
        calendar=share.manifest.calendar,
        dates=share.manifest.trading_days(share.start, share.end),
        assets=asset_names(share.root, files, share.start, share.end),
        features=share.features,
        trading=share.trading,
        members=share.manifest.has_members,
    )
