"""The six jobs: `gangru NAME …`, or `python jobs/NAME.py …` from a checkout.

A job is a function of a `cli.Job`; its docstring is its `--help`. Heavy libraries are imported
when it runs: `--help` needs none.
"""

from __future__ import annotations

import argparse
import datetime as dt
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from gangru_dist.base.records import to_jsonable
from gangru_dist.commands import add_working_folder, keep_streams, preview, tell, warn
from gangru_dist.commands.cli import Flag, Job, Outcome, run_job
from gangru_dist.config.sources import with_values
from gangru_dist.runs.run import WINDOWS
from gangru_dist.runs.summaries import SCORE_SUMMARY


@dataclass(frozen=True, kw_only=True)
class Command:
    """A job on the command line."""

    body: Callable[[Job], Outcome]
    plan: Callable[[Job], Mapping[str, Any]]
    """For `--dry-run`."""
    flags: Sequence[Flag]
    """Those that not every job has."""


def run(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a job; return its exit status."""
    add_working_folder()
    job = JOBS[name]
    text = inspect.getdoc(job.body)

    def body(given: Job) -> Outcome:
        from gangru_dist.cluster import session

        with session.run_here() if getattr(given.args, "here", False) else nullcontext():
            return job.body(given)

    with keep_streams():
        return run_job(text, body, argv, job.flags, plan=job.plan, program=f"gangru {name}")


def run_pipeline(job: Job) -> Outcome:
    """Run every stage in order: panel, training, scores, report.

        gangru pipeline --preset demo --bars synthetic --storage demo-storage
        gangru pipeline --preset default --bars s3://bucket/bars --storage s3://bucket/gangru

    Safe to run again: finished work is skipped. The demo takes one to two minutes on two cores.
    """
    from gangru_dist import api

    done = api.run_pipeline(job.run, bars=job.args.bars, overwrite=job.args.overwrite)
    return Outcome(outputs=(done.report,), ok=done.ok)


def build_panel(job: Job) -> Outcome:
    r"""Build the panel store from daily bars.

        gangru panel --bars s3://market/daily --storage s3://bucket/gangru \
            --set bars.format=tushare

    Reads parquet or CSV in any partitioning, checks every row, computes the features and writes
    `<storage>/panel`. If bars and settings are unchanged, nothing is done; if the bars have new
    days, these are added. Bars that change days of the existing panel are refused; give --overwrite
    to accept the correction. --check only reads and checks: it prints what it found and writes
    nothing; exit status 2 if a build would stop. Takes half a minute for 3.4 million rows on two
    cores. docs/data.md describes the columns.
    """
    if job.args.check:
        return _check_panel(job)
    from gangru_dist import api
    from gangru_dist.report.progress import ProgressPage

    panel = job.run.root.child("panel")
    with ProgressPage(job.run, folder=panel).show():
        api.build_panel(job.run, job.args.bars, overwrite=job.args.overwrite)
    return Outcome(outputs=(panel.uri, f"{panel.uri}/quality.json"))


def _check_panel(job: Job) -> Outcome:
    """Print the quality table; with --json to standard error, as a log is.

    Raises:
        BarsError: The build would stop.
    """
    from gangru_dist.panel.build import check_panel

    lines, problem = check_panel(job.args.bars, job.run.cfg)
    (warn if job.args.json else tell)("".join(f"{line}\n" for line in lines))
    if problem is not None:
        raise problem
    return Outcome(outputs=(job.args.bars,))


def train(job: Job) -> Outcome:
    r"""Train one model per refit day and seed; finished models are skipped.

        gangru train --preset report --storage s3://bucket/gangru
        ray job submit --working-dir . -- python jobs/train.py \
            --preset report --storage s3://bucket/gangru

    Safe to run again with the same --storage: an interrupted window resumes at its last checkpoint.
    """
    from gangru_dist.report.progress import ProgressPage
    from gangru_dist.training.launch import train_windows

    with ProgressPage(job.run).show():
        summary = train_windows(job.run, only=job.args.windows, overwrite=job.args.overwrite)
    facts = {"failed": summary.failures, **to_jsonable(summary)}
    return Outcome(outputs=(job.run.folder.child(WINDOWS).uri,), ok=summary.ok, facts=facts)


def tune(job: Job) -> Outcome:
    r"""Search for better settings on a few early windows; write the best ones to a file.

        gangru tune --storage s3://bucket/gangru --run search --trials 40 --hours 8
        gangru train --storage s3://bucket/gangru --run tuned \
            --config s3://bucket/gangru/runs/search/tune/best.toml

    Needs the panel. Safe to run again: finished trials are kept, interrupted ones start again.
    Trials run in parallel as resources.* allow. `tune.space` says what is searched
    (docs/tuning.md). optuna-dashboard opens the search's study.log.
    """
    from gangru_dist.report.progress import ProgressPage
    from gangru_dist.report.tuning import write_page
    from gangru_dist.tuning.search import search

    asked = {f"tune.{name}": getattr(job.args, name) for name in ("trials", "hours")}
    given = {key: value for key, value in asked.items() if value is not None}
    run = replace(job.run, cfg=with_values(job.run.cfg, given, "command line"))
    with ProgressPage(run).show():
        done = search(run, only=job.args.windows, overwrite=job.args.overwrite)
    page = write_page(run)
    names = ["trials.csv"] if done.record.best_trial is None else ["best.toml", "trials.csv"]
    return Outcome(outputs=(*(f"{run.tune.uri}/{name}" for name in names), page))


def score(job: Job) -> Outcome:
    """Score all days that have a model and are not yet in the factor table.

        gangru score --preset default --storage s3://bucket/gangru --run monthly
        gangru score --storage … --run … --from 2019-07-01 --to 2019-07-31   # again
        gangru score --storage … --run … --daily        # the days since the last, in seconds

    Safe to run again and in parallel: a job's days appear in one commit, without duplicates. Preset
    `default`, with its three seeds, scores 4,800 samples per second and core: half a year of 4,000
    stocks takes two minutes on one core.
    """
    from gangru_dist.report.progress import ProgressPage
    from gangru_dist.scoring.score import score_days
    from gangru_dist.scoring.table import FactorTable

    run, args = job.run, job.args
    with ProgressPage(run).show():
        summary = score_days(
            run, start=args.start, end=args.end, daily=args.daily, overwrite=args.overwrite
        )
    if args.vacuum:
        FactorTable(run.factor).vacuum()
    return Outcome(
        outputs=(run.factor.uri, f"{run.folder.uri}/{SCORE_SUMMARY}"),
        ok=summary.ok,
        facts={"days_scored": summary.scored, "rows": summary.rows, "version": summary.version},
    )


def report(job: Job) -> Outcome:
    """Evaluate a run's factor: metrics.json, CSV tables and one self-contained report.html.

        gangru report --storage s3://bucket/prefix --preset report
        gangru report --storage data --run default --compare default-gru

    Give the --preset, --config and --set that the run was trained with, or --run alone. Needs the
    panel and a factor table with at least two month-ends (`gangru score`); does not start Ray.
    `--compare` adds another run of the same storage for comparison; `--set report.language=zh`
    makes the page Chinese.

        gangru report --storage data --run default --factor value.parquet --factor momentum.csv

    `--factor` makes the page of a table of date, asset and value from anywhere, several side by
    side, under the run's settings, in `<storage>/factors/<first name>`.
    """
    from gangru_dist.base.storage import Storage, split_uri
    from gangru_dist.report.document import write_report
    from gangru_dist.report.factors import read_factor_files
    from gangru_dist.report.tables import METRICS

    args = job.args
    page = write_report(
        job.run,
        args.compare,
        factor=read_factor_files(args.factor) if args.factor else None,
        universe=args.universe,
        neutralize=args.neutralize,
        start=args.start,
        overwrite=args.overwrite,
    )
    figures = Storage(split_uri(page)[0]).read_json(METRICS)
    return Outcome(outputs=(page,), facts={"figures": figures})


def _parse_day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date ({error}): YYYY-MM-DD") from error


def _flag(name: str, text: str, metavar: str | None = None, **more: Any) -> Flag:
    shape = {"action": "store_true"} if metavar is None else {"metavar": metavar}
    return name, {"help": text, **shape, **more}


def _windows_flag(default: str) -> Flag:
    text = f"refit days, e.g. 2018-12-28,2019-06-28 (default: {default})"
    return _flag("--windows", text, "DAYS", type=lambda days: days.split(","))


_HERE = _flag("--here", "in this process, without Ray: for breakpoints and small jobs")
_BARS = _flag(
    "--bars",
    "folder or URI of the vendor's bars; `synthetic` for a synthetic market",
    "URI",
    required=True,
)
JOBS = {
    "pipeline": Command(body=run_pipeline, plan=preview.preview_pipeline, flags=[_BARS, _HERE]),
    "panel": Command(
        body=build_panel,
        plan=preview.preview_panel,
        flags=[
            _BARS,
            _HERE,
            _flag("--check", "read and check the bars, print what was found, write nothing"),
        ],
    ),
    "train": Command(
        body=train, plan=preview.preview_training, flags=[_windows_flag("all"), _HERE]
    ),
    "tune": Command(
        body=tune,
        plan=preview.preview_search,
        flags=[
            _flag("--trials", "total number of trials (tune.trials)", "N", type=int),
            _flag("--hours", "stop after this time (tune.hours)", "H", type=float),
            _windows_flag("tune.windows"),
        ],
    ),
    "score": Command(
        body=score,
        plan=preview.preview_scoring,
        flags=[
            _flag("--from", "score again from this day", "DAY", dest="start", type=_parse_day),
            _flag("--to", "score again up to this day", "DAY", dest="end", type=_parse_day),
            _flag("--daily", "the newest days, without Ray"),
            _HERE,
            _flag("--vacuum", "afterwards delete files unused for a week"),
        ],
    ),
    "report": Command(
        body=report,
        plan=preview.preview_report,
        flags=[
            _flag("--compare", "another run to compare with", "RUN"),
            _flag("--factor", "a table to evaluate instead; repeat it", "FILE", action="append"),
            _flag("--universe", "of --factor: run (default) or all", "NAME", default="run"),
            _flag(
                "--neutralize",
                "of --factor: industry,size or one of them",
                "NAMES",
                type=lambda names: names.split(","),
                default=(),
            ),
            _flag("--start", "of --factor: its first day", "DAY", type=_parse_day),
        ],
    ),
}
"""Name of a command -> its job."""
