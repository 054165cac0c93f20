"""What a worker waits for its share of the panel, read by itself and by Ray Data.

    RAY_ADDRESS=… python -m benchmarks.ingest --storage s3://bucket/prefix   # below it, a new panel

Writes a panel of random rows below `--storage` and reads one window of it by as many workers at
once as `--workers`, each in a process of its own; both roads in turn, A B B A, after a round that
does not count (processes start, Ray Data is imported). Both must give the same bytes. Without
`RAY_ADDRESS` on a Ray of this machine. tests/s3/test_ingest.py does it on three raylets.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import ray

from benchmarks.training_speed import Size, store_panel
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.config.settings import PanelConfig, RunConfig
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.store import read_block
from gangru_dist.training.worker import read_files_by_ray

ROADS = {"direct": False, "ray": True}


@dataclass(frozen=True)
class Read:
    """One round of one road."""

    seconds: float
    """Until the last worker has its share."""
    digests: tuple[str, ...]
    """Of each worker's block."""


def _digest(root: Storage, manifest: Manifest, rank: int, size: int, through_ray: bool) -> str:
    """Of a rank's block of the whole panel."""
    block = read_block(
        root,
        manifest,
        start=manifest.calendar[0].item(),
        end=manifest.calendar[-1].item(),
        buckets=range(rank, manifest.buckets, size),
        read=read_files_by_ray if through_ray else None,
    )
    return hashlib.sha256(block.features.tobytes()).hexdigest()


def read(root: Storage, manifest: Manifest, workers: int, *, through_ray: bool) -> Read:
    """All workers' shares at once."""
    work = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_digest)
    begin = time.perf_counter()
    digests = ray.get(
        [work.remote(root, manifest, rank, workers, through_ray) for rank in range(workers)]
    )
    return Read(time.perf_counter() - begin, tuple(digests))


def rounds(
    root: Storage, manifest: Manifest, workers: int, count: int
) -> Iterator[tuple[str, Read]]:
    """Both roads in turn; the first round of each is left out."""
    for number in range(count + 1):
        for road in sorted(ROADS, reverse=number % 2 == 1):
            done = read(root, manifest, workers, through_ray=ROADS[road])
            if number:
                yield road, done


def measure(root: Storage, size: Size, *, workers: int, count: int) -> dict[str, list[Read]]:
    """Print each round and the medians; Ray runs already."""
    cfg = RunConfig(panel=PanelConfig(buckets=size.buckets))
    manifest = store_panel(root, cfg, size)
    print(f"{session.count_nodes()} nodes, {workers} workers, {manifest.rows:,} rows")
    found: dict[str, list[Read]] = {road: [] for road in ROADS}
    for road, done in rounds(root, manifest, workers, count):
        found[road].append(done)
        print(f"{road}: {done.seconds:.1f} s", flush=True)
    for road, all_of in found.items():
        print(f"{road}, median of {count}: {median(one.seconds for one in all_of):.1f} s")
    return found


def main() -> None:
    """Measure on the cluster of `RAY_ADDRESS`, or here."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--storage", required=True, help="URI of a folder that may be written to")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with session.open_session(RunConfig()):
        measure(Storage(args.storage), Size(), workers=args.workers, count=args.rounds)


if __name__ == "__main__":
    main()
