"""Run every stage in order: panel, training, scores, report.

    python jobs/pipeline.py --preset demo --bars synthetic --storage demo-storage
    python jobs/pipeline.py --preset default --bars s3://bucket/bars --storage s3://bucket/gangru

Safe to run again: finished work is skipped. The demo takes two to four minutes on two cores.
"""

import argparse

from gangru_dist.cli import Job, Outcome, run_job


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the job's own flags."""
    text = "folder or URI of the vendor's bars; `synthetic` for a synthetic market"
    parser.add_argument("--bars", required=True, metavar="URI", help=text)


def body(job: Job) -> Outcome:
    """Run all stages."""
    from gangru_dist.pipeline import run_pipeline  # imports Ray: not needed for --help

    done = run_pipeline(job.run, bars=job.args.bars, overwrite=job.args.overwrite)
    return Outcome(outputs=(done.report,), ok=done.ok)


if __name__ == "__main__":
    raise SystemExit(run_job(__doc__, body, flags=flags))
