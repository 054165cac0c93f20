"""Records of a search: finished trials, the next trial, and progress. Does not use Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gangru_dist import settings
from gangru_dist.config import RunConfig, deciding, model_settings
from gangru_dist.decides import Decides
from gangru_dist.errors import ConfigError
from gangru_dist.runs.records import find_record
from gangru_dist.runs.search import (
    SEARCH,
    TRIALS,
    SearchRecord,
    TrialRecord,
    best_of,
    read_trials,
    write_trial,
)
from gangru_dist.storage import Storage
from gangru_dist.tuning import search_files
from gangru_dist.tuning.proposals import propose
from gangru_dist.tuning.space import Parameter, baseline
from gangru_dist.tuning.windows import TuningWindows

_logger = logging.getLogger(__name__)


def identity(cfg: RunConfig, windows: TuningWindows, panel_fingerprint: str) -> dict[str, Any]:
    """What decides a search's trials, except their number and the time limit."""
    return {
        "model": model_settings(cfg),
        "seed": cfg.training.seeds[0],
        **deciding(cfg, Decides.SEARCH),
        "windows": list(windows.names),
        "panel": panel_fingerprint,
    }


def searched_in(folder: Storage) -> str | None:
    """`training.precision` of the search in a folder, never `auto`; None if there is no search.

    Raises:
        StorageError: The record is damaged.
    """
    there = find_record(SearchRecord, folder, SEARCH)
    return str(there.identity["model"]["training"]["precision"]) if there else None


class TrialQueue:
    """Hands out trials and records their results; every change is stored at once."""

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
        tell: Callable[[TrialRecord], None] = lambda record: None,
    ) -> None:
        """Open the records of a search, or begin a new one; `tell` hears of each trial throughout.

        Raises:
            ConfigError: The folder has another search, without `overwrite`.
        """
        self.folder, self.cfg, self.space = folder, cfg, space
        self.windows, self.facts, self._clock = windows, dict(facts), clock
        self._tell = tell
        if overwrite:
            folder.delete(search_files.BEST)
            folder.delete_folder(TRIALS)
        else:
            self._check_same()
        self._trials = {trial.number: trial for trial in read_trials(folder)}
        self.kept = sum(trial.is_over for trial in self.records)
        """Trials that had ended before this session."""
        self._waiting = [trial for trial in self.records if not trial.is_over]
        self._began: dict[int, float] = {}
        self.publish()
        for trial in self.records:
            if trial.is_over:
                tell(trial)

    def __getstate__(self) -> dict[str, Any]:
        """Without the listener, which stays in this process: Tune pickles us but never reads it."""
        return {**self.__dict__, "_tell": None}

    def _check_same(self) -> None:
        there = find_record(SearchRecord, self.folder, SEARCH)
        if there is None:
            return
        changed = settings.difference(there.identity, self.facts)
        if changed:
            raise ConfigError(
                f"{self.folder.uri} has another search: {'; '.join(changed)}. Give the new one "
                "another --run, or replace the old one with --overwrite."
            )

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """All trials so far, by number."""
        return tuple(self._trials[number] for number in sorted(self._trials))

    @property
    def remaining(self) -> int:
        """Number of trials still to run, including interrupted ones."""
        return max(0, self.cfg.tune.trials - sum(record.is_over for record in self.records))

    def next_trial(self) -> TrialRecord | None:
        """The next trial, already stored as running; None if nothing new is left to try.

        Interrupted trials come first, then the unchanged configuration, then proposals.
        """
        if self._waiting:
            old = self._waiting.pop(0)
            values, number, starts = old.settings, old.number, old.starts + 1
        else:
            proposed = (
                propose(self.cfg, self.space, self.records)
                if self.records
                else baseline(self.cfg, self.space)
            )
            if proposed is None:
                return None
            values, starts = proposed, 1
            number = max(self._trials, default=-1) + 1
        record = self._trials[number] = TrialRecord(number=number, settings=values, starts=starts)
        self._began[number] = self._clock()
        write_trial(self.folder, record)
        told = " ".join(f"{key}={value}" for key, value in values.items())
        _logger.info("trial_start trial=%d start=%d %s", number, starts, told)
        self._tell(record)
        return record

    def report(self, number: int, metrics: Mapping[str, Any]) -> None:
        """Record an epoch of a trial, in memory until the trial ends."""
        before = self._trials[number]
        if "step" not in metrics:
            status, reason = metrics["outcome"], metrics["reason"]
            self._trials[number] = replace(before, status=status, reason=reason)
            return
        step, mean_ic, done = (metrics[name] for name in ("step", "mean_ic", "windows_done"))
        is_whole = done == len(self.windows.names)
        record = self._trials[number] = replace(
            before,
            reports=(*before.reports, (int(step), float(mean_ic))),
            mean_ic=float(mean_ic),
            window_ics=tuple(float(ic) for ic in metrics["window_ics"]),
            windows_done=int(done),
            epochs=int(metrics["epochs"]),
            gan_epochs=int(metrics["gan_epochs"]),
            objective=float(metrics["objective"]) if is_whole else before.objective,
        )
        self._tell(record)
        if not is_whole and record.windows_done > before.windows_done:
            _logger.info(
                "trial_window trial=%d window=%s valid_ic=%+.4f",
                number,
                self.windows.names[before.windows_done],
                record.window_ics[before.windows_done],
            )

    def end(self, number: int, *, reason: str = "", lost: bool = False) -> None:
        """End a trial: failed if `lost`, complete if all windows are done, else pruned."""
        record = self._trials[number]
        if lost:
            record = replace(record, status="failed", reason=reason)
        elif not record.is_over:
            is_cut = record.objective is None
            record = replace(record, status="pruned" if is_cut else "complete")
        objective = record.objective if record.status == "complete" else None
        seconds = self._clock() - self._began[number]
        record = self._trials[number] = replace(record, objective=objective, seconds=seconds)
        write_trial(self.folder, record)
        self._tell(record)
        self._log_end(record)
        self.publish()

    def publish(self) -> None:
        """Update best.toml, trials.csv and search.json."""
        search_files.publish(
            self.folder, self.cfg, self.space, self.records, self.windows, self.facts
        )

    def _log_end(self, record: TrialRecord) -> None:
        over = sum(r.is_over for r in self.records)
        best = best_of(self.records)
        pace = (self._clock() - min(self._began.values())) / max(1, over - self.kept)
        left = pace * (self.cfg.tune.trials - over)
        _logger.info(
            "trial_done trial=%d status=%s reached=%s epochs=%d done=%d/%d best=%s best_trial=%s "
            "eta_min=%.1f %s",
            record.number,
            record.status,
            "none" if record.reached is None else f"{record.reached:+.4f}",
            record.epochs,
            over,
            self.cfg.tune.trials,
            f"{best.objective:+.4f}" if best else "none",
            best.number if best else "none",
            left / 60,
            record.reason,
        )
