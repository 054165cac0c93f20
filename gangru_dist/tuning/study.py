"""Optuna's part of a search: proposals, importances, and a file that optuna-dashboard opens.

A study is made of the trials' records whenever one is needed, which takes milliseconds. So there
is one truth in storage, and an interrupted search goes on as an uninterrupted one. Why not Ray's
`OptunaSearch`: docs/decisions/0015-search.md.
"""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.storage import Storage
from gangru_dist.config.search import TuneConfig
from gangru_dist.config.settings import RunConfig
from gangru_dist.runs.search import TrialRecord
from gangru_dist.tuning.space import Parameter, Values, apply

STUDY = "study.log"
_logger = logging.getLogger(__name__)
_ATTEMPTS = 100
"""Proposals per trial until one is valid and new; random ones from half of them on."""
_LEAST_TRIALS = 5
"""Fewer trials give no meaningful importances."""


def propose(
    cfg: RunConfig, space: Sequence[Parameter], records: Sequence[TrialRecord]
) -> Values | None:
    """Settings for the next trial; None if no untried valid combination was found.

    A function of its arguments: the same records give the same proposal. No combination is
    proposed twice.
    """
    distributions: dict[str, BaseDistribution] = {p.key: p.distribution for p in space}
    for attempt in range(_ATTEMPTS):
        sampler = _make_sampler(cfg.tune, len(records), attempt)
        raw = make_study(space, records, sampler=sampler).ask(distributions).params
        values = {p.key: p.value(raw[p.key]) for p in space}
        if any(record.settings == values for record in records):
            continue
        try:
            apply(cfg, values)
        except ConfigError as error:
            _logger.debug("proposal_refused reason=%s", error)
            continue
        return values
    return None


def _make_sampler(tune: TuneConfig, trials: int, attempt: int) -> BaseSampler:
    seed = int(np.random.SeedSequence([tune.seed, trials, attempt]).generate_state(1)[0])
    if tune.sampler == "random" or attempt >= _ATTEMPTS // 2:
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():  # multivariate is experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed,
            multivariate=True,
            constant_liar=True,  # keeps concurrent trials apart
            n_startup_trials=tune.startup_trials,
        )


def rate_importance(space: Sequence[Parameter], records: Sequence[TrialRecord]) -> dict[str, float]:
    """Importance of each parameter (PED-ANOVA), as shares, largest first.

    Complete trials count with their objective, pruned ones with the mean they had reached;
    without them most of the search would be missing. Empty for fewer than five trials.
    """
    study = make_study(
        space,
        [
            replace(record, status="complete", objective=record.reached)
            for record in records
            if record.status in ("complete", "pruned") and record.reached is not None
        ],
    )
    if len(study.trials) < _LEAST_TRIALS or len({trial.value for trial in study.trials}) < 2:
        return {}
    found = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    return {key: float(share) for key, share in found.items() if math.isfinite(share)}


def write_study(
    folder: Storage, space: Sequence[Parameter], records: Sequence[TrialRecord]
) -> None:
    """Write the trials as Optuna's journal file, for optuna-dashboard and `optuna.load_study`."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, STUDY)
        make_study(space, records, storage=JournalStorage(JournalFileBackend(str(file))))
        folder.write_bytes(STUDY, file.read_bytes())


def make_study(
    space: Sequence[Parameter],
    records: Sequence[TrialRecord],
    *,
    sampler: BaseSampler | None = None,
    storage: JournalStorage | None = None,
) -> optuna.Study:
    """An Optuna study of the trials; those outside the space (the first may be) are left out."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # else a line per study
    study = optuna.create_study(
        study_name="search", direction="maximize", sampler=sampler, storage=storage
    )
    made = (_make_trial(space, record) for record in records)
    study.add_trials(trial for trial in made if trial is not None)
    return study


def _make_trial(space: Sequence[Parameter], record: TrialRecord) -> FrozenTrial | None:
    """A record as an Optuna trial; None if it is outside the space.

    Diverged and failed trials become pruned trials without a value, which rank last, so that
    their neighborhood is avoided. Optuna would ignore failed trials and propose similar ones.
    """
    ended = TrialState.COMPLETE if record.status == "complete" else TrialState.PRUNED
    is_bad = record.status in ("diverged", "failed")
    try:
        return create_trial(
            state=ended if record.is_over else TrialState.RUNNING,
            value=record.objective,
            params={p.key: p.raw(record.settings[p.key]) for p in space},
            distributions={p.key: p.distribution for p in space},
            intermediate_values={} if is_bad else dict(record.reports),
            user_attrs={"trial": record.number, "status": record.status, "reason": record.reason},
        )
    except ValueError:
        return None
