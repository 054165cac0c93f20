"""Settings of a hyperparameter search: section `tune`, and the ranges of `tune.space`.

The space is nested like the settings themselves: `gru.hidden = {low = 8, high = 64}` below
`[tune.space]` in a TOML file. In memory and in storage it is flat: dotted key -> range.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue
from pydantic.dataclasses import dataclass

from gangru_dist.config.schema import STRICT, Affects


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class SearchRange:
    """Values of one setting in a search: from `low` to `high`, or one of `choices`."""

    low: float | None = None
    """Smallest value, inclusive; a whole number if the setting is one."""
    high: float | None = None
    """Largest value, inclusive."""
    log: bool = False
    """Sample on a logarithmic scale."""
    step: float | None = Field(default=None, gt=0)
    """Only `low`, `low` + step, ... up to `high`; not together with `log`."""
    choices: tuple[JsonValue, ...] = ()
    """The values themselves, of any type, in place of `low` and `high`."""

    def __post_init__(self) -> None:
        # ValueError: pydantic adds the key
        given = (self.low, self.high, self.step, self.log or None)
        if self.choices:
            if given != (None, None, None, None):
                raise ValueError("choices cannot be combined with low, high, step or log")
            return
        if self.low is None or self.high is None:
            raise ValueError("give {low = ..., high = ...} or {choices = [...]}")
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be less than high = {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log = true needs low > 0 and no step; low is {self.low:g}")


_RANGE_KEYS = frozenset(part.name for part in fields(SearchRange))


def flatten_space(space: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a search space: dotted key -> range or None, whichever way it is nested.

    A table without any key of a range is a level of dotted keys.
    """
    flat: dict[str, Any] = {}
    for name, value in space.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and _RANGE_KEYS.isdisjoint(value):
            flat |= flatten_space(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def _search_space() -> dict[str, SearchRange | None]:
    """Settings that usually matter; `gan.*` is ignored if `variant` is gru."""
    return {
        "training.learning_rate": SearchRange(low=1e-4, high=1e-2, log=True),
        "gru.hidden": SearchRange(low=32, high=256, step=32),
        "gru.layers": SearchRange(low=1, high=3),
        "samples.lookback": SearchRange(low=30, high=60, step=10),
        "label.transform": SearchRange(choices=("zscore", "rank")),
        "gan.learning_rate": SearchRange(low=1e-4, high=1e-2, log=True),
        "gan.epochs": SearchRange(low=1, high=10),
        "gan.hidden": SearchRange(low=32, high=256, step=32),
        "gan.noise_channels": SearchRange(low=0, high=16, step=4),
        "gan.reconstruction_weight": SearchRange(low=1.0, high=300.0, log=True),
    }


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class TuneConfig:
    """The hyperparameter search."""

    space: dict[str, SearchRange | None] = field(default_factory=_search_space)
    """Setting that affects the model -> its range; none = do not search it. `[tune.space]` of a
    file replaces all entries; `--set tune.space.KEY={...}` changes one."""
    trials: Annotated[int, Affects.NOTHING] = Field(default=20, ge=1)
    """Total number of trials, across interruptions."""
    hours: Annotated[float | None, Affects.NOTHING] = Field(default=None, gt=0)
    """Stop after this time; the same command continues later."""
    windows: Annotated[tuple[dt.date, ...], Affects.NOTHING] = ()
    """Refit days of every trial; empty = the last `max_windows` before `windows.first`, or the
    panel's first ones if that is not set."""
    max_windows: Annotated[int, Affects.NOTHING] = Field(default=2, ge=1)
    """Number of refit days if `windows` is empty."""
    spread_penalty: float = Field(default=0.5, ge=0)
    """Objective = mean of the windows' validation IC - this x their standard deviation."""
    prune: bool = True
    """Stop trials early (ASHA) if their running mean is behind."""
    grace_epochs: int = Field(default=3, ge=1)
    """Predictor epochs before a trial may be stopped."""
    reduction: float = Field(default=3.0, gt=1)
    """ASHA's reduction factor: one in this many trials survives each rung."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How trials are proposed; `random` is the baseline."""
    startup_trials: int = Field(default=8, ge=1)
    """Random trials before TPE starts."""
    seed: int = Field(default=0, ge=0)
    """Seed of the proposals; models use the first of `training.seeds`."""
