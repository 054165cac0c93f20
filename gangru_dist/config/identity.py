"""A configuration as plain values, and what of it decides the panel, a model, a run."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import TypeAdapter

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.registry import STORED
from gangru_dist.config.settings import LABEL_TRANSFORMS, PREDICTORS, Decides, RunConfig, declared

_ADAPTER: TypeAdapter[RunConfig] = TypeAdapter(RunConfig)
_DEFAULTS = _ADAPTER.dump_python(RunConfig(), mode="json")

TYPES = {key: hint for key, hint, _ in declared(RunConfig)}
"""Dotted key -> declared type, for every setting."""
DECIDES = {key: mark for key, _, mark in declared(RunConfig)}
"""Dotted key -> what the setting decides."""

MODEL_SECTIONS = tuple(
    dict.fromkeys(key.partition(".")[0] for key, mark in DECIDES.items() if mark == Decides.MODEL)
)
"""Sections with settings that decide a window's weights."""


def to_dict(cfg: RunConfig) -> dict[str, Any]:
    """The configuration as plain JSON types: dates as ISO strings, tuples as lists."""
    result: dict[str, Any] = _ADAPTER.dump_python(cfg, mode="json")
    return result


def from_dict(values: dict[str, Any], *, stored: bool = False) -> RunConfig:
    """Inverse of `to_dict`; strict ("5" is not 5). Raises pydantic's ValidationError.

    `stored` values were read from storage; they may not name code that is not yet imported.
    """
    context = STORED if stored else None
    return _ADAPTER.validate_json(json.dumps(values), strict=True, context=context)


def with_precision(cfg: RunConfig, precision: str) -> RunConfig:
    """The same configuration with another `training.precision`."""
    values = to_dict(cfg)
    values["training"]["precision"] = precision
    return from_dict(values)


def deciding(cfg: RunConfig, what: Decides) -> dict[str, Any]:
    """The settings with one of these marks, by section, as plain JSON types."""
    values = to_dict(cfg)
    chosen: dict[str, Any] = {}
    for key, mark in DECIDES.items():
        value, default = values, _DEFAULTS
        for part in key.split("."):
            value, default = value[part], default[part]
        if mark & what and not (mark & Decides.IF_CHANGED and value == default):
            section, _, name = key.rpartition(".")
            (chosen.setdefault(section, {}) if section else chosen)[name] = value
    return chosen


def model_settings(cfg: RunConfig) -> dict[str, Any]:
    """The settings that decide the weights of one window and seed.

    Settings such as the run's refit days, seeds or checkpoint interval are left out: they do not
    change the model of a given day and seed.
    """
    chosen = deciding(cfg, Decides.MODEL)
    chosen["samples"].pop("features", None)  # the resulting list is added below
    del chosen["panel"]
    if cfg.variant == "gru":
        del chosen["gan"]
    code = PREDICTORS.users_code(cfg.predictor) | LABEL_TRANSFORMS.users_code(cfg.label.transform)
    return chosen | {"features": list(cfg.features)} | ({"code": code} if code else {})


def run_settings(cfg: RunConfig) -> dict[str, Any]:
    """The settings that decide a run's results, given the panel."""
    chosen = model_settings(cfg)
    for section, values in deciding(cfg, Decides.RUN).items():
        chosen[section] = chosen.get(section, {}) | values
    return chosen


def model_identity(cfg: RunConfig, window: str, seed: int, panel_fingerprint: str) -> str:
    """Hash of what decides the weights: settings, window, seed, panel up to the refit day.

    Twelve hex digits. Models and checkpoints with another identity are not reused.

    Raises:
        ConfigError: `training.precision` is still `auto`.
    """
    if cfg.training.precision == "auto":
        raise ConfigError(
            "training.precision=auto is replaced when a run starts, and this run has not started. "
            "Train it first, or give float32, float64, tf32 or bf16."
        )
    facts = [model_settings(cfg), window, seed, panel_fingerprint]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
