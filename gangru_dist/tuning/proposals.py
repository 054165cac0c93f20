"""Proposals for the next trial: Optuna's TPE as a function of the trials so far.

The study is rebuilt from the records for every proposal, so an interrupted search continues
exactly as an uninterrupted one, and no state of Optuna is stored.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from gangru_dist.config import RunConfig, TuneConfig
from gangru_dist.errors import ConfigError
from gangru_dist.runs.search import TrialRecord
from gangru_dist.tuning.space import Parameter, Values, apply

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
