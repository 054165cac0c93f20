"""Small made-up panels and configurations for the training tests."""

import dataclasses

import numpy as np

from gangru_dist.config.identity import from_dict
from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import Window, make_windows
from gangru_dist.panel.block import PanelBlock

DAYS, ASSETS = 130, 24


def config(**sections: dict) -> RunConfig:
    """Tiny networks, lookback 8, four features; `sections` override, nested by section."""
    values: dict = {
        "panel": {"features": ["open", "close", "volume", "daily_return"], "buckets": 8},
        "universe": {"min_listed_days": 5, "min_traded_days": 5, "min_assets": 5},
        "samples": {"lookback": 8},
        "label": {"horizon": 4},
        "windows": {"history_days": 60, "sample_every": 3},
        "gan": {"hidden": 6, "layers": 1, "noise_channels": 2, "channels": [2, 3], "epochs": 2},
        "gru": {"hidden": 5, "layers": 2, "head": [6, 4]},
        "training": {"epochs": 3, "learning_rate": 1e-3},
    }
    for name, section in sections.items():
        values[name] = {**values[name], **section} if isinstance(section, dict) else section
    return from_dict(values)


def block(seed: int = 0, *, days: int = DAYS, assets: int = ASSETS) -> PanelBlock:
    """Random walks with suspensions, one late listing and one spell of special treatment.

    Three industries, one asset changes its own; sizes; some of both unknown.
    """
    rng = np.random.default_rng(seed)
    traded = rng.random((days, assets)) > 0.05
    traded[:40, 3] = False
    close = np.exp(np.cumsum(rng.normal(0, 0.03, (days, assets)), axis=0))
    features = rng.normal(size=(days, assets, 4)).astype(np.float32)
    features[~traded] = np.nan
    features[traded & (rng.random(traded.shape) < 0.02), 2] = np.nan
    is_st = np.zeros_like(traded)
    is_st[50:70, 5] = True
    listed = np.arange(days)[:, None] - np.argmax(traded, axis=0)
    industry = np.tile(np.arange(assets) % 4 - 1, (days, 1)).astype(np.int16)
    industry[60:, 7] = 0
    market_cap = close * np.exp(rng.normal(20, 1, assets))
    market_cap[:, 11] = np.nan
    return PanelBlock(
        dates=np.datetime64("2020-01-01") + np.arange(days),
        assets=np.array([f"{i:06d}.SZ" for i in range(assets)]),
        feature_names=("open", "close", "volume", "daily_return"),
        features=features,
        traded=traded,
        is_st=is_st & traded,
        listed_days=listed.astype(np.int32),
        adj_close=np.where(traded, close, np.nan),
        market_cap=np.where(traded, market_cap, np.nan),
        industry=np.where(traded, industry, -1).astype(np.int16),
        industries=("Banks", "Coal", "Food"),
        limit_up=np.zeros_like(traded),
        limit_down=np.zeros_like(traded),
    )


def share(whole: PanelBlock, assets: np.ndarray) -> PanelBlock:
    """The panel of some of the assets (indices), with codes of its own for their industries."""
    part = cut(whole, slice(None), assets)
    used = np.unique(part.industry[part.industry >= 0])
    codes = np.append(np.searchsorted(used, np.arange(len(whole.industries))), -1)
    return dataclasses.replace(
        part,
        industry=codes[part.industry].astype(np.int16),
        industries=tuple(whole.industries[code] for code in used),
    )


def until(whole: PanelBlock, day: int) -> PanelBlock:
    """The panel up to and including a day."""
    return cut(whole, slice(0, day + 1), np.arange(len(whole.assets)))


def cut(whole: PanelBlock, days: slice, assets: np.ndarray) -> PanelBlock:
    """Some days and assets of a panel."""
    arrays = (
        "features", "traded", "is_st", "listed_days", "adj_close", "market_cap", "industry",
        "limit_up", "limit_down",
    )  # fmt: skip
    picked = {name: getattr(whole, name)[days][:, assets] for name in arrays}
    return dataclasses.replace(
        whole, dates=whole.dates[days], assets=whole.assets[assets], **picked
    )


def window(whole: PanelBlock, cfg: RunConfig) -> Window:
    """The first window of the panel's calendar (refit on 2020-03-31)."""
    windows = dataclasses.replace(cfg.windows, refit_months=(3,))
    made, skipped = make_windows(
        whole.dates,
        windows,
        cfg.label,
        lookback=cfg.samples.lookback,
    )
    assert made, skipped
    return made[0]
