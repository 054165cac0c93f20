"""All settings of a run: frozen dataclasses, checked where they are declared.

A setting `windows.first` stands in `config/windows.py`; `RunConfig` (`run.py`) holds all sections.
Values come from a preset (`presets.py`), then a TOML file, then `--set key=value` (`settings.py`).
Lengths are in trading days unless the name says otherwise. [R] marks what the broker's report
states, [D] our own decision.
"""

from __future__ import annotations

from gangru_dist.config.bars import BarsConfig
from gangru_dist.config.common import Exposure, FeatureName
from gangru_dist.config.evaluation import EvaluationConfig
from gangru_dist.config.factor import FactorConfig
from gangru_dist.config.gan import GanConfig
from gangru_dist.config.gru import PREDICTORS, GruConfig
from gangru_dist.config.identity import (
    DECIDES,
    MODEL_SECTIONS,
    TYPES,
    deciding,
    from_dict,
    model_identity,
    model_settings,
    run_settings,
    to_dict,
    with_precision,
)
from gangru_dist.config.label import LABEL_TRANSFORMS, LabelConfig
from gangru_dist.config.panel import PanelConfig
from gangru_dist.config.report import ReportConfig
from gangru_dist.config.resources import ResourcesConfig
from gangru_dist.config.run import RunConfig
from gangru_dist.config.samples import ChannelKind, SampleConfig
from gangru_dist.config.synthetic import SyntheticConfig
from gangru_dist.config.training import PLAIN_PRECISIONS, TrainingConfig
from gangru_dist.config.tune import SearchRange, TuneConfig
from gangru_dist.config.universe import UniverseConfig
from gangru_dist.config.windows import WindowConfig

__all__ = [
    "DECIDES",
    "LABEL_TRANSFORMS",
    "MODEL_SECTIONS",
    "PLAIN_PRECISIONS",
    "PREDICTORS",
    "TYPES",
    "BarsConfig",
    "ChannelKind",
    "EvaluationConfig",
    "Exposure",
    "FactorConfig",
    "FeatureName",
    "GanConfig",
    "GruConfig",
    "LabelConfig",
    "PanelConfig",
    "ReportConfig",
    "ResourcesConfig",
    "RunConfig",
    "SampleConfig",
    "SearchRange",
    "SyntheticConfig",
    "TrainingConfig",
    "TuneConfig",
    "UniverseConfig",
    "WindowConfig",
    "deciding",
    "from_dict",
    "model_identity",
    "model_settings",
    "run_settings",
    "to_dict",
    "with_precision",
]
