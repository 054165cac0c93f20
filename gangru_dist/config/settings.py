"""All settings of a run: frozen sections, each checked where it is declared.

A setting is declared once: name, type, bounds, default, what it affects, and its meaning below it.
`gangru settings` prints all of that. Lengths are in trading days unless the name says otherwise.
[R] marks what the broker's report states, [D] marks our own decisions.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, JsonValue
from pydantic.dataclasses import dataclass

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.registry import STORED, Registry
from gangru_dist.config.schema import NEW, NEW_PANEL, NEW_RUN, STRICT, Affects
from gangru_dist.features import price_volume

CALLBACKS: Registry[Callable[[Any], Any]] = Registry(
    "callback",
    items={
        "mlflow": "gangru_dist.events.mlflow:Mlflow",
        "tensorboard": "gangru_dist.events.tensorboard:TensorBoard",
    },
)
"""Makes a callback from a `Run`; `events.callbacks` says what it may have."""
PREDICTORS: Registry[Callable[[int, GruConfig], Any]] = Registry(
    "predictor",
    items={
        "gru": "gangru_dist.models.predictors:GruPredictor",
        "lightgbm": "gangru_dist.models.estimators:LightGbm",
        "lstm": "gangru_dist.models.predictors:LstmPredictor",
        "ridge": "gangru_dist.models.estimators:Ridge",
        "transformer": "gangru_dist.models.predictors:TransformerPredictor",
    },
)
"""Makes a torch module, samples (B, T, F) -> scores (B,), or an estimator with `fit` and `predict`,
from the number of features, the sizes and, if it has such a parameter, `lookback`."""
LABEL_TRANSFORMS: Registry[Callable[[np.ndarray, LabelConfig], np.ndarray]] = Registry(
    "label transform",
    items={
        "zscore": "gangru_dist.samples.labels:winsorize",
        "rank": "gangru_dist.samples.labels:rank_normal",
    },
)
"""Transform of a day's returns (N,), none missing; its result (N,) is z-scored to the labels."""


def _check_feature(name: str, info: Any) -> str:
    """Import a user's own feature; names of ours are checked with the panel."""
    return price_volume.FEATURES.validate(name, info) if ":" in name else name


def _check_callbacks(names: tuple[str, ...], info: Any) -> tuple[str, ...]:
    """Check names of callbacks; leave out stored ones whose code the command was not given.

    They affect no result, so a run does not need those of the job before.
    """
    if info.context == STORED:
        return tuple(name for name in names if name in CALLBACKS)
    return tuple(CALLBACKS.check_name(name) for name in names)


def _check_unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse repeated values."""
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"values must be unique; repeated: {twice}")
    return values


UNIQUE = AfterValidator(_check_unique)
SOME = Field(min_length=1)
"""A list that may not be empty."""
Count = Annotated[int, Field(ge=1)]
"""A whole number, at least one."""
Month = Annotated[int, Field(ge=1, le=12)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
FeatureName = Annotated[str, AfterValidator(_check_feature)]
"""A name from `price_volume.FEATURES`, or `package.module:function` of one's own."""
Exposure = Literal["industry", "size"]
"""What a cross-sectional regression may remove: industry dummies, log market cap."""
ChannelKind = Literal["shape", "level"]
"""How a feature becomes a channel of a sample."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class BarsConfig:
    """How a vendor's export maps to our columns."""

    format: str = "generic"
    """Name of a common export format, from `bars.formats.FORMATS`; `generic` expects our own
    column names."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our column -> the file's column, on top of the format's mapping."""
    scales: dict[str, float] = field(default_factory=dict)
    """Our column -> factor applied to the file's numbers (percent: 0.01, lots: 100)."""
    prices: Annotated[Literal["traded", "adjusted"], NEW_PANEL] = "traded"
    """`adjusted`: prices are already adjusted and need no adjustment factor; otherwise the factor
    is required."""
    code_from_name: Annotated[bool, NEW_PANEL] = False
    """Whether a file without a code column holds the single stock given by its name."""
    encoding: Annotated[str, NEW_PANEL] = "auto"
    """Encoding of CSV files, a Python name; `auto` detects UTF-8, UTF-16 and GB18030 (GBK)."""
    skip_rows: Annotated[int, NEW_PANEL] = Field(default=0, ge=0)
    """Lines before the headings of CSV files; a title that begins with a stock's code (通达信) is
    recognized without this setting."""
    price_limits: Literal["auto", "none", "ashare"] = "auto"
    """Daily price-limit rule; `auto` = that of the format."""
    max_quarantined: Annotated[float, Affects.NOTHING] = Field(default=0.01, ge=0, le=1)
    """Largest share of rows that may be set aside before the build fails."""
    max_jumps: Annotated[float, Affects.NOTHING] = Field(default=1e-4, ge=0, le=1)
    """Largest share of price moves that may contradict price limits or `adj_factor` before the
    build fails."""
    calendar: str | None = None
    """Text file with one trading day per line. Without it, a day counts if at least 1 % of the
    market traded."""
    weekends: bool = False
    """Whether Saturdays and Sundays may be trading days."""
    first_day: Annotated[dt.date | None, Affects.NOTHING] = None
    """Earlier dates are errors; None = 1990-12-01 if `price_limits` is `ashare`, else
    1900-01-01."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class PanelConfig:
    """The panel store."""

    features: Annotated[tuple[FeatureName, ...], Affects.PANEL | Affects.MODEL, UNIQUE] = (
        price_volume.NAMES
    )
    """Names from `price_volume.FEATURES`, your own, or `column:NAME` for a further column of the
    bars; `samples.features` selects those of a sample."""
    without: Annotated[tuple[str, ...], Affects.NOTHING] = ()
    """Features to remove from `features`, e.g. one whose column the bars lack."""
    members: Annotated[str | None, NEW_PANEL] = None
    """File of an index's members, with the columns date and code, where each date lists all members
    from that day until the file's next date; or with the columns code, start and end, where each
    row is a span of days. The panel marks the members of every day."""
    late_days: Annotated[int, Affects.NOTHING] = Field(default=3, ge=0)
    """Number of newest panel days that may arrive late or be corrected: their rows are taken
    without `--overwrite`, and scores and models that depend on them are made again."""
    buckets: Annotated[int, Affects.NOTHING] = Field(default=64, ge=1, le=4096)
    """Number of hash buckets of assets; also the maximum number of workers per window."""

    def __post_init__(self) -> None:
        features = tuple(name for name in self.features if name not in self.without)
        object.__setattr__(self, "features", features)
        if not self.features:
            raise ConfigError("panel.without removes all of panel.features; leave at least one.")


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class UniverseConfig:
    """Which assets belong to a day's universe [R, D]; an asset must have traded that day."""

    exclude_st: bool = True
    """Exclude assets under special treatment that day [R]."""
    min_listed_days: int = Field(default=120, ge=0)
    """Minimum number of trading days since listing: half a year [R, D]."""
    min_traded_days: int = Field(default=30, ge=1)
    """Minimum number of days traded among the last `samples.lookback` days [D]."""
    members: Annotated[bool, NEW] = True
    """Train only on the members of `panel.members`, where the panel marks them [D]."""
    min_assets: int = Field(default=10, ge=3)
    """Training and validation days with fewer labeled assets are skipped and logged [D]."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class SampleConfig:
    """One sample: lookback days x features, standardized."""

    features: Annotated[tuple[FeatureName, ...], NEW, UNIQUE] = ()
    """Names from `panel.features`, in the order of the model's input; empty = all, in panel order.
    Runs that differ here share one panel."""
    lookback: int = Field(default=40, ge=2)
    """Number of days of features in one sample, including the day itself [R]."""
    mad_clip: float = Field(default=5.0, gt=0)
    """Along time, values are clipped at the median +- this x 1.4826 x MAD [D]."""
    z_clip: float = Field(default=5.0, gt=0)
    """Across assets, z-scores are clipped at +- this [D]."""
    channels: Annotated[tuple[ChannelKind, ...], NEW, SOME, UNIQUE] = ("shape",)
    """`shape` = z-scored along time, then across assets [R]; `level` = the level that `shape`
    removes, z-scored across assets only [D]. With both, the channels are concatenated."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class LabelConfig:
    """What is predicted."""

    horizon: int = Field(default=20, ge=1)
    """Holding period of the label [R]."""
    also: Annotated[tuple[Count, ...], NEW, UNIQUE] = ()
    """Further, shorter holding periods: the label is then the mean of all periods' labels, z-scored
    again [D]."""
    entry_lag: int = Field(default=1, ge=0)
    """Days from signal to trade: 1 = score after the close, trade the next day [D]; the broker's
    report has 0."""
    winsorize_mad: float = Field(default=5.0, gt=0)
    """Returns of a day are clipped at their median +- this x 1.4826 x MAD before the z-score
    [D]."""
    transform: Annotated[str, AfterValidator(LABEL_TRANSFORMS.validate)] = "zscore"
    """Name from `LABEL_TRANSFORMS`; `rank` replaces returns by normal scores of their ranks."""
    neutralize: Annotated[tuple[Exposure, ...], NEW, UNIQUE] = ()
    """Exposures that a regression per day removes from the label before its last z-score, as
    `factor.neutralize` does from the factor [D]."""

    def __post_init__(self) -> None:
        if max(self.also, default=0) >= self.horizon:
            raise ConfigError(
                f"label.also={list(self.also)} must be shorter than label.horizon={self.horizon}, "
                "which says how far a label reaches."
            )

    @property
    def horizons(self) -> tuple[int, ...]:
        """All holding periods, `horizon` first."""
        return (self.horizon, *self.also)

    @property
    def reach(self) -> int:
        """Trading days from a signal to the end of its label."""
        return self.entry_lag + self.horizon


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class WindowConfig:
    """Rolling refits [R]."""

    history_days: int = Field(default=400, ge=2)
    """Training days lie within this many trading days up to the refit day."""
    min_history_days: Annotated[int | None, NEW] = Field(default=None, ge=2)
    """Minimum history of a window, in trading days; None = `history_days` [D]."""
    half_life_days: Annotated[float | None, NEW] = Field(default=None, gt=0)
    """Age, in trading days, at which a training day has half the weight of the newest one in the
    predictor's loss; None = equal weights [D]."""
    sample_every: int = Field(default=5, ge=1)
    """Interval between training days, in trading days."""
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the training days that is used for validation and early stopping; the last ones."""
    embargo: bool = True
    """Drop training days whose label reaches past the first validation day [D]."""
    refit_months: Annotated[tuple[Month, ...], Affects.RUN, SOME] = (6, 12)
    """Refit on the last trading day on or before the end of these months."""
    first: Annotated[dt.date | None, Affects.NOTHING] = None
    """Skip refit days before this date."""
    last: Annotated[dt.date | None, Affects.NOTHING] = None
    """Skip refit days after this date."""

    @property
    def least_history(self) -> int:
        """Number of trading days that a window needs; it is skipped if there are fewer."""
        return self.min_history_days or self.history_days

    def __post_init__(self) -> None:
        if (self.min_history_days or 0) > self.history_days:
            raise ConfigError(
                f"windows.min_history_days={self.min_history_days} is more than "
                f"windows.history_days={self.history_days}, which is the most that is taken."
            )
        if self.first and self.last and self.first > self.last:
            raise ConfigError(
                f"windows.first={self.first} is after windows.last={self.last}: no window is left."
            )


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class GanConfig:
    """Generator, discriminator and their training."""

    hidden: int = Field(default=128, ge=1)
    """LSTM units per layer [D]."""
    layers: int = Field(default=2, ge=1)
    """LSTM layers [D]."""
    noise_channels: int = Field(default=8, ge=0)
    """Number of noise values per day of a sample; the noise is 0 outside GAN training [D]."""
    channels: tuple[Count, Count] = (32, 64)
    """Feature maps of the discriminator's two strided convolutions [D]."""
    dropout: float = Field(default=0.25, ge=0, lt=1)
    """Share of the discriminator's feature maps dropped, per sample [D]."""
    epochs: int = Field(default=10, ge=1)
    """Number of passes over the training days; the GAN is not stopped early."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's learning rate for both networks [R]."""
    reconstruction_weight: float = Field(default=0.0, ge=0)
    """Weight of the mean |G(x, z) - x| in the generator's loss; the broker's report has 0."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class GruConfig:
    """The predictor: GRU layers and a head [R]."""

    hidden: int = Field(default=128, ge=1)
    """GRU units per layer."""
    layers: int = Field(default=2, ge=1)
    """GRU layers."""
    head: tuple[Count, ...] = (256, 64, 64)
    """Units of the head's hidden layers; one output without bias follows."""
    options: Annotated[dict[str, JsonValue], NEW] = field(default_factory=dict)
    """Further sizes of predictors other than `gru`, by name: `transformer` has `heads` (4), `ridge`
    has `alpha`, `lightgbm` has its library's names (docs/extend.md)."""


PLAIN_PRECISIONS = frozenset({"float32", "float64"})
"""Precisions that every device supports, so no node has to be asked."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class TrainingConfig:
    """Training of the predictor, and settings shared with the GAN stage."""

    epochs: int = Field(default=50, ge=1)
    """Maximum number of passes over the training days [R]."""
    patience: int = Field(default=10, ge=1)
    """Stop after this many epochs without a better validation IC [R]."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's learning rate [R]."""
    weight_decay: Annotated[float, NEW] = Field(default=0.0, ge=0)
    """In each step the predictor's weights shrink by this x `learning_rate` (AdamW) [D]."""
    dropout: Annotated[float, NEW] = Field(default=0.0, ge=0, lt=1)
    """Share of a sample's channels that the predictor does not see in a training step, drawn per
    asset; the others are scaled up [D]."""
    average_epochs: Annotated[float, NEW] = Field(default=0.0, ge=0)
    """Validate and keep an exponential moving average of the predictor's weights over about this
    many epochs; 0 = the latest weights [D]."""
    seeds: Annotated[tuple[Seed, ...], Affects.RUN, SOME, UNIQUE] = (0,)
    """One model per seed; their standardized scores are averaged."""
    precision: Literal["float32", "tf32", "bf16", "float64", "auto"] = "float32"
    """Arithmetic of the networks; a device that does not support it is an error. tf32: faster
    matrix products, GPUs only. bf16: autocast, weights stay float32. auto: bf16 if all devices of
    the run support it, else float32, decided once when the run starts (docs/training.md)."""
    compile: bool = False
    """Run the networks through `torch.compile`; faster on GPUs, not on CPUs."""
    checkpoint_every: Annotated[int, Affects.NOTHING] = Field(default=1, ge=1)
    """Number of epochs between checkpoints: the most that an interruption can cost."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class ResourcesConfig:
    """Resources of a run; they do not change results."""

    workers: int = Field(default=1, ge=1)
    """Workers per window, data-parallel over assets."""
    min_workers: int | None = Field(default=None, ge=1)
    """Minimum workers with which a window may start and continue; None = `workers`."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    """Ray CPUs per training worker or scoring actor."""
    gpus_per_worker: float = Field(default=0.0, ge=0)
    """Ray GPUs per training worker or scoring actor; fractions share a device."""
    threads_per_worker: int = Field(default=1, ge=1)
    """Number of torch threads per worker; two spinning threads can be slower than one."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Maximum number of windows trained at once, and of trials; None = as many as fit into the
    cluster."""
    windows_per_run: int | None = Field(default=None, ge=1)
    """Number of windows that a worker process trains before it is replaced; None = no limit on a
    CPU, one on a GPU. A group of several workers always trains one window."""
    max_failures: int = Field(default=2, ge=0)
    """Number of restarts of a window's workers before the window counts as failed; of a process
    that scores or builds the panel, before the job stops."""
    wait_for_nodes_minutes: float = Field(default=0.0, ge=0)
    """On an autoscaling cluster: how long to wait until one window fits; 0 = do not wait. If set,
    all windows, or `max_concurrent` of them, are requested even if they do not fit yet; windows
    with several workers only if `max_concurrent` is set."""
    scratch_gb: float = Field(default=8.0, ge=0)
    """Disk space per worker, in GB, for a cache of what every epoch needs: standardized samples and
    the frozen generator's output; 0 = no cache, compute them in every epoch. On a GPU the cache is
    in GPU memory, in half of the worker's share of what is free; any size but 0 means that."""
    scoring_actors: int | None = Field(default=None, ge=1)
    """Number of scoring actors; None = as many as fit into the cluster."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class FactorConfig:
    """From a raw prediction to the factor [R]."""

    winsorize_mad: float = Field(default=5.0, gt=0)
    """Scores of a day are clipped at their median +- this x 1.4826 x MAD."""
    neutralize: tuple[Exposure, ...] = ("industry", "size")
    """Exposures that the cross-sectional regression removes."""
    quantiles: int = Field(default=10, ge=2, le=1000)
    """Number of quantiles; 1 = lowest factor."""
    members: Annotated[bool, NEW_RUN] = True
    """Score only the members of `panel.members`, where the panel marks them [D]."""
    min_assets: int = Field(default=10, ge=2)
    """A day with fewer scored assets gets no factor; the summary lists it."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class EvaluationConfig:
    """The monthly evaluation."""

    top_fraction: float = Field(default=0.1, gt=0, le=1)
    """Share of the universe held by the long portfolio [R]."""
    top_count: Annotated[int | None, NEW_RUN] = Field(default=None, ge=1)
    """Number of assets held, in place of the share `top_fraction` [D]."""
    weights: Annotated[Literal["equal", "score"], NEW_RUN] = "equal"
    """Weights of the targets: `equal` [R], or `score`: in proportion to how far the factor is above
    its mean over the universe [D]."""
    buffer: Annotated[float, NEW_RUN] = Field(default=1.0, ge=1)
    """A holding is sold only if it is no longer among the best `buffer` x the number of targets.
    With 2 and a tenth as targets, what falls out of the best fifth is sold [D]."""
    max_turnover: Annotated[float | None, NEW_RUN] = Field(default=None, gt=0, le=1)
    """Maximum one-way turnover of a rebalance; above it, all trades are cut by the same fraction;
    None = no maximum [D]."""
    industry_neutral: Annotated[bool, NEW_RUN] = False
    """Give each industry the weight that its number of assets has in the universe [D]."""
    cost_bps: float = Field(default=15.0, ge=0, lt=5000)
    """One-way trading cost in basis points; figures are reported with and without costs.
    At 5000, selling all and buying all anew would leave nothing."""
    sell_cost_bps: Annotated[float | None, NEW_RUN] = Field(default=None, ge=0, lt=5000)
    """Cost of a sale in basis points, stamp duty included; `cost_bps` then applies to purchases
    only. None = the same [D]."""
    days_per_year: Annotated[int, NEW_RUN] = Field(default=252, ge=200, le=366)
    """Number of trading days per year in annualized figures: 252 [R]; 243 in China."""
    delisting_loss: Annotated[float, NEW_RUN] = Field(default=0.0, ge=0, lt=1)
    """Fraction of its last price that a delisted asset loses when it is settled; applied to the
    portfolio and to every benchmark [D]."""
    picks: int = Field(default=50, ge=1)
    """Number of best assets to list [R]."""
    picks_per_industry: int = Field(default=10, ge=1)
    """Number of best assets to list per industry [R]."""
    members: Annotated[bool, NEW_RUN] = True
    """Evaluate only the members of `panel.members`, where the panel marks them [D]."""
    index: Annotated[str | None, NEW_RUN] = None
    """File of an index's daily closes, with the columns date and close: a second benchmark."""
    index_column: Annotated[str, NEW_RUN] = "close"
    """Column of `index` with the closes, for a file of several indices."""
    decay_horizons: Annotated[tuple[Count, ...], SOME] = (1, 5, 10, 20, 40, 60)
    """Holding periods for the IC decay, in trading days."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class ReportConfig:
    """Presentation of report.html and tuning.html; no figure depends on it."""

    language: Literal["en", "zh"] = "en"
    """Language of the pages; metrics.json and the CSV tables are always in English."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class SyntheticConfig:
    """The synthetic market of `--bars synthetic`."""

    assets: int = Field(default=200, ge=20)
    """Number of assets; some list late, some delist."""
    first: dt.date = dt.date(2017, 1, 3)
    """First trading day."""
    last: dt.date = dt.date(2020, 6, 30)
    """Last trading day."""
    signal_ic: float = Field(default=0.1, ge=0, le=0.3)
    """Planted correlation of the past 40 days' signal with the next 20 days' return; 0 = none.
    Above 0.3 the signal would leave hardly anything else."""
    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers of the market."""


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


def _make_search_space() -> dict[str, SearchRange | None]:
    """Return the settings that usually matter; `gan.*` is ignored if `variant` is gru."""
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

    space: dict[str, SearchRange | None] = field(default_factory=_make_search_space)
    """Setting that affects the model -> its range; `none` = do not search it. `[tune.space]` in a
    file replaces all entries; `--set tune.space.KEY={...}` changes one."""
    trials: Annotated[int, Affects.NOTHING] = Field(default=20, ge=1)
    """Total number of trials, across interruptions."""
    hours: Annotated[float | None, Affects.NOTHING] = Field(default=None, gt=0)
    """Stop after this time; the same command continues later."""
    windows: Annotated[tuple[dt.date, ...], Affects.NOTHING] = ()
    """Refit days that every trial trains on; empty = the last `max_windows` before `windows.first`,
    or the panel's first `max_windows` if that is not set."""
    max_windows: Annotated[int, Affects.NOTHING] = Field(default=2, ge=1)
    """Number of refit days if `windows` is empty."""
    spread_penalty: float = Field(default=0.5, ge=0)
    """Objective = mean of the windows' validation ICs - this x their standard deviation."""
    prune: bool = True
    """Stop a trial early (ASHA) if its running mean of validation IC is behind the others."""
    grace_epochs: int = Field(default=3, ge=1)
    """Number of predictor epochs before a trial may be stopped."""
    reduction: float = Field(default=3.0, gt=1)
    """ASHA's reduction factor: one in this many trials survives each rung."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How trials are proposed; `random` is the baseline."""
    startup_trials: int = Field(default=8, ge=1)
    """Number of random trials before TPE starts."""
    seed: int = Field(default=0, ge=0)
    """Seed of the proposals; models use the first of `training.seeds`."""


@dataclass(frozen=True, kw_only=True, slots=True, config=STRICT)
class RunConfig:
    """All settings of a run. Sections are documented in their classes."""

    variant: Annotated[Literal["gan_gru", "gru"], Affects.MODEL] = "gan_gru"
    """`gru` trains the predictor on the samples directly, without a GAN."""
    predictor: Annotated[str, NEW, AfterValidator(PREDICTORS.validate)] = "gru"
    """What maps a sample to a score: a network (`gru`, `lstm`, `transformer`), a baseline (`ridge`,
    `lightgbm`), or your own as `package.module:Class`. Section `gru` has its sizes."""
    callbacks: Annotated[tuple[str, ...], Affects.NOTHING, AfterValidator(_check_callbacks)] = ()
    """What receives every epoch, model, trial and report: `tensorboard` (files in the run's
    folder), `mlflow` (a server), or your own as `package.module:Class` (docs/tracking.md)."""
    bars: Annotated[BarsConfig, Affects.PANEL] = field(default_factory=BarsConfig)
    panel: Annotated[PanelConfig, Affects.PANEL] = field(default_factory=PanelConfig)
    universe: Annotated[UniverseConfig, Affects.MODEL] = field(default_factory=UniverseConfig)
    samples: Annotated[SampleConfig, Affects.MODEL] = field(default_factory=SampleConfig)
    label: Annotated[LabelConfig, Affects.MODEL] = field(default_factory=LabelConfig)
    windows: Annotated[WindowConfig, Affects.MODEL] = field(default_factory=WindowConfig)
    gan: Annotated[GanConfig, Affects.MODEL] = field(default_factory=GanConfig)
    gru: Annotated[GruConfig, Affects.MODEL] = field(default_factory=GruConfig)
    training: Annotated[TrainingConfig, Affects.MODEL] = field(default_factory=TrainingConfig)
    resources: Annotated[ResourcesConfig, Affects.NOTHING] = field(default_factory=ResourcesConfig)
    factor: Annotated[FactorConfig, Affects.RUN] = field(default_factory=FactorConfig)
    evaluation: Annotated[EvaluationConfig, Affects.RUN] = field(default_factory=EvaluationConfig)
    report: Annotated[ReportConfig, Affects.NOTHING] = field(default_factory=ReportConfig)
    synthetic: Annotated[SyntheticConfig, Affects.NOTHING] = field(default_factory=SyntheticConfig)
    tune: Annotated[TuneConfig, Affects.SEARCH] = field(default_factory=TuneConfig)

    @property
    def features(self) -> tuple[str, ...]:
        """Features of a sample, in the order of the model's input."""
        return self.samples.features or self.panel.features

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
