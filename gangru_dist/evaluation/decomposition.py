"""Break the long portfolio's excess return down, and measure the portfolio's exposures.

`decompose` takes the excess apart: which side earns it, and what is lost on the way to the account.
`path` leads from the picks, bought at the close that made the signal, to the account after costs.
All its values are yearly excess returns over the equal-weighted universe; `delay`, `limits`,
`rules` and `costs` are what each step changes. Rules are added one after the other, in the order of
`RULES`, to equal weights in the best of the universe. The other groups look at one question each,
without trading rules and costs: returns from one entry day to the next, equal weights at each.

| group | parts |
|---|---|
| `side`, a period | `long` = top less universe, `short` = universe less bottom of the same size |
| `size`, a period | `tilt` = what the picks' size deciles earned over the universe, `selection` =
the rest of `long`; `percentile` = mean size of the picks, 0.5 = the universe's |
| `path`, a year | `signal`, `delay`, `limits`, `rules`, `costs`, and their sum `net` |
| `rules`, a year | what each portfolio rule that is on adds to the excess after costs |
| `rules_gross`, a year | the same before costs, sums to `rules` of `path` |
| `rules_turnover`, a rebalance | what it adds to the turnover |
| `benchmark`, a year | gross excess of the account over the universe, `equal` or `cap` weighted |
| `breadth`, a year | excess of `half`, `once`, `twice` as many picks, traded after the delay |
| `trading`, a rebalance | `turnover` |

The other tables show the portfolio's industries, its styles (size, volatility, turnover) and the
capital that it could take. A style is standardized over the universe of its day: the equal-weighted
universe is at 0, and 1 is one standard deviation above it. Suspended holdings outside the universe
have no style.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from gangru_dist.config.settings import EvaluationConfig
from gangru_dist.evaluation.ic import compute_return
from gangru_dist.evaluation.market import UNKNOWN, Market, Rebalances
from gangru_dist.evaluation.portfolio import (
    Portfolio,
    choose_tops,
    find_spans,
    simulate_long,
    to_costs,
)
from gangru_dist.maths import metrics
from gangru_dist.maths.cross_section import cs_mean, cs_quantile

DAYS = 20
"""Trading days behind volatility, turnover and traded value."""
PARTICIPATION = 0.1
"""Share of a day's traded value that one order may take."""
STYLES = ("size", "volatility", "turnover")


def average_traded_value(market: Market, day: int) -> Float[np.ndarray, " N"]:
    """Mean traded value of the days with a bar among the last `DAYS`; NaN of none."""
    recent = market.traded_value[max(0, day - DAYS + 1) : day + 1].T
    return cs_mean(recent, np.isfinite(recent))


def compute_styles(
    market: Market, day: int, members: Bool[np.ndarray, " N"]
) -> dict[str, np.ndarray]:
    """Style -> (N,) value over the members' mean, in their standard deviations; NaN outside.

    size: log market cap. volatility: log standard deviation of the last `DAYS` daily returns, all
    of which must be there. turnover: log of the mean traded value over the market cap.
    """
    cap = market.market_cap[day]
    price = market.price[max(0, day - DAYS) : day + 1]
    returns = np.diff(price, axis=0) / price[:-1]
    whole = len(returns) == DAYS
    volatility = returns.std(axis=0, ddof=1) if whole else np.full(len(cap), np.nan)
    turnover = average_traded_value(market, day) / cap
    styles = {}
    for name, values in zip(STYLES, (cap, volatility, turnover), strict=True):
        known = members & np.isfinite(values) & (values > 0)
        styles[name] = np.full(len(values), np.nan)
        logs = np.log(values[known])
        if len(logs) > 1 and np.ptp(logs) > 0:
            styles[name][known] = (logs - logs.mean()) / logs.std(ddof=1)
    return styles


def tabulate_exposures(market: Market, rebalances: Rebalances, long: Portfolio) -> pd.DataFrame:
    """One row a rebalance that was traded: rebalance, size, volatility, turnover.

    Weighted mean of the holdings' styles after the trade; NaN if none is known.
    """
    exposures = np.full((len(long.weights), len(STYLES)), np.nan)
    days = rebalances.day[long.trades["row"].to_numpy()]
    factors = rebalances.factor[long.trades["row"].to_numpy()]
    for trade, (day, factor, weights) in enumerate(zip(days, factors, long.weights, strict=True)):
        styles = compute_styles(market, int(day), np.isfinite(factor))
        for column, values in enumerate(styles.values()):
            known = np.isfinite(values) & (weights > 0)
            if known.any():
                exposures[trade, column] = np.average(values[known], weights=weights[known])
    table = pd.DataFrame(exposures, columns=list(STYLES))
    table.insert(0, "rebalance", market.dates[days])
    return table


def tabulate_industry_weights(
    market: Market, rebalances: Rebalances, long: Portfolio
) -> pd.DataFrame:
    """One row an industry: its share of what is held, of the universe, and the difference.

    Columns: industry, weight, universe, active (of the newest trade), active_mean (of all trades).
    The universe counts every member once; cash counts nowhere.
    """
    names = [*market.industries, UNKNOWN]
    held, universe = np.zeros((2, len(long.weights), len(names)))
    for trade, (row, weights) in enumerate(zip(long.trades["row"], long.weights, strict=True)):
        groups = market.industry[rebalances.day[row]]  # -1, unknown, is the last
        np.add.at(held[trade], groups, weights / max(weights.sum(), 1e-12))
        members = np.isfinite(rebalances.factor[row])
        np.add.at(universe[trade], groups[members], 1 / members.sum())
    table = pd.DataFrame(
        {
            "industry": names,
            "weight": held[-1],
            "universe": universe[-1],
            "active": held[-1] - universe[-1],
            "active_mean": (held - universe).mean(axis=0),
        }
    )
    known: pd.DataFrame = table[(held + universe).sum(axis=0) > 0].reset_index(drop=True)
    return known


def estimate_capacity(
    market: Market, rebalances: Rebalances, weights: Float[np.ndarray, " N"]
) -> dict[str, Any]:
    """Traded value a day of the newest targets, and the capital that one day could absorb.

    `capital`: bought by these weights on one day, nine tenths of the targets stay within
    `PARTICIPATION` of their mean traded value of `DAYS` days. In currency; NaN where unknown.

    Args:
        market: Traded values.
        rebalances: Of which the newest counts.
        weights: `portfolio.find_targets` of it.
    """
    day = int(rebalances.day[rebalances.newest])
    targets = weights > 0
    values = average_traded_value(market, day)[targets]
    traded, room = (metrics.drop_nonfinite(one) for one in (values, values / weights[targets]))
    low, middle = np.quantile(traded, [0.1, 0.5]) if len(traded) else (np.nan, np.nan)
    return {
        "targets": int(targets.sum()),
        "days": DAYS,
        "participation": PARTICIPATION,
        "median_traded_value": middle,
        "lowest_tenth_traded_value": low,
        "capital": PARTICIPATION * np.quantile(room, 0.1) if len(room) else np.nan,
    }


_SIZES = 10


def decompose(
    market: Market,
    rebalances: Rebalances,
    long: Portfolio,
    universe: Portfolio,
    settings: EvaluationConfig,
) -> pd.DataFrame:
    """Columns group, part, value (a fraction; NaN where market caps are not known).

    Args:
        market: Prices and sizes.
        rebalances: The factor at the month-ends.
        long: `portfolio.simulate_long` of them.
        universe: `portfolio.simulate_universe` of them.
        settings: As of `long`, with its costs.
    """
    spans = find_spans(rebalances)
    over = spans[2] > spans[1]  # without a month that is only begun
    rows, starts, stops = (found[over] for found in spans)
    factor = rebalances.factor[rows]
    members = np.isfinite(factor)
    lag = int(starts[0] - rebalances.day[rows[0]])
    earned = compute_return(market, starts, stops)
    at_once = compute_return(market, starts - lag, stops - lag)
    days = int(stops[-1] - starts[0])
    picks = choose_tops(factor, settings)

    def annualize(growth: float) -> float:
        return float(growth ** (settings.days_per_year / days) - 1) if days else float("nan")

    def excess(chosen: np.ndarray, returns: np.ndarray) -> float:
        over = np.prod((1 + cs_mean(returns, chosen)) / (1 + cs_mean(returns, members)))
        return annualize(float(over))

    steps = {
        name: [annualize(float(one[-1] / universe.value[-1])) for one in values] + [turnover]
        for name, values, turnover in _apply_rules(market, rebalances, long, settings)
    }
    plain, (gross, net, _) = steps[""][0], list(steps.values())[-1]
    signal, delayed = excess(picks, at_once), excess(picks, earned)
    average = cs_mean(earned, members)
    bottom = choose_tops(-factor, settings)
    cap = market.market_cap[rebalances.day[rows]]
    known = np.where(members & (cap > 0), cap, 0.0)
    total = known.sum(axis=1, keepdims=True)
    weights = known / np.where(total > 0, total, np.nan)  # NaN in a period without any
    by_cap = np.prod(1 + np.where(members, weights * earned, 0.0).sum(axis=1))
    parts = {
        ("side", "long"): float((cs_mean(earned, picks) - average).mean()),
        ("side", "short"): float((average - cs_mean(earned, bottom)).mean()),
        **_split_by_size(cap, earned, members, picks),
        ("path", "signal"): signal,
        ("path", "delay"): delayed - signal,
        ("path", "limits"): plain - delayed,
        ("path", "rules"): gross - plain,
        ("path", "costs"): net - gross,
        ("path", "net"): net,
        ("benchmark", "equal"): gross,
        ("benchmark", "cap"): annualize(float(long.value[-1] / by_cap)),
        ("breadth", "half"): excess(choose_tops(factor, settings, times=0.5), earned),
        ("breadth", "once"): delayed,
        ("breadth", "twice"): excess(choose_tops(factor, settings, times=2), earned),
        ("trading", "turnover"): metrics.mean(long.trades["turnover"].to_numpy()),
    }
    for before, name in itertools.pairwise(steps):
        changes = np.subtract(steps[name], steps[before])
        for group, change in zip(("rules_gross", "rules", "rules_turnover"), changes, strict=True):
            parts[group, name] = float(change)
    table = pd.DataFrame([(*name, value) for name, value in parts.items()])
    return table.set_axis(["group", "part", "value"], axis=1)


RULES = ("industry_neutral", "weights", "buffer", "max_turnover")
"""Settings of the portfolio, in the order in which the decomposition turns them on."""


def _apply_rules(
    market: Market, rebalances: Rebalances, long: Portfolio, settings: EvaluationConfig
) -> list[tuple[str, tuple[np.ndarray, np.ndarray], float]]:
    """Without rules, then with one more each: its name, value before and after costs, turnover."""
    plain = EvaluationConfig()
    used = [name for name in RULES if getattr(settings, name) != getattr(plain, name)]
    rules = replace(settings, **{name: getattr(plain, name) for name in used})
    steps = []
    for name in ("", *used):
        if name:
            rules = replace(rules, **{name: getattr(settings, name)})
        one = long if rules == settings else simulate_long(market, rebalances, rules)
        turnover = metrics.mean(one.trades["turnover"].to_numpy())
        steps.append((name, (one.value, to_costs(rules).deduct(one)), turnover))
    return steps


def _split_by_size(
    cap: Float[np.ndarray, "P N"], earned: np.ndarray, members: np.ndarray, picks: np.ndarray
) -> dict[tuple[str, str], float]:
    """Split the picks' return into a part of their size and the rest; sizes of the signal day.

    Picks of unknown size count with all others of unknown size.
    """
    known = np.where(members & (cap > 0), cap, np.nan)
    average = cs_mean(earned, members)
    expected = np.zeros_like(earned)
    decile = cs_quantile(known, _SIZES)
    for number in range(_SIZES + 1):  # 0: unknown
        group = members & (decile == number)
        expected = np.where(group, cs_mean(earned, group)[:, None], expected)
    tilt = cs_mean(expected, picks) - average
    selection = cs_mean(earned, picks) - average - tilt
    percentile = pd.DataFrame(known).rank(axis=1).to_numpy()
    percentile = (percentile - 0.5) / np.maximum(np.isfinite(known).sum(axis=1), 1)[:, None]
    has_size = bool(np.isfinite(known).any(axis=1).all())
    values = (tilt.mean(), selection.mean(), metrics.mean(percentile[picks]))
    return {
        ("size", name): float(value) if has_size else float("nan")
        for name, value in zip(("tilt", "selection", "percentile"), values, strict=True)
    }
