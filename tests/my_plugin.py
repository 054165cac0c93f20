"""A user's own code: what the documentation shows, and what `gangru check-plugin` must catch."""

import numpy as np
from torch import nn

from gangru_dist.features.price_volume import ago, feature

_calls: list[int] = []
received: list[tuple] = []


class Recorder:
    """Remembers what it receives; has no base class."""

    def __init__(self, run):
        self.run = run

    def on_figures(self, series, step, figures):
        received.append((series.name, step, *figures))

    def on_done(self, series, status, figures, facts):
        received.append((series.name, status))

    def close(self):
        received.append(("closed",))


class Broken:
    def __init__(self, run):
        pass

    def on_figures(self, series, step, figures):
        raise RuntimeError("long\nno room at http://me:secret@host/x")

    def on_done(self, series, status, figures, facts):
        raise SystemExit(1)


class Unmade:
    def __init__(self, run):
        raise RuntimeError("no key")


@feature("close", "volume")
def surprise(bars):
    """Return times the change of volume, of one day."""
    return (bars.close / ago(bars.close, 1) - 1) * (bars.volume / ago(bars.volume, 1) - 1)


@feature("close")
def tomorrow(bars):
    result = np.full_like(bars.close, np.nan)
    result[:-1] = bars.close[1:]
    return result


@feature("close")
def of_all_days(bars):
    return bars.close / np.nanmean(bars.close, axis=0)


@feature("close")
def market_relative(bars):
    return bars.close / np.nanmean(bars.close, axis=1, keepdims=True)


@feature("close")
def reads_more(bars):
    return bars.close / bars.open


@feature("close")
def spoils(bars):
    bars.close[:] = np.log(bars.close)
    return bars.close


@feature("close")
def infinite(bars):
    return bars.close / 0.0


def bare(bars):
    return bars.close


class Mean(nn.Module):
    """A line through the means over time."""

    def __init__(self, features, cfg):
        super().__init__()
        self.line = nn.Sequential(
            nn.Linear(features, cfg.hidden), nn.SiLU(), nn.Linear(cfg.hidden, 1, bias=False)
        )

    def forward(self, x):
        return self.line(x.mean(dim=1)).squeeze(-1)


class WithBias(Mean):
    def __init__(self, features, cfg):
        super().__init__(features, cfg)
        self.line[-1] = nn.Linear(cfg.hidden, 1)


class Batch(Mean):
    def __init__(self, features, cfg):
        super().__init__(features, cfg)
        self.line.insert(1, nn.BatchNorm1d(cfg.hidden))


class Dropping(Mean):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


class Flat(nn.Module):
    """A learned weight for each day and channel; drops some if it is told to."""

    def __init__(self, features, cfg, lookback):
        super().__init__()
        self.line = nn.Linear(features * lookback, 1, bias=False)
        self.drop = nn.Dropout(cfg.options.get("p", 0.0))

    def forward(self, x):
        return self.line(self.drop(x.flatten(1))).squeeze(-1)


class Least:
    """An estimator of one's own."""

    def __init__(self, features, cfg):
        self.ridge = cfg.options.get("ridge", 1.0)

    def fit(self, x, y):
        self.coef_ = np.linalg.solve(x.T @ x + self.ridge * np.eye(x.shape[1]), x.T @ y)

    def predict(self, x):
        return x @ self.coef_


class Failing(Mean):
    def forward(self, x):
        return super().forward(x).reshape(7, -1)


class Column(Mean):
    def forward(self, x):
        return super().forward(x)[:, None]


def squared(values, cfg):
    return np.sign(values) * values**2


def cumulated(values, cfg):
    return np.cumsum(values)


def shared_random(values, cfg):
    _calls.append(1)
    return values + len(_calls)
