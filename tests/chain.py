"""The whole chain in this process, without Ray: bars -> panel -> window -> model -> factor."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from gangru_dist.bars.days import DayRule
from gangru_dist.bars.files import list_files
from gangru_dist.bars.formats import resolve_format
from gangru_dist.bars.headings import read_headings
from gangru_dist.bars.reader import group_units
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import Window, first_day, make_windows
from gangru_dist.panel import universe
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.bucket import BucketTask
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.stages import build_bucket
from gangru_dist.panel.staging import stage_unit
from gangru_dist.panel.store import read_block
from gangru_dist.panel.writer import make_manifest
from gangru_dist.runs.model import EpochResult
from gangru_dist.scoring.factor import to_factor
from gangru_dist.scoring.predictor import score_block
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import prepare
from gangru_dist.training.window import train_window


@dataclass(frozen=True)
class Outcome:
    """What one refit day led to."""

    weights: dict[str, Tensor]
    """Networks, optimizers, best epoch."""
    history: list[EpochResult]
    """One entry an epoch."""
    factor: pd.DataFrame
    """date, asset, score, factor, quantile: every scored row, sorted by (date, asset)."""
    block: PanelBlock
    """The panel from the first scored day's lookback on."""
    days: list[int]
    """Scored rows of the block."""
    scores: np.ndarray
    """(days, N), NaN outside the universe."""

    def known(self, day: dt.date) -> pd.DataFrame:
        """Rows of the factor table up to a day."""
        return self.factor[self.factor["date"] <= np.datetime64(day)].reset_index(drop=True)


def run_chain(bars: pa.Table, cfg: RunConfig, folder: Path) -> Outcome:
    """Train the only window of `cfg` and score the days after it."""
    root = Storage(str(folder / "storage"))
    return run_on(root, build_panel(bars, cfg, folder / "bars", root), cfg)


def run_on(root: Storage, manifest: Manifest, cfg: RunConfig) -> Outcome:
    """The same on a panel that is there."""
    windows, skipped = make_windows(
        manifest.calendar,
        cfg.windows,
        cfg.label,
        lookback=cfg.samples.lookback,
    )
    assert len(windows) == 1, (windows, skipped)
    state = train(root, manifest, windows[0], cfg)
    return score(root, manifest, windows[0], cfg, state)


def build_panel(bars: pa.Table, cfg: RunConfig, folder: Path, root: Storage) -> Manifest:
    """Both stages of the panel build over one parquet file."""
    folder.mkdir(parents=True)
    pq.write_table(bars, folder / "bars.parquet")
    form, count = resolve_format(cfg.bars), cfg.panel.buckets
    where: dict[str, Any] = {"panel": root.child("panel"), "buckets": count}
    files = list_files(str(folder))
    (unit,) = group_units(read_headings(str(folder), files, form))
    staged = stage_unit(str(folder), unit, "staging-x/unit", form=form, days=DayRule(), **where)
    task = BucketTask(
        features=cfg.panel.features,
        calendar=staged.dates,
        has_turnover_rate=True,
        form=form,
        files=tuple(file.name for file in files),
    )
    written = [build_bucket(number, staged.names, task, **where) for number in range(count)]
    return make_manifest(
        written, features=cfg.panel.features, buckets=count, calendar=staged.dates, source={}
    )


def read(
    root: Storage, manifest: Manifest, first: int, last: int, cfg: RunConfig, *, trading: bool
) -> PanelBlock:
    """What a run takes of the panel between two days of the calendar."""
    start, end = (manifest.calendar[day].astype(dt.date) for day in (first, last))
    return read_block(root, manifest, start=start, end=end, features=cfg.features, trading=trading)


def train(root: Storage, manifest: Manifest, window: Window, cfg: RunConfig) -> TrainingState:
    """What a worker does: the panel up to the refit day, then both stages."""
    start = first_day(window, cfg.samples.lookback)
    block = read(root, manifest, start, window.refit, cfg, trading=False)
    data = prepare(block, window, manifest.calendar, cfg)
    return train_window(data, TrainingState(cfg, 0), cfg, seed=0)


def score(
    root: Storage, manifest: Manifest, window: Window, cfg: RunConfig, state: TrainingState
) -> Outcome:
    """What a scoring actor does with the window's days."""
    weights = {name: tensor.clone() for name, tensor in state.tensors().items()}
    first = window.score_first - cfg.samples.lookback + 1
    block = read(root, manifest, first, window.score_last, cfg, trading=True)
    days = list(range(cfg.samples.lookback - 1, len(block.dates)))
    members = universe.select_universe(block, cfg.universe, cfg.samples.lookback)
    scores = score_block([state.network.eval()], block, days, members, cfg.samples)
    factor = to_factor(scores, block.industry[days], block.market_cap[days], cfg.factor)
    day, asset = np.nonzero(~np.isnan(scores))
    table = pd.DataFrame(
        {
            "date": block.dates[days][day],
            "asset": block.assets[asset],
            "score": scores[day, asset],
            "factor": factor.factor[day, asset],
            "quantile": factor.quantile[day, asset],
        }
    )
    history = state.progress.history
    return Outcome(weights, history, table, block, days, scores)
