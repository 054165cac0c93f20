r"""Search for better settings on a few early windows; writes the best ones to a file.

    gangru tune --storage s3://bucket/gangru --run search --trials 40 --hours 8
    gangru train --storage s3://bucket/gangru --run tuned \
        --config s3://bucket/gangru/runs/search/tune/best.toml
    gangru tune --storage s3://bucket/gangru --run search --export search.db

Needs the panel. Safe to run again: finished trials are kept, interrupted ones start again. Trials
run in parallel as resources.* allow. `tune.space` says what is searched (docs/tuning.md).
--export searches no further: it writes what is stored as an Optuna study, for optuna-dashboard.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from gangru_dist.commands import plan
from gangru_dist.commands.cli import Job, Outcome, run_job


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the job's own flags."""
    add = parser.add_argument
    add("--trials", type=int, metavar="N", help="total number of trials (tune.trials)")
    add("--hours", type=float, metavar="H", help="stop after this time (tune.hours)")
    text = "refit days of every trial, e.g. 2018-12-28,2019-06-28 (default: tune.windows)"
    add("--windows", type=lambda days: days.split(","), metavar="DAYS", help=text)
    text = "only write the stored search as an Optuna study to this SQLite file"
    add("--export", metavar="FILE.db", help=text)


def body(job: Job) -> Outcome:
    """Search, then write the page about it; or export what was searched before."""
    if job.args.export:
        from gangru_dist.tuning.study import export_study

        export_study(job.run, job.args.export, overwrite=job.args.overwrite)
        return Outcome(outputs=(job.args.export,))
    from gangru_dist.config.sources import with_values
    from gangru_dist.report.progress import ProgressPage
    from gangru_dist.report.tuning import write_page  # torch, Ray: not needed for --help
    from gangru_dist.tuning.search import search

    asked = {f"tune.{name}": getattr(job.args, name) for name in ("trials", "hours")}
    given = {key: value for key, value in asked.items() if value is not None}
    run = replace(job.run, cfg=with_values(job.run.cfg, given, "command line"))
    with ProgressPage(run).shown() as progress:
        done = search(run, only=job.args.windows, overwrite=job.args.overwrite, watcher=progress)
    page = write_page(run)
    best = (f"{done.folder.uri}/best.toml",) if done.best else ()
    return Outcome(outputs=(*best, f"{done.folder.uri}/trials.csv", page))


def run(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    return run_job(__doc__, body, argv, flags, plan=plan.tune, program="gangru tune")
