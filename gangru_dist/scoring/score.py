"""Score days: a pool of actors does scoring tasks, and the driver commits their files at once.

    plan -> Ray Data: one row per task -> actors (models and block kept) -> files -> one commit

A job killed at any point leaves the table unchanged; run it again to score the same days.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Collection
from contextlib import nullcontext
from functools import partial

import numpy as np

from gangru_dist.base import log
from gangru_dist.base.errors import ConfigError, FactorError
from gangru_dist.cluster import session
from gangru_dist.cluster.map import Runner, map_here, map_on_ray, unwrap
from gangru_dist.events import prometheus
from gangru_dist.events.events import RowsScored
from gangru_dist.maths.calendar import Day, to_day
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.panel.shared import SharedPanel, share_panel
from gangru_dist.runs.run import Run, require_run
from gangru_dist.runs.summaries import ScoreSummary, write_score_summary
from gangru_dist.scoring.files import DataFile
from gangru_dist.scoring.plan import Plan, describe_incomplete, make_plan
from gangru_dist.scoring.predictor import Scorer
from gangru_dist.scoring.table import FactorTable

_logger = logging.getLogger(__name__)

SMALL_SAMPLES = 100_000
"""A day's assets are so many samples; 20 s of one core with the default network. Fewer are scored
without actors, which take 5 to 10 s to start."""


def score_days(
    run: Run,
    *,
    start: Day | None = None,
    end: Day | None = None,
    daily: bool = False,
    overwrite: bool = False,
    runner: Runner | None = None,
) -> ScoreSummary:
    """Score days and commit them to the run's factor table.

    By default, every day that belongs to a window and whose scores in the table are not from the
    current models, settings and panel. With `start` or `end`, all days in between again.

    Args:
        run: The run whose models score; it must exist.
        start: First day.
        end: Last day, inclusive.
        daily: Score the days after the last scored one, usually the panel's newest day alone, in
            this process, in seconds: no Ray is started, but a cluster of `RAY_ADDRESS` is joined
            for its metrics.
        overwrite: Take the run's name even if it has another configuration.
        runner: Does the tasks; None = in this process if that is faster than the start of
            actors, else on Ray.

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
    require_run(run)
    started = time.monotonic()
    span = {"start": to_day(start, "start"), "end": to_day(end, "end")}
    run, manifest, table, plan = plan_scoring(run, **span, daily=daily)
    run.check_claim(overwrite=overwrite)
    _logger.info(
        "score_start days=%d tasks=%d up_to_date_days=%d",
        plan.days,
        len(plan.tasks),
        plan.up_to_date,
    )
    if daily and not plan.days:
        text = "nothing_new newest_day=%s is scored already: new bars come with gangru panel"
        _logger.warning(text, manifest.calendar[-1])
    size, samples = run.cfg.resources, plan.days * manifest.assets
    asks_for_actors = bool(size.scoring_actors or size.gpus_per_worker)
    is_small = daily or len(plan.tasks) <= 1 or (samples <= SMALL_SAMPLES and not asks_for_actors)
    files = _score_all(run, manifest, plan, runner or (map_here if is_small else map_on_ray))
    if plan.gone:
        text = "days_dropped days=%d first=%s last=%s: the panel no longer has them"
        _logger.warning(text, len(plan.gone), plan.gone[0], plan.gone[-1])
    run.claim(overwrite=overwrite)
    version = table.commit(files, drop=plan.gone)
    summary = ScoreSummary(
        scored=plan.days,
        rows=sum(file.rows for file in files),
        up_to_date=plan.up_to_date,
        unscored=plan.unscored,
        version=version,
        seconds=time.monotonic() - started,
        days=table.read_coverage(),
    )
    write_score_summary(run, summary)
    return summary


def plan_scoring(
    run: Run, *, start: dt.date | None = None, end: dt.date | None = None, daily: bool = False
) -> tuple[Run, Manifest, FactorTable, Plan]:
    """The run as it was claimed, its panel, its factor table, and what is to be scored.

    Raises:
        GangruError: As `score_days`.
    """
    if daily and (start or end):
        raise ConfigError(
            f"--daily scores only the newest day, so --from {start} and --to {end} would be "
            "ignored. Leave out --daily, or --from and --to."
        )
    run.check_exists()
    run = run.with_claimed_precision()
    manifest = read_manifest(run.root, run.cfg.panel.features)
    manifest.require_features(run.cfg.features)
    if daily and manifest.set_aside:
        raise FactorError(
            f"no row of {manifest.set_aside}, the newest day of the bars, could be used (see "
            f"{run.root.child('panel').uri}/quality.json), so --daily would score "
            f"{manifest.calendar[-1]} instead. Correct that day's bars and run gangru panel; "
            f"or, if the day before is meant: --from {manifest.calendar[-1]}"
        )
    if daily and manifest.incomplete:
        raise FactorError(describe_incomplete(manifest))
    again = start is not None or end is not None
    table = FactorTable(run.factor)
    models, covered = run.read_models(), table.read_coverage()
    if daily:
        end = manifest.calendar[-1].astype(dt.date)
        start = _find_start(manifest, covered)
    plan = make_plan(manifest, run.cfg, models, covered, start=start, end=end, again=again)
    return run, manifest, table, plan


def _find_start(manifest: Manifest, covered: Collection[dt.date]) -> dt.date:
    """First day that a daily job scores: that after the last scored one, at most the newest."""
    days, last = manifest.calendar, np.datetime64(max(covered)) if covered else None
    later = days[days > last] if last is not None else days[-1:]
    if len(later) > 1:
        _logger.warning("days_missed first=%s days=%d: scored now", later[0], len(later) - 1)
    first: dt.date = (later if len(later) else days[-1:])[0].astype(dt.date)
    return first


def _score_all(run: Run, manifest: Manifest, plan: Plan, runner: Runner) -> list[DataFile]:
    """Files of all tasks, by month."""
    files: list[DataFile] = []
    most = run.cfg.resources.scoring_actors or len(plan.tasks)
    # a cluster's Prometheus counts the rows that this process scores, too
    needs_ray = runner is map_on_ray or session.is_on_cluster()
    with (
        session.open_session(run.cfg) if needs_ray else nullcontext(),
        log.subscribe(prometheus.record),
        log.Progress("score", total=plan.days, unit="days") as progress,
    ):
        panel = SharedPanel(root=run.root, manifest=manifest)
        if runner is map_on_ray:
            panel = _share_panel(run, manifest, plan)
        for _, result in runner(run.cfg, partial(Scorer, run, panel), plan.tasks, actors=most):
            file = unwrap(result)
            files.append(file)
            log.publish(RowsScored(file.rows))
            progress.advance(len(file.days))
    return sorted(files, key=lambda file: file.days[0].date)


def _share_panel(run: Run, manifest: Manifest, plan: Plan) -> SharedPanel:
    """The panel of all tasks' days, with those before them."""
    return share_panel(
        run.root,
        manifest,
        run.cfg,
        start=dt.date.fromisoformat(min(task.block_start for task in plan.tasks)),
        end=dt.date.fromisoformat(max(task.block_end for task in plan.tasks)),
        features=run.cfg.features,
        trading=True,
        readers=len(plan.tasks),
    )
