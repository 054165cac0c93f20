"""Ray's part of a job, done in this process: trials by the hundred cannot wait for its start.

Everything else is the job's own: command line, worker, checkpoints, queue of trials.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from gangru_dist.base.errors import DivergedError, GangruError
from gangru_dist.cluster import session
from gangru_dist.training import launch
from gangru_dist.training.units import Event, TrainingJob, Unit, UnitFinished
from gangru_dist.training.worker import train_unit
from gangru_dist.tuning import search
from gangru_dist.tuning.queue import TrialQueue
from gangru_dist.tuning.space import apply
from gangru_dist.tuning.trial import run_trial


def run_units_here(job: TrainingJob, units: Sequence[Unit], at_once: int) -> Iterator[Event]:
    """`run_units` without processes of their own, which nobody starts again."""
    for unit in units:
        events: list[Event] = []
        train_unit(job, unit, events.append)
        yield from events
        yield UnitFinished(unit, None)


def run_trials(
    queue: TrialQueue, calendar: np.ndarray, blocks: dict[str, Any], *, steps_per_window: int
) -> None:
    """Ray Tune's part of a search: one trial after another, none pruned."""
    while queue.remaining and (record := queue.start_next()) is not None:
        report = partial(queue.report, record.number)
        try:
            run_trial(
                apply(queue.cfg, record.settings),
                base=queue.cfg,
                windows=queue.record.windows,
                calendar=calendar,
                read_block=blocks.__getitem__,
                steps_per_window=steps_per_window,
                report=report,
            )
        except GangruError as error:
            status = "diverged" if isinstance(error, DivergedError) else "failed"
            report({"status": status, "reason": str(error)})
        queue.end(record.number)


def replacements() -> list[tuple[Any, str, Any]]:
    """Object, name of an attribute, what it is without Ray; for tests in one process too."""
    near = {
        "open_session": lambda *_, **__: nullcontext(),
        "share_session": lambda *_, **__: nullcontext(),
        "find_room": lambda *_: 1,
        "count_nodes": lambda: 1,
        "count_store_bytes": lambda: 0.0,
    }
    return [
        *((session, name, value) for name, value in near.items()),
        (launch, "run_units", run_units_here),
        (search, "run_trials", run_trials),
        (search, "ray", SimpleNamespace(put=lambda block: block)),
    ]


def install() -> None:
    """For the rest of this process, which exists for one job."""
    for owner, name, value in replacements():
        setattr(owner, name, value)
