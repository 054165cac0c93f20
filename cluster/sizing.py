"""Estimate of hours, threads and memory for a run, from measured speeds.

    python cluster/sizing.py            # the table of cluster/README.md
    python cluster/sizing.py --stocks 5000 --windows 14 --seeds 5 --threads 128

Measured on one thread of a two-core AMD machine at the default sizes (SPEC 5): the predictor
trains 1,450 samples per second and scores 4,500. The rest is arithmetic: a sample is one stock on
one day; a window has 80 days of samples in 400 days of history, a fifth of them for validation.
GPUs were not measured; train one window on yours and scale.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

TRAIN_PER_SECOND = 1450.0
"""Samples per second and thread, forward and backward, GRU of the default sizes. Measured."""
SCORE_PER_SECOND = 4500.0
"""Samples per second and thread, forward only. Measured."""
GAN_COST = 2.0
"""Time of a GAN epoch over that of a predictor epoch. An assumption, not studied."""
GAN_EPOCHS, GRU_EPOCHS = 5, 20
"""Preset default: GAN epochs, and a typical number of predictor epochs (at most 50)."""
TRAINING_DAYS, VALIDATION_DAYS = 64, 16
"""Days of samples per window: every fifth of 400, a fifth of these for validation."""
PANEL_DAYS, FEATURES, SCORED_DAYS = 440, 18, 122
"""Days that a window reads; features; days it scores (half a year)."""
WORKER_GB = 1.5
"""Memory of a worker beside its data. Measured: 0.3 (torch) + 0.7 (Ray), plus a margin."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Resources of a run."""

    thread_hours: float
    """Training and scoring of all windows and seeds."""
    hours: float
    """Wall time on the given threads; windows are not split, so some threads end up idle."""
    worker_gb: float
    """Memory of one worker."""
    threads: int
    """Threads in use: at most one per window and seed."""


def size(stocks: int, windows: int, seeds: int, threads: int) -> Size:
    """Estimate for windows in parallel, with one worker of one thread each.

    Args:
        stocks: Members of the universe per day.
        windows: Refit days.
        seeds: Models per refit day.
        threads: Cores of the whole cluster.
    """
    epoch = stocks * (TRAINING_DAYS / TRAIN_PER_SECOND + VALIDATION_DAYS / SCORE_PER_SECOND)
    train = epoch * GRU_EPOCHS + stocks * TRAINING_DAYS / TRAIN_PER_SECOND * GAN_COST * GAN_EPOCHS
    score = stocks * SCORED_DAYS / SCORE_PER_SECOND
    tasks = windows * seeds
    used = min(threads, tasks)
    rounds = -(-tasks // used)
    # the block, its standardized copy, and a day's activations
    data_gb = 3 * 4 * PANEL_DAYS * stocks * FEATURES / 1e9
    return Size(
        thread_hours=tasks * (train + score) / 3600,
        hours=(rounds * train + tasks * score / used) / 3600,
        worker_gb=WORKER_GB + data_gb,
        threads=used,
    )


CASES = (
    (200, 3, 1, 2),
    (4000, 2, 1, 2),
    (4000, 14, 1, 16),
    (4000, 14, 5, 64),
    (5000, 2, 1, 8),
    (5000, 20, 5, 128),
)
"""Stocks, windows, seeds, threads of the README's table."""


def table() -> str:
    """The README's table, Markdown."""
    lines = [
        "| stocks | windows | seeds | CPU threads | hours | thread-hours | memory, all workers |",
        "|---|---|---|---|---|---|---|",
    ]
    for stocks, windows, seeds, threads in CASES:
        need = size(stocks, windows, seeds, threads)
        lines.append(
            f"| {stocks:,} | {windows} | {seeds} | {threads} | {need.hours:.1f} | "
            f"{need.thread_hours:.0f} | {need.threads * need.worker_gb:.0f} GB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table, or one case."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("stocks", "windows", "seeds", "threads"):
        parser.add_argument(f"--{name}", type=int)
    args = parser.parse_args()
    if not any(vars(args).values()):
        sys.stdout.write(table() + "\n")
        return
    need = size(args.stocks or 4000, args.windows or 2, args.seeds or 1, args.threads or 1)
    sys.stdout.write(
        f"hours={need.hours:.1f} thread_hours={need.thread_hours:.1f} "
        f"threads_used={need.threads} gb_per_worker={need.worker_gb:.1f}\n"
    )


if __name__ == "__main__":
    main()
