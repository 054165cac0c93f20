"""Ray's part of a job, done in this process: trials by the hundred cannot wait for its start.

Everything else is the job's own: command line, board, worker, checkpoints, queue of trials.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from gangru_dist.base.errors import DivergedError, GangruError
from gangru_dist.cluster import session
from gangru_dist.training import launch, progress
from gangru_dist.training.queue import Board, Driven, Slot
from gangru_dist.training.worker import train_worker
from gangru_dist.tuning import search
from gangru_dist.tuning.queue import TrialQueue
from gangru_dist.tuning.space import apply
from gangru_dist.tuning.trial import run_trial


class NearBoard(Board):
    """`RemoteBoard` in this process."""

    def close(self) -> None:
        """There is no actor to end."""


def serve_here(slot: Slot, board: Driven, *, spread: bool) -> None:
    """`serve_slot` without workers of its own, which nobody starts again."""
    while not board.is_done(slot.number):
        train_worker({"slot": slot})


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
                windows=queue.windows.names,
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
        "session": lambda *_, **__: nullcontext(),
        "shared": lambda *_, **__: nullcontext(),
        "require": lambda *_, **__: None,
        "slots": lambda **_: 1,
        "nodes": lambda: 1,
    }
    return [
        *((session, name, value) for name, value in near.items()),
        (progress, "RemoteBoard", NearBoard),
        (launch, "serve_slot", serve_here),
        (search, "run_trials", run_trials),
        (search, "ray", SimpleNamespace(put=lambda block: block)),
    ]


def install() -> None:
    """For the rest of this process, which exists for one job."""
    for owner, name, value in replacements():
        setattr(owner, name, value)
