"""The demo as a user starts it: the whole of it, and the wait for the first epoch.

    python -m benchmarks.demo NEW [OLD] [--rounds 5] [--cold]

NEW and OLD are folders that each have the source and a `.venv`; they take turns, A B B A. A warm
start finds everything in the page cache: each side runs once before, uncounted. A cold one runs
from a copy of source and `.venv` that is dropped from the page cache first (`posix_fadvise`, which
disturbs no other process and needs no administrator); Python's own library stays cached. Asked of
NEW, warm: at most 60 s in all, at most 20 s to the first epoch. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

TARGET, FIRST_EPOCH_TARGET = 60.0, 20.0
"""Seconds of a warm start on two quiet cores."""


@dataclass(frozen=True)
class Took:
    """Seconds after the command was given."""

    first_epoch: float
    whole: float


def demo(checkout: Path, folder: Path) -> Took:
    """Run the demo of a checkout once, its storage new and below `folder`.

    Raises:
        RuntimeError: It failed; says its last lines.
    """
    with tempfile.TemporaryDirectory(dir=folder) as storage:
        words = ["--preset", "demo", "--bars", "synthetic", "--storage", storage]
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        begin, first, lines = time.perf_counter(), None, []
        with subprocess.Popen(
            [".venv/bin/python", "jobs/pipeline.py", *words],
            cwd=checkout,
            env=kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                lines.append(line)
                if first is None and "epoch_done" in line:
                    first = time.perf_counter() - begin
        if process.returncode or first is None:
            raise RuntimeError(f"the demo of {checkout} failed:\n{''.join(lines[-20:])}")
        return Took(first, time.perf_counter() - begin)


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache, where nobody has them mapped."""
    os.sync()  # what is not written yet cannot be dropped
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            file = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def copy_checkout(checkout: Path, folder: Path) -> Path:
    """Copy the source and `.venv` of a checkout, so that nobody else has the files open."""
    place = folder / checkout.name
    place.mkdir()
    for name in ("gangru_dist", "jobs", ".venv"):
        shutil.copytree(checkout / name, place / name, symlinks=True)
    return place


def measure(sides: dict[str, Path], rounds: int, *, cold: bool) -> dict[str, list[Took]]:
    """Both sides in turn, printed as they come."""
    found: dict[str, list[Took]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if cold:
            for name in sides:
                (folder / name).mkdir()
            sides = {name: copy_checkout(side, folder / name) for name, side in sides.items()}
        else:
            for side in sides.values():
                demo(side, folder)
        for number in range(rounds):
            for name in sorted(sides, reverse=number % 2 == 1):
                if cold:
                    forget(sides[name])
                took = demo(sides[name], folder)
                found[name].append(took)
                print(
                    f"round {number} {name}: first epoch after {took.first_epoch:.1f} s, "
                    f"whole {took.whole:.1f} s",
                    flush=True,
                )
    return found


def main() -> None:
    """Measure and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("new", type=Path, help="folder with the source and a .venv")
    parser.add_argument("old", type=Path, nargs="?", help="the same of another commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="nothing of them in the page cache")
    args = parser.parse_args()
    sides = {"new": args.new.absolute()} | ({"old": args.old.absolute()} if args.old else {})
    for name, took in measure(sides, args.rounds, cold=args.cold).items():
        print(
            f"{name}, {'cold' if args.cold else 'warm'}, median of {len(took)}: first epoch after "
            f"{median(one.first_epoch for one in took):.1f} s (asked, warm: <= "
            f"{FIRST_EPOCH_TARGET:.0f}), whole {median(one.whole for one in took):.1f} s (<= "
            f"{TARGET:.0f})"
        )


if __name__ == "__main__":
    main()
