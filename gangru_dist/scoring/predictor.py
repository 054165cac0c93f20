"""From a window's models and the panel to scores, the factor and its quantile, without Ray.

Shapes: D days, N assets of a block, M members of one day's universe, T lookback, F features.
Scores are always in float32, or float64 if the weights are; so they do not depend on the machine
kind. `to_factor` (docs/method.md, 5) is pure; `Scorer` does a task and writes its file.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gangru_dist.base.errors import FactorError, PanelError
from gangru_dist.config.settings import FactorConfig, SampleConfig
from gangru_dist.maths.calendar import Day, to_day
from gangru_dist.maths.cross_section import (
    FLAT_SCORE,
    cs_neutralize,
    cs_quantile,
    cs_winsorize,
    cs_zscore,
)
from gangru_dist.models.precision import choose_device, prepare_torch
from gangru_dist.models.predictors import FactorNetwork
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.panel.store import read_block
from gangru_dist.panel.universe import select_universe
from gangru_dist.runs.run import Run, require_run
from gangru_dist.samples.standardize import Standardizer
from gangru_dist.scoring.files import FILE_SCHEMA, DataFile, write_file
from gangru_dist.scoring.plan import ScoringTask, expect_coverage, hash_models
from gangru_dist.training.checkpoint import read_model

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
    removed: dict[str, Bool[np.ndarray, " D"]]
    """Whether the day was neutralized by `industry`, by `size` (log market cap)."""

    def name_exposures(self, day: int) -> str:
        """Exposures removed on a day: `industry+size`, `industry`, `size` or `` (none)."""
        return "+".join(name for name, days in self.removed.items() if days[day])


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
        (`MIN_KNOWN`); `removed` and the counts record it. A day whose scores are
        equal up to rounding (`FLAT_SCORE`) has factor 0 for all assets.
    """
    member = ~np.isnan(score)
    scored = member.sum(axis=1)
    if industry is None or industry.shape != score.shape:
        industry = np.full(score.shape, -1, dtype=np.int16)
    if market_cap is None or market_cap.shape != score.shape:
        market_cap = np.full(score.shape, np.nan)
    size = np.log(np.where(market_cap > 0, market_cap, np.nan))
    unknown = {"industry": industry < 0, "size": np.isnan(size)}
    missing = {name: (member & one).sum(axis=1) for name, one in unknown.items()}
    enough = scored >= cfg.min_assets
    removed = {
        name: enough & (scored - count >= MIN_KNOWN * scored) & (name in cfg.neutralize)
        for name, count in missing.items()
    }
    clipped = cs_winsorize(score.astype(np.float64), mad=cfg.winsorize_mad)
    z = cs_zscore(clipped, flat=FLAT_SCORE)
    z = np.where(enough[:, None], z, np.nan)
    residual = cs_neutralize(
        z,
        groups=np.where(removed["industry"][:, None], industry, -1),  # else one group
        exposure=np.where(removed["size"][:, None], size, np.nan),  # else no regressor
    )
    factor = cs_zscore(np.where(np.abs(residual) < _NOISE, 0.0, residual))
    return Factor(
        factor=factor,
        quantile=cs_quantile(factor, cfg.quantiles),
        scored=scored,
        missing_industry=missing["industry"],
        missing_market_cap=missing["size"],
        removed=removed,
    )


_CHUNK = 1024
"""Samples per forward pass: 4,000 at once need 250 MB for the gates and are no faster."""


def predict(network: FactorNetwork, samples: Float[Tensor, "M T F"]) -> Float[np.ndarray, " M"]:
    """The network's prediction, pRet, for each sample."""
    with torch.inference_mode():
        return torch.cat([network(part) for part in samples.split(_CHUNK)]).cpu().numpy()


def score_block(
    networks: Sequence[FactorNetwork],
    block: PanelBlock,
    days: Sequence[int],
    members: Bool[np.ndarray, "D N"],
    cfg: SampleConfig,
) -> Float[np.ndarray, "K N"]:
    """Scores of K days of a block, float64; NaN for assets outside that day's universe.

    A score is pRet, or with several networks, one per seed, the mean of their z-scored pRet.

    Raises:
        FactorError: A prediction is not finite.
    """
    weights = next(networks[0].parameters(), torch.empty(0))  # an estimator has none
    panel = torch.from_numpy(block.features).to(weights.device)
    standardizer = Standardizer(cfg, block.feature_names)
    scores = np.full((len(days), len(block.assets)), np.nan)
    for row, day in enumerate(days):
        chosen = np.flatnonzero(members[day])
        if not len(chosen):
            continue
        index = torch.from_numpy(chosen).to(weights.device)
        samples = standardizer.standardize_day(panel, day, index).to(weights.dtype)
        predicted = np.stack([predict(network, samples) for network in networks])
        if bad := int((~np.isfinite(predicted)).any(axis=0).sum()):
            raise FactorError(
                f"{bad} of {len(chosen)} predictions for {block.dates[day]} are not finite"
            )
        if len(predicted) > 1:
            predicted = cs_zscore(predicted.astype(np.float64), flat=FLAT_SCORE)
        scores[row, chosen] = predicted.mean(axis=0)
    return scores


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a model sees of a day."""

    assets: np.ndarray
    """(M,) str, the day's universe, ascending."""
    channels: tuple[str, ...]
    """C names."""
    x: Float[Tensor, "M T C"]
    """Standardized; the newest day is last."""


def read_samples(run: Run, day: Day) -> Samples:
    """Read what the run's models see of a day: standardized samples of its universe.

    `load_model(run, window)(samples.x)` are the scores of that day, with one seed.

    Raises:
        PanelError: There is no panel, or the day is no trading day of it.
    """
    require_run(run)
    cfg, manifest = run.cfg, read_manifest(run.root, run.cfg.panel.features)
    date = np.datetime64(to_day(day, "day"))
    row = int(np.searchsorted(manifest.calendar, date))
    if row == len(manifest.calendar) or manifest.calendar[row] != date:
        first, last = manifest.calendar[[0, -1]]
        raise PanelError(f"{date} is no trading day of the panel, {first} to {last}.")
    start = manifest.calendar[max(row - cfg.samples.lookback + 1, 0)]
    block = read_block(
        run.root,
        manifest,
        start=start.astype(dt.date),
        end=date.astype(dt.date),
        features=cfg.features,
        trading=False,
    )
    rule = replace(cfg.universe, members=cfg.factor.members)
    chosen = np.flatnonzero(select_universe(block, rule, cfg.samples.lookback)[-1])
    standardizer = Standardizer(cfg.samples, cfg.features)
    panel, members = torch.from_numpy(block.features), torch.from_numpy(chosen)
    return Samples(
        assets=block.assets[chosen],
        channels=standardizer.channels,
        x=standardizer.standardize_day(panel, len(block.dates) - 1, members),
    )


class Scorer:
    """Does scoring tasks and writes their files; keeps models and block of the last window."""

    def __init__(self, run: Run, panel: SharedPanel) -> None:
        """Take the threads of a worker for this process."""
        prepare_torch(run.cfg, scoring=True)
        self._run, self._panel = run, panel
        self._networks: list[FactorNetwork] = []
        self._block: PanelBlock | None = None
        self._key = ("", "", "")

    def __call__(self, task: ScoringTask) -> DataFile:
        """Score a task's days and write their file, which no reader sees before the commit.

        Raises:
            FactorError: The models have changed since planning, or a prediction is not finite.
            PanelError: The panel was rebuilt meanwhile, twice: a file is gone.
        """
        cfg = self._run.cfg
        block = self._load(task)
        days = [block.row(np.datetime64(day)) for day in task.days]
        rule = replace(cfg.universe, members=cfg.factor.members)
        members = select_universe(block, rule, cfg.samples.lookback)
        try:
            scores = score_block(self._networks, block, days, members, cfg.samples)
        except FactorError as error:
            raise FactorError(
                f"{error} (window {task.window}, model {task.model}). Delete windows/{task.window} "
                "of the run, then run `gangru train` to train that window again."
            ) from error
        factor = to_factor(scores, block.industry[days], block.market_cap[days], cfg.factor)
        manifest = self._panel.manifest
        expected = expect_coverage(task.window, task.model, task.month, cfg, manifest)
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
                neutralized=factor.name_exposures(row),
            )
            for row, (date, day) in enumerate(zip(task.days, days, strict=True))
        ]
        day, asset = np.nonzero(~np.isnan(scores))  # ascending by both
        columns = {
            "date": np.array(task.days, dtype="datetime64[D]")[day],
            "asset": pa.array(block.assets[asset], pa.string()),
            "score": scores[day, asset].astype(np.float32),
            "factor": pa.array(factor.factor[day, asset], from_pandas=True),  # NaN -> null
            "quantile": pa.array(factor.quantile[day, asset], pa.int16()),
            "window": pa.repeat(task.window, len(day)),
            "model": pa.repeat(task.model, len(day)),
        }
        return write_file(self._run.factor, pa.table(columns, schema=FILE_SCHEMA), covered)

    def _load(self, task: ScoringTask) -> PanelBlock:
        """Block of the task, once models and block of its window are read."""
        key = (task.window, task.block_start, task.block_end)
        if self._block is not None and self._key == key:
            return self._block
        self._block = None  # frees the old block before the new one is read
        run, cfg = self._run, self._run.cfg
        loaded = [read_model(run, task.window, seed) for seed in sorted(cfg.training.seeds)]
        model = hash_models(record for _, record in loaded)
        if model != task.model:
            raise FactorError(
                f"window {task.window} was trained again while it was scored (model {task.model} "
                f"became {model}). Run the job again."
            )
        device = choose_device(cfg)
        self._networks = [network.to(device) for network, _ in loaded]
        start, end = map(dt.date.fromisoformat, key[1:])
        self._block = self._panel.read(start=start, end=end, features=cfg.features, trading=True)
        self._key = key
        return self._block
