"""A storage with the panel of a small random market, and a search that takes seconds on it."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from gangru_dist.base.storage import Storage
from gangru_dist.config.identity import from_dict, to_dict
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import Manifest, assign_buckets, panel_schema
from gangru_dist.panel.writer import make_manifest, write_bucket
from tests.training import worlds

SPACE = {
    "training.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "gru.hidden": {"low": 2, "high": 6, "step": 2},
    "label.transform": {"choices": ["zscore", "rank"]},
}


def config(**sections: Any) -> RunConfig:
    """A search of four trials on two of four windows, predictor only."""
    plain = to_dict(worlds.config(variant="gru"))
    ours: dict[str, Any] = {
        "windows": {"refit_months": [3, 4, 5]},
        "training": {"epochs": 4, "patience": 4},
        "tune": {"space": SPACE, "trials": 4, "startup_trials": 2, "grace_epochs": 1},
    }
    for given in (ours, sections):
        for name, section in given.items():
            both = {**plain[name], **section} if isinstance(section, dict) else section
            plain[name] = both
    return from_dict(plain)


def market(days: int = 200, assets: int = 30, seed: int = 0, lag: int = 0) -> PanelBlock:
    """Random features; a return follows the `daily_return` feature of 2 + `lag` days before."""
    block = worlds.block(seed, days=days, assets=assets)
    signal = np.nan_to_num(block.features[:, :, 3])
    noise = np.random.default_rng(seed + 1).normal(0, 0.02, signal.shape)
    returns = noise.copy()
    returns[2 + lag :] += 0.02 * signal[: -2 - lag]
    close = np.where(block.traded, np.exp(np.cumsum(returns, axis=0)), np.nan)
    return dataclasses.replace(block, adj_close=close)


def write_panel(root: Storage, block: PanelBlock) -> Manifest:
    """The panel store of a block."""
    rows, columns = np.nonzero(block.traded)
    order = np.lexsort((rows, columns))
    rows, columns = rows[order], columns[order]
    schema = panel_schema(block.feature_names)
    listed = block.dates[0] + np.zeros(len(rows), dtype=int)
    arrays: dict[str, Any] = {
        "date": block.dates[rows],
        "asset": block.assets[columns],
        "is_st": block.is_st[rows, columns],
        "list_date": listed,
        "adj_close": block.adj_close[rows, columns],
        "market_cap": np.ones(len(rows)),
        "industry": np.full(len(rows), "all"),
        "limit_up": np.zeros(len(rows), dtype=bool),
        "limit_down": np.zeros(len(rows), dtype=bool),
    }
    for index, name in enumerate(block.feature_names):
        arrays[name] = block.features[rows, columns, index]
    table = pa.table({name: pa.array(arrays[name]) for name in schema.names}).cast(schema)
    bucket = assign_buckets(table["asset"].to_pylist(), 8)
    panel = root.child("panel")
    parts = [(number, table.filter(pa.array(bucket == number))) for number in range(8)]
    written = [write_bucket(panel, number, 8, part) for number, part in parts if len(part)]
    source = {"uri": "made up"}
    manifest = make_manifest(
        written, features=block.feature_names, buckets=8, calendar=block.dates, source=source
    )
    panel.write_json("manifest.json", manifest.to_json())
    return manifest
