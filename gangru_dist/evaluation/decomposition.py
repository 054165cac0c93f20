"""The excess return taken apart: which side earns it, and what is lost on the way to the account.

`path` leads from the picks at the close that made the signal to the account after costs, a year's
excess over the equal-weighted universe each; `delay`, `limits` and `costs` are what each step
changes. The other groups look at one question each, without trading rules and costs: returns from
one entry day to the next, equal weights at each.

| group | parts |
|---|---|
| `side`, a period | `long` = top less universe, `short` = universe less bottom of the same size |
| `size`, a period | `tilt` = what the picks' size deciles earned over the universe, `selection` =
the rest of `long`; `percentile` = mean size of the picks, 0.5 = the universe's |
| `path`, a year | `signal`, `delay`, `limits`, `costs`, and their sum `net` |
| `benchmark`, a year | gross excess of the account over the universe, `equal` or `cap` weighted |
| `breadth`, a year | excess of `half`, `once`, `twice` as many picks, traded after the delay |
| `trading`, a rebalance | `turnover` |
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from gangru_dist import metrics
from gangru_dist.cross_section import cs_quantile
from gangru_dist.evaluation.ic import period_return
from gangru_dist.evaluation.market import Market, Rebalances
from gangru_dist.evaluation.portfolio import Portfolio, after_costs, spans, top_assets

_SIZES = 10


def decompose(
    market: Market,
    rebalances: Rebalances,
    long: Portfolio,
    universe: Portfolio,
    *,
    top_fraction: float,
    cost_bps: float,
) -> pd.DataFrame:
    """Columns group, part, value (a fraction; NaN where market caps are not known).

    Args:
        market: Prices and sizes.
        rebalances: The factor at the month-ends.
        long: `portfolio.long_portfolio` of them.
        universe: `portfolio.universe_portfolio` of them.
        top_fraction: As of `long`.
        cost_bps: One-way costs, basis points.
    """
    rows, starts, stops = spans(market, rebalances)
    factor = rebalances.factor[rows]
    members = np.isfinite(factor)
    lag = int(starts[0] - rebalances.day[rows[0]])
    earned = period_return(market, starts, stops)
    at_once = period_return(market, starts - lag, stops - lag)
    days = int(stops[-1] - starts[0])
    picks = _top(factor, top_fraction)

    def excess(chosen: np.ndarray, returns: np.ndarray) -> float:
        over = np.prod((1 + _mean(returns, chosen)) / (1 + _mean(returns, members)))
        return _annual(float(over), days)

    gross, net = (
        _annual(float(value[-1] / universe.value[-1]), days)
        for value in (long.value, after_costs(long, cost_bps))
    )
    signal, delayed = excess(picks, at_once), excess(picks, earned)
    weights = _cap_weights(market.market_cap[rebalances.day[rows]], members)
    by_cap = np.prod(1 + np.where(members, weights * earned, 0.0).sum(axis=1))
    parts = {
        **_sides(earned, members, picks, _top(-factor, top_fraction)),
        **_size(market.market_cap[rebalances.day[rows]], earned, members, picks),
        ("path", "signal"): signal,
        ("path", "delay"): delayed - signal,
        ("path", "limits"): gross - delayed,
        ("path", "costs"): net - gross,
        ("path", "net"): net,
        ("benchmark", "equal"): gross,
        ("benchmark", "cap"): _annual(float(long.value[-1] / by_cap), days),
        ("breadth", "half"): excess(_top(factor, top_fraction / 2), earned),
        ("breadth", "once"): delayed,
        ("breadth", "twice"): excess(_top(factor, min(2 * top_fraction, 1.0)), earned),
        ("trading", "turnover"): metrics.mean(long.trades["turnover"].to_numpy()),
    }
    table = pd.DataFrame([(*name, value) for name, value in parts.items()])
    return table.set_axis(["group", "part", "value"], axis=1)


def _top(factor: Float[np.ndarray, "P N"], fraction: float) -> Bool[np.ndarray, "P N"]:
    return np.stack([top_assets(row, fraction) for row in factor])


def _mean(values: np.ndarray, chosen: np.ndarray) -> Float[np.ndarray, " P"]:
    total = np.where(chosen, values, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(chosen.sum(axis=1), 1))


def _annual(growth: float, days: int) -> float:
    return float(growth ** (metrics.DAYS_PER_YEAR / days) - 1) if days else float("nan")


def _sides(
    earned: np.ndarray, members: np.ndarray, top: np.ndarray, bottom: np.ndarray
) -> dict[tuple[str, str], float]:
    average = _mean(earned, members)
    return {
        ("side", "long"): float((_mean(earned, top) - average).mean()),
        ("side", "short"): float((average - _mean(earned, bottom)).mean()),
    }


def _size(
    cap: Float[np.ndarray, "P N"], earned: np.ndarray, members: np.ndarray, picks: np.ndarray
) -> dict[tuple[str, str], float]:
    """What the picks earned by their size, and beside it; sizes of the signal day.

    Picks of unknown size count with all others of unknown size.
    """
    known = np.where(members & (cap > 0), cap, np.nan)
    average = _mean(earned, members)
    expected = np.zeros_like(earned)
    decile = cs_quantile(known, _SIZES)
    for number in range(_SIZES + 1):  # 0: unknown
        group = members & (decile == number)
        expected = np.where(group, _mean(earned, group)[:, None], expected)
    tilt = _mean(expected, picks) - average
    selection = _mean(earned, picks) - average - tilt
    percentile = pd.DataFrame(known).rank(axis=1).to_numpy()
    percentile = (percentile - 0.5) / np.maximum(np.isfinite(known).sum(axis=1), 1)[:, None]
    has_size = bool(np.isfinite(known).any(axis=1).all())
    values = (tilt.mean(), selection.mean(), metrics.mean(percentile[picks]))
    return {
        ("size", name): float(value) if has_size else float("nan")
        for name, value in zip(("tilt", "selection", "percentile"), values, strict=True)
    }


def _cap_weights(
    cap: Float[np.ndarray, "P N"], members: Bool[np.ndarray, "P N"]
) -> Float[np.ndarray, "P N"]:
    """Shares of the known market caps; NaN in a period without any."""
    known = np.where(members & (cap > 0), cap, 0.0)
    total = known.sum(axis=1, keepdims=True)
    return np.asarray(known / np.where(total > 0, total, np.nan))
