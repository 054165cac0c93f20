"""Records of a search: finished trials, the next trial, and progress. Does not use Ray.

Proposals for the next trial: Optuna's TPE as a function of the trials so far.

The study is rebuilt from the records for every proposal, so an interrupted search continues
exactly as an uninterrupted one, and no state of Optuna is stored.

Output files of a search: best.toml, trials.csv, search.json.
"""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState, create_trial

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.records import find_record, write_record, write_table
from gangru_dist.base.storage import Storage
from gangru_dist.config import sources
from gangru_dist.config.identity import MODEL_SECTIONS, deciding, model_settings, to_dict
from gangru_dist.config.settings import Decides, RunConfig, TuneConfig
from gangru_dist.runs.search import (
    SEARCH,
    TRIALS,
    SearchRecord,
    TrialRecord,
    best_of,
    read_trials,
    write_trial,
)
from gangru_dist.tuning.space import Parameter, Values, apply, baseline, incomparable
from gangru_dist.tuning.trial import TuningWindows, mean, spread

_logger = logging.getLogger(__name__)
_ATTEMPTS = 100
"""Proposals per trial until one is valid and new."""
_LEAST_TRIALS = 5
"""Fewer trials give no meaningful importances."""


def propose(
    cfg: RunConfig, space: Sequence[Parameter], records: Sequence[TrialRecord]
) -> Values | None:
    """Settings for the next trial; None if no untried valid combination was found.

    A function of its arguments: the same records give the same proposal. No combination is
    proposed twice.
    """
    known = {_key(record.settings) for record in records}
    for attempt in range(_ATTEMPTS):
        use_tpe = cfg.tune.sampler == "tpe" and attempt < _ATTEMPTS // 2
        with _quiet():
            study = _study(cfg.tune, (len(records), attempt), use_tpe=use_tpe)
            study.add_trials(_frozen(space, records))
            raw = study.ask({p.key: p.distribution() for p in space}).params
        values = {p.key: p.value(raw[p.key]) for p in space}
        if _key(values) in known:
            continue
        try:
            apply(cfg, values)
        except ConfigError as error:
            _logger.debug("proposal_refused reason=%s", error)
            continue
        return values
    return None


def importances(space: Sequence[Parameter], records: Sequence[TrialRecord]) -> dict[str, float]:
    """Importance of each parameter (PED-ANOVA), as shares, largest first.

    Complete trials count with their objective, pruned ones with the mean they had reached;
    without them most of the search would be missing. Empty for fewer than five trials.
    """
    reached = {
        r.number: r.reached
        for r in records
        if r.status in ("complete", "pruned") and _fits(space, r)
    }
    scores = {number: score for number, score in reached.items() if score is not None}
    if len(scores) < _LEAST_TRIALS or len(set(scores.values())) < 2:
        return {}
    with _quiet():
        study = optuna.create_study(direction="maximize")
        distributions = {p.key: p.distribution() for p in space}
        for record in records:
            if record.number in scores:
                params = {p.key: p.raw(record.settings[p.key]) for p in space}
                study.add_trial(
                    create_trial(
                        value=scores[record.number], params=params, distributions=distributions
                    )
                )
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    return {key: float(share) for key, share in found.items() if math.isfinite(share)}


def _key(values: Values) -> str:
    return repr(sorted((key, repr(value)) for key, value in values.items()))


def _fits(space: Sequence[Parameter], record: TrialRecord) -> bool:
    return all(p.holds(record.settings.get(p.key)) for p in space)


def _study(tune: TuneConfig, salt: tuple[int, int], *, use_tpe: bool) -> optuna.Study:
    """An empty study, seeded by `tune.seed` and the number of trials so far."""
    seed = int(np.random.SeedSequence([tune.seed, *salt]).generate_state(1)[0])
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    if use_tpe:
        sampler = optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            constant_liar=True,  # keeps concurrent trials apart
            n_startup_trials=tune.startup_trials,
        )
    return optuna.create_study(direction="maximize", sampler=sampler)


def _frozen(space: Sequence[Parameter], records: Sequence[TrialRecord]) -> list[FrozenTrial]:
    """Records as Optuna trials; those outside the space (the first may be) are left out.

    Diverged and failed trials become pruned trials without a value, which rank last, so that
    their neighborhood is avoided. Optuna would ignore failed trials and propose similar ones.
    """
    distributions = {p.key: p.distribution() for p in space}
    return [
        create_trial(
            state=_STATES[record.status],
            value=record.objective,
            params={p.key: p.raw(record.settings[p.key]) for p in space},
            distributions=distributions,
            intermediate_values={int(step): mean for step, mean in record.reports}
            if record.status == "pruned"
            else {},
        )
        for record in records
        if _fits(space, record)
    ]


_STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "failed": TrialState.PRUNED,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's messages on every study and on multivariate TPE being experimental."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


BEST, TABLE = "best.toml", "trials.csv"


def best_toml(
    cfg: RunConfig, space: Sequence[Parameter], best: TrialRecord, windows: TuningWindows
) -> str:
    """Settings of the best trial, as a file for `--config`.

    It has every setting that decides a model, so the preset beneath it does not matter, and
    `windows.first`, so that the tuning windows are not reported.
    """
    values = to_dict(apply(cfg, best.settings))
    first = _reported_first(cfg, windows)
    if first is not None:
        values["windows"]["first"] = first
    lines = [
        f"# Trial {best.number}: objective {best.objective:+.4f}, mean validation IC "
        f"{best.mean_ic:+.4f} on {', '.join(windows.names)}.",
        f"# Searched: {', '.join(p.key for p in space)}.",
        f"# {_reported(windows, is_left=first is not None)}",
        *(f"{name} = {_toml(values[name])}" for name in ("variant", "predictor")),
    ]
    sections = [name for name in MODEL_SECTIONS if name != "variant"]
    tables = {"panel": {"features": values["panel"]["features"]}}
    tables |= {name: values[name] for name in sections}
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _reported_first(cfg: RunConfig, windows: TuningWindows) -> str | None:
    """First refit day not used for tuning; None if `windows.last` is before it."""
    is_left = cfg.windows.last is None or windows.reported_first <= cfg.windows.last
    return windows.reported_first.isoformat() if is_left else None


def _reported(windows: TuningWindows, *, is_left: bool) -> str:
    """Comment on which of the reported windows were used for tuning."""
    if not is_left:
        return (
            "windows.last leaves no window after those named above, so a report would be of "
            "windows used for tuning. Raise windows.last."
        )
    but = " except the windows named above" if windows.overlap else ""
    return f"No window from windows.first on was used for tuning{but}."


def _toml(value: Any) -> str:
    """A JSON value as TOML; None as the word "none", as `config.sources.load` reads it."""
    return '"none"' if value is None else json.dumps(value, ensure_ascii=False)


def trial_table(
    space: Sequence[Parameter], records: Sequence[TrialRecord], windows: Sequence[str]
) -> pd.DataFrame:
    """One row per trial: figures, IC of each window, searched settings; unknown = empty."""
    rows = []
    for record in records:
        ics = record.window_ics
        row: dict[str, Any] = {
            "trial": record.number,
            "status": record.status,
            "objective": record.objective,
            "mean_valid_ic": mean(ics) if ics else None,
            "std_valid_ic": spread(ics) if ics else None,
            "windows_done": record.windows_done,
            "epochs": record.epochs,
            "gan_epochs": record.gan_epochs,
            "seconds": round(record.seconds, 1),
            "starts": record.starts,
        }
        known = [*ics, *[None] * (len(windows) - len(ics))]
        row |= {f"valid_ic {name}": ic for name, ic in zip(windows, known, strict=True)}
        row |= {p.key: _cell(record.settings.get(p.key)) for p in space}
        rows.append({**row, "reason": record.reason})
    return pd.DataFrame(rows)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def search_record(
    cfg: RunConfig,
    space: Sequence[Parameter],
    records: Sequence[TrialRecord],
    windows: TuningWindows,
    identity: Mapping[str, Any],
) -> SearchRecord:
    """Content of search.json; the report reads it."""
    best = best_of(records)
    return SearchRecord(
        identity=dict(identity),
        windows=windows.names,
        reported_first=_reported_first(cfg, windows),
        overlap=windows.overlap,
        incomparable=tuple(incomparable(space)),
        space={p.key: p.span for p in space},
        asked_trials=cfg.tune.trials,
        spread_penalty=cfg.tune.spread_penalty,
        best_trial=best.number if best else None,
        importances=importances(space, records),
    )


def publish(
    folder: Storage,
    cfg: RunConfig,
    space: Sequence[Parameter],
    records: Sequence[TrialRecord],
    windows: TuningWindows,
    identity: Mapping[str, Any],
) -> None:
    """Write all three files; best.toml once a trial is complete."""
    best = best_of(records)
    if best:
        folder.write_bytes(BEST, best_toml(cfg, space, best, windows).encode())
    write_table(folder, TABLE, trial_table(space, records, windows.names))
    write_record(folder, SEARCH, search_record(cfg, space, records, windows, identity))


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
            folder.delete(BEST)
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
        changed = sources.difference(there.identity, self.facts)
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
        publish(self.folder, self.cfg, self.space, self.records, self.windows, self.facts)

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
