"""Run every stage in order: panel, training, scores, report.

    gangru pipeline --preset demo --bars synthetic --storage demo-storage
    gangru pipeline --preset default --bars s3://bucket/bars --storage s3://bucket/gangru

Safe to run again: finished work is skipped. The demo takes one to two minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gangru_dist.commands import plan
from gangru_dist.commands.cli import Job, Outcome, run_job


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the job's own flags."""
    text = "folder or URI of the vendor's bars; `synthetic` for a synthetic market"
    parser.add_argument("--bars", required=True, metavar="URI", help=text)


def body(job: Job) -> Outcome:
    """Run all stages."""
    from gangru_dist.api import run_pipeline  # imports Ray: not needed for --help

    done = run_pipeline(job.run, bars=job.args.bars, overwrite=job.args.overwrite)
    return Outcome(outputs=(done.report,), ok=done.ok)


def run(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    return run_job(__doc__, body, argv, flags, plan=plan.pipeline, program="gangru pipeline")
