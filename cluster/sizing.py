"""How many machines, how much memory, how many hours: computed from measured speeds.

    python cluster/sizing.py            # the table of cluster/README.md
    python cluster/sizing.py --stocks 5000 --windows 14 --seeds 5 --threads 128

Measured on one thread of a two-core AMD machine at the default sizes (SPEC 5): the predictor
trains 1,450 samples a second and scores 4,500. Everything else here is arithmetic: a sample is one
stock on one day, 80 training days in 400 of history, a fifth of them for validation. GPUs were not
measured, so no figure is given for them: train one window on yours and divide.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

TRAIN_PER_SECOND = 1450.0
"""Samples a second and thread, forward and backward, GRU of the default sizes. Measured."""
SCORE_PER_SECOND = 4500.0
"""Samples a second and thread, forward alone. Measured."""
GAN_COST = 2.0
"""A GAN epoch against one of the predictor, in time. Assumption, not studied."""
GAN_EPOCHS, GRU_EPOCHS = 5, 20
"""Preset default: GAN epochs; epochs until the predictor stops early (at most 50). Typical."""
TRAINING_DAYS, VALIDATION_DAYS = 64, 16
"""A window's days of samples: every fifth of 400, a fifth for validation."""
PANEL_DAYS, FEATURES, SCORED_DAYS = 440, 18, 122
"""Days that a window reads; features; days it scores (half a year)."""
WORKER_GB = 1.5
"""Torch, Ray's worker and run helpers, beside the data. Measured: 0.3 + 0.7, and room."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a run needs."""

    thread_hours: float
    """Training and scoring of all windows and seeds."""
    hours: float
    """The same on the threads that are there; windows are whole, so some threads end up idle."""
    worker_gb: float
    """Memory of one window's worker."""
    threads: int
    """Used at once: one a window and seed at most."""


def size(stocks: int, windows: int, seeds: int, threads: int) -> Size:
    """Threads x windows in parallel, one worker a window.

    Args:
        stocks: Members of the universe a day.
        windows: Refit days.
        seeds: Models a refit day.
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
    """Markdown."""
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
