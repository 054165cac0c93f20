"""All stages in order: bars → panel → models → factor → report.

Stages communicate through storage only. Each one skips what is done already, so a repeated run is
cheap and a killed one continues.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gangru_dist import runtime
from gangru_dist.bars.files import check_apart
from gangru_dist.config import RunConfig
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.headers import check_headers, check_names
from gangru_dist.panel.manifest import Manifest
from gangru_dist.report.progress_page import ProgressPage
from gangru_dist.runs.run import Run
from gangru_dist.storage import Storage
from gangru_dist.synthetic.write import write_bars
from gangru_dist.training.devices import require_native, settled
from gangru_dist.training.launch import train_windows

_logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic"
"""Given in place of a bars URI: use the synthetic market of `cfg.synthetic`."""


@dataclass(frozen=True, kw_only=True)
class PipelineSummary:
    """Result of a pipeline."""

    report: str
    """Path or URI of report.html."""
    ok: bool
    """Whether every window was trained and scored; the log's tables list those that were not."""


def run_pipeline(run: Run, *, bars: str, overwrite: bool = False) -> PipelineSummary:
    """Run every stage; training and scoring share a Ray session.

    Args:
        run: What to run; claimed at once, as its configuration also decides the panel.
        bars: URI of the vendor's bars, or `synthetic`.
        overwrite: Rebuild the panel even if bars and settings are unchanged, and take the run's
            name even if it has another configuration.

    Raises:
        ConfigError: The run's name is taken by another configuration.
        ResourceError: A device does not support `training.precision`.
        GangruError: The bars cannot be trusted, no window has enough history, there are too few
            rebalance days, or another error of a stage. A failed window does not stop the others.
    """
    check_bars(bars, run.cfg)
    if bars != SYNTHETIC:
        check_apart(bars, run.root)
    run = settled(run, anew=overwrite)
    if overwrite or run.claimed() is None:
        require_native(run.cfg)
    run.claim(overwrite=overwrite)
    with ProgressPage(run).shown() as page:
        # Ray starts beside the panel; where models are already there, perhaps nobody needs it
        with runtime.shared(run.cfg, at_once=not run.models()):
            with _stage("panel"):
                panel_from(run.root, run.cfg, bars=bars, overwrite=overwrite)
            with _stage("train"):
                training = train_windows(run, watcher=page)
            from gangru_dist.scoring.score import score_days  # torch: not before the workers run

            with _stage("score"):
                scores = score_days(run)
        from gangru_dist.report.document import write_report  # matplotlib

        with _stage("report"):
            report = write_report(run)
    return PipelineSummary(report=report, ok=training.ok and scores.ok)


def check_bars(bars: str, cfg: RunConfig) -> None:
    """Check feature names and the bars' files and headings before the slow start of Ray.

    Raises:
        GangruError: As `check_headers`.
    """
    check_names(cfg.panel)
    if bars != SYNTHETIC:
        check_headers(bars, cfg)


def panel_from(root: Storage, cfg: RunConfig, *, bars: str, overwrite: bool = False) -> Manifest:
    """Build the panel from a bars URI or from the synthetic market, written to `<root>/bars`."""
    if bars == SYNTHETIC:
        made = root.child("bars")
        write_bars(made, cfg.synthetic)
        bars = made.uri
    return build_panel(bars, root, cfg, overwrite=overwrite)


@contextmanager
def _stage(name: str) -> Iterator[None]:
    started = time.monotonic()
    _logger.info("stage_start stage=%s", name)
    yield
    _logger.info("stage_done stage=%s seconds=%.1f", name, time.monotonic() - started)
