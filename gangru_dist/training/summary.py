"""What became of every window of a training job: table, `summary.json`, exit code."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gangru_dist.storage import Storage

_logger = logging.getLogger(__name__)
SUMMARY = "summary.json"
Status = Literal["trained", "resumed", "finished before", "no history", "failed"]


@dataclass(frozen=True, kw_only=True)
class WindowResult:
    """One window and seed."""

    window: str
    seed: int | None = None
    status: Status
    epochs: int = 0
    """Predictor epochs trained, over all attempts."""
    best_valid_ic: float | None = None
    seconds: float = 0.0
    """Of the attempt that finished it."""
    model: str | None = None
    """First twelve digits of the weights' hash."""
    reason: str = ""
    """Why it was skipped or failed."""


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """All windows of one job."""

    results: tuple[WindowResult, ...]

    @property
    def failed(self) -> int:
        """Windows and seeds without a model that should have one."""
        return sum(result.status == "failed" for result in self.results)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return self.failed == 0

    def to_json(self) -> dict[str, Any]:
        """For `summary.json`."""
        return {"failed": self.failed, "windows": [asdict(result) for result in self.results]}

    def lines(self) -> list[str]:
        """A table for the log: header, then one line a window and seed."""
        head = ("window", "seed", "status", "epochs", "valid_ic", "seconds", "model", "reason")
        rows = [head, *(_cells(result) for result in self.results)]
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


def from_about(about: dict[str, Any], status: Status) -> WindowResult:
    """A result from a finished model's `model.json`."""
    epochs = sum(entry["stage"] == "predictor" for entry in about["history"])
    return WindowResult(
        window=about["window"],
        seed=about["seed"],
        status=status,
        epochs=epochs,
        best_valid_ic=about["best_valid_ic"],
        seconds=0.0 if status == "finished before" else about["seconds"],
        model=about["model"],
    )


def write_summary(run: Storage, summary: TrainSummary) -> None:
    """Write `summary.json` and say the table."""
    run.write_json(SUMMARY, summary.to_json())
    for line in summary.lines():
        _logger.info("%s", line)


def in_order(results: Sequence[WindowResult]) -> TrainSummary:
    """A summary by window and seed."""
    key = [(r.window, -1 if r.seed is None else r.seed) for r in results]
    order = sorted(range(len(results)), key=key.__getitem__)
    return TrainSummary(results=tuple(results[i] for i in order))
