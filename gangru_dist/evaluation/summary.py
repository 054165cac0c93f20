"""The whole evaluation in one call: a factor table and its market -> tables and figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from gangru_dist.base.errors import EvaluationError
from gangru_dist.base.records import Describable
from gangru_dist.config.settings import EvaluationConfig
from gangru_dist.evaluation import decomposition, ic, performance, picks, portfolio
from gangru_dist.evaluation.figures import VALUES, collect_figures, to_plain
from gangru_dist.evaluation.market import (
    Market,
    Rebalances,
    filter_members,
    settle_prices,
    to_rebalances,
)
from gangru_dist.evaluation.portfolio import Portfolio
from gangru_dist.maths import metrics


@dataclass(frozen=True)
class Note:
    """A sentence for the reader; its facts are kept apart so that it can be translated."""

    message: str
    """English, with `%(name)s` for each fact."""
    facts: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message % self.facts


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation(Describable):
    """All tables and figures of one factor table."""

    monthly: pd.DataFrame
    """`ic.compute_monthly_ic`, with the period's returns of portfolio and universe."""
    decay: pd.DataFrame
    """`ic.measure_decay`."""
    quantile_months: pd.DataFrame
    """`ic.tabulate_quantiles`."""
    quantiles: pd.DataFrame
    """`ic.summarize_quantiles`."""
    daily: pd.DataFrame
    """date, long, long_net, universe, excess, excess_net, and index if one is given: daily values
    that start at 1."""
    drawdowns: pd.DataFrame
    """`performance.list_drawdowns` of `long` and of `excess`, under the column `of`."""
    trades: pd.DataFrame
    """One row per rebalance: rebalance, entry, turnover, held, targets, not_bought, …"""
    yearly: pd.DataFrame
    """One row per calendar year."""
    industries: pd.DataFrame
    """`picks.tabulate_industries`."""
    decomposition: pd.DataFrame
    """`decomposition.decompose`: where the excess return comes from and what takes it away."""
    ranked: pd.DataFrame
    """`picks.rank_universe`."""
    dropped: pd.DataFrame
    """`picks.list_dropped`."""
    autocorrelation: pd.DataFrame
    """`ic.autocorrelate`."""
    exposures: pd.DataFrame
    """`decomposition.tabulate_exposures`."""
    industry_weights: pd.DataFrame
    """`decomposition.tabulate_industry_weights`."""
    coverage: pd.DataFrame
    """date, scored: assets with a factor on each day of the table."""
    weights: pd.DataFrame
    """Portfolio after each trade, entry days x assets that are ever held, fractions; the rest is
    cash. Target weights for a backtest engine, such as vectorbt's `targetpercent`."""
    notes: tuple[Note, ...]
    """Warnings for the reader; `metrics` has them in English."""
    metrics: dict[str, Any]
    """The run's part of metrics.json: plain JSON types, NaN as None."""

    def describe(self) -> dict[str, object]:
        """Its months and the figures that one asks for first."""
        judged = self.monthly.dropna(subset="ic")["month"]
        found = {
            "IC": ("{:+.4f}", self.metrics["ic"]["mean"]),
            "ICIR": ("{:.2f}", self.metrics["ic"]["icir"]),
            "excess a year": ("{:+.1%}", self.metrics["excess"]["annualized_return"]),
        }
        shown = {n: "none" if x is None else form.format(x) for n, (form, x) in found.items()}
        return {"months": len(judged), "first": judged.min(), "last": judged.max(), **shown}


def evaluate(
    table: pd.DataFrame,
    market: Market,
    cfg: EvaluationConfig,
    *,
    entry_lag: int,
    quantiles: int,
    index: pd.Series | None = None,
    note: Note | None = None,
) -> Evaluation:
    """Evaluate any factor table against the market.

    Args:
        table: Columns date, asset, factor; optionally `score`, the prediction before
            neutralization, which gets its own IC, and `quantile`, from 1 to `quantiles`. Without
            `quantile`, each month-end is divided into `quantiles`. Other columns are ignored.
        market: From the table's first day on; see `to_market`.
        cfg: Portfolio, trading costs and holding periods.
        entry_lag: Trading days from the factor to the trade.
        quantiles: Number of quantiles; 1 = lowest factor.
        index: Closes of a second benchmark by day, under its name.
        note: What the reader is told of the table first.

    Raises:
        EvaluationError: The table is empty, does not fit the market, has another number of
            quantiles, or spans less than one period; or the index does not cover it.
    """
    if cfg.members:
        table = filter_members(table, market)
    rebalances = to_rebalances(table, market, entry_lag=entry_lag, quantiles=quantiles)
    if "quantile" in table:
        _require_quantiles(table, quantiles)
    market = settle_prices(market, cfg.delisting_loss)
    long = portfolio.simulate_long(market, rebalances, cfg)
    universe = portfolio.simulate_universe(market, rebalances)
    daily = _tabulate_days(market, long, universe, portfolio.to_costs(cfg))
    monthly = _add_returns(ic.compute_monthly_ic(market, rebalances), daily)
    months = ic.tabulate_quantiles(market, rebalances, quantiles=quantiles)
    trades = _date_trades(market, rebalances, long)
    tables = {
        "monthly": monthly,
        "decay": ic.measure_decay(market, rebalances, cfg.decay_horizons),
        "quantile_months": months,
        "quantiles": ic.summarize_quantiles(months, quantiles=quantiles),
        "daily": daily,
        "drawdowns": _list_drawdowns(daily),
        "trades": trades,
        "yearly": _summarize_years(monthly, daily, trades, cfg.days_per_year),
        "industries": picks.tabulate_industries(market, rebalances, cfg),
        "decomposition": decomposition.decompose(market, rebalances, long, universe, cfg),
        "ranked": picks.rank_universe(market, rebalances, long, cfg),
        "dropped": picks.list_dropped(market, rebalances, long, cfg),
        "autocorrelation": ic.autocorrelate(rebalances),
        "exposures": decomposition.tabulate_exposures(market, rebalances, long),
        "industry_weights": decomposition.tabulate_industry_weights(market, rebalances, long),
        "coverage": _count_scored(table),
        "weights": _tabulate_weights(market, trades, long),
    }
    notes = [*([note] if note else []), *_list_notes(market, rebalances)]
    figures = collect_figures(
        tables, market, rebalances, long, cfg, entry_lag=entry_lag, quantiles=quantiles
    )
    if index is not None:
        beside, missing = performance.sample_index(index, market.dates[long.days])
        own, net = daily["long"].to_numpy(), daily["long_net"].to_numpy()
        daily["index"] = beside
        beside_index = performance.measure_against_index(own, net, beside, cfg.days_per_year)
        figures["index"] = {"name": index.name, **beside_index}
        if missing:
            notes.append(
                Note(
                    "The index %(name)s has no close on %(days)s trading day(s): "
                    "the one before stands.",
                    {"name": str(index.name), "days": str(missing)},
                )
            )
    figures["notes"] = [str(note) for note in notes]
    return Evaluation(**tables, notes=tuple(notes), metrics=to_plain(figures))


def _require_quantiles(table: pd.DataFrame, quantiles: int) -> None:
    """Check that the table was divided into this number of quantiles.

    Without ties, the best asset of a day is always in the highest quantile.
    """
    highest = int(table["quantile"].fillna(0).max())
    best = table["factor"] == table.groupby("date")["factor"].transform("max")
    has_single_best = (best.groupby(table["date"]).sum() == 1).any()
    if highest > quantiles or (highest < quantiles and has_single_best):
        raise EvaluationError(
            f"the factor table has quantiles up to {highest}, but factor.quantiles is {quantiles}. "
            "Run `gangru score` with these settings first; it scores those days again."
        )


def _tabulate_days(
    market: Market, long: Portfolio, universe: Portfolio, costs: portfolio.Costs
) -> pd.DataFrame:
    """Daily values; excess = long / universe, so that it grows by the geometric excess return."""
    net = costs.deduct(long)
    return pd.DataFrame(
        {
            "date": market.dates[long.days],
            "long": long.value,
            "long_net": net,
            "universe": universe.value,
            "excess": long.value / universe.value,
            "excess_net": net / universe.value,
        }
    )


def _add_returns(monthly: pd.DataFrame, daily: pd.DataFrame) -> pd.DataFrame:
    """Add each period's returns of long, long_net and universe, and the geometric excess.

    And `excess_value`: long over universe at its exit, 1 on the first day.
    """
    values = daily.set_index("date")
    start, stop = values.loc[monthly["entry"]], values.loc[monthly["exit"]]
    names = ["long", "long_net", "universe", "excess"]
    returns = stop[names].to_numpy() / start[names].to_numpy() - 1
    columns = dict(zip([f"{name}_return" for name in names], returns.T, strict=True))
    return monthly.assign(**columns, excess_value=stop["excess"].to_numpy())


def _date_trades(market: Market, rebalances: Rebalances, long: Portfolio) -> pd.DataFrame:
    """The portfolio's trades with dates and the size of the universe."""
    rows = long.trades["row"].to_numpy()
    table = long.trades.drop(columns="row")
    table.insert(0, "rebalance", market.dates[rebalances.day[rows]])
    table.insert(1, "entry", market.dates[rebalances.entry[rows]])
    table.insert(2, "universe", rebalances.universe[rows])
    return table


def _tabulate_weights(market: Market, trades: pd.DataFrame, long: Portfolio) -> pd.DataFrame:
    """The portfolio's weights under their entry days; assets that are never held are left out."""
    held = long.weights.any(axis=0)
    days, assets = pd.DatetimeIndex(trades["entry"], name="date"), market.assets[held]
    return pd.DataFrame(long.weights[:, held], index=days, columns=pd.Index(assets, name="asset"))


def _list_drawdowns(daily: pd.DataFrame) -> pd.DataFrame:
    """The deepest of the portfolio and of its excess."""
    found = {
        name: performance.list_drawdowns(daily["date"], daily[name].to_numpy())
        for name in ("long", "excess")
    }
    return pd.concat(found, names=["of"]).reset_index(level=0)


def _summarize_years(
    monthly: pd.DataFrame, daily: pd.DataFrame, trades: pd.DataFrame, days_per_year: int
) -> pd.DataFrame:
    """One row per calendar year; the first and the last year may be incomplete.

    A year's return starts from the last value of the year before. ICs belong to the year of their
    month, turnover to the year of the entry day.
    """
    ic_year = monthly["month"].str[:4].astype(int)
    trade_year = trades["entry"].dt.year
    rows = []
    for year in sorted(daily["date"].dt.year.unique()):
        inside = np.flatnonzero(daily["date"].dt.year == year)
        span = daily[[*VALUES]].iloc[max(inside[0] - 1, 0) : inside[-1] + 1]
        growth = span.iloc[-1] / span.iloc[0] - 1
        values = monthly.loc[ic_year == year, "ic"].to_numpy()
        rows.append(
            {
                "year": int(year),
                "days": len(inside),
                "months": len(metrics.drop_nonfinite(values)),
                "ic": metrics.mean(values),
                "icir": metrics.icir(values),
                **{f"{name}_return": float(growth[name]) for name in VALUES},
                "long_volatility": metrics.annualized_volatility(
                    span["long"].to_numpy(), days_per_year
                ),
                "long_drawdown": metrics.max_drawdown(span["long"].to_numpy()),
                "turnover": metrics.mean(trades.loc[trade_year == year, "turnover"].to_numpy()),
            }
        )
    return pd.DataFrame(rows)


def _count_scored(table: pd.DataFrame) -> pd.DataFrame:
    """Number of assets with a factor on each day of the table."""
    scored = table.loc[table["factor"].notna()]
    counts = scored.groupby(pd.to_datetime(scored["date"])).size()
    return pd.DataFrame({"date": counts.index, "scored": counts.to_numpy()})


def _list_notes(market: Market, rebalances: Rebalances) -> list[Note]:
    """Warnings about missing data."""
    newest, days = rebalances.newest, market.dates[rebalances.day].astype(str)
    gaps = days[:newest][~rebalances.has_factor[:newest]]
    notes = []
    if len(gaps):
        notes.append(
            Note(
                "No factor on the month-ends %(days)s, or the same for all assets: no IC there, "
                "and the portfolio kept what it held.",
                {"days": ", ".join(gaps)},
            )
        )
    if (rebalances.entry[newest + 1 :] >= 0).any():  # else it may still be scored in time
        notes.append(
            Note(
                "No factor since %(newest)s, on the month-ends %(days)s: figures end with that "
                "factor, and the picks are that old.",
                {"newest": str(days[newest]), "days": ", ".join(days[newest + 1 :])},
            )
        )
    if rebalances.unpriced:
        notes.append(
            Note(
                "%(pairs)s values of the factor at month-ends are of assets without a price up to "
                "that day, not listed or suspended: left out.",
                {"pairs": str(rebalances.unpriced)},
            )
        )
    if not market.industries:
        notes.append(Note("The panel has no industries: industry tables are left out."))
    if not (market.limit_up | market.limit_down).any():
        notes.append(
            Note("The panel marks no price limits: every asset with a bar could be traded.")
        )
    return notes
