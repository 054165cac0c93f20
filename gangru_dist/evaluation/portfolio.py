"""The long portfolio and its benchmark, day by day, with all trading rules.

**Targets** of a rebalance day are the `floor(top_fraction x universe)` assets with the highest
factor, or the best `top_count`, at least one; ties go to the alphabetically first asset. Settings
change which assets are targets and what each is to weigh:

- `buffer`: holdings among the best `floor(buffer x targets)` come first, then the best others. What
  is held is what the trades before wanted and left, known at the signal's close.
- `industry_neutral`: each industry has its share of the universe's members, of targets (by largest
  remainder, at least one; the largest have one each if there are fewer targets than industries)
  and of weight; unknown is an industry of its own.
- `weights`: `score` is in proportion to the factor's distance above its mean over the universe (or
  the industry); a target at or below that mean gets nothing, and all weigh alike if none is above.

**Trades** happen at the close of the entry day, `label.entry_lag` days later:

1. Held assets that are suspended or at the lower limit cannot be sold. Targets or not, they keep
   the weight they have drifted to.
2. Held targets at the upper limit cannot be bought and need not be sold; they keep theirs too.
3. Targets not held that are suspended or at the upper limit are not bought.
4. All other held assets that are not targets are sold.
5. The remaining capital is spread over the other targets: equally, or in proportion to what each
   is to weigh. If there are none, it stays in cash, without interest, until the next rebalance.
6. If that is more than `max_turnover`, each trade is cut by the same fraction, so that the turnover
   is `max_turnover`. The first purchase and what is settled are not cut. Sales that are cut leave
   small holdings, which are none to the buffer.

Between rebalances weights drift with prices. A suspended asset keeps its last price.

**An asset that trades no more** (`Market.has_ended`) is worth its last price less
`evaluation.delisting_loss` from the day on which it left the exchange; where that day is not known,
from the 250th day without a bar, so that no later bar changes what was sold before. The next trades
sell it, and it is not bought while it is silent. The benchmark and every return between two entry
days take the same loss.

A month-end without a factor, or with the same factor for all assets, trades nothing.

**The period** runs from the first entry day to the exit of the last factor whose month is over. The
newest factor is traded on that day; what it earns since is part of no figure.

**Costs** are a fraction of the traded value, of purchases and of sales each, paid by all positions
in proportion. A day's value is taken before the costs of that day's trades, so the first is 1.

**Turnover** is half the sum of absolute weight changes, including cash; the first purchase does
not count, nor do rebalances before it that can buy nothing.

**Benchmark:** the equal-weighted universe, rebalanced on the same days and drifting in between,
without trading restrictions and costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from gangru_dist.base.errors import EvaluationError
from gangru_dist.config.settings import EvaluationConfig
from gangru_dist.evaluation.market import Market, Rebalances
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
    sold: Float[np.ndarray, " T"]
    """Sales alone."""
    trades: pd.DataFrame
    """One row per rebalance: row (of `Rebalances`), turnover, held, targets, not_bought, not_sold,
    frozen_weight, settled (assets that trade no more), settled_weight, cash."""
    weights: Float[np.ndarray, "K N"]
    """Weights after the trades of each rebalance."""
    wanted: Bool[np.ndarray, "K N"]
    """What each rebalance had as a target, before its trades."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What trading costs: basis points of the value bought, and of the value sold."""

    buy_bps: float
    sell_bps: float

    def deduct(self, portfolio: Portfolio) -> Float[np.ndarray, " T"]:
        """Daily value after costs; those of a day's trades reduce the values of all later days."""
        dearer = portfolio.sold * (self.sell_bps - self.buy_bps)
        kept = np.cumprod(1.0 - (portfolio.traded * self.buy_bps + dearer) * 1e-4)
        return np.asarray(portfolio.value * np.append(1.0, kept[:-1]))


def to_costs(rules: EvaluationConfig) -> Costs:
    """The costs of these settings."""
    sell = rules.cost_bps if rules.sell_cost_bps is None else rules.sell_cost_bps
    return Costs(buy_bps=rules.cost_bps, sell_bps=sell)


def count_targets(members: int, rules: EvaluationConfig, *, times: float = 1.0) -> int:
    """Number of assets to hold of a universe of `members`, or `times` as many; at least one."""
    if rules.top_count is not None:
        return max(1, min(members, int(rules.top_count * times)))
    return _count_share(members, min(rules.top_fraction * times, 1.0))


def find_share(members: int, rules: EvaluationConfig) -> float:
    """Share of a universe of `members` that is held."""
    if rules.top_count is None:
        return rules.top_fraction
    return count_targets(members, rules) / max(members, 1)


def _count_share(members: int, fraction: float) -> int:
    return max(1, int(members * fraction + 1e-9))  # 0.29 x 100 is 28.999… in floats


def choose_top(factor: Float[np.ndarray, " N"], fraction: float) -> Bool[np.ndarray, " N"]:
    """The `floor(fraction x universe)` assets with the highest factor, at least one."""
    return choose_best(factor, _count_share(int(np.isfinite(factor).sum()), fraction))


def choose_best(
    factor: Float[np.ndarray, " N"],
    count: int,
    *,
    held: Bool[np.ndarray, " N"] | None = None,
    buffer: float = 1.0,
) -> Bool[np.ndarray, " N"]:
    """The `count` assets with the highest factor; `held` ones above the buffer's end first."""
    universe = np.flatnonzero(np.isfinite(factor))
    order = universe[np.argsort(-factor[universe], kind="stable")]
    if held is not None:
        stays = held[order] & (np.arange(len(order)) < int(buffer * count + 1e-9))
        order = order[np.argsort(~stays, kind="stable")]
    chosen = np.zeros(len(factor), dtype=bool)
    chosen[order[:count]] = True
    return chosen


def choose_tops(
    factor: Float[np.ndarray, "K N"], rules: EvaluationConfig, *, times: float = 1.0
) -> Bool[np.ndarray, "K N"]:
    """The best of each of K rebalances, by rank alone; `times` as many as the portfolio holds."""
    members = np.isfinite(factor).sum(axis=1)
    counts = [count_targets(int(number), rules, times=times) for number in members]
    return np.stack([choose_best(row, count) for row, count in zip(factor, counts, strict=True)])


def weigh_targets(
    factor: Float[np.ndarray, " N"],
    held: Bool[np.ndarray, " N"],
    industry: Int[np.ndarray, " N"],
    rules: EvaluationConfig,
) -> Float[np.ndarray, " N"]:
    """What each asset is to weigh, in proportion; 0 = it is no target.

    Args:
        factor: At the signal's close; NaN outside the universe.
        held: What the trades before wanted and left.
        industry: Code of each asset on that day, -1 where unknown.
        rules: Targets, weights, buffer and neutrality.
    """
    members = np.isfinite(factor)
    count = count_targets(int(members.sum()), rules)
    if not rules.industry_neutral:
        return _weigh(factor, held, count, rules)
    weights = np.zeros(len(factor))
    codes, sizes = np.unique(industry[members], return_counts=True)
    numbers = _share_out(count, sizes).tolist()
    for code, size, number in zip(codes, sizes, numbers, strict=True):
        if number:
            own = _weigh(np.where(industry == code, factor, np.nan), held, number, rules)
            weights += size / members.sum() * own / own.sum()
    return weights


def _share_out(count: int, sizes: Int[np.ndarray, " G"]) -> Int[np.ndarray, " G"]:
    """Divide `count` in proportion to `sizes` by largest remainder; at least one each.

    If `count` is below the number of sizes, the largest get one each.
    """
    shares = np.zeros(len(sizes), dtype=np.int64)
    shares[np.argsort(-sizes, kind="stable")[:count]] = 1
    for _ in range(count - len(sizes)):
        shares[np.argmax(count * sizes / sizes.sum() - shares)] += 1
    return shares


def _weigh(factor: np.ndarray, held: np.ndarray, count: int, rules: EvaluationConfig) -> np.ndarray:
    chosen = choose_best(factor, count, held=held, buffer=rules.buffer)
    if rules.weights == "score":
        above = np.where(chosen, np.maximum(factor - np.nanmean(factor), 0.0), 0.0)
        if above.any():
            return above
    return chosen.astype(np.float64)


def rebalance(
    weights: Float[np.ndarray, " N"],
    targets: Shaped[np.ndarray, " N"],
    *,
    no_buy: Bool[np.ndarray, " N"],
    no_sell: Bool[np.ndarray, " N"],
) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Trade by the rules 1 to 5 above.

    Args:
        weights: Before the trades.
        targets: What each asset is to weigh, in proportion; or whether it is to be held.
        no_buy: Suspended, or at the upper limit.
        no_sell: Suspended, or at the lower limit.

    Returns:
        The weights after the trades, 1 minus their sum is cash; and the held assets that keep
        their drifted weight, by rules 1 and 2.
    """
    wanted = targets > 0
    frozen = (weights > 0) & (no_sell | (wanted & no_buy))
    buyable = wanted & ~frozen & ~no_buy
    after = np.where(frozen, weights, 0.0)
    if buyable.any():
        left = max(0.0, 1.0 - after.sum())
        after[buyable] = left * targets[buyable] / targets[buyable].sum()
    return after, frozen


def cap_turnover(
    before: Float[np.ndarray, " N"],
    after: Float[np.ndarray, " N"],
    ended: Bool[np.ndarray, " N"],
    most: float,
) -> Float[np.ndarray, " N"]:
    """The weights after trades that are cut, all by the same fraction, to a turnover of `most`.

    What has `ended` is settled whatever that takes. The first purchase, out of cash, is whole.
    """
    start = np.where(ended, 0.0, before)
    turnover = _turn_over(start, after)
    if not before.any() or turnover <= most:
        return after
    return np.asarray(start + (after - start) * (most / turnover))


def _turn_over(before: np.ndarray, after: np.ndarray) -> float:
    cash = [1.0 - weights.sum() for weights in (before, after)]
    return metrics.turnover(np.append(before, cash[0]), np.append(after, cash[1]))


def simulate_long(market: Market, rebalances: Rebalances, rules: EvaluationConfig) -> Portfolio:
    """The top of the universe under the trading rules, before costs.

    Raises:
        EvaluationError: `industry_neutral` of a panel without industries.
    """
    if rules.industry_neutral and not market.industries:
        raise EvaluationError(
            "evaluation.industry_neutral=true needs industries, and the panel has none. Build it "
            "of bars with an industry, or --set evaluation.industry_neutral=false."
        )

    def weigh(row: int, held: np.ndarray) -> np.ndarray:
        industry = market.industry[rebalances.day[row]]
        return weigh_targets(rebalances.factor[row], held, industry, rules)

    return _simulate(
        market,
        rebalances,
        weigh,
        no_buy=market.suspended | market.limit_up,
        no_sell=market.suspended | market.limit_down,
        max_turnover=rules.max_turnover,
    )


def find_targets(
    market: Market, rebalances: Rebalances, long: Portfolio, rules: EvaluationConfig, row: int
) -> Float[np.ndarray, " N"]:
    """What a rebalance wants to hold, before the trading rules: weights that sum to 1."""
    before = np.flatnonzero(long.trades["row"] < row)
    held = np.zeros(len(market.assets), dtype=bool)
    if len(before):
        held = (long.weights[before[-1]] > 0) & long.wanted[before[-1]]
    industry = market.industry[rebalances.day[row]]
    weights = weigh_targets(rebalances.factor[row], held, industry, rules)
    return np.asarray(weights / weights.sum())


def simulate_universe(market: Market, rebalances: Rebalances) -> Portfolio:
    """Equal weights in the whole universe, without restrictions."""
    none = np.zeros_like(market.suspended)
    return _simulate(
        market,
        rebalances,
        lambda row, _: np.isfinite(rebalances.factor[row]),
        no_buy=none,
        no_sell=none,
    )


def find_spans(rebalances: Rebalances) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that are traded, and between which of the market's days each is held: (K,) each.

    The last is held to the exit of its factor; one whose month is not over is only traded.
    """
    rows = rebalances.entered_rows
    starts, last = rebalances.entry[rows], rebalances.exit[rows[-1]]
    return rows, starts, np.append(starts[1:], last if last >= 0 else starts[-1])


def _simulate(
    market: Market,
    rebalances: Rebalances,
    weigh: Callable[[int, np.ndarray], np.ndarray],
    *,
    no_buy: Bool[np.ndarray, "D N"],
    no_sell: Bool[np.ndarray, "D N"],
    max_turnover: float | None = None,
) -> Portfolio:
    """Trade on each entry day; weights drift in between.

    `weigh` takes a row of `rebalances` and what is held of the targets before: what each asset is
    to weigh.
    """
    rows, starts, stops = (found.tolist() for found in find_spans(rebalances))
    first, end = starts[0], stops[-1]
    value, (traded, sold) = np.ones(end - first + 1), np.zeros((2, end - first + 1))
    weights, history, targets, trades = np.zeros(len(market.assets)), [], [], []
    was_target = weights > 0
    all_ended = market.has_ended[starts]
    for row, day, stop, ended in zip(rows, starts, stops, all_ended, strict=True):
        wanted = weigh(row, (weights > 0) & was_target)
        was_target = wanted > 0
        after, frozen = rebalance(
            weights, wanted * ~ended, no_buy=no_buy[day], no_sell=no_sell[day] & ~ended
        )
        if max_turnover is not None:
            after = cap_turnover(weights, after, ended, max_turnover)
        trades.append({"row": row, **_describe_trade(weights, after, was_target, frozen, ended)})
        change = after - weights
        traded[day - first], sold[day - first] = np.abs(change).sum(), -change[change < 0].sum()
        growth, weights = _drift(market, after, day, stop)
        value[day - first : stop - first + 1] = value[day - first] * growth
        history.append(after)
        targets.append(was_target)
    table = pd.DataFrame(trades)
    held_before = table["held"].cumsum().shift(fill_value=0) > 0
    table["turnover"] = table["turnover"].where(held_before)
    return Portfolio(
        days=np.arange(first, end + 1),
        value=value,
        traded=traded,
        sold=sold,
        trades=table,
        weights=np.array(history),
        wanted=np.array(targets),
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
    return {
        "turnover": _turn_over(before, after),
        "held": int((after > 0).sum()),
        "targets": int(targets.sum()),
        "not_bought": int((targets & (before == 0) & (after == 0)).sum()),
        "not_sold": int((frozen & ~targets).sum()),
        "frozen_weight": float(before[frozen].sum()),
        "settled": int((ended & (before > 0)).sum()),
        "settled_weight": float(before[ended].sum()),
        "cash": float(max(0.0, 1.0 - after.sum())),
    }
