"""Score days: a pool of actors scores pieces, and the driver commits their files at once.

    plan -> Ray Data: one row per piece -> actors (models and block kept) -> files -> one commit

A job killed at any point leaves the table unchanged; run it again to score the same days.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from functools import partial

import torch

from gangru_dist import gauges, log
from gangru_dist.cluster_map import Runner, here, on_cluster, value
from gangru_dist.errors import ConfigError
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.runs.run import Run
from gangru_dist.runs.score_summary import ScoreSummary, write_summary
from gangru_dist.scoring.commit import DataFile, commit
from gangru_dist.scoring.plan import Plan, make_plan
from gangru_dist.scoring.predictor import Scorer
from gangru_dist.scoring.table import covered_days

_logger = logging.getLogger(__name__)


def score_days(
    run: Run,
    *,
    start: dt.date | None = None,
    end: dt.date | None = None,
    daily: bool = False,
    overwrite: bool = False,
    runner: Runner = on_cluster,
) -> ScoreSummary:
    """Score days and commit them to the run's factor table.

    By default, every day that belongs to a window and whose scores in the table are not from the
    current models, settings and panel. With `start` or `end`, all days in between again.

    Args:
        run: The run whose models score; it must exist.
        start: First day.
        end: Last day, inclusive.
        daily: Score the panel's newest day only, in this process, without Ray, in seconds.
        overwrite: Take the run's name even if it has another configuration.
        runner: Scores the pieces if there are several.

    Returns:
        What was done; also in `runs/<run>/factor-summary.json`.

    Raises:
        ConfigError: `daily` is combined with `start` or `end`; or there is no such run, or its
            name belongs to another configuration.
        PanelError: There is no panel, or it lacks a feature.
        WindowError: No model can score any of the days; with `daily`, the newest day.
        FactorError: There is no trading day in the span, a prediction is not finite, or the store
            refused the commit. The table is then unchanged.
        ResourceError: The cluster is too small for one actor.
    """
    if daily and (start or end):
        raise ConfigError(
            f"--daily scores only the newest day, so --from {start} and --to {end} would be "
            "ignored. Leave out --daily, or --from and --to."
        )
    started = time.monotonic()
    run.require()
    run = run.as_claimed()
    manifest = read_manifest(run.root)
    manifest.require_features(run.cfg.features)
    run.claim(overwrite=overwrite)
    again = start is not None or end is not None
    if daily:
        start = end = manifest.calendar[-1].astype(dt.date)
    plan = make_plan(
        manifest,
        run.cfg,
        run.models(),
        covered_days(run.factor),
        start=start,
        end=end,
        again=again,
    )
    _logger.info(
        "score_start days=%d pieces=%d up_to_date_days=%d",
        plan.days,
        len(plan.pieces),
        plan.up_to_date,
    )
    # a single piece is not worth the start of Ray
    files = _score_all(run, plan, here if daily or len(plan.pieces) <= 1 else runner)
    version = commit(run.factor, files)
    summary = ScoreSummary(
        scored=plan.days,
        rows=sum(file.rows for file in files),
        up_to_date=plan.up_to_date,
        unscored=plan.unscored,
        version=version,
        seconds=time.monotonic() - started,
        days=covered_days(run.factor),
    )
    write_summary(run, summary)
    return summary


def _score_all(run: Run, plan: Plan, runner: Runner) -> list[DataFile]:
    """Files of all pieces, by month."""
    files: list[DataFile] = []
    most = run.cfg.resources.scoring_actors or len(plan.pieces)
    with log.progress("score", total=plan.days, unit="days") as progress:
        for _, result in runner(run.cfg, partial(_scorer, run), plan.pieces, actors=most):
            file = value(result)
            files.append(file)
            gauges.count(gauges.SCORED_ROWS, file.rows)
            progress.advance(len(file.days))
    return sorted(files, key=lambda file: (file.month, file.days[0].date))


def _scorer(run: Run) -> Scorer:
    """Make the scorer of a process."""
    torch.set_num_threads(run.cfg.resources.threads_per_worker)
    return Scorer(run)
