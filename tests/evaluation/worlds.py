"""Small random markets and factor tables for the evaluation's tests; nothing of a real market."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from gangru_dist.config.settings import EvaluationConfig, LabelConfig, RunConfig
from gangru_dist.evaluation import summary
from gangru_dist.evaluation.market import to_market
from gangru_dist.evaluation.summary import Evaluation
from gangru_dist.panel.block import PanelBlock

INDUSTRIES = ("bank", "coal", "food")


def random_block(
    *, days: int = 150, assets: int = 30, seed: int = 0, first: str = "2019-01-02"
) -> PanelBlock:
    """Random walks with suspensions, delistings, late listings and price limits."""
    rng = np.random.default_rng(seed)
    dates = np.busday_offset(first, np.arange(days), roll="forward").astype("datetime64[D]")
    shape = (days, assets)
    price = 10 * np.exp(np.cumsum(rng.normal(0, 0.03, shape), axis=0))
    traded = rng.random(shape) > 0.1
    traded[: days // 3, 0] = False  # lists late
    traded[days // 2 :, 1] = False  # delists
    up = traded & (rng.random(shape) < 0.15)
    down = traded & ~up & (rng.random(shape) < 0.15)
    industry = np.tile(rng.integers(0, len(INDUSTRIES), assets), (days, 1)).astype(np.int16)
    return PanelBlock(
        dates=dates,
        assets=np.array([f"{number:06d}.SH" for number in range(assets)]),
        feature_names=(),
        features=np.empty((*shape, 0), dtype=np.float32),
        traded=traded,
        is_st=np.zeros(shape, dtype=bool),
        listed_days=np.full(shape, 500, dtype=np.int32),
        adj_close=np.where(traded, price, np.nan),
        market_cap=np.where(traded, price * 1e8, np.nan),
        industry=np.where(traded, industry, -1).astype(np.int16),
        industries=INDUSTRIES,
        limit_up=up,
        limit_down=down,
    )


def cut_block(block: PanelBlock, last: np.datetime64) -> PanelBlock:
    """The block as it was on its day `last`."""
    known = block.dates <= last
    days = {
        field.name: value[known]
        for field in dataclasses.fields(block)
        if isinstance(value := getattr(block, field.name), np.ndarray)
        and value.shape[:1] == block.dates.shape
    }
    return dataclasses.replace(block, **days)


def random_table(block: PanelBlock, *, seed: int = 1, quantiles: int = 10) -> pd.DataFrame:
    """A factor of pure noise for every traded (date, asset), unsorted."""
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(block.traded)
    factor = rng.normal(size=len(rows))
    table = pd.DataFrame(
        {
            "date": block.dates[rows].astype("datetime64[s]"),
            "asset": block.assets[columns],
            "score": factor + rng.normal(size=len(rows)),
            "factor": factor,
            "window": "2018-12-28",
            "model": "m",
        }
    )
    rank = table.groupby("date")["factor"].rank(pct=True, method="first")
    table["quantile"] = np.ceil(rank * quantiles).astype(int)
    return table.sample(frac=1, random_state=seed, ignore_index=True)


def evaluate(table: pd.DataFrame, block: PanelBlock, cfg: RunConfig) -> Evaluation:
    """The evaluation under a run's configuration, as its report has it."""
    return summary.evaluate(
        table,
        to_market(block),
        cfg.evaluation,
        entry_lag=cfg.label.entry_lag,
        quantiles=cfg.factor.quantiles,
    )


def config(*, entry_lag: int = 1, top_fraction: float = 0.1, cost_bps: float = 15) -> RunConfig:
    """A configuration with what the evaluation depends on."""
    return RunConfig(
        label=LabelConfig(entry_lag=entry_lag),
        evaluation=EvaluationConfig(top_fraction=top_fraction, cost_bps=cost_bps),
    )
