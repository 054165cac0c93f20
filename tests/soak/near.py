"""Ray's part of a job, done in this process: trials by the hundred cannot wait for its start.

Everything else is the job's own: command line, board, worker, checkpoints, queue of trials.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from gangru_dist.base.errors import DivergedError, GangruError
from gangru_dist.cluster import session
from gangru_dist.training import launch, progress
from gangru_dist.training.queue import Board, Driven, Slot
from gangru_dist.training.worker import train_worker
from gangru_dist.tuning import search
from gangru_dist.tuning.queue import TrialQueue
from gangru_dist.tuning.trial import run_trial


class NearBoard(Board):
    """`RemoteBoard` in this process."""

    def close(self) -> None:
        """There is no actor to end."""


def serve_here(slot: Slot, board: Driven, *, spread: bool) -> None:
    """`serve_slot` without workers of its own, which nobody starts again."""
    while not board.is_done(slot.number):
        train_worker({"slot": slot})


def run_trials(queue: TrialQueue, shared: Any) -> None:
    """Ray Tune's part of a search: one trial after another, none pruned."""
    while queue.remaining and (record := queue.next_trial()) is not None:
        number = record.number

        def report(result: dict[str, Any], number: int = number) -> None:
            queue.report(number, result)

        try:
            run_trial(
                search.apply(shared.cfg, record.settings),
                base=shared.cfg,
                windows=shared.windows,
                calendar=shared.calendar,
                block_of=shared.blocks.__getitem__,
                steps_per_window=shared.steps_per_window,
                report=report,
            )
        except GangruError as error:
            outcome = "diverged" if isinstance(error, DivergedError) else "failed"
            report({"outcome": outcome, "reason": str(error)})
        queue.end(number)


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
        (search, "_run", run_trials),
        (search, "ray", SimpleNamespace(put=lambda block: block)),
    ]


def install() -> None:
    """For the rest of this process, which exists for one job."""
    for owner, name, value in replacements():
        setattr(owner, name, value)
