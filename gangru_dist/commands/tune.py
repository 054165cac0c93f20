r"""Search for better settings on a few early windows; writes the best ones to a file.

    gangru tune --storage s3://bucket/gangru --run search --trials 40 --hours 8
    gangru train --storage s3://bucket/gangru --run tuned \
        --config s3://bucket/gangru/runs/search/tune/best.toml

Needs the panel. Safe to run again: finished trials are kept, interrupted ones start again. Trials
run in parallel as resources.* allow. `tune.space` says what is searched (docs/tuning.md).
optuna-dashboard opens the search's study.log.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from gangru_dist.commands import plan
from gangru_dist.commands.cli import Job, Outcome, run_job


def flags(parser: argparse.ArgumentParser) -> None:
    """Add the job's own flags."""
    add = parser.add_argument
    add("--trials", type=int, metavar="N", help="total number of trials (tune.trials)")
    add("--hours", type=float, metavar="H", help="stop after this time (tune.hours)")
    text = "refit days of every trial, e.g. 2018-12-28,2019-06-28 (default: tune.windows)"
    add("--windows", type=lambda days: days.split(","), metavar="DAYS", help=text)
    add("--export", type=_refuse_export, help=argparse.SUPPRESS)


def _refuse_export(file: str) -> NoReturn:
    raise argparse.ArgumentTypeError(
        "was removed. Every search writes its Optuna study to runs/<run>/tune/study.log as it "
        "goes; open that file with optuna-dashboard."
    )


def body(job: Job) -> Outcome:
    """Search, then write the page about it."""
    from gangru_dist.config.sources import with_values
    from gangru_dist.report.progress import ProgressPage
    from gangru_dist.report.tuning import write_page  # torch, Ray: not needed for --help
    from gangru_dist.tuning.search import search

    asked = {f"tune.{name}": getattr(job.args, name) for name in ("trials", "hours")}
    given = {key: value for key, value in asked.items() if value is not None}
    run = replace(job.run, cfg=with_values(job.run.cfg, given, "command line"))
    with ProgressPage(run).show():
        done = search(run, only=job.args.windows, overwrite=job.args.overwrite)
    page = write_page(run)
    names = ["trials.csv"] if done.record.best_trial is None else ["best.toml", "trials.csv"]
    return Outcome(outputs=(*(f"{run.tune.uri}/{name}" for name in names), page))


def run(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    return run_job(__doc__, body, argv, flags, plan=plan.tune, program="gangru tune")
