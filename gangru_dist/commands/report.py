"""Judge a run's factor: metrics.json, CSV tables and one self-contained report.html.

    gangru report --storage s3://bucket/prefix --preset report
    gangru report --storage data --run default --compare default-gru

Give the --preset, --config and --set that the run was trained with. Needs the panel and the factor
table of `gangru score` over two month-ends at least; starts no Ray. `--compare` shows another run
of the same storage beside this one; `--set report.language=zh` prints the page in Chinese.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gangru_dist.cli import Job, Outcome, run_job
from gangru_dist.commands import plan


def flags(parser: argparse.ArgumentParser) -> None:
    """What only this job asks."""
    parser.add_argument("--compare", metavar="RUN", help="another run to show beside this one")


def body(job: Job) -> Outcome:
    """Judge the run's factor, write the page."""
    from gangru_dist.report.document import write_report  # matplotlib and Delta: not for --help

    page = write_report(job.run, job.args.compare, overwrite=job.args.overwrite)
    return Outcome(outputs=(page,))


def run(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    return run_job(__doc__, body, argv, flags, plan=plan.report, program="gangru report")
