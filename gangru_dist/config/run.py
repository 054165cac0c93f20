"""All settings of a run, section by section."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from gangru_dist.config.bars import BarsConfig
from gangru_dist.config.callbacks import CallbackNames
from gangru_dist.config.common import STRICT
from gangru_dist.config.evaluation import EvaluationConfig
from gangru_dist.config.factor import FactorConfig
from gangru_dist.config.gan import GanConfig
from gangru_dist.config.gru import PREDICTORS, GruConfig
from gangru_dist.config.label import LabelConfig
from gangru_dist.config.panel import PanelConfig
from gangru_dist.config.report import ReportConfig
from gangru_dist.config.resources import ResourcesConfig
from gangru_dist.config.samples import SampleConfig
from gangru_dist.config.synthetic import SyntheticConfig
from gangru_dist.config.training import TrainingConfig
from gangru_dist.config.tune import TuneConfig
from gangru_dist.config.universe import UniverseConfig
from gangru_dist.config.windows import WindowConfig
from gangru_dist.decides import Decides
from gangru_dist.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class RunConfig:
    """All settings of a run. Sections are documented in their classes."""

    variant: Annotated[Literal["gan_gru", "gru"], Decides.MODEL] = "gan_gru"
    """`gru` trains the predictor on the samples directly, without a GAN."""
    predictor: Annotated[
        str, Decides.MODEL | Decides.IF_CHANGED, AfterValidator(PREDICTORS.validated)
    ] = "gru"
    """Network that maps a sample to a score: `gru`, `lstm`, `transformer`, or your own as
    `package.module:Class`; section `gru` has its sizes."""
    callbacks: Annotated[CallbackNames, Decides.NOTHING] = ()
    """What receives every epoch, model, trial and report: `tensorboard` (files in the run's
    folder), `mlflow` (a server), or your own as `package.module:Class` (docs/tracking.md)."""
    bars: Annotated[BarsConfig, Decides.PANEL] = field(default_factory=BarsConfig)
    panel: Annotated[PanelConfig, Decides.PANEL] = field(default_factory=PanelConfig)
    universe: Annotated[UniverseConfig, Decides.MODEL] = field(default_factory=UniverseConfig)
    samples: Annotated[SampleConfig, Decides.MODEL] = field(default_factory=SampleConfig)
    label: Annotated[LabelConfig, Decides.MODEL] = field(default_factory=LabelConfig)
    windows: Annotated[WindowConfig, Decides.MODEL] = field(default_factory=WindowConfig)
    gan: Annotated[GanConfig, Decides.MODEL] = field(default_factory=GanConfig)
    gru: Annotated[GruConfig, Decides.MODEL] = field(default_factory=GruConfig)
    training: Annotated[TrainingConfig, Decides.MODEL] = field(default_factory=TrainingConfig)
    resources: Annotated[ResourcesConfig, Decides.NOTHING] = field(default_factory=ResourcesConfig)
    factor: Annotated[FactorConfig, Decides.RUN] = field(default_factory=FactorConfig)
    evaluation: Annotated[EvaluationConfig, Decides.RUN] = field(default_factory=EvaluationConfig)
    report: Annotated[ReportConfig, Decides.NOTHING] = field(default_factory=ReportConfig)
    synthetic: Annotated[SyntheticConfig, Decides.NOTHING] = field(default_factory=SyntheticConfig)
    tune: Annotated[TuneConfig, Decides.SEARCH] = field(default_factory=TuneConfig)

    @property
    def features(self) -> tuple[str, ...]:
        """Features of a sample, in the order of the model's input."""
        return self.samples.features or self.panel.features

    @property
    def gan_history(self) -> int:
        """Trading days up to the refit day that the GAN learns from."""
        own = self.gan.history_days if self.variant == "gan_gru" else None
        return own or self.windows.history_days

    def __post_init__(self) -> None:
        lacking = [name for name in self.features if name not in self.panel.features]
        if lacking:
            raise ConfigError(
                f"samples.features names {', '.join(lacking)}, which panel.features lacks. Name "
                "it in both."
            )
        if self.universe.min_traded_days > self.samples.lookback:
            raise ConfigError(
                f"universe.min_traded_days={self.universe.min_traded_days} is more than "
                f"samples.lookback={self.samples.lookback}: no asset could qualify."
            )
        if self.windows.least_history <= self.label.reach + self.windows.sample_every:
            key = "min_history_days" if self.windows.min_history_days else "history_days"
            raise ConfigError(
                f"windows.{key}={self.windows.least_history} leaves no training day: each label "
                f"needs label.entry_lag + label.horizon = {self.label.reach} of those days."
            )
        if self.gan_history < self.windows.history_days:
            raise ConfigError(
                f"gan.history_days={self.gan.history_days} is less than windows.history_days="
                f"{self.windows.history_days}: the GAN sees all training days, and older ones."
            )
        if self.variant == "gan_gru" and self.gan.sees not in (None, *self.samples.channels):
            raise ConfigError(
                f"gan.sees={self.gan.sees!r} is not one of samples.channels="
                f"{list(self.samples.channels)}: the GAN would see nothing. Name it in both."
            )
        if (self.resources.min_workers or 1) > self.resources.workers:
            raise ConfigError(
                f"resources.min_workers={self.resources.min_workers} is more than "
                f"resources.workers={self.resources.workers}."
            )
        if self.resources.workers > self.panel.buckets:
            raise ConfigError(
                f"resources.workers={self.resources.workers} is more than panel.buckets="
                f"{self.panel.buckets}: a worker would have no assets."
            )
