"""From a window's models and the panel to scores, the factor and its quantile, without Ray.

Shapes: D days, N assets of a block, M members of one day's universe, T lookback, F features.
Scores are always in float32, or float64 if the weights are; so they do not depend on the machine
kind. `to_factor` (docs/method.md, 5) is pure; `Scorer` does a task and writes its file.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gangru_dist.base.errors import FactorError
from gangru_dist.config.settings import FactorConfig, SampleConfig
from gangru_dist.maths.cross_section import (
    FLAT_SCORE,
    cs_neutralize,
    cs_quantile,
    cs_winsorize,
    cs_zscore,
)
from gangru_dist.models.predictors import FactorNetwork
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.store import PanelBlock, read_block
from gangru_dist.runs.run import Run
from gangru_dist.samples.channels import Standardizer
from gangru_dist.samples.universe import select_universe
from gangru_dist.scoring.plan import ScoringTask, ensemble_model, expect_coverage
from gangru_dist.scoring.table import FILE_SCHEMA, DataFile, write_file
from gangru_dist.training.checkpoint import read_model
from gangru_dist.training.collective import promised_device

MIN_KNOWN = 0.5
"""Share of scored assets with an industry (a market cap) below which a day is not neutralized by
it: most assets would not be adjusted. An assumption, not studied."""

_NOISE = 1e-10
"""Residuals of z-scores below this are rounding errors and are set to 0."""


@dataclass(frozen=True, kw_only=True)
class Factor:
    """Factor values of D days and N assets, and how they were computed."""

    factor: Float[np.ndarray, "D N"]
    """float64, mean 0 and standard deviation 1 per day; NaN without a score and on days with
    fewer than `min_assets` scores."""
    quantile: Int[np.ndarray, "D N"]
    """1 = lowest ... q = highest, 0 where there is no factor."""
    scored: Int[np.ndarray, " D"]
    """Assets with a score."""
    missing_industry: Int[np.ndarray, " D"]
    """Scored assets without an industry; they form one group."""
    missing_market_cap: Int[np.ndarray, " D"]
    """Scored assets without a market cap; they get their industry's mean size."""
    by_industry: Bool[np.ndarray, " D"]
    """Whether the day was neutralized by industry."""
    by_size: Bool[np.ndarray, " D"]
    """Whether the day was neutralized by log market cap."""

    def neutralized(self, day: int) -> str:
        """Exposures removed on a day: `industry+size`, `industry`, `size` or `` (none)."""
        parts = [("industry", self.by_industry[day]), ("size", self.by_size[day])]
        return "+".join(name for name, done in parts if done)


def to_factor(
    score: Float[np.ndarray, "D N"],
    industry: Int[np.ndarray, "D M"] | None,
    market_cap: Float[np.ndarray, "D M"] | None,
    cfg: FactorConfig,
) -> Factor:
    """Winsorize, z-score, take the residual on industry and log size, z-score again [R].

    Args:
        score: pRet of the universe, NaN = not a member.
        industry: Codes, -1 = unknown; None or zero width = all unknown.
        market_cap: In currency, NaN = unknown; None or zero width = all unknown.
        cfg: Exposures to remove and the clip.

    Returns:
        The factor. Neutralization by an exposure is skipped on days with too little data
        (`MIN_KNOWN`); `by_industry`, `by_size` and the counts record it. A day whose scores are
        equal up to rounding (`FLAT_SCORE`) has factor 0 for all assets.
    """
    member = ~np.isnan(score)
    scored = member.sum(axis=1)
    if industry is None or industry.shape != score.shape:
        industry = np.full(score.shape, -1, dtype=np.int16)
    if market_cap is None or market_cap.shape != score.shape:
        market_cap = np.full(score.shape, np.nan)
    size = np.log(np.where(market_cap > 0, market_cap, np.nan))
    missing_industry = (member & (industry < 0)).sum(axis=1)
    missing_cap = (member & np.isnan(size)).sum(axis=1)
    enough = scored >= cfg.min_assets
    by_industry, by_size = (
        enough & (scored > 0) & (scored - missing >= MIN_KNOWN * scored) & (name in cfg.neutralize)
        for name, missing in (("industry", missing_industry), ("size", missing_cap))
    )
    clipped = cs_winsorize(score.astype(np.float64), mad=cfg.winsorize_mad)
    z = cs_zscore(clipped, flat=FLAT_SCORE)
    z = np.where(enough[:, None], z, np.nan)
    residual = cs_neutralize(
        z,
        groups=np.where(by_industry[:, None], industry, -1),  # else one group
        exposure=np.where(by_size[:, None], size, np.nan),  # else no regressor
    )
    factor = cs_zscore(np.where(np.abs(residual) < _NOISE, 0.0, residual))
    return Factor(
        factor=factor,
        quantile=cs_quantile(factor, cfg.quantiles),
        scored=scored,
        missing_industry=missing_industry,
        missing_market_cap=missing_cap,
        by_industry=by_industry,
        by_size=by_size,
    )


_CHUNK = 1024
"""Samples per forward pass: 4,000 at once need 250 MB for the gates and are no faster."""


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The models of one window, one per seed, in evaluation mode on one device."""

    window: str
    networks: tuple[FactorNetwork, ...]
    model: str
    """Hash of all weights."""


def load_ensemble(run: Run, window: str, seeds: tuple[int, ...], device: torch.device) -> Ensemble:
    """Load a window's models from storage.

    Raises:
        WindowError: One is missing or damaged.
    """
    loaded = [read_model(run, window, seed) for seed in sorted(seeds)]
    return Ensemble(
        window=window,
        networks=tuple(network.to(device).eval() for network, _ in loaded),
        model=ensemble_model(record for _, record in loaded),
    )


def predict(network: FactorNetwork, samples: Float[Tensor, "M T F"]) -> Float[np.ndarray, " M"]:
    """The network's prediction, pRet, for each sample."""
    with torch.inference_mode():
        return torch.cat([network(part) for part in samples.split(_CHUNK)]).cpu().numpy()


def score_day(
    ensemble: Ensemble,
    panel: Float[Tensor, "D N F"],
    day: int,
    members: Int[Tensor, " M"],
    standardizer: Standardizer,
) -> Float[np.ndarray, " M"]:
    """Score of each member: pRet, or with several seeds the mean of their z-scored pRet.

    Raises:
        FactorError: A prediction is not finite.
    """
    if not len(members):
        return np.empty(0, dtype=np.float32)
    dtype = next(ensemble.networks[0].parameters()).dtype
    samples = standardizer.standardize_day(panel, day, members).to(dtype)
    predicted = np.stack([predict(network, samples) for network in ensemble.networks])
    bad = int((~np.isfinite(predicted)).any(axis=0).sum())
    if bad:
        raise FactorError(
            f"{bad} of {len(members)} predictions of window {ensemble.window} (model "
            f"{ensemble.model}) are not finite. Delete windows/{ensemble.window} of the run, then "
            "run `gangru train` to train that window again."
        )
    if len(predicted) == 1:
        return np.asarray(predicted[0])
    return np.asarray(cs_zscore(predicted.astype(np.float64), flat=FLAT_SCORE).mean(axis=0))


def score_block(
    ensemble: Ensemble,
    block: PanelBlock,
    days: list[int],
    members: Bool[np.ndarray, "D N"],
    cfg: SampleConfig,
) -> Float[np.ndarray, "K N"]:
    """Scores of K days of a block, float64; NaN for assets outside that day's universe."""
    device = next(ensemble.networks[0].parameters()).device
    panel = torch.from_numpy(block.features).to(device)
    standardizer = Standardizer(cfg, block.feature_names)
    scores = np.full((len(days), len(block.assets)), np.nan)
    for row, day in enumerate(days):
        chosen = np.flatnonzero(members[day])
        index = torch.from_numpy(chosen).to(device)
        scores[row, chosen] = score_day(ensemble, panel, day, index, standardizer)
    return scores


class Scorer:
    """Does scoring tasks and writes their files; keeps models and block of the last window."""

    def __init__(self, run: Run) -> None:
        self._run, self._cfg = run, run.cfg
        self._manifest = read_manifest(run.root)
        self._device = promised_device(run.cfg)
        self._ensemble: Ensemble | None = None
        self._block: tuple[tuple[str, str], PanelBlock] | None = None

    def __call__(self, task: ScoringTask) -> DataFile:
        """Score a task's days and write their file, which no reader sees before the commit.

        Raises:
            FactorError: The models have changed since planning, or a prediction is not finite.
            PanelError: The panel was rebuilt meanwhile.
        """
        ensemble = self._load_models(task)
        block = self._read_panel(task)
        cfg = self._cfg
        days = [block.row(np.datetime64(day)) for day in task.days]
        rule = replace(cfg.universe, members=cfg.factor.members)
        members = select_universe(block, rule, cfg.samples.lookback)
        scores = score_block(ensemble, block, days, members, cfg.samples)
        factor = to_factor(scores, block.industry[days], block.market_cap[days], cfg.factor)
        # the panel as it is read here, not as it was planned with
        expected = expect_coverage(task.window, task.model, task.month, cfg, self._manifest)
        ranked = (~np.isnan(factor.factor)).sum(axis=1)
        covered = [
            replace(
                expected,
                date=date,
                traded=int(block.traded[day].sum()),
                universe=int(factor.scored[row]),
                ranked=int(ranked[row]),
                missing_industry=int(factor.missing_industry[row]),
                missing_market_cap=int(factor.missing_market_cap[row]),
                neutralized=factor.neutralized(row),
            )
            for row, (date, day) in enumerate(zip(task.days, days, strict=True))
        ]
        table = _make_table(task, block, scores, factor)
        return write_file(self._run.factor, task.month, table, covered)

    def _load_models(self, task: ScoringTask) -> Ensemble:
        if self._ensemble is None or self._ensemble.window != task.window:
            seeds = self._cfg.training.seeds
            self._ensemble = load_ensemble(self._run, task.window, seeds, self._device)
        if self._ensemble.model != task.model:
            raise FactorError(
                f"window {task.window} was trained again while it was scored (model {task.model} "
                f"became {self._ensemble.model}). Run the job again."
            )
        return self._ensemble

    def _read_panel(self, task: ScoringTask) -> PanelBlock:
        span = (task.block_start, task.block_end)
        if self._block is None or self._block[0] != span:
            self._block = None  # frees the old block before reading the new one
            first, last = (dt.date.fromisoformat(day) for day in span)
            names = self._cfg.features
            block = read_block(
                self._run.root, self._manifest, start=first, end=last, features=names, trading=True
            )
            self._block = (span, block)
        return self._block[1]


def _make_table(
    task: ScoringTask, block: PanelBlock, scores: np.ndarray, factor: Factor
) -> pa.Table:
    """Rows of the task's members, sorted by (date, asset)."""
    day, asset = np.nonzero(~np.isnan(scores))
    dates = np.array(task.days, dtype="datetime64[D]")[day]
    columns = {
        "date": pa.array(dates, pa.date32()),
        "asset": pa.array(block.assets[asset], pa.string()),
        "score": pa.array(scores[day, asset].astype(np.float32)),
        "factor": pa.array(factor.factor[day, asset], from_pandas=True),  # NaN -> null
        "quantile": pa.array(factor.quantile[day, asset], pa.int16()),
        "window": pa.array([task.window] * len(day), pa.string()),
        "model": pa.array([task.model] * len(day), pa.string()),
    }
    return pa.table(columns, schema=FILE_SCHEMA)
