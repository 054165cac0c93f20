"""Score days: units fan out to a pool of actors, the driver commits their files once.

    plan -> Ray Data: one row a unit -> actors (models and block kept) -> files -> one commit

A job killed at any point leaves the table as it was; run again, it starts from there. [Ray]
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from gangru_dist import gauges, log, runtime
from gangru_dist.config import RunConfig
from gangru_dist.errors import ConfigError, FactorError, GangruError, WindowError
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.runs.run import Run
from gangru_dist.runs.score_summary import DayCoverage, ScoreSummary, write_summary
from gangru_dist.scoring.commit import DataFile, commit
from gangru_dist.scoring.plan import Plan, Unit, make_plan
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
) -> ScoreSummary:
    """Score days and commit them to the run's factor table.

    By default every day that a window answers for and whose scores in the table are not those
    of today's model, settings and panel. With `start` or `end` all days between, again.

    Args:
        run: Whose models score; it must be there.
        start: First day.
        end: Last day, included.
        daily: The panel's newest day alone, in this process: no Ray, seconds.
        overwrite: Take the run's name even if it has another configuration.

    Returns:
        What was done; also in `runs/<run>/factor-summary.json`.

    Raises:
        ConfigError: `daily` together with `start` or `end`; or there is no such run, or its name
            is taken by another configuration.
        PanelError: There is no panel, or it lacks a feature.
        WindowError: No model may score any of the days; with `daily`, not the newest one.
        FactorError: No trading day in the span, a prediction that is not finite, or a store
            that refused the commit. The table is then as it was.
        ResourceError: The cluster cannot hold one actor.
    """
    if daily and (start or end):
        raise ConfigError(
            f"--daily scores the newest day alone, so --from {start} and --to {end} would be "
            "ignored. Leave out the one or the others."
        )
    started = time.monotonic()
    run.require()
    manifest = read_manifest(run.root)
    manifest.require_features(run.cfg.features)
    if daily and manifest.set_aside:
        raise FactorError(
            f"not one row of {manifest.set_aside}, the newest day of the bars, could be used (see "
            f"{run.root.child('panel').uri}/quality.json), so --daily would score "
            f"{manifest.calendar[-1]} in its place. Mend that day's bars and run jobs/panel.py; "
            f"or, if the day before is meant: --from {manifest.calendar[-1]}"
        )
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
        "score_start days=%d units=%d up_to_date_days=%d",
        plan.days,
        len(plan.units),
        plan.up_to_date,
    )
    files = _score_all(run, plan, here=daily)
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


def _score_all(run: Run, plan: Plan, *, here: bool) -> list[DataFile]:
    """Files of all units, by month; scored in this process if there is next to nothing to do."""
    found = (
        _score_here(run, plan.units)
        if here or len(plan.units) <= 1
        else _score_on_cluster(run, plan.units)
    )
    with log.progress("score", total=plan.days, unit="days") as progress:
        files = []
        for file in found:
            files.append(file)
            gauges.count(gauges.SCORED_ROWS, file.rows)
            progress.advance(len(file.days))
    return sorted(files, key=lambda file: (file.month, file.days[0].date))


def _score_here(run: Run, units: tuple[Unit, ...]) -> Iterator[DataFile]:
    if units:
        torch.set_num_threads(run.cfg.resources.threads_per_worker)
        yield from map(Scorer(run), units)


class ScoringActor:
    """A `Scorer` behind Ray Data: rows of one unit in, rows of one file (or its error) out."""

    def __init__(self, run: Run) -> None:
        torch.set_num_threads(run.cfg.resources.threads_per_worker)
        self._scorer = Scorer(run)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"result": [self._one(text) for text in batch["unit"]]}

    def _one(self, text: str) -> str:
        values = json.loads(text)
        try:
            file = self._scorer(Unit(**values | {"days": tuple(values["days"])}))
        except GangruError as error:  # an error to be read, not a traceback from an actor
            return json.dumps({"error": str(error), "kind": type(error).__name__})
        return json.dumps(asdict(file))


def _score_on_cluster(run: Run, units: tuple[Unit, ...]) -> Iterator[DataFile]:
    import ray.data

    cfg = run.cfg
    with runtime.session(cfg):
        actors = pool_size(cfg, len(units))
        _logger.info("score_actors actors=%d", actors)
        rows = [{"unit": json.dumps(asdict(unit))} for unit in units]
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ScoringActor,
            batch_size=1,
            fn_constructor_args=(run,),
            # one unit in flight an actor: seconds each, so nobody waits behind a busy one
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
            num_cpus=cfg.resources.cpus_per_worker,
            num_gpus=cfg.resources.gpus_per_worker or None,
        )
        for row in results.iter_rows():
            yield _file(json.loads(row["result"]))


def _file(values: dict[str, Any]) -> DataFile:
    if "error" in values:
        kind = WindowError if values["kind"] == "WindowError" else FactorError
        raise kind(values["error"])
    days = tuple(DayCoverage(**day) for day in values["days"])
    return DataFile(**values | {"days": days})


def pool_size(cfg: RunConfig, units: int) -> int:
    """Actors that fit, at most one a unit and `resources.scoring_actors`.

    Raises:
        ResourceError: Not even one ever fits.
    """
    ask = {"cpus": cfg.resources.cpus_per_worker, "gpus": cfg.resources.gpus_per_worker}
    runtime.require("a scoring actor", workers=1, **ask)
    return min(units, runtime.slots(**ask), cfg.resources.scoring_actors or units)
