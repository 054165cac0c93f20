"""Train one model per refit day and seed; finished models are skipped.

    gangru train --preset report --storage s3://bucket/gangru
    ray job submit --working-dir . -- python jobs/train.py --preset report --storage s3://bucket/gangru

Safe to run again with the same --storage: an interrupted window resumes at its last checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gangru_dist.base.records import to_jsonable
from gangru_dist.commands import plan
from gangru_dist.commands.cli import Job, Outcome, run_job
from gangru_dist.runs.run import WINDOWS


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the job's own flags."""
    text = "refit days to train, e.g. 2018-12-28,2019-06-28 (default: all)"
    parser.add_argument("--windows", type=lambda days: days.split(","), metavar="DAYS", help=text)


def body(job: Job) -> Outcome:
    """Train the windows."""
    from gangru_dist.report.progress import ProgressPage
    from gangru_dist.training.launch import train_windows  # torch and Ray: not needed for --help

    with ProgressPage(job.run).show():
        summary = train_windows(job.run, only=job.args.windows, overwrite=job.args.overwrite)
    facts = {"failed": summary.failed, **to_jsonable(summary)}
    return Outcome(outputs=(job.run.folder.child(WINDOWS).uri,), ok=summary.ok, facts=facts)


def run(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    return run_job(__doc__, body, argv, flags, plan=plan.train, program="gangru train")
