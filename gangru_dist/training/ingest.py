"""A rank's share of a window's panel, straight into its dense tensor, by either road [Ray].

`direct`: the rank reads its bucket files. `ray`: Ray Data reads them for it, wherever the
cluster has room. Both hand the same tables to the same `scatter`, so the block is the same.
Reading tasks ask for no CPU: Train's workers may hold every one, and nothing can starve.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.train

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
    """Rank r of N owns the buckets b with b mod N = r (DESIGN 4)."""
    return list(range(rank, buckets, size))


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which rows a window needs; `files` narrows them to a rank's buckets."""

    root: Storage
    manifest: Manifest
    start: dt.date
    end: dt.date
    features: tuple[str, ...]

    def buckets(self, rank: int, size: int) -> list[int]:
        """Buckets of a rank."""
        return own_buckets(self.manifest.buckets, rank, size)

    def files(self, rank: int, size: int) -> list[PanelFile]:
        """Files of a rank, in the manifest's order."""
        return files_of(self.manifest, self.start, self.end, self.buckets(rank, size))

    def read(self, file: PanelFile) -> Iterator[pa.Table]:
        """One file's rows of the span."""
        members = self.manifest.has_members
        columns = block_columns(self.features, trading=False, members=members)
        return read_files(self.root, [file], self.start, self.end, columns)


class BucketDataConfig(ray.train.DataConfig):  # type: ignore[misc]  # untyped
    """Gives each rank its own buckets, every time the same.

    Train's default would cut rows evenly: within a stock, and dropping the remainder.
    """

    def __init__(self, shares: dict[str, Share]) -> None:
        super().__init__()
        self.shares = shares

    def configure(
        self,
        datasets: dict[str, ray.data.Dataset],
        world_size: int,
        worker_handles: Any,
        worker_node_ids: Any,
        **kwargs: Any,
    ) -> list[dict[str, ray.data.DataIterator]]:
        """One iterator a rank and dataset; `datasets` are the unread lists of files."""
        return [
            {name: self._iterator(name, rank, world_size) for name in datasets}
            for rank in range(world_size)
        ]

    def _iterator(self, name: str, rank: int, size: int) -> ray.data.DataIterator:
        share = self.shares[name]
        return file_dataset(share.files(rank, size), share).iterator()


def file_dataset(files: list[PanelFile], share: Share) -> ray.data.Dataset:
    """Rows of some files as a Ray Data set; nothing is read yet."""
    return tables(files, share.read, tasks=_BLOCKS, at_once=_READERS)


def read_share(share: Share, name: str, rank: int, size: int, *, through_ray: bool) -> PanelBlock:
    """The dense block of a rank's assets, read once.

    Args:
        share: The window's rows.
        name: The window's dataset, where Ray Data reads.
        rank: Of this worker.
        size: Number of workers.
        through_ray: `resources.ingest` is `ray`.
    """
    if not through_ray:
        return read_block(
            share.root,
            share.manifest,
            start=share.start,
            end=share.end,
            buckets=share.buckets(rank, size),
            features=share.features,
        )
    shard = ray.train.get_dataset_shard(name)
    return scatter(
        shard.iter_batches(batch_size=None, batch_format="pyarrow"),
        calendar=share.manifest.calendar,
        dates=share.manifest.trading_days(share.start, share.end),
        assets=asset_names(share.root, share.files(rank, size), share.start, share.end),
        features=share.features,
        members=share.manifest.has_members,
    )
