"""Estimate of hours, threads and memory for a run, from measured speeds.

    python cluster/sizing.py            # the table of cluster/README.md
    python cluster/sizing.py --stocks 5000 --windows 14 --seeds 5 --threads 128

The model is `gangru_dist/sizing.py`; `gangru train --dry-run` asks it about your own panel.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout need not be installed

from gangru_dist.commands.plan import size

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
        need = size(stocks, windows * seeds, threads)
        lines.append(
            f"| {stocks:,} | {windows} | {seeds} | {threads} | {need.hours:.1f} | "
            f"{need.thread_hours:.0f} | {need.at_once * need.worker_gb:.0f} GB |"
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
    tasks = (args.windows or 2) * (args.seeds or 1)
    need = size(args.stocks or 4000, tasks, args.threads or 1)
    sys.stdout.write(
        f"hours={need.hours:.1f} thread_hours={need.thread_hours:.1f} "
        f"threads_used={need.at_once} gb_per_worker={need.worker_gb:.1f}\n"
    )


if __name__ == "__main__":
    main()
