"""The queue of a search: which trial is next, what became of each, and the files about them.

Storage has one record per trial, written when it starts and when it ends; everything else follows
from these records. Does not use Ray.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gangru_dist.base import log
from gangru_dist.base.errors import ConfigError
from gangru_dist.base.records import find_record, hash_json, write_record, write_table
from gangru_dist.base.storage import Storage
from gangru_dist.config import sources
from gangru_dist.config.identity import MODEL_SECTIONS, model_settings, select_settings, to_dict
from gangru_dist.config.schema import Affects
from gangru_dist.config.settings import RunConfig
from gangru_dist.events.events import TrialChanged
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import (
    SEARCH,
    TRIALS,
    Search,
    SearchRecord,
    TrialRecord,
    find_best_trial,
    make_trial_table,
    read_trials,
    write_trial,
)
from gangru_dist.training.plan import require_model, resolve_precision
from gangru_dist.tuning.space import (
    Parameter,
    apply,
    list_extremes,
    list_incomparable,
    make_parameters,
    propose,
    rate_importance,
    write_study,
)
from gangru_dist.tuning.trial import choose_windows, list_features, make_all_windows

BEST, TABLE = "best.toml", "trials.csv"
_REPORTED = (
    *("status", "reason", "objective", "mean_ic", "window_ics", "windows_done"),
    *("epochs", "gan_epochs"),
)
"""Fields of its record that a trial reports."""
_logger = logging.getLogger(__name__)


def describe_search(
    cfg: RunConfig,
    space: Sequence[Parameter],
    calendar: np.ndarray,
    windows: Sequence[str],
    panel_fingerprint: str,
) -> SearchRecord:
    """A search before its trials.

    Its identity has what determines them, without their number and the time limit. Reports begin
    with the first refit day that no trial used, or with `windows.first`.

    Args:
        cfg: The search's configuration.
        space: What is searched.
        calendar: (D,) datetime64[D] of the panel.
        windows: Refit days of every trial, ascending.
        panel_fingerprint: Of the panel up to the last of them.
    """
    first, last, newest = cfg.windows.first, cfg.windows.last, windows[-1]
    next_day = str(dt.date.fromisoformat(newest) + dt.timedelta(days=1))
    following = (name for name in make_all_windows(calendar, cfg) if name > newest)
    reported_first = str(first or next(following, next_day))
    variants = map(model_settings, list_extremes(cfg, space))
    code = {name: text for one in variants for name, text in one.get("code", {}).items()}
    return SearchRecord(
        identity={
            "model": model_settings(cfg) | ({"code": code} if code else {}),
            "seed": cfg.training.seeds[0],
            **select_settings(cfg, Affects.SEARCH),
            "windows": list(windows),
            "panel": panel_fingerprint,
        },
        windows=tuple(windows),
        reported_first=reported_first if last is None or reported_first <= str(last) else None,
        overlap=tuple(name for name in windows if first and name >= str(first)),
        incomparable=tuple(list_incomparable(space)),
        space={p.key: p.span for p in space},
        asked_trials=cfg.tune.trials,
        spread_penalty=cfg.tune.spread_penalty,
        best_trial=None,
        importances={},
    )


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """A search as its settings, the panel and what is stored decide it."""

    cfg: RunConfig
    """With its precision."""
    space: tuple[Parameter, ...]
    variants: list[RunConfig]
    """The most demanding trials."""
    manifest: Manifest
    record: SearchRecord
    """Before its trials."""
    is_stored: bool
    """Whether the folder has a search."""


def plan_search(
    run: Run, only: Sequence[str] | None = None, *, overwrite: bool = False
) -> SearchPlan:
    """Plan a search; what of its settings cannot be is said here.

    Raises:
        GangruError: As `search.search`.
    """
    stored = None if overwrite else find_record(SearchRecord, run.tune, SEARCH)
    precision = stored.identity["model"]["training"]["precision"] if stored else None
    cfg = resolve_precision(run.cfg, precision)
    space = make_parameters(cfg)
    variants = list_extremes(cfg, space)
    manifest = read_manifest(run.root, run.cfg.panel.features)
    manifest.require_features(list_features(variants))
    windows = choose_windows(manifest.calendar, cfg, variants, only)
    panel = manifest.fingerprint_to(dt.date.fromisoformat(windows[-1]))
    for one in variants:
        require_model(one)
    return SearchPlan(
        cfg=cfg,
        space=space,
        variants=variants,
        manifest=manifest,
        record=describe_search(cfg, space, manifest.calendar, windows, panel),
        is_stored=stored is not None,
    )


def require_same_search(folder: Storage, record: SearchRecord) -> None:
    """Check that a folder has this search, or none.

    Raises:
        ConfigError: It has another one.
    """
    there = find_record(SearchRecord, folder, SEARCH)
    if there and (changed := sources.difference(there.identity, record.identity)):
        raise ConfigError(
            f"{folder.uri} has another search: {'; '.join(changed)}. Give the new one "
            "another --run, or replace the old one with --overwrite."
        )


class TrialQueue:
    """Hands out trials and records their results; every change is stored and published at once."""

    def __init__(
        self,
        folder: Storage,
        cfg: RunConfig,
        space: tuple[Parameter, ...],
        record: SearchRecord,
        *,
        overwrite: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the records of a search, or begin a new one; publishes the trials that have ended.

        Args:
            folder: A run's `tune` folder.
            cfg: The search's configuration.
            space: What is searched.
            record: The search before its trials.
            overwrite: Begin a new one, whatever is stored.
            clock: Seconds.

        Raises:
            ConfigError: The folder has another search, without `overwrite`.
        """
        self.folder, self.cfg, self.space = folder, cfg, space
        self.record, self._clock = record, clock
        self._identity = hash_json(record.identity)
        if overwrite:
            folder.delete(BEST)
            folder.delete_folder(TRIALS)
        if not overwrite:
            require_same_search(folder, record)
        self._trials = {trial.number: trial for trial in read_trials(folder)}
        self._interrupted = [trial for trial in self.records if not trial.is_over]
        self.ended_before = len(self._trials) - len(self._interrupted)
        """Trials that had ended before this session."""
        self._starts: dict[int, float] = {}
        self.publish()
        for trial in self.records:
            if trial.is_over:
                log.publish(TrialChanged(trial, self._identity))

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """All trials so far, by number."""
        return tuple(self._trials.values())

    @property
    def remaining(self) -> int:
        """Number of trials still to run, including interrupted ones."""
        return max(0, self.cfg.tune.trials - sum(record.is_over for record in self.records))

    def start_next(self) -> TrialRecord | None:
        """The next trial, already stored as running; None if nothing new is left to try.

        Interrupted trials come first, then the unchanged configuration, then proposals.
        """
        if self._interrupted:
            old = self._interrupted.pop(0)
            record = TrialRecord(number=old.number, settings=old.settings, starts=old.starts + 1)
        else:
            values = propose(self.cfg, self.space, self.records)
            if values is None:
                return None
            record = TrialRecord(number=max(self._trials, default=-1) + 1, settings=values)
        self._trials[record.number] = record
        self._starts[record.number] = self._clock()
        write_trial(self.folder, record)
        values_text = " ".join(f"{key}={value}" for key, value in record.settings.items())
        _logger.info("trial_start trial=%d start=%d %s", record.number, record.starts, values_text)
        log.publish(TrialChanged(record, self._identity))
        return record

    def report(self, number: int, metrics: Mapping[str, Any]) -> None:
        """Record an epoch of a trial, or that it diverged or failed; in memory until it ends."""
        before = self._trials[number]
        reported = {name: metrics[name] for name in _REPORTED if name in metrics}
        record = self._trials[number] = replace(before, **reported)
        if "step" not in metrics:
            return
        point = (metrics["step"], metrics["mean_ic"])
        record = self._trials[number] = replace(record, reports=(*before.reports, point))
        log.publish(TrialChanged(record, self._identity))
        done = record.windows_done
        if before.windows_done < done < len(self.record.windows):
            name, ic = self.record.windows[done - 1], record.window_ics[done - 1]
            _logger.info("trial_window trial=%d window=%s valid_ic=%+.4f", number, name, ic)

    def end(self, number: int, *, error: str | None = None) -> None:
        """End a trial: failed with an error, complete if all windows are done, else pruned."""
        record = self._trials[number]
        if error is not None:
            record = replace(record, status="failed", reason=error)
        elif not record.is_over:
            record = replace(record, status="pruned" if record.objective is None else "complete")
        if record.status != "complete":
            record = replace(record, objective=None)
        record = replace(record, seconds=self._clock() - self._starts[number])
        self._trials[number] = record
        write_trial(self.folder, record)
        log.publish(TrialChanged(record, self._identity))
        over, asked = sum(r.is_over for r in self.records), self.cfg.tune.trials
        best = find_best_trial(self.records)
        pace = (self._clock() - min(self._starts.values())) / max(1, over - self.ended_before)
        _logger.info(
            "trial_done trial=%d status=%s reached=%s epochs=%d done=%d/%d best=%s best_trial=%s "
            "eta_min=%.1f %s",
            record.number,
            record.status,
            "none" if record.current_objective is None else f"{record.current_objective:+.4f}",
            record.epochs,
            over,
            asked,
            f"{best.objective:+.4f}" if best else "none",
            best.number if best else "none",
            pace * (asked - over) / 60,
            record.reason,
        )
        self.publish()

    def publish(self) -> None:
        """Write best.toml (once a trial is complete), trials.csv, study.log and search.json."""
        search, best = self.search(), find_best_trial(self.records)
        if best:
            text = format_best(self.cfg, best, search.record)
            self.folder.write_bytes(BEST, text.encode())
        write_table(self.folder, TABLE, make_trial_table(search))
        write_study(self.folder, self.space, self.records)
        write_record(self.folder, SEARCH, search.record)

    def search(self) -> Search:
        """The search so far, as the report reads it."""
        best = find_best_trial(self.records)
        record = replace(
            self.record,
            best_trial=best.number if best else None,
            importances=rate_importance(self.space, self.records),
        )
        return Search(record=record, trials=self.records)


def format_best(cfg: RunConfig, best: TrialRecord, search: SearchRecord) -> str:
    """Settings of the best trial, as a file for `--config`.

    It has every setting that decides a model or the panel, so the preset beneath it does not
    matter, and `windows.first`, so that the tuning windows are not reported.
    """
    values = to_dict(apply(cfg, best.settings))
    but = " except the windows named above" if search.overlap else ""
    note = f"No window from windows.first on was used for tuning{but}."
    if search.reported_first is None:
        note = (
            "windows.last leaves no window after those named above, so a report would be of "
            "windows used for tuning. Raise windows.last."
        )
    else:
        values["windows"]["first"] = search.reported_first
    lines = [
        f"# Trial {best.number}: objective {best.objective:+.4f}, mean validation IC "
        f"{best.mean_ic:+.4f} on {', '.join(search.windows)}.",
        f"# Searched: {', '.join(search.space)}.",
        f"# {note}",
        *(f"{name} = {sources.format_toml(values[name])}" for name in ("variant", "predictor")),
    ]
    names = dict.fromkeys(("bars", "panel", *MODEL_SECTIONS))
    for name in (name for name in names if isinstance(values[name], dict)):
        table = values[name]
        settings = (f"{key} = {sources.format_toml(value)}" for key, value in table.items())
        lines += ["", f"[{name}]", *settings]
    return "\n".join(lines) + "\n"
