"""The figures of metrics.json that follow from an evaluation's tables; `summary` adds the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gangru_dist.config.settings import EvaluationConfig
from gangru_dist.evaluation import decomposition, ic, performance, portfolio
from gangru_dist.evaluation.market import Market, Rebalances
from gangru_dist.evaluation.portfolio import Portfolio
from gangru_dist.maths import metrics

VALUES = ("long", "long_net", "universe", "excess", "excess_net")
"""Columns of `daily` that are values."""
_SETTINGS = ["top_fraction", "top_count", *decomposition.RULES]
_SETTINGS += ["cost_bps", "sell_cost_bps", "delisting_loss", "days_per_year"]
"""Settings of the evaluation that metrics.json repeats."""
_PICKED = ["rank", "asset", "weight", "rank_before", "traded_value"]
_MONTHLY = ["month", "ic", "ic_mean_12"]
_MONTHLY += ["long_return", "long_net_return", "universe_return", "excess_return", "excess_value"]
"""Columns of `ranked` and `monthly` that metrics.json holds."""
_RECORDS = ("decay", "autocorrelation", "yearly", "industries")
"""Tables that metrics.json holds whole."""


def collect_figures(
    tables: dict[str, pd.DataFrame],
    market: Market,
    rebalances: Rebalances,
    long: Portfolio,
    cfg: EvaluationConfig,
    *,
    entry_lag: int,
    quantiles: int,
) -> dict[str, Any]:
    """The figures that follow from an evaluation's tables, by name of its field.

    Args:
        tables: As `Evaluation` has them.
        market: With settled prices.
        rebalances: Of the factor.
        long: The portfolio.
        cfg: Settings of the evaluation; those in `_SETTINGS` are repeated.
        entry_lag: Repeated, as is the next.
        quantiles: Number of quantiles.
    """
    targets = portfolio.find_targets(market, rebalances, long, cfg, rebalances.newest)
    settings = {name: getattr(cfg, name) for name in _SETTINGS}
    main = (tables["monthly"], tables["daily"])
    return {
        "period": _describe_period(*main, market, rebalances),
        "settings": {"entry_lag": entry_lag, **settings, "quantiles": quantiles},
        "headline": _compare_headlines(*main, tables["trades"], cfg.days_per_year),
        **_summarize_tables(tables, cfg.days_per_year),
        "capacity": decomposition.estimate_capacity(market, rebalances, targets),
        "picks": tables["ranked"].head(cfg.picks)[_PICKED],
    }


def _compare_headlines(
    monthly: pd.DataFrame, daily: pd.DataFrame, trades: pd.DataFrame, days_per_year: int
) -> dict[str, dict[str, float]]:
    """What a reader wants first: figure -> its value, and as it stood without the last month."""
    if len(monthly) < 2:
        before = None
    else:
        until = monthly["entry"].iloc[-1]
        parts = (monthly[:-1], daily[daily["date"] <= until], trades[trades["entry"] <= until])
        before = _measure_headline(*parts, days_per_year)
    now = _measure_headline(monthly, daily, trades, days_per_year)
    return {
        name: {"value": value, "before": before[name] if before else float("nan")}
        for name, value in now.items()
    }


def _measure_headline(
    monthly: pd.DataFrame, daily: pd.DataFrame, trades: pd.DataFrame, days_per_year: int
) -> dict[str, float]:
    ics, excess = metrics.drop_nonfinite(monthly["ic"].to_numpy()), daily["excess"].to_numpy()
    return {
        "ic": metrics.mean(ics),
        "icir": metrics.icir(ics),
        "share_positive": metrics.mean((ics > 0).astype(np.float64)),
        "excess": metrics.annualized_return(excess, days_per_year),
        "excess_information_ratio": metrics.information_ratio(excess, days_per_year),
        "turnover": metrics.mean(trades["turnover"].to_numpy()),
    }


def _summarize_tables(tables: dict[str, pd.DataFrame], days_per_year: int) -> dict[str, Any]:
    """The figures that need nothing but the tables."""
    monthly, daily, exposures = tables["monthly"], tables["daily"], tables["exposures"]
    months = monthly["month"].to_numpy(dtype=np.str_)
    ics = {"ic": "ic", "ic_raw_score": "ic_score", "ic_pearson": "ic_pearson"}
    long_short = tables["quantile_months"]["long_short"].to_numpy()
    parts = tables["decomposition"].groupby("group", sort=False)
    values = {name: daily[name].to_numpy() for name in VALUES}
    return {
        **{
            name: ic.summarize_ic(monthly[column].to_numpy(), months)
            for name, column in ics.items()
        },
        **{
            name: performance.measure_value(values[of], days_per_year)
            for name, of in (("long", "long"), ("long_with_costs", "long_net"))
        },
        "universe": performance.measure_value(values["universe"], days_per_year),
        **{
            name: performance.measure_excess(values[of], values["universe"], days_per_year)
            for name, of in (("excess", "long"), ("excess_with_costs", "long_net"))
        },
        "turnover": metrics.mean(tables["trades"]["turnover"].to_numpy()),
        "settled": {
            "holdings": int(tables["trades"]["settled"].sum()),
            "largest_weight": tables["trades"]["settled_weight"].max(),
        },
        "quantiles": {
            "monotonicity": ic.measure_monotonicity(tables["quantiles"]),
            "long_short_mean": metrics.mean(long_short),
            "long_short_total": ic.compound_returns(long_short),
            "table": tables["quantiles"],
        },
        "decomposition": {
            group: dict(zip(r["part"], r["value"], strict=True)) for group, r in parts
        },
        **{name: tables[name] for name in _RECORDS},
        "monthly": monthly[_MONTHLY],
        "exposures": {
            "styles": [
                {
                    "style": name,
                    "newest": exposures[name].iloc[-1],
                    "mean": metrics.mean(exposures[name].to_numpy()),
                }
                for name in decomposition.STYLES
            ],
            "industries": tables["industry_weights"],
        },
        "changes": {
            "new": int((tables["ranked"]["change"] == "new").sum()),
            "dropped": len(tables["dropped"]),
        },
    }


def _describe_period(
    monthly: pd.DataFrame, daily: pd.DataFrame, market: Market, rebalances: Rebalances
) -> dict[str, Any]:
    """The period covered by the figures."""
    last = rebalances.newest
    return {
        "first_month": monthly["month"].iloc[0],
        "last_month": monthly["month"].iloc[-1],
        "months": len(monthly),
        "first_day": f"{daily['date'].iloc[0]:%Y-%m-%d}",
        "last_day": f"{daily['date'].iloc[-1]:%Y-%m-%d}",
        "newest_rebalance": str(market.dates[rebalances.day[last]]),
        "newest_universe": int(rebalances.universe[last]),
    }


def to_plain(value: Any) -> Any:
    """Return what JSON holds of figures: None for NaN and infinity, a table as its rows."""
    if isinstance(value, pd.DataFrame):
        value = value.to_dict("records")
    if isinstance(value, dict):
        return {str(name): to_plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [to_plain(inner) for inner in value]
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    return value
