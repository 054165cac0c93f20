"""The search space as Optuna sees it: parameters, proposals, importances, and its study file.

A parameter is a setting that decides a model, named by its dotted key. Its range comes from
`tune.space` and is checked against the rules of the settings before the first trial; whether it is
a whole number follows from the setting's type.

A study is made of the trials' records whenever one is needed, which takes milliseconds. So there
is one truth in storage, and an interrupted search goes on as an uninterrupted one. Why not Ray's
`OptunaSearch`: docs/decisions/0015-search.md.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.storage import Storage
from gangru_dist.config import sources
from gangru_dist.config.identity import MODEL_SECTIONS, to_dict, value_at
from gangru_dist.config.schema import Affects
from gangru_dist.config.settings import PREDICTORS, RunConfig, SearchRange, TuneConfig
from gangru_dist.runs.search import Choices, Numbers, TrialRecord

_OTHER_DAYS = ("windows.", "label.horizon", "label.entry_lag")
"""Settings that change the validation days or the predicted returns: ICs are not comparable."""

STUDY = "study.log"
_ATTEMPTS = 100
"""Proposals per trial until one is valid and new; random ones from half of them on."""
_LEAST_TRIALS = 5
"""Fewer trials give no meaningful importances."""
_logger = logging.getLogger(__name__)
Values = dict[str, Any]
"""Dotted key -> value, plain JSON types: one trial's settings."""


@dataclass(frozen=True)
class Parameter:
    """One setting and the values it may take."""

    key: str
    distribution: FloatDistribution | IntDistribution | CategoricalDistribution
    """Choices are JSON text, since a choice may be a list."""

    @property
    def bounds(self) -> list[Any]:
        """Both ends of the range, or all choices: if these are valid, all values are."""
        values = self.distribution
        if isinstance(values, CategoricalDistribution):
            return [self.value(choice) for choice in values.choices]
        return [self.value(values.low), self.value(values.high)]

    def value(self, raw: Any) -> Any:
        """A proposal as the setting's value.

        Floats are rounded to three significant digits, unless the range has steps.
        """
        values = self.distribution
        if isinstance(values, CategoricalDistribution):
            return json.loads(raw)
        if isinstance(values, IntDistribution):
            return int(raw)
        if values.step:
            return float(f"{raw:.12g}")
        return min(max(float(f"{raw:.3g}"), values.low), values.high)

    def raw(self, value: Any) -> Any:
        """Inverse of `value`, up to its rounding."""
        is_choice = isinstance(self.distribution, CategoricalDistribution)
        return json.dumps(value) if is_choice else value

    @property
    def span(self) -> Numbers | Choices:
        """The range as recorded in search.json."""
        values = self.distribution
        if isinstance(values, CategoricalDistribution):
            return Choices(choices=tuple(self.bounds))
        low, high = self.bounds
        kind: Literal["int", "float"] = "int" if isinstance(values, IntDistribution) else "float"
        return Numbers(kind=kind, low=low, high=high, log=values.log, step=values.step)


def make_parameters(cfg: RunConfig) -> tuple[Parameter, ...]:
    """All parameters of `tune.space`, in its order, without those that change nothing.

    These are `gan.*` if the variant has no GAN, and for a predictor that is fitted by one call the
    settings of epochs, and of ours the sizes of networks.

    Raises:
        ConfigError: A key is unknown, a setting does not decide a model, or a value of a range is
            invalid; the message names the key.
    """
    space = {key: span for key, span in cfg.tune.space.items() if span is not None}
    if not space:
        raise ConfigError("tune.space is empty: name at least one setting to search.")
    if cfg.variant == "gru" and "variant" not in space:
        space = {key: span for key, span in space.items() if not key.startswith("gan.")}
    if "predictor" not in space and hasattr(PREDICTORS[cfg.predictor], "fit"):
        sizes = ("gru.hidden", "gru.layers", "gru.head") if ":" not in cfg.predictor else ()
        space = {
            key: span
            for key, span in space.items()
            if key not in sizes and (not key.startswith("training.") or key == "training.precision")
        }
    if not space:
        raise ConfigError(
            f"tune.space has no setting that changes a model of variant={cfg.variant} and "
            f"predictor={cfg.predictor}: name at least one to search."
        )
    found = tuple(_parameter(key, span) for key, span in space.items())
    for parameter in found:
        for value in parameter.bounds:
            apply(cfg, {parameter.key: value})
    return found


def _parameter(key: str, span: SearchRange) -> Parameter:
    origin = f"tune.space.{key}"
    setting = sources.require_setting(key, "tune.space")
    if not setting.affects & Affects.MODEL:
        raise ConfigError(
            f"{origin}: {key} does not change the model of a given day and seed, so it cannot be "
            f"validated. Search settings of {', '.join(MODEL_SECTIONS)}."
        )
    if key == "training.precision" and "auto" in span.choices:
        raise ConfigError(
            f"{origin}: auto stands for one of the other choices; list those instead."
        )
    if span.choices:
        return Parameter(key, CategoricalDistribution(list(map(json.dumps, span.choices))))
    if setting.type not in (int, float):
        raise ConfigError(
            f"{origin}: {key} is not a number, or may be none; give {{choices = [...]}}."
        )
    assert span.low is not None
    assert span.high is not None
    numbers = [n for n in (span.low, span.high, span.step) if n is not None]
    if setting.type is int and not all(n.is_integer() for n in numbers):
        raise ConfigError(f"{origin}: {key} is a whole number, but its range {numbers} is not.")
    high = span.high
    if span.step:  # the last step within the range
        high = span.low + math.floor((high - span.low) / span.step + 1e-9) * span.step
    if setting.type is int:
        low, high, step = int(span.low), int(high), int(span.step or 1)
        return Parameter(key, IntDistribution(low, high, log=span.log, step=step))
    return Parameter(key, FloatDistribution(span.low, high, log=span.log, step=span.step))


def apply(cfg: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Configuration of a trial.

    Raises:
        ConfigError: The values are invalid; the message names their keys.
    """
    try:
        return sources.with_values(cfg, values, "tune.space")
    except ConfigError as error:
        given = ", ".join(f"tune.space.{key} = {value!r}" for key, value in values.items())
        raise ConfigError(f"{given} is not a valid configuration: {error}") from error


def list_extremes(cfg: RunConfig, space: Sequence[Parameter]) -> list[RunConfig]:
    """The most demanding trials: the configuration, each bound in turn, and the corners.

    Corners combine the bounds of all settings that change a window's days: a longer history and a
    longer lookback may each leave enough days, but not both together.
    """
    found = [cfg, *(apply(cfg, {p.key: value}) for p in space for value in p.bounds)]
    keys = (*_OTHER_DAYS, "samples.lookback")
    moving = [p for p in space if p.key.startswith(keys)]
    if len(moving) > 1:
        for values in itertools.product(*(p.bounds for p in moving)):
            with suppress(ConfigError):  # such a combination is never proposed
                found.append(apply(cfg, dict(zip((p.key for p in moving), values, strict=True))))
    return found


def list_incomparable(space: Iterable[Parameter]) -> list[str]:
    """Searched settings that change the days or the returns of the validation."""
    return [parameter.key for parameter in space if parameter.key.startswith(_OTHER_DAYS)]


def propose(
    cfg: RunConfig, space: Sequence[Parameter], records: Sequence[TrialRecord]
) -> Values | None:
    """Settings for the next trial; None if no untried valid combination was found.

    The first trial has the configuration's own values. The same records give the same proposal,
    and no combination is proposed twice.
    """
    if not records:
        plain = to_dict(cfg)
        return {p.key: value_at(plain, p.key) for p in space}
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
            replace(record, status="complete", objective=record.current_objective)
            for record in records
            if record.status in ("complete", "pruned") and record.current_objective is not None
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
