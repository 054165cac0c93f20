"""The slow, obvious oracle of the portfolio: shares in a dictionary, one day after the other.

Shares no code with the package: it reads the block and the table by itself. Rules:
docs/method.md and the docstring of `gangru_dist.evaluation.portfolio`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from gangru_dist.panel.block import PanelBlock

ENDED_AFTER = 250
"""Days of silence."""


class Simulator:
    """One account; `run` returns the value of each day and the turnover of each trade."""

    def __init__(
        self,
        block: PanelBlock,
        table: pd.DataFrame,
        *,
        entry_lag: int,
        top_fraction: float,
        cost_bps: float,
        restricted: bool = True,
        loss: float = 0.0,
    ) -> None:
        self.block, self.lag, self.fraction = block, entry_lag, top_fraction
        self.cost, self.restricted, self.loss = cost_bps / 10_000, restricted, loss
        self.days = [pd.Timestamp(day) for day in block.dates]
        self.universe: dict[pd.Timestamp, dict[str, float]] = {}
        for row in table.itertuples():
            self.universe.setdefault(pd.Timestamp(row.date), {})[row.asset] = row.factor
        self.first_day = min(self.universe)
        self.universe = {
            day: factor for day, factor in self.universe.items() if len({*factor.values()}) > 1
        }
        self.column = {asset: number for number, asset in enumerate(block.assets)}
        self.left = self.leave()

    def price(self, day: int, asset: str) -> float:
        column, asked = self.column[asset], day
        while np.isnan(self.block.adj_close[day, column]):
            day -= 1
            if day < 0:
                raise AssertionError(f"{asset} never had a price")
        kept = 1 - self.loss if self.ended(asked, asset) else 1
        return kept * float(self.block.adj_close[day, column])

    def leave(self) -> dict[str, int]:
        """The day on which each asset is delisted, where that is known."""
        found = {}
        for asset, date in zip(self.block.assets, self.block.delist_date, strict=False):
            left = [day for day in range(len(self.days)) if self.days[day] >= pd.Timestamp(date)]
            found |= {str(asset): left[0]} if left else {}
        return found

    def ended(self, day: int, asset: str) -> bool:
        """Whether it is known on that day that the asset trades no more."""
        if asset in self.left:
            return day >= self.left[asset]
        bars = np.flatnonzero(self.block.traded[: day + 1, self.column[asset]])
        return bool(len(bars)) and day - int(bars[-1]) >= ENDED_AFTER

    def month_ends(self) -> list[int]:
        ends = []
        for day in range(len(self.days) - 1):
            if (
                self.days[day] >= self.first_day
                and self.days[day].month != self.days[day + 1].month
            ):
                ends.append(day)
        rest = self.days[-1] + pd.offsets.BDay(1)
        if rest.month != self.days[-1].month:
            ends.append(len(self.days) - 1)
        return ends

    def targets(self, day: int) -> list[str]:
        members = sorted(self.universe[self.days[day]].items(), key=lambda kv: (-kv[1], kv[0]))
        count = len(members) if not self.restricted else len(members) * self.fraction
        return [asset for asset, _ in members[: max(1, math.floor(count + 1e-9))]]

    def run(self) -> dict[str, Any]:
        ends = self.month_ends()
        scored = [day for day in ends if self.days[day] in self.universe]
        entries = {day + self.lag: day for day in scored if day + self.lag < len(self.days)}
        after_last = [day + self.lag for day in ends if day > scored[-1]]
        stop = min([*after_last[:1], len(self.days) - 1])
        if not after_last or after_last[0] >= len(self.days):
            stop = max(entries)  # a month that has only begun is traded, not judged
        shares: dict[str, float] = {}
        cash, values, turnovers = 1.0, [], []
        for day in range(min(entries), stop + 1):
            worth = {asset: n * self.price(day, asset) for asset, n in shares.items()}
            total = cash + sum(worth.values())
            values.append(total)
            if day not in entries or (day == stop and day not in entries):
                continue
            if entries[day] > scored[-1]:
                continue
            new = self.trade(day, self.targets(entries[day]), worth, total)
            everyone = set(worth) | set(new)
            traded = sum(abs(new.get(a, 0) - worth.get(a, 0)) for a in everyone)
            new_cash = total - sum(new.values())
            turnovers.append((traded + abs(new_cash - cash)) / total / 2)
            left = 1 - self.cost * traded / total
            shares = {a: left * money / self.price(day, a) for a, money in new.items()}
            cash = left * new_cash
        return {"value": np.array(values), "turnover": turnovers, "first": min(entries)}

    def trade(
        self, day: int, targets: list[str], worth: dict[str, float], total: float
    ) -> dict[str, float]:
        """Money in each asset after the trade."""
        new: dict[str, float] = {}
        for asset, money in worth.items():
            column = self.column[asset]
            suspended = not self.block.traded[day, column]
            stuck = suspended or self.block.limit_down[day, column]
            stuck = stuck or (asset in targets and self.block.limit_up[day, column])
            stuck = stuck and not self.ended(day, asset)
            if self.restricted and stuck and money > 0:
                new[asset] = money
        buyable = []
        for asset in targets:
            column = self.column[asset]
            open_ = self.block.traded[day, column] and not self.block.limit_up[day, column]
            gone = self.ended(day, asset)
            if asset not in new and not gone and (open_ or not self.restricted):
                buyable.append(asset)
        rest = total - sum(new.values())
        for asset in buyable:
            new[asset] = rest / len(buyable)
        return new
