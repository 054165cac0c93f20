"""What windows wait for their shares of the panel: each reads its files, or the job reads once.

    RAY_ADDRESS=… python -m benchmarks.ingest --storage s3://bucket/prefix   # below it, a new panel

Writes a panel of random rows below `--storage` and reads the last windows of it, two years each and
half a year apart, as many at once as the cluster has CPUs, each in a task of its own; both ways in
turn, A B B A, after a round that does not count (processes start, Ray Data is imported). Both must
give the same bytes. Without `RAY_ADDRESS` on a Ray of this machine. tests/s3/test_ingest.py does it
on three raylets.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import ray

from benchmarks.training_speed import Size, store_panel
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.config.settings import PanelConfig, RunConfig
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.shared import SharedPanel, share_panel

WAYS = ("each window", "once a job")
LENGTH, STEP = 480, 120
"""Days of a window, and between two refit days."""
_COLUMNS: dict[str, Any] = {"features": RunConfig().panel.features, "trading": True}


@dataclass(frozen=True)
class Read:
    """One round of one way."""

    seconds: float
    """Until the last window has its share, the job's own reading included."""
    digests: tuple[str, ...]
    """Of each window's block."""


def _digest(panel: SharedPanel, start: dt.date, end: dt.date) -> str:
    """Of a window's block."""
    block = panel.read(start=start, end=end, **_COLUMNS)
    arrays = (block.assets, block.features, block.adj_close, block.listed_days, block.industry)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def read(root: Storage, manifest: Manifest, spans: list[Any], way: str) -> Read:
    """All windows' shares."""
    work = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_digest)
    begin = time.perf_counter()
    panel = SharedPanel(root=root, manifest=manifest)
    if way == WAYS[1]:
        whole = {"start": spans[0][0], "end": spans[-1][1], **_COLUMNS}
        panel = share_panel(root, manifest, RunConfig(), readers=len(spans), **whole)
    digests = ray.get([work.remote(panel, *span) for span in spans])
    return Read(time.perf_counter() - begin, tuple(digests))


def measure(root: Storage, size: Size, *, windows: int, count: int) -> dict[str, list[Read]]:
    """Print each round and the medians; Ray runs already."""
    manifest = store_panel(root, RunConfig(panel=PanelConfig(buckets=size.buckets)), size)
    ends = range(len(manifest.calendar) - 1 - STEP * (windows - 1), len(manifest.calendar), STEP)
    days = manifest.calendar
    spans = [(days[max(end - LENGTH, 0)].item(), days[end].item()) for end in ends]
    print(f"{session.count_nodes()} nodes, {windows} windows, {manifest.rows:,} rows")
    found: dict[str, list[Read]] = {way: [] for way in WAYS}
    for number in range(count + 1):
        for way in sorted(WAYS, reverse=number % 2 == 1):
            done = read(root, manifest, spans, way)
            print(f"{way}: {done.seconds:.1f} s", flush=True)
            if number:
                found[way].append(done)
    medians = {way: median(one.seconds for one in rounds) for way, rounds in found.items()}
    for way, seconds in medians.items():
        print(f"{way}, median of {count}: {seconds:.1f} s, {seconds / windows:.2f} s a window")
    print(f"ratio {medians[WAYS[0]] / medians[WAYS[1]]:.2f}")
    return found


def main() -> None:
    """Measure on the cluster of `RAY_ADDRESS`, or here."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--storage", required=True, help="URI of a folder that may be written to")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    size = Size(stored_days=LENGTH + STEP * args.windows)
    with session.open_session(RunConfig()):
        measure(Storage(args.storage), size, windows=args.windows, count=args.rounds)


if __name__ == "__main__":
    main()
