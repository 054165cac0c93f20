"""Train one model a refit day (and seed): what is trained already is skipped.

    python jobs/train.py --preset report --storage s3://bucket/gangru
    ray job submit --working-dir . -- python jobs/train.py --preset report --storage s3://bucket/gangru

Safe to submit again with the same --storage: a cut-off window resumes at its last checkpoint.
"""

import argparse

from gangru_dist.cli import Job, Outcome, run_job


def flags(parser: argparse.ArgumentParser) -> None:
    """What only this job asks."""
    text = "refit days to train, e.g. 2018-12-28,2019-06-28 (default: all)"
    parser.add_argument("--windows", type=lambda days: days.split(","), metavar="DAYS", help=text)


def body(job: Job) -> Outcome:
    """Look for the panel, claim the run's name, train, say what became of each window."""
    from gangru_dist.panel.manifest import read_manifest
    from gangru_dist.training.launch import train_windows  # torch and Ray: not for --help

    read_manifest(job.root).require_features(job.cfg.features)
    job.claim()
    summary = train_windows(job.root, job.run, job.cfg, only=job.args.windows)
    return Outcome(outputs=(job.root.child("runs", job.run, "windows").uri,), ok=summary.ok)


if __name__ == "__main__":
    raise SystemExit(run_job(__doc__, body, flags=flags))
