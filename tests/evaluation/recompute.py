"""Every figure of metrics.json once more, from the factor table and the bars alone.

    python -m tests.evaluation.recompute --storage data/gangru --run default --bars data/bars

Prints each figure: ours, recomputed, difference; exit status 1 if one differs. Imports nothing of
gangru_dist: docs/method.md in plain pandas and loops, with the judgement of others where they
define a figure (scipy: correlations and t-test; statsmodels: Newey-West; the standard library:
standard deviation). Bars must have our own column names, or the run's `bars.columns`, and no row
that the panel would set aside; storage must be a folder.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import math
import re
import statistics
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

with warnings.catch_warnings():  # of their own making
    warnings.simplefilter("ignore")
    import statsmodels.api as sm

PUBLISHED = {
    "ic_mean": 0.1096,
    "ic_latest": -0.0105,
    "ic_mean_12": 0.0517,
    "icir": 0.87,
    "turnover": 0.82,
    "annualized_return": 0.3813,
    "annualized_volatility": 0.2318,
    "information_ratio": 1.64,
    "max_drawdown": 0.2729,
    "annualized_excess": 0.2232,
}
"""What the broker printed."""
TOLERANCE = 1e-9
"""Relative; prices are the same float64 products, only sums run in another order."""
FROM_AMOUNT = re.compile(r"capacity\..*|.*\.traded_value|exposures\.styles\[2\]\..*")
AMOUNT_TOLERANCE = 3e-5
"""Of figures from traded values: the panel keeps their logarithms as float32."""
PLAIN = {
    "top_count": None, "weights": "equal", "buffer": 1.0, "max_turnover": None,
    "industry_neutral": False,
}  # fmt: skip
"""Rules of a portfolio without rules, the only one that is recomputed here."""
LAGS = (1, 2, 3, 6, 12)
Settled = list[tuple[int, float]]
"""Number and weight of the holdings that trade no more, by trade."""
DAYS = 20
"""Behind volatility, turnover and traded value."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Settings that the figures depend on."""

    entry_lag: int
    top_fraction: float
    cost_bps: float
    quantiles: int
    horizons: tuple[int, ...]
    picks: int = 50
    loss: float = 0.0
    """Of an asset's last price, once it trades no more."""
    sell_cost_bps: float | None = None
    """Of sales, where it is another."""
    year: int = 252
    """Trading days."""
    limits: bool = True
    """Whether the A-share market's price limits hold."""


@dataclass
class Bars:
    """The market, day by asset."""

    days: list[pd.Timestamp]
    price: pd.DataFrame
    """Adjusted close, the last one carried on."""
    rows: pd.DataFrame
    """Traded rows by (date, code): close, adj_factor, is_st, industry, market_cap."""
    listed: dict[str, pd.Timestamp]
    limits: bool
    grids: dict[str, pd.DataFrame] = field(default_factory=dict)
    """amount, market_cap, adjusted close, day by asset; NaN without a bar."""
    before: dict[tuple[pd.Timestamp, str], float] = field(default_factory=dict)
    """Adjusted close of the asset's traded day before."""

    @cached_property
    def ended(self) -> dict[str, set[pd.Timestamp]]:
        """Of each asset the days from its 250th without a bar in a row on."""
        dates = self.rows.index.to_frame(index=False).groupby("code")["date"]
        found = {}
        for code, own in dates:
            traded = [bisect.bisect_left(self.days, day) for day in sorted(own)]
            spans = zip(traded, [*traded[1:], len(self.days)], strict=True)
            gone = [row for last, back in spans for row in range(last + 250, back)]
            found[code] = {self.days[row] for row in gone}
        return found

    def open(self, day: pd.Timestamp, code: str) -> bool:
        return (day, code) in self.rows.index

    def limit(self, day: pd.Timestamp, code: str) -> str:
        """`up`, `down` or nothing: where the asset closed that day."""
        if not self.limits or not self.open(day, code) or (day, code) not in self.before:
            return ""
        row = self.rows.loc[(day, code)]
        share = limit_share(code, day, bool(row.is_st), self.age(day, code))
        if share is None:
            return ""
        reference = cents(self.before[day, code] / row.adj_factor)
        close = Decimal(repr(round(float(row.close), 6)))
        if close >= cents(reference * (1 + share)) - Decimal("0.005"):
            return "up"
        return "down" if close <= cents(reference * (1 - share)) + Decimal("0.005") else ""

    def age(self, day: pd.Timestamp, code: str) -> int:
        """Trading days since listing; working days count before the calendar begins."""
        listing = self.listed[code]
        position = bisect.bisect_left(self.days, day)
        if listing >= self.days[0]:
            return position - bisect.bisect_left(self.days, listing)
        return position + len(pd.bdate_range(listing, self.days[0], inclusive="left"))


def cents(value: float | Decimal) -> Decimal:
    """To 0.01, halves up; what a float misses by 1e-8 counts as the half."""
    exact = value if isinstance(value, Decimal) else Decimal(repr(round(float(value), 8)))
    return (exact + Decimal("1e-8")).quantize(Decimal("0.01"), ROUND_HALF_UP)


def limit_share(code: str, day: pd.Timestamp, is_st: bool, age: int) -> Decimal | None:
    """The exchanges' rules (docs/data.md); None = no limit that day."""
    digits = "".join(filter(str.isdigit, code)).zfill(6)[:6]
    star = digits[:3] in ("688", "689")
    growth = digits[:3] in ("300", "301", "302")
    beijing = digits[:2] in ("43", "83", "87", "88", "92")
    free = star or (growth and day >= pd.Timestamp("2020-08-24"))
    main = not (star or growth or beijing)
    unlimited = 5 if free or (main and day >= pd.Timestamp("2023-04-10")) else 1
    if 0 <= age < unlimited:
        return None
    if beijing:
        return Decimal("0.30")
    if free:
        return Decimal("0.20")
    special = is_st and (not main or day < pd.Timestamp("2026-07-06"))
    return Decimal("0.05") if special else Decimal("0.10")


def to_bars(frame: pd.DataFrame, *, limits: bool) -> Bars:
    """The market from rows in our own columns."""
    frame = frame.assign(date=pd.to_datetime(frame["date"]).astype("datetime64[s]"))
    days = sorted(frame["date"].unique())
    optional = {"adj_factor": 1.0, "is_st": False, "industry": None, "list_date": None}
    optional |= {"amount": math.nan, "total_shares": math.nan}
    if "market_cap" not in frame:
        frame["market_cap"] = frame.get("total_shares", math.nan) * frame["close"]
    for name, value in optional.items():
        if name not in frame:
            frame[name] = value
    frame = frame.drop_duplicates(["date", "code"]).sort_values(["code", "date"])
    first = frame.groupby("code").first()
    opened = frame.groupby("code")["list_date"].nth(0).set_axis(first.index)
    listed = pd.concat([pd.to_datetime(opened), first["date"]], axis=1).min(axis=1)
    traded = frame[frame["volume"] > 0].copy()
    traded["adjusted"] = traded["close"] * traded["adj_factor"]
    traded["before"] = traded.groupby("code")["adjusted"].shift()
    grids = {
        name: traded.pivot_table(index="date", columns="code", values=name, dropna=False)
        .reindex(days)
        .astype(float)
        for name in ("adjusted", "amount", "market_cap")
    }
    price = grids["adjusted"].ffill()
    rows = traded.set_index(["date", "code"])
    known = rows["before"].dropna()
    before = dict(zip(known.index, known, strict=True))
    return Bars(
        days=list(price.index),
        price=price,
        rows=rows[["close", "adj_factor", "is_st", "industry", "market_cap"]],
        listed=listed.to_dict(),
        limits=limits,
        before=before,
        grids=grids,
    )


@dataclass
class Month:
    """One rebalance."""

    day: pd.Timestamp
    entry: pd.Timestamp | None
    exit: pd.Timestamp | None
    table: pd.DataFrame
    """score, factor, quantile by asset, of that day; empty without a factor that ranks."""

    @property
    def name(self) -> str:
        """The month in which the return is earned."""
        return f"{self.day + pd.offsets.MonthBegin(1):%Y-%m}"


def months_of(table: pd.DataFrame, bars: Bars, lag: int) -> list[Month]:
    """Month-ends from the first factor day on."""
    table = table.assign(date=pd.to_datetime(table["date"]).astype("datetime64[s]"))
    table = table[table["factor"].notna()]
    by_day = {
        day: rows
        for day, rows in table.set_index("asset").groupby("date")
        if rows["factor"].min() < rows["factor"].max()  # one value for all ranks nothing
    }
    start = table["date"].min()
    ends = [
        day
        for day, after in zip(bars.days, [*bars.days[1:], None], strict=True)
        if day >= start and _ends_month(day, after)
    ]
    entries = [_later(bars.days, day, lag) for day in ends]
    nothing = table.set_index("asset").iloc[:0]
    return [
        Month(day=day, entry=entry, exit=leave, table=by_day.get(day, nothing).sort_index())
        for day, entry, leave in zip(ends, entries, [*entries[1:], None], strict=True)
    ]


def _ends_month(day: pd.Timestamp, after: pd.Timestamp | None) -> bool:
    following = day + pd.offsets.BDay(1) if after is None else after
    return bool((following.year, following.month) != (day.year, day.month))


def _later(days: list[pd.Timestamp], day: pd.Timestamp, count: int) -> pd.Timestamp | None:
    place = bisect.bisect_left(days, day) + count
    return days[place] if place < len(days) else None


def earned(bars: Bars, start: pd.Timestamp, stop: pd.Timestamp, assets: pd.Index) -> pd.Series:
    """Return of each asset between two closes."""
    return bars.price.loc[stop].reindex(assets) / bars.price.loc[start].reindex(assets) - 1


def spearman(a: pd.Series, b: pd.Series) -> float:
    """Rank correlation of complete pairs, at least three."""
    return _correlated(a, b, stats.spearmanr)


def pearson(a: pd.Series, b: pd.Series) -> float:
    """Plain correlation of complete pairs, at least three."""
    return _correlated(a, b, stats.pearsonr)


def _correlated(a: pd.Series, b: pd.Series, judge: Any) -> float:
    both = pd.concat([a, b], axis=1).dropna()
    if len(both) < 3 or (both.nunique() < 2).any():
        return math.nan
    return float(judge(both.iloc[:, 0], both.iloc[:, 1]).statistic)


def ic_figures(ics: dict[str, float]) -> dict[str, Any]:
    """Mean, ICIR and tests of one IC a month, `2019-02` and so on."""
    kept = pd.Series(list(ics.values())).dropna()
    lags = rule_of_thumb(len(kept))
    test = stats.ttest_1samp(kept, 0.0) if len(kept) > 1 else None
    p_value = float(test.pvalue) if test else math.nan
    return {
        "mean": kept.mean(),
        "std": kept.std(),
        "icir": kept.mean() / kept.std() if kept.std() else math.nan,
        "t": float(test.statistic) if test else math.nan,
        "p_value": p_value,
        "newey_west_t": newey_west(kept, lags),
        "latest": ics[max(ics)],
        "mean_12": mean_of_year(ics, max(ics)),
        "share_positive": (kept > 0).mean(),
        "stars": "***" if p_value < 0.01 else "**" if p_value < 0.05 else "*" * (p_value < 0.1),
        "months": len(kept),
        "newey_west_lags": lags,
    }


def side_by_side(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """`runs/compare.json`, from each run's `monthly_figures`."""
    tables = {name: pd.DataFrame(rows).set_index("month") for name, rows in runs.items()}
    months = sorted(set().union(*(table.index for table in tables.values())))
    pairs = []
    for one, other in itertools.combinations(runs, 2):
        both = pd.concat([tables[one]["ic"], tables[other]["ic"]], axis=1, join="inner")
        both = both.astype(float).dropna().sort_index()
        difference = both.iloc[:, 0] - both.iloc[:, 1]
        found = ic_figures(dict(difference)) if len(both) else {}
        test = stats.ttest_rel(both.iloc[:, 0], both.iloc[:, 1]) if len(both) > 1 else None
        pairs.append(
            {"run": one, "less": other, "months": len(both), "stars": found.get("stars", "")}
            | {"mean_difference": difference.mean(), "t": test.statistic if test else math.nan}
            | {"p_value": test.pvalue if test else math.nan}
            | {"newey_west_t": found.get("newey_west_t", math.nan)}
        )
    return {
        "months": [
            {
                "month": month,
                "runs": {
                    name: {"ic": table["ic"][month], "excess": table["excess_value"][month]}
                    for name, table in tables.items()
                    if month in table.index
                },
            }
            for month in months
        ],
        "pairs": pairs,
    }


def mean_of_year(values: dict[str, float], newest: str) -> float:
    """Of the newest month and the eleven before it, if all twelve are there."""
    year = [str(month) for month in pd.period_range(end=newest, periods=12, freq="M")]
    return math.fsum(values.get(month, math.nan) for month in year) / 12


def rule_of_thumb(count: int) -> int:
    """Newey and West's number of lags."""
    return math.floor(4 * (count / 100) ** (2 / 9))


def newey_west(values: pd.Series, lags: int) -> float:
    """Statsmodels's t of a constant with HAC errors; the double sum where it has too few values."""
    values = values.to_numpy(dtype=float)
    if len(values) < 2 or np.ptp(values) == 0:
        return math.nan
    if lags < len(values):
        model = sm.OLS(values, np.ones(len(values)))
        hac = {"maxlags": lags, "use_correction": False}
        return float(model.fit(cov_type="HAC", cov_kwds=hac).tvalues[0])
    deviation = values - values.mean()
    apart = np.abs(np.subtract.outer(np.arange(len(values)), np.arange(len(values))))
    variance = (np.outer(deviation, deviation) * np.clip(1 - apart / (lags + 1), 0, None)).sum()
    return float(values.sum() / math.sqrt(variance))


def decay_figures(months: list[Month], bars: Bars, horizons: tuple[int, ...]) -> list[dict]:
    """Mean IC over each holding period."""
    rows = []
    for horizon in horizons:
        values, spans = [], []
        for month in months:
            if month.table.empty or month.entry is None:
                continue
            stop = _later(bars.days, month.entry, horizon)
            if stop is not None:
                gain = earned(bars, month.entry, stop, month.table.index)
                values.append(spearman(month.table["factor"], gain))
                spans.append((month.entry, stop))
        spans = [span for span, value in zip(spans, values, strict=True) if not math.isnan(value)]
        kept = pd.Series(values, dtype=float).dropna()
        overlaps = [sum(stop > other > entry for other, _ in spans) for entry, stop in spans]
        lags = max(rule_of_thumb(len(kept)), *overlaps, 0)
        t = newey_west(kept, lags)
        mean = kept.mean()
        rows.append(
            {"horizon": horizon, "months": len(kept), "ic": mean, "std_error": mean / t}
            | {"newey_west_t": t}
        )
    return rows


def top_of(factor: pd.Series, fraction: float) -> pd.Index:
    """The best assets, ties to the alphabetically first; at least one."""
    ordered = factor.dropna().sort_index().sort_values(ascending=False, kind="stable")
    return ordered.index[: max(1, math.floor(round(len(ordered) * fraction, 9)))]


@dataclass
class Account:
    """Shares and cash through time."""

    bars: Bars
    costs: tuple[float, float] = (0.0, 0.0)
    """Fraction of the value bought, and of the value sold."""
    restricted: bool = True
    shares: dict[str, float] = field(default_factory=dict)
    cash: float = 1.0
    turnovers: list[float] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    settled: Settled = field(default_factory=list)

    def worth(self, day: pd.Timestamp) -> dict[str, float]:
        return {code: count * self.bars.price.loc[day, code] for code, count in self.shares.items()}

    def trade(self, day: pd.Timestamp, targets: pd.Index) -> None:
        """To equal weights of the targets, as far as the market lets."""
        self.gone = {code for code, days in self.bars.ended.items() if day in days}
        before = self.worth(day)
        total = self.cash + math.fsum(before.values())
        gone = [money / total for code, money in before.items() if code in self.gone]
        self.settled.append((len(gone), math.fsum(gone)))
        wanted = set(targets)
        after = {code: money for code, money in before.items() if self._stuck(day, code, wanted)}
        buyable = [code for code in targets if code not in after and self._buyable(day, code)]
        left = max(0.0, total - math.fsum(after.values()))
        after |= dict.fromkeys(buyable, left / len(buyable) if buyable else 0.0)
        cash = total - math.fsum(after.values())
        codes = set(before) | set(after)
        traded = math.fsum(abs(after.get(c, 0.0) - before.get(c, 0.0)) for c in codes)
        self.turnovers.append((traded + abs(cash - self.cash)) / total / 2)
        sold = math.fsum(max(0.0, before.get(c, 0.0) - after.get(c, 0.0)) for c in codes)
        kept = 1 - (self.costs[0] * (traded - sold) + self.costs[1] * sold) / total
        self.shares = {c: kept * m / self.bars.price.loc[day, c] for c, m in after.items() if m}
        self.cash = kept * cash

    def _stuck(self, day: pd.Timestamp, code: str, wanted: set[str]) -> bool:
        if not self.restricted or code in self.gone:
            return False
        limit = self.bars.limit(day, code)
        stays = limit == "down" or (limit == "up" and code in wanted)
        return stays or not self.bars.open(day, code)

    def _buyable(self, day: pd.Timestamp, code: str) -> bool:
        if code in self.gone:
            return False
        if not self.restricted:
            return True
        return self.bars.open(day, code) and self.bars.limit(day, code) != "up"

    def values(self, days: list[pd.Timestamp]) -> pd.Series:
        """Value at each close."""
        names = list(self.shares)
        held = pd.Series(self.shares, dtype=float)
        return self.bars.price.loc[days, names].mul(held).sum(axis=1) + self.cash


def account_values(
    months: list[Month], bars: Bars, rules: Rules, *, everyone: bool, bps: tuple[float, float]
) -> tuple[pd.Series, list[tuple[pd.Timestamp, float]], list[dict[str, float]], Settled]:
    """Daily value from 1, before each day's costs; of each entry: turnover, money held, settled."""
    entered = [month for month in months if month.entry is not None and len(month.table)]
    last = entered[-1].exit or entered[-1].entry  # one that has begun is only traded
    account = Account(bars, costs=(bps[0] / 1e4, bps[1] / 1e4), restricted=not everyone)
    pieces, held = [pd.Series({entered[0].entry: 1.0})], []
    for month, stop in zip(entered, [*(m.entry for m in entered[1:]), last], strict=True):
        targets = month.table.index
        if not everyone:
            targets = top_of(month.table["factor"], rules.top_fraction)
        account.trade(month.entry, targets)
        held.append(account.worth(month.entry))
        days = [day for day in bars.days if month.entry < day <= stop]
        if days:
            pieces.append(account.values(days))
    turnover = [(m.entry, value) for m, value in zip(entered, account.turnovers, strict=True)]
    return pd.concat(pieces), turnover, held, account.settled


def decomposition_figures(
    months: list[Month],
    bars: Bars,
    rules: Rules,
    values: dict[str, pd.Series],
    turnover: list[tuple[pd.Timestamp, float]],
) -> dict[str, dict[str, float]]:
    """The excess taken apart, period after period."""
    entered = [month for month in months if month.entry is not None and len(month.table)]
    stops = [*(month.entry for month in entered[1:]), values["long"].index[-1]]
    if stops[-1] == entered[-1].entry:
        entered, stops = entered[:-1], stops[:-1]
    place = {day: number for number, day in enumerate(bars.days)}
    years = (place[stops[-1]] - place[entered[0].entry]) / rules.year
    growth = dict.fromkeys(("signal", "half", "once", "twice"), 1.0)
    cap_growth, by_period = 1.0, []
    for month, stop in zip(entered, stops, strict=True):
        factor = month.table["factor"]
        cap = bars.rows.loc[month.day]["market_cap"].reindex(factor.index)
        gain = earned(bars, month.entry, stop, factor.index)
        before = bars.days[place[stop] - rules.entry_lag]
        at_once = earned(bars, month.day, before, factor.index)
        best = top_of(factor, rules.top_fraction)
        growth["signal"] *= (1 + at_once[best].mean()) / (1 + at_once.mean())
        for name, times in (("half", 0.5), ("once", 1), ("twice", 2)):
            some = gain[top_of(factor, min(1.0, times * rules.top_fraction))]
            growth[name] *= (1 + some.mean()) / (1 + gain.mean())
        cap_growth *= 1 + (cap * gain).sum() / cap.sum()
        worst = top_of(-factor, rules.top_fraction)
        decile = pd.qcut(cap, 10, labels=False)
        tilt = gain.groupby(decile).mean()[decile[best]].mean() - gain.mean()
        ranks = (cap.rank()[best] - 0.5) / cap.count()
        long = gain[best].mean() - gain.mean()
        by_period.append((long, gain.mean() - gain[worst].mean(), tilt, long - tilt, ranks))
    annual = {name: value ** (1 / years) - 1 for name, value in growth.items()}
    gross, net = ((values[n].iloc[-1]) ** (1 / years) - 1 for n in ("excess", "excess_net"))
    mean = [statistics.fmean(period[part] for period in by_period) for part in range(4)]
    return {
        "side": {"long": mean[0], "short": mean[1]},
        "size": {
            "tilt": mean[2],
            "selection": mean[3],
            "percentile": pd.concat([period[4] for period in by_period]).mean(),
        },
        "path": {
            "signal": annual["signal"],
            "delay": annual["once"] - annual["signal"],
            "limits": gross - annual["once"],
            "rules": 0.0,
            "costs": net - gross,
            "net": net,
        },
        "benchmark": {
            "equal": gross,
            "cap": (values["long"].iloc[-1] / cap_growth) ** (1 / years) - 1,
        },
        "breadth": {name: annual[name] for name in ("half", "once", "twice")},
        "trading": {"turnover": pd.Series([v for _, v in turnover[1:]], dtype=float).mean()},
    }


def value_figures(value: pd.Series, year: int = 252) -> dict[str, float]:
    """Of a daily value, `year` days a year: compounded, sample deviation, fall below the peak."""
    days = [float(v) for v in value]
    returns = [now / before - 1 for before, now in itertools.pairwise(days)]
    annual = (days[-1] / days[0]) ** (year / len(returns)) - 1
    volatility = statistics.stdev(returns) * math.sqrt(year)
    return {
        "total_return": days[-1] / days[0] - 1,
        "annualized_return": annual,
        "annualized_volatility": volatility,
        "information_ratio": annual / volatility if volatility else math.nan,
        "max_drawdown": max(
            1 - now / peak for now, peak in zip(days, itertools.accumulate(days, max), strict=True)
        ),
    }


def excess_figures(value: pd.Series, benchmark: pd.Series, year: int) -> dict[str, float]:
    """Of the one over the other, and what the one's annualized return is more."""
    ours, theirs = (value_figures(one, year)["annualized_return"] for one in (value, benchmark))
    return {**value_figures(value / benchmark, year), "annualized_difference": ours - theirs}


def headline_figures(
    ics: dict[str, float],
    values: dict[str, pd.Series],
    turnover: list[tuple[pd.Timestamp, float]],
    done: list[Month],
    year: int,
) -> dict[str, dict[str, float]]:
    """The first figures of the page, now and as the report of the month before had them."""

    def figures(last: Month) -> dict[str, float]:
        kept = pd.Series([v for month, v in ics.items() if month <= last.name]).dropna()
        excess = value_figures(values["excess"].loc[: last.exit], year)
        traded = [value for day, value in turnover[1:] if day <= last.exit]
        return {
            "ic": kept.mean(),
            "icir": kept.mean() / kept.std() if kept.std() else math.nan,
            "share_positive": (kept > 0).mean(),
            "excess": excess["annualized_return"],
            "excess_information_ratio": excess["information_ratio"],
            "turnover": pd.Series(traded, dtype=float).mean(),
        }

    now, before = figures(done[-1]), figures(done[-2])
    return {name: {"value": now[name], "before": before[name]} for name in now}


def quantile_figures(done: list[Month], bars: Bars, count: int) -> dict[str, Any]:
    """Equal-weighted returns by quantile."""
    rows = []
    for month in done:
        gain = earned(bars, month.entry, month.exit, month.table.index)
        means = gain.groupby(month.table["quantile"]).mean().reindex(range(1, count + 1))
        rows.append({**means.to_dict(), "all": gain.mean()})
    table = pd.DataFrame(rows)
    kept = {number: table[number].dropna() for number in range(1, count + 1)}
    mean = pd.Series({number: monthly.mean() for number, monthly in kept.items()})
    return {
        "monotonicity": spearman(pd.Series(mean.index, index=mean.index, dtype=float), mean),
        "long_short_mean": (table[count] - table[1]).mean(),
        "long_short_total": _growth((table[count] - table[1]).dropna()),
        "table": [
            {
                "quantile": number,
                "mean_return": mean[number],
                "annualized_return": _compounded(monthly),
                "mean_excess": (table[number] - table["all"]).mean(),
                "total_return": _growth(monthly),
            }
            for number, monthly in kept.items()
        ],
    }


def _growth(monthly: pd.Series) -> float:
    return math.prod(1 + value for value in monthly) - 1 if len(monthly) else math.nan


def _compounded(monthly: pd.Series) -> float:
    if monthly.empty:
        return math.nan
    return math.exp(math.fsum(math.log1p(value) for value in monthly) * 12 / len(monthly)) - 1


def yearly_figures(
    ics: dict[str, float],
    values: dict[str, pd.Series],
    turnover: list[tuple[Any, float]],
    days: int,
) -> list[dict[str, Any]]:
    """Each calendar year, from the last value of the year before."""
    long = values["long"]
    rows = []
    for year in sorted(set(long.index.year)):
        inside = long.index[long.index.year == year]
        before = long.index[long.index < inside[0]][-1:]
        span = before.append(inside)
        monthly = pd.Series([v for month, v in ics.items() if month[:4] == str(year)], dtype=float)
        monthly = monthly.dropna()
        traded = [value for day, value in turnover[1:] if day.year == year]
        figures = value_figures(long.loc[span], days)
        icir = monthly.mean() / monthly.std() if monthly.std() else math.nan
        rows.append(
            {"year": year, "days": len(inside), "months": len(monthly), "ic": monthly.mean()}
            | {"icir": icir}
            | {f"{k}_return": v[span[-1]] / v[span[0]] - 1 for k, v in values.items()}
            | {
                "long_volatility": figures["annualized_volatility"] if len(span) > 2 else math.nan,
                "long_drawdown": figures["max_drawdown"],
                "turnover": pd.Series(traded, dtype=float).mean(),
            }
        )
    return rows


def industry_figures(done: list[Month], bars: Bars, fraction: float) -> list[dict[str, Any]]:
    """IC and top excess inside each industry, the last twelve months."""
    found: dict[str, dict[str, tuple[int, float, float]]] = {}
    for month in done[-12:]:
        gain = earned(bars, month.entry, month.exit, month.table.index)
        industry = bars.rows.loc[month.day]["industry"].reindex(month.table.index)
        for name, members in gain.dropna().groupby(industry):
            factor = month.table["factor"].reindex(members.index)
            excess = members[top_of(factor, fraction)].mean() - members.mean()
            ic = spearman(factor, members)
            found.setdefault(str(name), {})[month.name] = (len(members), ic, excess)
    last = done[-1].name
    return [
        {
            "industry": name,
            "assets": by_month.get(last, (0, 0, 0))[0],
            "ic_latest": by_month.get(last, (0, math.nan, 0))[1],
            "ic_mean_12": mean_of_year({m: ic for m, (_, ic, _) in by_month.items()}, last),
            "excess_latest": by_month.get(last, (0, 0, math.nan))[2],
            "excess_mean_12": mean_of_year({m: gain for m, (*_, gain) in by_month.items()}, last),
        }
        for name, by_month in sorted(found.items())
    ]


def monthly_figures(
    ics: dict[str, float], values: dict[str, pd.Series], done: list[Month]
) -> list[dict[str, Any]]:
    """Each period's IC, its mean of twelve, and what was earned."""
    names = ("long", "long_net", "universe", "excess")
    return [
        {"month": month.name, "ic": ics[month.name], "ic_mean_12": mean_of_year(ics, month.name)}
        | {f"{n}_return": values[n][month.exit] / values[n][month.entry] - 1 for n in names}
        | {"excess_value": values["excess"][month.exit]}
        for month in done
    ]


def autocorrelations(months: list[Month]) -> list[dict[str, Any]]:
    """Of the factor with itself some month-ends before."""
    rows = []
    for lag in LAGS:
        pairs = zip(months[lag:], months, strict=False)
        found = [spearman(now.table["factor"], old.table["factor"]) for now, old in pairs]
        kept = pd.Series(found, dtype=float).dropna()
        rows.append({"lag": lag, "months": len(kept), "correlation": kept.mean()})
    return rows


def first_scored(table: pd.DataFrame) -> pd.Timestamp:
    """The market begins here."""
    return pd.to_datetime(table["date"]).min()


def recent(bars: Bars, day: pd.Timestamp, count: int, since: pd.Timestamp) -> list[pd.Timestamp]:
    """The last `count` trading days up to this one, none before `since`."""
    place = bisect.bisect_left(bars.days, day)
    return [one for one in bars.days[max(0, place - count + 1) : place + 1] if one >= since]


def mean_traded(bars: Bars, day: pd.Timestamp, since: pd.Timestamp) -> pd.Series:
    """Mean traded value by asset of the days with a bar."""
    return bars.grids["amount"].loc[recent(bars, day, DAYS, since)].mean()


def styles(bars: Bars, month: Month, since: pd.Timestamp) -> pd.DataFrame:
    """size, volatility, turnover of the members in deviations from their mean."""
    members, day = month.table.index, month.day
    cap = bars.grids["market_cap"].loc[day]
    days = recent(bars, day, DAYS + 1, since)
    seen = bars.grids["adjusted"].loc[since:day].notna().cumsum() > 0  # since the market's start
    closes = bars.price.loc[days].where(seen.loc[days])
    spread = closes.pct_change(fill_method=None).iloc[1:].std(skipna=False)
    if len(days) <= DAYS:
        spread = spread * math.nan
    found = {"size": cap, "volatility": spread, "turnover": mean_traded(bars, day, since) / cap}
    table = pd.DataFrame({name: x.reindex(members) for name, x in found.items()}).astype(float)
    table = np.log(table.where(table > 0))
    return (table - table.mean()) / table.std()


def exposures(
    months: list[Month], bars: Bars, held: list[dict[str, float]], since: pd.Timestamp
) -> dict[str, Any]:
    """Styles and industries of what was held after each trade."""
    entered = [month for month in months if month.entry is not None and len(month.table)]
    by_style, shares = [], []
    for month, money in zip(entered, held, strict=True):
        weight = pd.Series(money, dtype=float)
        weight = weight[weight > 0]
        known = styles(bars, month, since).reindex(weight.index)
        by_style.append(known.mul(weight, axis=0).sum() / known.notna().mul(weight, axis=0).sum())
        until = bars.rows.index.get_level_values("date") <= month.day
        rows = bars.rows.loc[until, "industry"].sort_index()
        industry = rows.groupby(level="code").tail(1).droplevel("date")  # of its last bar
        own, everyone = (
            by_industry(industry, one) for one in (weight, pd.Series(1.0, index=month.table.index))
        )
        shares.append(pd.DataFrame({"weight": own, "universe": everyone}).fillna(0.0))
    style = pd.DataFrame(by_style)
    names = sorted({name for table in shares for name in table.index} - {"unknown"})
    names += ["unknown"] * any("unknown" in table.index for table in shares)
    shares = [table.reindex(names).fillna(0.0) for table in shares]
    active = pd.concat([table["weight"] - table["universe"] for table in shares], axis=1)
    return {
        "styles": [
            {"style": name, "newest": style[name].iloc[-1], "mean": style[name].mean()}
            for name in ("size", "volatility", "turnover")
        ],
        "industries": [
            {"industry": name, "weight": shares[-1]["weight"][name]}
            | {"universe": shares[-1]["universe"][name]}
            | {"active": active.iloc[:, -1][name], "active_mean": active.loc[name].mean()}
            for name in names
        ],
    }


def by_industry(industry: pd.Series, weight: pd.Series) -> pd.Series:
    """Share of the weight in each industry."""
    groups = industry.astype(object).reindex(weight.index).fillna("unknown")
    return weight.groupby(groups.to_numpy()).sum() / weight.sum()


def targets_of(
    months: list[Month], bars: Bars, rules: Rules, since: pd.Timestamp
) -> dict[str, Any]:
    """The newest picks, what is new in them and gone, and what they could take."""
    scored = [month for month in months if len(month.table)]
    newest, old = scored[-1], scored[-2] if len(scored) > 1 else None
    factor = newest.table["factor"].sort_index()
    ordered = factor.sort_values(ascending=False, kind="stable").index
    targets = set(top_of(factor, rules.top_fraction))
    was = set(top_of(old.table["factor"], rules.top_fraction)) if old else set()
    places = {}
    if old:
        before = old.table["factor"].sort_index().sort_values(ascending=False, kind="stable")
        places = {code: place for place, code in enumerate(before.index, 1)}
    traded = mean_traded(bars, newest.day, since)
    known = sorted(traded.reindex(sorted(targets)).dropna())
    low = float(np.percentile(known, 10)) if known else math.nan
    return {
        "picks": [
            {"rank": place, "asset": code, "weight": (code in targets) / len(targets)}
            | {"rank_before": places.get(code, math.nan)}
            | {"traded_value": traded.get(code, math.nan)}
            for place, code in enumerate(ordered[: rules.picks], 1)
        ],
        "changes": {"new": len(targets - was), "dropped": len(was - targets)},
        "capacity": {
            "targets": len(targets),
            "days": DAYS,
            "participation": 0.1,
            "median_traded_value": statistics.median(known) if known else math.nan,
            "lowest_tenth_traded_value": low,
            "capital": 0.1 * low * len(targets),
        },
    }


def recompute(table: pd.DataFrame, bars: Bars, rules: Rules) -> dict[str, Any]:
    """Everything of metrics.json but its texts, in the same layout; NaN = undefined."""
    months = months_of(table, bars, rules.entry_lag)
    bars = settle(bars, rules.loss)
    done = [month for month in months if len(month.table) and month.exit is not None]
    gains = [earned(bars, month.entry, month.exit, month.table.index) for month in done]
    pairs = list(zip(done, gains, strict=True))
    ics = {month.name: spearman(month.table["factor"], gain) for month, gain in pairs}
    values, turnover, held, settled = _all_values(months, bars, rules)
    long = values["long"]
    newest = [month for month in months if len(month.table)][-1]
    return {
        "period": {
            "first_month": done[0].name,
            "last_month": done[-1].name,
            "months": len(done),
            "first_day": f"{long.index[0]:%Y-%m-%d}",
            "last_day": f"{long.index[-1]:%Y-%m-%d}",
            "newest_rebalance": f"{newest.day:%Y-%m-%d}",
            "newest_universe": len(newest.table),
        },
        "settings": {
            "entry_lag": rules.entry_lag,
            "top_fraction": rules.top_fraction,
            "cost_bps": rules.cost_bps,
            "delisting_loss": rules.loss,
            "quantiles": rules.quantiles,
            "sell_cost_bps": rules.sell_cost_bps,
            "days_per_year": rules.year,
            **PLAIN,
        },
        "ic": ic_figures(ics),
        "ic_raw_score": ic_figures({m.name: spearman(m.table["score"], g) for m, g in pairs}),
        "ic_pearson": ic_figures({m.name: pearson(m.table["factor"], g) for m, g in pairs}),
        "headline": headline_figures(ics, values, turnover, done, rules.year),
        "long": value_figures(long, rules.year),
        "long_with_costs": value_figures(values["long_net"], rules.year),
        "universe": value_figures(values["universe"], rules.year),
        "excess": excess_figures(long, values["universe"], rules.year),
        "excess_with_costs": excess_figures(values["long_net"], values["universe"], rules.year),
        "settled": {
            "holdings": sum(count for count, _ in settled),
            "largest_weight": max(weight for _, weight in settled),
        },
        "turnover": pd.Series([value for _, value in turnover[1:]], dtype=float).mean(),
        "quantiles": quantile_figures(done, bars, rules.quantiles),
        "decomposition": decomposition_figures(months, bars, rules, values, turnover),
        "decay": decay_figures(months, bars, rules.horizons),
        "yearly": yearly_figures(ics, values, turnover, rules.year),
        "industries": industry_figures(done, bars, rules.top_fraction),
        **targets_of(months, bars, rules, since=first_scored(table)),
        "monthly": monthly_figures(ics, values, done),
        "autocorrelation": autocorrelations(months),
        "exposures": exposures(months, bars, held, since=first_scored(table)),
        "published": PUBLISHED,
    }


def settle(bars: Bars, loss: float) -> Bars:
    """The market in which assets that have ended lose this part of their last price."""
    price = bars.price.copy()
    for code, days in bars.ended.items():
        price.loc[sorted(days), code] *= 1 - loss
    return replace(bars, price=price)


def _all_values(months: list[Month], bars: Bars, rules: Rules) -> tuple[Any, ...]:
    def value(everyone: bool, *bps: float) -> tuple[Any, ...]:
        return account_values(months, bars, rules, everyone=everyone, bps=bps)

    long, *of_entries = value(False, 0.0, 0.0)
    sales = rules.cost_bps if rules.sell_cost_bps is None else rules.sell_cost_bps
    net, universe = value(False, rules.cost_bps, sales)[0], value(True, 0.0, 0.0)[0]
    values = {"long": long, "long_net": net, "universe": universe}
    return values | {"excess": long / universe, "excess_net": net / universe}, *of_entries


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything in nested dictionaries and lists."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{number}]")
    else:
        yield path, value


def is_figure(value: Any) -> bool:
    """A number, or one that is undefined."""
    return value is None or (isinstance(value, int | float | np.number) and value is not True)


def differ(ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> bool:
    """Whether two figures are not the same to float tolerance; undefined equals undefined."""
    ours, theirs = (math.nan if value is None else float(value) for value in (ours, theirs))
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) != math.isnan(theirs)
    return not math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=tolerance)


def compare(metrics: dict[str, Any], found: dict[str, Any]) -> list[tuple[str, Any, Any, bool]]:
    """(path, ours, recomputed, wrong) of every number in metrics.json; one not covered is wrong."""
    theirs = dict(leaves(found))
    ours = [(path, value) for path, value in leaves(metrics) if is_figure(value)]
    tolerances = {
        path: AMOUNT_TOLERANCE if FROM_AMOUNT.fullmatch(path) else TOLERANCE for path, _ in ours
    }
    return [
        (
            path,
            value,
            theirs.get(path),
            path not in theirs or differ(value, theirs[path], tolerances[path]),
        )
        for path, value in ours
    ]


def read_run(storage: Path, run: str, bars: Path) -> tuple[pd.DataFrame, Bars, Rules]:
    """A run's factor table, its market and its settings."""
    from deltalake import DeltaTable

    cfg = json.loads((storage / "runs" / run / "config.json").read_text())["config"]
    for name, value in PLAIN.items():
        if cfg["evaluation"].get(name, value) != value:
            sys.exit(f"evaluation.{name} of {run} is not {value}: nothing here recomputes it")
    table = DeltaTable(str(storage / "runs" / run / "factor")).to_pyarrow_table().to_pandas()
    first, last = (cfg["windows"][name] or edge for name, edge in (("first", ""), ("last", "9")))
    table = table[(table["window"] >= first) & (table["window"] <= last)]
    panel = json.loads((storage / "panel" / "manifest.json").read_text())
    read = panel["source"].get("bars", cfg["bars"])  # a later job's flags may say otherwise
    limits = read["price_limits"]
    if limits == "auto":
        limits = "none" if read["format"] == "generic" else "ashare"
    rules = Rules(
        entry_lag=cfg["label"]["entry_lag"],
        top_fraction=cfg["evaluation"]["top_fraction"],
        cost_bps=cfg["evaluation"]["cost_bps"],
        quantiles=cfg["factor"]["quantiles"],
        horizons=tuple(cfg["evaluation"]["decay_horizons"]),
        picks=cfg["evaluation"]["picks"],
        loss=cfg["evaluation"].get("delisting_loss", 0.0),
        sell_cost_bps=cfg["evaluation"].get("sell_cost_bps"),
        year=cfg["evaluation"].get("days_per_year", 252),
        limits=limits == "ashare",
    )
    return table, to_bars(read_bars(bars, read["columns"]), limits=rules.limits), rules


WANTED = (
    "date", "code", "close", "volume", "amount", "adj_factor", "is_st", "industry", "list_date",
    "market_cap", "total_shares",
)  # fmt: skip


def read_bars(folder: Path, renamed: dict[str, str]) -> pd.DataFrame:
    """Every parquet and CSV file below a folder (or one file), in our own names."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.*"))
    ours = {theirs: name for name, theirs in renamed.items()}
    parts = []
    for file in files:
        if file.suffix == ".parquet":
            part = pd.read_parquet(file)
        elif ".csv" in file.suffixes:
            part = pd.read_csv(file, dtype={"code": str})
        else:
            continue
        part = part.rename(columns={"asset": "code", **ours})
        parts.append(part[[name for name in WANTED if name in part]])
    return pd.concat(parts, ignore_index=True)


def main(argv: list[str] | None = None) -> int:
    """Recompute metrics.json of each run, and of several what `gangru runs --compare` wrote."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--storage", type=Path, required=True)
    parser.add_argument("--run", required=True, nargs="+")
    parser.add_argument("--bars", type=Path, required=True)
    args = parser.parse_args(argv)
    rows, monthly = [], {}
    for run in args.run:
        found = recompute(*read_run(args.storage, run, args.bars))
        monthly[run] = found["monthly"]
        place = args.storage / "runs" / run / "report" / "metrics.json"
        metrics = json.loads(place.read_text())
        metrics.pop("compared", None)  # recompute those runs by their own names
        rows += compare(metrics, found)
    if len(args.run) > 1:
        metrics = json.loads((args.storage / "runs" / "compare.json").read_text())
        rows += compare(metrics, side_by_side(monthly))
    for path, ours, theirs, wrong in rows:
        known = not wrong and ours is not None
        gap = f"{float(theirs) - float(ours):+.1e}" if known else ""
        mark = "  <-- differs" if wrong else ""
        sys.stdout.write(f"{path:45} {ours!s:>24} {theirs!s:>24} {gap}{mark}\n")
    wrong = sum(row[3] for row in rows)
    sys.stdout.write(f"{len(rows)} figures, {wrong} differ\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
