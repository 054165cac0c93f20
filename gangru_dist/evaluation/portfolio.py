"""The long portfolio and its benchmark, day by day, with all trading rules.

**Targets** of a rebalance day are the `floor(top_fraction x universe)` assets with the highest
factor, at least one; ties go to the alphabetically first asset.

**Trades** happen at the close of the entry day, `label.entry_lag` days later:

1. Held assets that are suspended or at the lower limit cannot be sold. Targets or not, they keep
   the weight they have drifted to.
2. Held targets at the upper limit cannot be bought and need not be sold; they keep theirs too.
3. Targets not held that are suspended or at the upper limit are not bought.
4. All other held assets that are not targets are sold.
5. The remaining capital is spread equally over the other targets. If there are none, it stays in
   cash, without interest, until the next rebalance.

Between rebalances weights drift with prices. A suspended asset keeps its last price.

**An asset that trades no more** is settled (`find_settlements`): on the day on which it left the
exchange, where that is known; else, once it was silent to the market's end, on the entry day of the
first rebalance after its last bar. From then on it is worth its last price less
`evaluation.delisting_loss`; the next trades sell it, and it is not bought again. The benchmark and
every return between two entry days take the same loss.

A month-end without a factor, or with the same factor for all assets, trades nothing.

**Costs** are a fraction of the traded value (purchases and sales), paid by all positions in
proportion. A day's value is taken before the costs of that day's trades, so the first value is 1.

**Turnover** is half the sum of absolute weight changes, including cash; the first purchase does
not count.

**Benchmark:** the equal-weighted universe, rebalanced on the same days and drifting in between,
without trading restrictions and costs.

**Beside an index**, with the daily active return a(t) = r_long(t) - r_index(t): the tracking error
is the standard deviation (n - 1) of a x sqrt(252), the information ratio the mean of a x 252 over
it, beta the covariance of r_long and r_index over the variance of r_index. The excess is
long / index, so that its growth is the geometric excess.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from gangru_dist.base.errors import EvaluationError
from gangru_dist.evaluation.market import Market, Rebalances, find_settlements
from gangru_dist.maths import metrics


@dataclass(frozen=True, kw_only=True)
class Portfolio:
    """Value of one unit of capital over T days, and what was traded at K rebalances."""

    days: Int[np.ndarray, " T"]
    """Rows of the market's dates, consecutive; the first is the first entry day."""
    value: Float[np.ndarray, " T"]
    """Without costs; starts at 1."""
    traded: Float[np.ndarray, " T"]
    """Purchases plus sales that day, as a fraction of the value; 0 on days without trades."""
    trades: pd.DataFrame
    """One row per rebalance: row (of `Rebalances`), turnover, held, targets, not_bought, not_sold,
    frozen_weight, settled (assets that trade no more), settled_weight, cash."""
    weights: Float[np.ndarray, "K N"]
    """Weights after the trades of each rebalance."""


def choose_top(factor: Float[np.ndarray, " N"], fraction: float) -> Bool[np.ndarray, " N"]:
    """The `floor(fraction x universe)` assets with the highest factor, at least one."""
    universe = np.flatnonzero(np.isfinite(factor))
    count = max(1, int(len(universe) * fraction + 1e-9))  # 0.29 x 100 is 28.999… in floats
    order = np.argsort(-factor[universe], kind="stable")
    chosen = np.zeros(len(factor), dtype=bool)
    chosen[universe[order[:count]]] = True
    return chosen


def choose_tops(factor: Float[np.ndarray, "K N"], fraction: float) -> Bool[np.ndarray, "K N"]:
    """Call `choose_top` for each of K rebalances."""
    return np.stack([choose_top(row, fraction) for row in factor])


def rebalance(
    weights: Float[np.ndarray, " N"],
    targets: Bool[np.ndarray, " N"],
    *,
    no_buy: Bool[np.ndarray, " N"],
    no_sell: Bool[np.ndarray, " N"],
) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Trade by the rules above.

    Args:
        weights: Before the trades.
        targets: What is to be held.
        no_buy: Suspended, or at the upper limit.
        no_sell: Suspended, or at the lower limit.

    Returns:
        The weights after the trades, 1 minus their sum is cash; and the held assets that keep
        their drifted weight, by rules 1 and 2.
    """
    frozen = (weights > 0) & (no_sell | (targets & no_buy))
    buyable = targets & ~frozen & ~no_buy
    after = np.where(frozen, weights, 0.0)
    if buyable.any():
        after[buyable] = max(0.0, 1.0 - after.sum()) / buyable.sum()
    return after, frozen


def simulate_long(market: Market, rebalances: Rebalances, *, top_fraction: float) -> Portfolio:
    """Equal weights in the top of the universe under the trading rules, before costs."""
    targets = choose_tops(rebalances.factor[rebalances.entered_rows], top_fraction)
    return _simulate(
        market,
        rebalances,
        targets,
        no_buy=market.suspended | market.limit_up,
        no_sell=market.suspended | market.limit_down,
    )


def simulate_universe(market: Market, rebalances: Rebalances) -> Portfolio:
    """Equal weights in the whole universe, without restrictions."""
    none = np.zeros_like(market.suspended)
    targets = np.isfinite(rebalances.factor[rebalances.entered_rows])
    return _simulate(market, rebalances, targets, no_buy=none, no_sell=none)


def deduct_costs(portfolio: Portfolio, cost_bps: float) -> Float[np.ndarray, " T"]:
    """Daily value after costs of `cost_bps` basis points of the traded value.

    The costs of a day's trades reduce the values of all later days.
    """
    kept = np.cumprod(1.0 - portfolio.traded * cost_bps * 1e-4)
    return np.asarray(portfolio.value * np.append(1.0, kept[:-1]))


def find_spans(market: Market, rebalances: Rebalances) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that are traded, and between which of the market's days each is held: (K,) each.

    The last is held to the exit of its factor, at most to the market's end.
    """
    rows = rebalances.entered_rows
    starts, last = rebalances.entry[rows], rebalances.exit[rows[-1]]
    return rows, starts, np.append(starts[1:], last if last >= 0 else len(market.dates) - 1)


def _simulate(
    market: Market,
    rebalances: Rebalances,
    targets: Bool[np.ndarray, "K N"],
    *,
    no_buy: Bool[np.ndarray, "D N"],
    no_sell: Bool[np.ndarray, "D N"],
) -> Portfolio:
    """Trade on each entry day; weights drift in between."""
    rows, starts, stops = (found.tolist() for found in find_spans(market, rebalances))
    first, end = starts[0], stops[-1]
    value, traded = np.ones(end - first + 1), np.zeros(end - first + 1)
    weights, history, trades = np.zeros(len(market.assets)), [], []
    settled = find_settlements(market, rebalances)
    for row, day, stop, wanted in zip(rows, starts, stops, targets, strict=True):
        ended = settled <= day
        after, frozen = rebalance(
            weights, wanted & ~ended, no_buy=no_buy[day], no_sell=no_sell[day] & ~ended
        )
        trades.append({"row": row, **_describe_trade(weights, after, wanted, frozen, ended)})
        traded[day - first] = np.abs(after - weights).sum()
        growth, weights = _drift(market, after, day, stop)
        value[day - first : stop - first + 1] = value[day - first] * growth
        history.append(after)
    table = pd.DataFrame(trades)
    table.loc[0, "turnover"] = np.nan
    return Portfolio(
        days=np.arange(first, end + 1),
        value=value,
        traded=traded,
        trades=table,
        weights=np.array(history),
    )


def _drift(market: Market, weights: np.ndarray, day: int, stop: int) -> tuple[np.ndarray, ...]:
    """Value of one unit on each day from `day` to `stop`, and the weights at the end."""
    held = np.flatnonzero(weights)
    cash = 1.0 - weights.sum()
    grown = weights[held] * (market.price[day : stop + 1, held] / market.price[day, held])
    growth = grown.sum(axis=1) + cash
    drifted = np.zeros(len(weights))
    drifted[held] = grown[-1] / growth[-1]
    return growth, drifted


def _describe_trade(
    before: np.ndarray,
    after: np.ndarray,
    targets: np.ndarray,
    frozen: np.ndarray,
    ended: np.ndarray,
) -> dict[str, int | float]:
    """A row of `Portfolio.trades`."""
    cash = [1.0 - weights.sum() for weights in (before, after)]
    return {
        "turnover": metrics.turnover(np.append(before, cash[0]), np.append(after, cash[1])),
        "held": int((after > 0).sum()),
        "targets": int(targets.sum()),
        "not_bought": int((targets & (before == 0) & (after == 0)).sum()),
        "not_sold": int((frozen & ~targets).sum()),
        "frozen_weight": float(before[frozen].sum()),
        "settled": int((ended & (before > 0)).sum()),
        "settled_weight": float(before[ended].sum()),
        "cash": float(max(0.0, cash[1])),
    }


def measure_value(value: Float[np.ndarray, " T"]) -> dict[str, float]:
    """Figures of a daily value; NaN where undefined."""
    return {
        "total_return": float(value[-1] / value[0] - 1),
        "annualized_return": metrics.annualized_return(value),
        "annualized_volatility": metrics.annualized_volatility(value),
        "information_ratio": metrics.information_ratio(value),
        "max_drawdown": metrics.max_drawdown(value),
    }


def sample_index(closes: pd.Series, days: np.ndarray) -> tuple[Float[np.ndarray, " T"], int]:
    """The index as a daily value from 1, and the number of days it has no close of.

    Args:
        closes: Above 0, by ascending, unique days; its name is the reader's.
        days: (T,) datetime64[D], trading days. One without a close keeps the one before.

    Raises:
        EvaluationError: The closes begin later or end earlier than these days.
    """
    first, last = closes.index[0], closes.index[-1]
    if first > days[0] or last < days[-1]:
        raise EvaluationError(
            f"evaluation.index={closes.name} has closes from {first:%Y-%m-%d} to "
            f"{last:%Y-%m-%d}, the portfolio runs from {days[0]} to {days[-1]}. Give closes "
            "of that whole time, or leave evaluation.index out."
        )
    wanted = pd.DatetimeIndex(days)
    value = closes.reindex(wanted, method="ffill").to_numpy()
    return np.asarray(value / value[0]), int((~wanted.isin(closes.index)).sum())


def measure_against_index(
    long: Float[np.ndarray, " T"], net: Float[np.ndarray, " T"], index: Float[np.ndarray, " T"]
) -> dict[str, object]:
    """Figures of the index and of the portfolio beside it; NaN where undefined.

    Args:
        long: Daily value of the portfolio without costs.
        net: The same with costs.
        index: Daily value of the index.
    """
    return {
        "value": measure_value(index),
        "excess": measure_value(long / index),
        "excess_with_costs": measure_value(net / index),
        **_measure_tracking(long, index),
        "with_costs": _measure_tracking(net, index),
    }


def _measure_tracking(long: np.ndarray, index: np.ndarray) -> dict[str, float]:
    ours, theirs = metrics.daily_returns(long), metrics.daily_returns(index)
    if len(ours) < 2:
        return dict.fromkeys(("tracking_error", "information_ratio", "beta"), np.nan)
    active, varies = ours - theirs, np.ptp(theirs) > 0
    error = float(active.std(ddof=1) * np.sqrt(metrics.DAYS_PER_YEAR))
    return {
        "tracking_error": error,
        "information_ratio": active.mean() * metrics.DAYS_PER_YEAR / error if error else np.nan,
        "beta": np.cov(ours, theirs)[0, 1] / theirs.var(ddof=1) if varies else np.nan,
    }
