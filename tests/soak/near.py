"""Ray's part of a job, done in this process: trials by the hundred cannot wait for its start.

Everything else is the job's own: command line, board, worker, checkpoints, queue of trials.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from types import SimpleNamespace
from typing import Any

from gangru_dist import runtime
from gangru_dist.errors import DivergedError, GangruError
from gangru_dist.log import Rows
from gangru_dist.runs.run import Run
from gangru_dist.training import launch
from gangru_dist.training.board import Board, Driven, Slot, Task
from gangru_dist.training.progress import ProgressLog
from gangru_dist.training.worker import train_worker
from gangru_dist.tuning import search
from gangru_dist.tuning.trial import run_trial
from gangru_dist.tuning.trial_queue import TrialQueue


class NearProgress(ProgressLog):
    """`ProgressLog` with its board in this process, read at the end."""

    def __init__(self, run: Run, tasks: list[Task], result: Any) -> None:
        self.cfg, self.tasks, self._result = run.cfg, len(tasks), result
        self.board = Board(tasks, run.cfg.resources.max_failures)  # type: ignore[assignment]
        self.results, self.done, self.rows = [], {}, Rows("train", total=len(tasks))
        self.tensorboard, self.started, self._silence = None, None, ExitStack()

    def __enter__(self) -> NearProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._drain()


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


def install() -> None:
    """For the rest of this process, which exists for one job."""
    for name, value in {
        "session": lambda *_, **__: nullcontext(),
        "shared": lambda *_, **__: nullcontext(),
        "require": lambda *_, **__: None,
        "slots": lambda **_: 1,
        "nodes": lambda: 1,
    }.items():
        setattr(runtime, name, value)
    launch.ProgressLog = NearProgress  # type: ignore[misc]
    launch.train_windows.__kwdefaults__["runner"] = serve_here
    search._run = run_trials
    search.ray = SimpleNamespace(put=lambda block: block)  # type: ignore[assignment]
