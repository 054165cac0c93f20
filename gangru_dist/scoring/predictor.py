"""Turn a window's models and the panel into scores and a file of the factor table, without Ray.

Shapes: D days, N assets of a block, M members of one day's universe, T lookback, F features.
Scores are always in float32, or float64 if the weights are; so they do not depend on the kind
of machine. `Scorer` does a task and writes its file.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gangru_dist.base.errors import FactorError, PanelError
from gangru_dist.config.settings import SampleConfig
from gangru_dist.maths.calendar import Day, to_day
from gangru_dist.maths.cross_section import FLAT_SCORE, cs_zscore
from gangru_dist.models.precision import choose_device, prepare_torch
from gangru_dist.models.predictors import FactorNetwork
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.panel.store import read_block
from gangru_dist.panel.universe import select_universe
from gangru_dist.runs.run import Run, require_run
from gangru_dist.samples.standardize import Standardizer
from gangru_dist.scoring.factor import to_factor
from gangru_dist.scoring.files import FILE_SCHEMA, DataFile, write_file
from gangru_dist.scoring.plan import ScoringTask, expect_coverage, hash_models
from gangru_dist.training.checkpoint import read_model

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
        PanelError: There is no panel, or the day is no trading day of it, or has too few before it.
    """
    require_run(run)
    cfg, manifest = run.cfg, read_manifest(run.root, run.cfg.panel.features)
    date = np.datetime64(to_day(day, "day"))
    row = int(np.searchsorted(manifest.calendar, date))
    if row == len(manifest.calendar) or manifest.calendar[row] != date:
        first, last = manifest.calendar[[0, -1]]
        raise PanelError(f"{date} is no trading day of the panel, {first} to {last}.")
    lookback = cfg.samples.lookback
    if row < lookback - 1:
        raise PanelError(
            f"{date} is day {row + 1} of the panel, and a sample has {lookback} days "
            f"(samples.lookback). The panel has {len(manifest.calendar)} days; the first with "
            f"samples is day {lookback}."
        )
    start = manifest.calendar[row - lookback + 1]
    block = read_block(
        run.root,
        manifest,
        start=start.astype(dt.date),
        end=date.astype(dt.date),
        features=cfg.features,
        trading=False,
    )
    rule = replace(cfg.universe, members=cfg.factor.members)
    chosen = np.flatnonzero(select_universe(block, rule, lookback)[-1])
    standardizer = Standardizer(cfg.samples, cfg.features)
    panel, members = torch.from_numpy(block.features), torch.from_numpy(chosen)
    samples = standardizer.standardize_day(panel, lookback - 1, members)
    return Samples(
        assets=block.assets[chosen],
        channels=standardizer.channels,
        x=samples.double() if cfg.training.precision == "float64" else samples,
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
