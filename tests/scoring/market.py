"""A small panel with untrained models, built without Ray and without training."""

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.identity import model_identity
from gangru_dist.config.settings import (
    FactorConfig,
    GruConfig,
    LabelConfig,
    PanelConfig,
    RunConfig,
    SampleConfig,
    TrainingConfig,
    UniverseConfig,
    WindowConfig,
)
from gangru_dist.maths.calendar import make_windows
from gangru_dist.panel.manifest import Manifest, assign_buckets, panel_schema
from gangru_dist.panel.writer import make_manifest, write_bucket
from gangru_dist.runs.run import Run
from gangru_dist.runs.summaries import ScoreSummary
from gangru_dist.scoring.score import score_days
from gangru_dist.training.checkpoint import TrainingState, write_model

FEATURES = ("close", "volume", "daily_return")
DAYS = pd.bdate_range("2018-11-01", "2019-05-10")
BUCKETS = 4
RUN = "r"
CFG = RunConfig(
    variant="gru",
    panel=PanelConfig(features=FEATURES, buckets=BUCKETS),
    universe=UniverseConfig(min_listed_days=5, min_traded_days=4, min_assets=3),
    samples=SampleConfig(lookback=6),
    label=LabelConfig(horizon=3),
    windows=WindowConfig(history_days=30, sample_every=2, refit_months=(1, 3)),
    gru=GruConfig(hidden=5, layers=1, head=(4,)),
    training=TrainingConfig(seeds=(0,)),
    factor=FactorConfig(quantiles=3),
)


def run_of(root: Storage, cfg: RunConfig = CFG) -> Run:
    """The world's run."""
    return Run(root, RUN, cfg)


def score_here(run: Run, **asked: Any) -> ScoreSummary:
    """`score_days` without Ray."""
    return score_days(run, runner=map_here, **asked)


def make_rows(assets: int = 30, seed: int = 0, days: pd.DatetimeIndex = DAYS) -> pd.DataFrame:
    """Panel rows with suspended days, ST spells, new listings, holes in industry and size."""
    rng = np.random.default_rng(seed)
    names = [f"{i:06d}.SZ" for i in range(assets)]
    grid = pd.MultiIndex.from_product([names, DAYS], names=["asset", "date"])
    frame = grid.to_frame(index=False)
    count = len(frame)
    number = frame["asset"].str[:6].astype(int)
    frame = frame.assign(
        close=rng.random(count),
        volume=np.where(rng.random(count) < 0.1, np.nan, rng.random(count)),
        daily_return=rng.normal(size=count),
        is_st=(number == 3) & (frame["date"] > "2019-03-10"),
        list_date=pd.Timestamp("2018-01-05"),
        adj_close=rng.random(count),
        market_cap=np.where(rng.random(count) < 0.1, np.nan, np.exp(rng.normal(23, 1, count))),
        industry=np.array(["bank", "coal", None], dtype=object)[
            np.where(rng.random(count) < 0.1, 2, number % 2)
        ],
        limit_up=False,
        limit_down=False,
    )
    frame.loc[number == 4, "list_date"] = pd.Timestamp("2019-03-01")
    keep = rng.random(count) < 0.93
    keep &= (number != 4) | (frame["date"] >= "2019-03-01")
    return frame[keep & frame["date"].isin(days)].reset_index(drop=True)


def write_panel(
    root: Storage, frame: pd.DataFrame, days: pd.DatetimeIndex = DAYS, buckets: int = BUCKETS
) -> Manifest:
    """A whole panel store of these rows."""
    schema = panel_schema(FEATURES)
    frame = frame.sort_values(["asset", "date"])
    rows = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    panel = root.child("panel")
    bucket = assign_buckets(rows["asset"].to_pylist(), buckets)
    parts = {number: rows.filter(pa.array(bucket == number)) for number in range(buckets)}
    written = [write_bucket(panel, n, buckets, part) for n, part in parts.items() if len(part)]
    calendar = np.array(days, dtype="datetime64[D]")
    manifest = make_manifest(
        written, features=FEATURES, buckets=buckets, calendar=calendar, source={}
    )
    panel.write_json("manifest.json", manifest.to_json())
    return manifest


def write_models(root: Storage, manifest: Manifest, cfg: RunConfig = CFG, salt: int = 0) -> None:
    """An untrained model for every window and seed, under the run's name."""
    run = run_of(root, cfg)
    run.claim(overwrite=True)
    windows, _ = make_windows(
        manifest.calendar, cfg.windows, cfg.label, lookback=cfg.samples.lookback
    )
    for number, window in enumerate(windows):
        for seed in cfg.training.seeds:
            day: dt.date = manifest.calendar[window.refit].astype(dt.date)
            identity = model_identity(cfg, window.name, seed, manifest.fingerprint_to(day))
            state = TrainingState(cfg, seed=1000 * salt + 100 * number + seed)
            write_model(run, window.name, seed, state, identity=identity)


def make_world(path: str, cfg: RunConfig = CFG, frame: pd.DataFrame | None = None) -> Storage:
    """Panel and models below a folder."""
    root = Storage(path)
    manifest = write_panel(root, make_rows() if frame is None else frame)
    write_models(root, manifest, cfg)
    return root
