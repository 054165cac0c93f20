"""The search space, checked against the rules of the settings before the first trial.

A parameter is a setting that decides a model, named by its dotted key. Its range comes from
`tune.space`; whether it is a whole number follows from the setting's type.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from gangru_dist.base.errors import ConfigError
from gangru_dist.config import sources
from gangru_dist.config.identity import DECIDES, MODEL_SECTIONS, to_dict
from gangru_dist.config.settings import Decides, RunConfig, SearchRange
from gangru_dist.runs.search import Choices, Numbers

_OTHER_DAYS = ("windows.", "label.horizon", "label.entry_lag")
"""Settings that change the validation days or the predicted returns: ICs are not comparable."""

Values = dict[str, Any]
"""Dotted key -> value, plain JSON types: one trial's settings."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One setting and the values it may take."""

    key: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[str, ...] = ()
    """As JSON text, since a choice may be a list."""

    @property
    def bounds(self) -> list[Any]:
        """Both ends of the range, or all choices: if these are valid, all values are."""
        if self.kind == "choice":
            return [json.loads(text) for text in self.choices]
        return [self.value(self.low), self.value(self.high)]

    def value(self, raw: Any) -> Any:
        """A proposal as the setting's value.

        Floats are rounded to three significant digits, unless the range has steps.
        """
        if self.kind == "choice":
            return json.loads(raw)
        if self.kind == "int":
            return int(raw)
        if self.step:
            return float(f"{raw:.12g}")
        return min(max(float(f"{raw:.3g}"), self.low), self.high)

    def raw(self, value: Any) -> Any:
        """Inverse of `value`, up to its rounding."""
        return json.dumps(value) if self.kind == "choice" else value

    def holds(self, value: Any) -> bool:
        """Whether the range contains a value."""
        if self.kind == "choice":
            return json.dumps(value) in self.choices
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def distribution(self) -> BaseDistribution:
        """The range as an Optuna distribution."""
        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            step = int(self.step or 1)
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    @property
    def span(self) -> Numbers | Choices:
        """The range as recorded in search.json."""
        if self.kind == "choice":
            return Choices(choices=tuple(self.bounds))
        low, high = self.value(self.low), self.value(self.high)
        return Numbers(kind=self.kind, low=low, high=high, log=self.log, step=self.step)


def parameters(cfg: RunConfig) -> tuple[Parameter, ...]:
    """All parameters of `tune.space`, in its order, without `gan.*` if the variant has no GAN.

    Raises:
        ConfigError: A key is unknown, a setting does not decide a model, or a value of a range is
            invalid; the message names the key.
    """
    space = {key: span for key, span in cfg.tune.space.items() if span is not None}
    if cfg.variant == "gru" and "variant" not in space:
        space = {key: span for key, span in space.items() if not key.startswith("gan.")}
    if not space:
        raise ConfigError("tune.space is empty: name at least one setting to search.")
    found = tuple(_parameter(key, span) for key, span in space.items())
    for parameter in found:
        for value in parameter.bounds:
            apply(cfg, {parameter.key: value})
    return found


def _parameter(key: str, span: SearchRange) -> Parameter:
    origin = f"tune.space.{key}"
    hint = sources.declared(key, "tune.space")
    if not DECIDES[key] & Decides.MODEL:
        raise ConfigError(
            f"{origin}: {key} does not change the model of a given day and seed, so it cannot be "
            f"validated. Search settings of {', '.join(MODEL_SECTIONS)}."
        )
    if key == "training.precision" and "auto" in span.choices:
        raise ConfigError(
            f"{origin}: auto stands for one of the other choices; list those instead."
        )
    if span.choices:
        texts = tuple(json.dumps(choice) for choice in span.choices)
        return Parameter(key=key, kind="choice", choices=texts)
    if hint not in (int, float):
        raise ConfigError(
            f"{origin}: {key} is not a number, or may be none; give {{choices = [...]}}."
        )
    assert span.low is not None
    assert span.high is not None
    numbers = [n for n in (span.low, span.high, span.step) if n is not None]
    if hint is int and not all(n.is_integer() for n in numbers):
        raise ConfigError(f"{origin}: {key} is a whole number, but its range {numbers} is not.")
    steps = math.floor((span.high - span.low) / span.step + 1e-9) if span.step else 0
    high = span.low + steps * span.step if span.step else span.high
    kind: Literal["int", "float"] = "int" if hint is int else "float"
    return Parameter(key=key, kind=kind, low=span.low, high=high, log=span.log, step=span.step)


def apply(cfg: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Configuration of a trial.

    Raises:
        ConfigError: The values are invalid; the message names their keys.
    """
    try:
        return sources.with_values(cfg, values, "tune.space")
    except ConfigError as error:
        told = ", ".join(f"tune.space.{key} = {value!r}" for key, value in values.items())
        raise ConfigError(f"{told} is not a valid configuration: {error}") from error


def baseline(cfg: RunConfig, space: Iterable[Parameter]) -> Values:
    """The configuration's own values of the searched settings: the first trial."""
    plain = to_dict(cfg)
    return {parameter.key: sources.value_at(plain, parameter.key) for parameter in space}


def extremes(cfg: RunConfig, space: Iterable[Parameter]) -> list[RunConfig]:
    """The most demanding trials: the configuration, each bound in turn, and the corners.

    Corners combine the bounds of all settings that change a window's days: a longer history and a
    longer lookback may each leave enough days, but not both together.
    """
    space = tuple(space)
    bounds = [{parameter.key: value} for parameter in space for value in parameter.bounds]
    return [cfg, *(apply(cfg, values) for values in bounds), *_corners(cfg, space)]


def _corners(cfg: RunConfig, space: Iterable[Parameter]) -> list[RunConfig]:
    keys = (*_OTHER_DAYS, "samples.lookback", "gan.history_days", "variant")
    moving = [p for p in space if p.key.startswith(keys)]
    if len(moving) < 2:
        return []
    found = []
    for values in itertools.product(*(parameter.bounds for parameter in moving)):
        together = {p.key: value for p, value in zip(moving, values, strict=True)}
        with suppress(ConfigError):  # such a combination is never proposed
            found.append(apply(cfg, together))
    return found


def incomparable(space: Iterable[Parameter]) -> list[str]:
    """Searched settings that change the days or the returns of the validation."""
    return [parameter.key for parameter in space if parameter.key.startswith(_OTHER_DAYS)]
