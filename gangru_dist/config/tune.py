"""Settings `tune.…`."""

from __future__ import annotations

import datetime as dt
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, JsonValue
from pydantic.dataclasses import dataclass

from gangru_dist.config.common import STRICT
from gangru_dist.decides import Decides


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
    """Dotted key of a setting that decides a model -> its range; none = do not search it.
    `[tune.space]` of a file replaces all entries; `--set tune.space.KEY={...}` changes one."""
    trials: Annotated[int, Decides.NOTHING] = Field(default=20, ge=1)
    """Total number of trials, across interruptions."""
    hours: Annotated[float | None, Decides.NOTHING] = Field(default=None, gt=0)
    """Stop after this time; the same command continues later."""
    windows: Annotated[tuple[dt.date, ...], Decides.NOTHING] = ()
    """Refit days of every trial; empty = the last `max_windows` before `windows.first`, or the
    panel's first ones if that is not set."""
    max_windows: Annotated[int, Decides.NOTHING] = Field(default=2, ge=1)
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
