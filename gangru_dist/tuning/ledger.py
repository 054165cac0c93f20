"""The book of a search: what was tried, what is next, and how it stands. Knows no Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from gangru_dist import settings
from gangru_dist.config import RunConfig, model_settings, to_dict
from gangru_dist.errors import ConfigError
from gangru_dist.storage import Storage
from gangru_dist.tuning import outputs
from gangru_dist.tuning.proposals import propose
from gangru_dist.tuning.records import (
    FOLDER,
    Status,
    TrialRecord,
    best_of,
    read_records,
    write_record,
)
from gangru_dist.tuning.space import Parameter, baseline
from gangru_dist.tuning.windows import TuningWindows

_logger = logging.getLogger(__name__)


def identity(cfg: RunConfig, windows: TuningWindows, panel_fingerprint: str) -> dict[str, Any]:
    """What decides a search's trials, but for how many there are and how long they may take."""
    tune = to_dict(cfg)["tune"]
    for name in ("trials", "hours", "windows", "max_windows"):
        del tune[name]
    return {
        "model": model_settings(cfg),
        "seed": cfg.training.seeds[0],
        "tune": tune,
        "windows": list(windows.names),
        "panel": panel_fingerprint,
    }


class Ledger:
    """Hands out trials and keeps what becomes of them; every change is in storage at once."""

    def __init__(
        self,
        folder: Storage,
        cfg: RunConfig,
        space: tuple[Parameter, ...],
        windows: TuningWindows,
        facts: Mapping[str, Any],
        *,
        overwrite: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open a search's book, or begin one.

        Raises:
            ConfigError: Another search is there, and not `overwrite`.
        """
        self.folder, self.cfg, self.space = folder, cfg, space
        self.windows, self.facts, self._clock = windows, dict(facts), clock
        if overwrite:
            folder.delete(outputs.BEST)
            folder.delete_folder(FOLDER)
        else:
            self._check_same()
        self.records = read_records(folder)
        self.kept = sum(record.is_over for record in self.records)
        """Trials over before this session."""
        self._waiting = [record for record in self.records if not record.is_over]
        self._began: dict[int, float] = {}
        self.publish()

    def _check_same(self) -> None:
        there = self.folder.find_json(outputs.SEARCH)
        if there is None:
            return
        changed = settings.difference(there["identity"], self.facts)
        if changed:
            raise ConfigError(
                f"another search is in {self.folder.uri}: {'; '.join(changed)}. Give the new one "
                "another --run, or replace the old one with --overwrite."
            )

    @property
    def remaining(self) -> int:
        """Trials still to run, interrupted ones included."""
        return max(0, self.cfg.tune.trials - sum(record.is_over for record in self.records))

    def next_trial(self) -> TrialRecord | None:
        """The next trial, already in storage as running; None if nothing new is left to try.

        Interrupted trials come first, then the configuration as it stands, then proposals.
        """
        if self._waiting:
            old = self._waiting.pop(0)
            values, number, starts = old.settings, old.number, old.starts + 1
            self.records.remove(old)
        else:
            proposed = (
                propose(self.cfg, self.space, self.records)
                if self.records
                else baseline(self.cfg, self.space)
            )
            if proposed is None:
                return None
            values, starts = proposed, 1
            number = max((record.number for record in self.records), default=-1) + 1
        record = TrialRecord(number=number, settings=values, starts=starts)
        self.records = sorted([*self.records, record], key=lambda r: r.number)
        self._began[number] = self._clock()
        write_record(self.folder, record)
        told = " ".join(f"{key}={value}" for key, value in values.items())
        _logger.info("trial_start trial=%d start=%d %s", number, starts, told)
        return record

    def report(self, number: int, metrics: Mapping[str, Any]) -> None:
        """An epoch of a trial; kept in memory until the trial is over."""
        record = self._record(number)
        if "step" not in metrics:
            record.status, record.reason = metrics["outcome"], metrics["reason"]
            return
        before = record.windows_done
        record.reports.append([int(metrics["step"]), float(metrics["mean_ic"])])
        record.mean_ic = float(metrics["mean_ic"])
        record.window_ics = [float(ic) for ic in metrics["window_ics"]]
        record.windows_done = int(metrics["windows_done"])
        record.epochs, record.gan_epochs = int(metrics["epochs"]), int(metrics["gan_epochs"])
        if record.windows_done == len(self.windows.names):
            record.objective = float(metrics["objective"])
        elif record.windows_done > before:
            _logger.info(
                "trial_window trial=%d window=%s valid_ic=%+.4f",
                number,
                self.windows.names[before],
                record.window_ics[before],
            )

    def end(self, number: int, *, reason: str = "", lost: bool = False) -> None:
        """A trial is over: complete if it did all windows, failed if `lost`, else pruned."""
        record = self._record(number)
        status: Status = record.status
        if lost:
            status, record.reason = "failed", reason
        elif status == "running":
            status = "pruned" if record.objective is None else "complete"
        record.status = status
        if status != "complete":
            record.objective = None
        record.seconds = self._clock() - self._began[number]
        write_record(self.folder, record)
        self._log_end(record)
        self.publish()

    def publish(self) -> None:
        """Bring best.toml, trials.csv and search.json up to date."""
        outputs.publish(self.folder, self.cfg, self.space, self.records, self.windows, self.facts)

    def _record(self, number: int) -> TrialRecord:
        return next(record for record in self.records if record.number == number)

    def _log_end(self, record: TrialRecord) -> None:
        over = sum(r.is_over for r in self.records)
        best = best_of(self.records)
        figure = record.mean_ic if record.objective is None else record.objective
        pace = (self._clock() - min(self._began.values())) / max(1, over - self.kept)
        left = pace * (self.cfg.tune.trials - over)
        _logger.info(
            "trial_done trial=%d status=%s reached=%s epochs=%d done=%d/%d best=%s best_trial=%s "
            "eta_min=%.1f %s",
            record.number,
            record.status,
            "none" if figure is None else f"{figure:+.4f}",
            record.epochs,
            over,
            self.cfg.tune.trials,
            f"{best.objective:+.4f}" if best else "none",
            best.number if best else "none",
            left / 60,
            record.reason,
        )
