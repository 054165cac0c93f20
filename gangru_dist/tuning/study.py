"""A stored search as an Optuna study in a file, for optuna-dashboard and `optuna.load_study`."""

from __future__ import annotations

import datetime as dt
import json
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from gangru_dist.base.errors import ConfigError
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import Choices, Numbers, Search, TrialRecord, read_search
from gangru_dist.tuning.space import Parameter

_STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


def export_study(run: Run, file: str | Path, *, overwrite: bool = False) -> None:
    """Write the search stored under a run's name; the study in the file has that name too.

    Values are objectives, intermediate values the running mean of validation IC by epoch. Times
    are only right as durations: the records have no dates.

    Args:
        run: Whose search.
        file: SQLite file; appears whole.
        overwrite: Replace the file if it is there.

    Raises:
        ConfigError: There is no search, or the file is there.
        StorageError: The search's records are damaged.
    """
    search, target = read_search(run.tune), Path(file)
    if search is None:
        raise ConfigError(
            f"there is no search at {run.tune.uri}. Correct --run and --storage, or start one with "
            "`gangru tune`."
        )
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} is there already. Name another file, or add --overwrite.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        _write(search, run.name, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _write(search: Search, name: str, file: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{file.resolve()}")
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
        study.set_user_attr("windows", list(search.record.windows))
        study.set_user_attr("spread_penalty", search.record.spread_penalty)
        ranges = {key: _distribution(key, span) for key, span in search.record.space.items()}
        study.add_trials([_trial(search, trial, ranges) for trial in search.trials])
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _distribution(key: str, span: Numbers | Choices) -> BaseDistribution:
    if isinstance(span, Choices):
        return CategoricalDistribution([_plain(choice) for choice in span.choices])
    return Parameter(
        key=key, kind=span.kind, low=span.low, high=span.high, log=span.log, step=span.step
    ).distribution()


def _plain(choice: Any) -> Any:
    """A choice as Optuna takes it: lists as JSON text."""
    return choice if choice is None or isinstance(choice, str | int | float) else json.dumps(choice)


def _trial(search: Search, record: TrialRecord, ranges: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial; settings out of their range, which only the first may have, as attributes."""
    values = {key: _plain(value) for key, value in record.settings.items()}
    inside = [key for key in ranges if key in values and _holds(ranges[key], values[key])]
    outside = {key: value for key, value in values.items() if key not in inside}
    trial = create_trial(
        state=_STATES[record.status],
        value=record.objective,
        params={key: values[key] for key in inside},
        distributions={key: ranges[key] for key in inside},
        intermediate_values={int(step): mean for step, mean in record.reports},
        user_attrs={
            "status": record.status,
            "mean_valid_ic": record.mean_ic,
            "epochs": record.epochs,
            "gan_epochs": record.gan_epochs,
            "reason": record.reason,
            **{
                f"valid_ic {window}": ic
                for window, ic in zip(search.record.windows, record.window_ics, strict=False)
            },
            **outside,
        },
    )
    if trial.datetime_complete:
        trial.datetime_start = trial.datetime_complete - dt.timedelta(seconds=record.seconds)
    return trial


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    with warnings.catch_warnings(action="ignore"):  # of what is no choice
        try:
            return bool(distribution._contains(distribution.to_internal_repr(value)))
        except ValueError:
            return False
