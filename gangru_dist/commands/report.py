"""Evaluate a run's factor: metrics.json, CSV tables and one self-contained report.html.

    gangru report --storage s3://bucket/prefix --preset report
    gangru report --storage data --run default --compare default-gru

Give the --preset, --config and --set that the run was trained with, or --run alone. Needs the
panel and a factor table with at least two month-ends (`gangru score`); does not start Ray.
`--compare` adds another run of the same storage for comparison; `--set report.language=zh` makes
the page Chinese.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gangru_dist.commands import plan
from gangru_dist.commands.cli import Job, Outcome, run_job


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the job's own flags."""
    parser.add_argument("--compare", metavar="RUN", help="another run to compare with")


def body(job: Job) -> Outcome:
    """Evaluate the run's factor and write the page."""
    from gangru_dist.report.document import write_report  # matplotlib: not needed for --help

    page = write_report(job.run, job.args.compare, overwrite=job.args.overwrite)
    return Outcome(outputs=(page,))


def run(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    return run_job(__doc__, body, argv, flags, plan=plan.report, program="gangru report")
