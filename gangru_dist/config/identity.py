"""A configuration as plain values, and which of them identify a panel, a model or a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.records import hash_json
from gangru_dist.base.registry import STORED
from gangru_dist.config.schema import Affects, list_settings
from gangru_dist.config.settings import LABEL_TRANSFORMS, PREDICTORS, RunConfig, SearchRange

_ADAPTER: TypeAdapter[RunConfig] = TypeAdapter(RunConfig)
_DEFAULTS = _ADAPTER.dump_python(RunConfig(), mode="json")

SETTINGS = {setting.key: setting for setting in list_settings(RunConfig)}
"""Dotted key -> setting, in the order of declaration."""
MODEL_SECTIONS = tuple(
    dict.fromkeys(k.partition(".")[0] for k, s in SETTINGS.items() if s.affects == Affects.MODEL)
)
"""Sections with settings that affect a window's weights."""


def to_dict(cfg: RunConfig) -> dict[str, Any]:
    """Return the configuration as plain JSON types: dates as ISO strings, tuples as lists."""
    result: dict[str, Any] = _ADAPTER.dump_python(cfg, mode="json")
    return result


def from_dict(values: dict[str, Any], *, stored: bool = False) -> RunConfig:
    """Inverse of `to_dict`; strict ("5" is not 5). Raises pydantic's ValidationError.

    `stored` values were read from storage. They may not name code that is not yet imported, and
    may have settings that have been removed since.
    """
    if stored:
        values = _migrate(values)
    tune = values.get("tune")
    if isinstance(tune, dict) and isinstance(tune.get("space"), dict):
        values = {**values, "tune": {**tune, "space": flatten_space(tune["space"])}}
    context = STORED if stored else None
    return _ADAPTER.validate_json(json.dumps(values), strict=True, context=context)


_RANGE_KEYS = frozenset(part.name for part in fields(SearchRange))


def flatten_space(space: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a search space: dotted key -> range or None, whichever way it is nested.

    In a file it is nested as the settings are: `gru.hidden = {low = 8, high = 64}` below
    `[tune.space]`. A table without any key of a range is a level of dotted keys.
    """
    flat: dict[str, Any] = {}
    for name, value in space.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and _RANGE_KEYS.isdisjoint(value):
            flat |= flatten_space(value, f"{key}.")
        else:
            flat[key] = value
    return flat


_REMOVED = {
    "discriminator_learning_rate": None,
    "spectral_norm": False,
    "gradient_penalty": 0.0,
    "history_days": None,
    "feature_matching": 0.0,
    "sees": None,
    "output": "replace",
}
"""Settings of the GAN that are gone, and the values with which they changed nothing; a run with
another is refused."""


def _migrate(values: dict[str, Any]) -> dict[str, Any]:
    """Replace the settings that earlier versions stored by those of this one."""
    if isinstance(resources := values.get("resources"), dict):
        kept = {name: value for name, value in resources.items() if name != "ingest"}
        values = {**values, "resources": kept}
    if isinstance(gan := values.get("gan"), dict):
        kept = {n: v for n, v in gan.items() if n not in _REMOVED or v != _REMOVED[n]}
        values = {**values, "gan": kept}
    training = values.get("training")
    if not isinstance(training, dict) or "tensorboard" not in training:
        return values
    training, names = dict(training), values.get("callbacks", [])
    if training.pop("tensorboard") is True and "tensorboard" not in names:
        names = [*names, "tensorboard"]
    return {**values, "training": training, "callbacks": names}


def value_at(values: dict[str, Any], key: str) -> Any:
    """Return the value of a setting's dotted key in a configuration's dictionary."""
    section, _, name = key.rpartition(".")
    return (values[section] if section else values)[name]


def with_precision(cfg: RunConfig, precision: str) -> RunConfig:
    """Return the configuration with another `training.precision`."""
    values = to_dict(cfg)
    values["training"]["precision"] = precision
    return from_dict(values)


def select_settings(cfg: RunConfig, affects: Affects) -> dict[str, Any]:
    """Select the settings with one of these marks, by section, as plain JSON types."""
    values = to_dict(cfg)
    chosen: dict[str, Any] = {}
    for key, setting in SETTINGS.items():
        value = value_at(values, key)
        is_default = value == value_at(_DEFAULTS, key)
        if setting.affects & affects and not (setting.affects & Affects.IF_CHANGED and is_default):
            section, _, name = key.rpartition(".")
            (chosen.setdefault(section, {}) if section else chosen)[name] = value
    return chosen


def model_settings(cfg: RunConfig) -> dict[str, Any]:
    """Select the settings that affect the weights of one window and seed.

    Settings such as the run's refit days, seeds or checkpoint interval are left out: they do not
    change the model of a given day and seed.
    """
    chosen = select_settings(cfg, Affects.MODEL)
    chosen["samples"].pop("features", None)  # the resulting list is added below
    del chosen["panel"]
    if cfg.variant == "gru":
        del chosen["gan"]
    code = PREDICTORS.hash_user_code(cfg.predictor)
    code |= LABEL_TRANSFORMS.hash_user_code(cfg.label.transform)
    return chosen | {"features": list(cfg.features)} | ({"code": code} if code else {})


def run_settings(cfg: RunConfig) -> dict[str, Any]:
    """Select the settings that affect a run's results, given the panel."""
    chosen = model_settings(cfg)
    for section, values in select_settings(cfg, Affects.RUN).items():
        chosen[section] = chosen.get(section, {}) | values
    return chosen


def model_identity(cfg: RunConfig, window: str, seed: int, panel_fingerprint: str) -> str:
    """Hash what affects the weights: settings, window, seed, panel up to the refit day.

    Twelve hex digits. Models and checkpoints with another identity are not reused.

    Raises:
        ConfigError: `training.precision` is still `auto`.
    """
    if cfg.training.precision == "auto":
        raise ConfigError(
            "training.precision=auto is replaced when a run starts, and this run has not started. "
            "Train it first, or give float32, float64, tf32 or bf16."
        )
    return hash_json([model_settings(cfg), window, seed, panel_fingerprint])
