"""Results of a training job by window and seed: `summary.json`, and a table for the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from gangru_dist.runs.model import ModelRecord
from gangru_dist.runs.records import plain
from gangru_dist.runs.run import Run

_logger = logging.getLogger(__name__)
SUMMARY = "summary.json"
Status = Literal["trained", "resumed", "finished before", "no history", "failed"]


@dataclass(frozen=True, kw_only=True)
class WindowResult:
    """Result of one window and seed."""

    window: str
    seed: int | None = None
    status: Status
    epochs: int = 0
    """Predictor epochs over all attempts."""
    best_valid_ic: float | None = None
    seconds: float = 0.0
    """Duration of the successful attempt."""
    model: str | None = None
    """First twelve digits of the weights' hash."""
    reason: str = ""
    """Why it was skipped or failed."""

    @classmethod
    def of(cls, model: ModelRecord, status: Status) -> Self:
        """Result of a finished model."""
        return cls(
            window=model.window,
            seed=model.seed,
            status=status,
            epochs=len(model.predictor_epochs),
            best_valid_ic=model.best_valid_ic,
            seconds=0.0 if status == "finished before" else model.seconds,
            model=model.model,
        )


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """Results of one job, by window and seed."""

    windows: tuple[WindowResult, ...]

    @property
    def failed(self) -> int:
        """Number of windows and seeds that failed."""
        return sum(result.status == "failed" for result in self.windows)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return self.failed == 0

    def lines(self) -> list[str]:
        """A table for the log: header, then one line per window and seed."""
        head = ("window", "seed", "status", "epochs", "valid_ic", "seconds", "model", "reason")
        rows = [head, *(_cells(result) for result in self.windows)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
        return [
            "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
            for row in rows
        ]


def _cells(result: WindowResult) -> tuple[str, ...]:
    ic = "" if result.best_valid_ic is None else f"{result.best_valid_ic:+.4f}"
    return (
        result.window,
        "" if result.seed is None else str(result.seed),
        result.status,
        str(result.epochs or ""),
        ic,
        f"{result.seconds:.0f}" if result.seconds else "",
        result.model or "",
        result.reason,
    )


def write_summary(run: Run, summary: TrainSummary) -> None:
    """Write `summary.json` and log the table."""
    run.folder.write_json(SUMMARY, {"failed": summary.failed, **plain(summary)})
    for line in summary.lines():
        _logger.info("%s", line)


def in_order(results: Sequence[WindowResult]) -> TrainSummary:
    """Summary of these results, sorted by window and seed."""
    ordered = sorted(results, key=lambda r: (r.window, -1 if r.seed is None else r.seed))
    return TrainSummary(windows=tuple(ordered))
