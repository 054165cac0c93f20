"""Rows that leave their neighbours, against a plain loop; and what appended days may not change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gangru_dist.bars.formats import BarsFormat, PriceLimits, resolve_format
from gangru_dist.bars.quality import Finding, Quality
from gangru_dist.base.errors import BarsError
from gangru_dist.config.settings import BarsConfig, SyntheticConfig
from gangru_dist.panel import jumps
from gangru_dist.panel.jump_checks import check_ex_dates, check_jumps, check_marks
from gangru_dist.panel.jumps import (
    AFTER,
    FLAT,
    JUMP,
    LEAVES,
    SPIKE,
    STEP,
    UNSTEADY,
    JumpSums,
    Masks,
)
from gangru_dist.synthetic.market import make_bars

DAYS = 60


def history(seed: int = 0, assets: int = 8, limit: float = 0.1) -> pd.DataFrame:
    """Calm stocks: moves of 2 %, a dividend each 20 days."""
    rng = np.random.default_rng(seed)
    factor = np.tile(1.02 ** (np.arange(DAYS) // 20), assets)
    close = 10 * np.exp(np.cumsum(rng.normal(0, 0.02, (assets, DAYS)), axis=1)).ravel() / factor
    volume = rng.uniform(1e5, 1e6, assets * DAYS)
    position = np.tile(np.arange(DAYS), assets)
    return pd.DataFrame(
        {
            "open": close * rng.uniform(0.99, 1.01, len(close)),
            "high": close * 1.02,
            "low": close * 0.98,
            "close": close,
            "volume": volume,
            "amount": volume * close,
            "adj_factor": factor,
            "turnover_rate": volume / 1e8,
            "market_cap": close * 1e8,
            "asset": np.repeat(np.arange(assets), DAYS),
            "date": np.datetime64("2019-01-01") + position,
            "position": position,
            "limit": limit,
            "is_st": False,
        }
    )


def spoil(h: pd.DataFrame, row: int, names: list[str], by: float, *, last: bool = False) -> None:
    """Multiply columns in one row, or from it to the stock's end."""
    end = (row // DAYS + 1) * DAYS - 1 if last else row
    h.loc[row:end, names] *= by


def two_years(assets: int = 60, limit: float = 0.1) -> pd.DataFrame:
    """A market of 2017 and 2018: a dividend of 3 % each spring, a bonus issue for a third."""
    rng = np.random.default_rng(1)
    days = pd.bdate_range("2017-01-02", "2018-12-28").to_numpy().astype("datetime64[D]")
    position, asset = np.tile(np.arange(len(days)), assets), np.repeat(np.arange(assets), len(days))
    date = days[position]
    paid = sum((date >= np.datetime64(f"{y}-05-02") + asset % 50).astype(int) for y in (2017, 2018))
    ratio = np.where(asset % 3 == 0, 1.06 + 0.02 * (asset % 4), 1.0)
    issued = np.where(date >= np.datetime64("2018-05-02") + asset % 50, ratio, 1.0)
    level = 10 * np.exp(np.cumsum(rng.normal(0, 0.02, (assets, len(days))), axis=1)).ravel()
    close = level / (1.03**paid * issued)
    volume = rng.uniform(1e5, 1e6, len(close)) * issued
    opens = np.roll(level, 1) / level * close * rng.uniform(0.99, 1.01, len(close))
    opens[position == 0] = close[position == 0]
    return pd.DataFrame(
        {
            "open": opens,
            "high": np.maximum(opens, close) * 1.01,
            "low": np.minimum(opens, close) * 0.99,
            "close": close,
            "volume": volume,
            "amount": volume * close,
            "adj_factor": 1.03**paid * issued,
            "turnover_rate": volume / issued / 1e8,
            "market_cap": close * 1e8 * issued,
            "asset": asset,
            "date": date,
            "position": position,
            "limit": limit,
            "is_st": False,
            "issued": issued,
        }
    )


PRICES = ["open", "high", "low", "close", "amount"]


def rows_of(found: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Reason or note -> numbers of its rows, of those that have any."""
    return {name: np.flatnonzero(mask).tolist() for name, mask in found.items() if mask.any()}


def find(h: pd.DataFrame) -> tuple[Masks, Masks, JumpSums]:
    rows = {str(name): h[name].to_numpy() for name in h}
    return jumps.find_jumps(rows | {"date": rows["date"].astype("datetime64[D]")})


def off_by_a_loop(h: pd.DataFrame) -> set[int]:
    """Rows off their stock's level, one after the other: beyond a limit, until a move goes back."""
    level = np.log(h["close"] * h["adj_factor"]).to_numpy()
    opens = np.log(h["open"] * h["adj_factor"]).to_numpy()
    found: set[int] = set()
    distance, was_odd = 0.0, False
    for row in range(1, len(level)):
        if h.asset[row] != h.asset[row - 1]:
            distance, was_odd = 0.0, False
            continue
        reference = np.exp(level[row - 1]) / h["adj_factor"][row]
        most = h.limit[row] + jumps.SLACK + 0.01 / reference
        move = level[row] - level[row - 1]
        is_odd = max(abs(np.expm1(move)), abs(np.expm1(opens[row] - level[row - 1]))) > most
        back = -move if distance > 0 else move
        if (
            distance
            and (is_odd or was_odd)
            and back >= abs(distance) / 2
            and abs(distance + move) <= 2 * np.log(1.1) + 0.03
        ):
            distance = 0.0
        elif is_odd:
            distance += move
        if distance:
            found.add(row)
        was_odd = is_odd
    return found


class TestReference:
    @pytest.mark.parametrize("seed", range(5))
    def test_limits_by_a_loop(self, seed: int) -> None:
        h = history(seed)
        rng = np.random.default_rng(seed)
        for row in rng.choice(len(h.asset), 12, replace=False):
            spoil(h, int(row), PRICES, rng.choice([0.3, 0.8, 1.3, 5.0]))
        found = rows_of(find(h)[0])  # on a day of a dividend it may be the factor's fault
        off = {row for name in (LEAVES, SPIKE, AFTER) for row in found.get(name, [])}
        assert off == off_by_a_loop(h)
        assert len(off) > 5

    def test_slope_of_a_right_factor_and_of_its_inverse(self) -> None:
        h = history(assets=200)
        right = find(h)[2]
        assert right.explained / right.squared == pytest.approx(1, abs=0.25)
        wrong = find(h.assign(adj_factor=1 / h["adj_factor"]))[2]
        assert wrong.explained == pytest.approx(-right.explained)
        right, wrong = (replace(sums, steps_on_day=Counter()) for sums in (right, wrong))
        check_jumps(Quality(), right, allowed=0)
        with pytest.raises(BarsError, match="it is the inverse of what is needed"):
            check_jumps(Quality(), wrong, allowed=0)

    @pytest.mark.parametrize(("stocks", "is_refused"), [(9, False), (10, True), (200, True)])
    def test_factors_that_all_change_on_one_day(self, stocks: int, is_refused: bool) -> None:
        h = history(assets=200)
        later = (h["position"] >= 30) & (h["asset"] < stocks)
        h["adj_factor"] = np.where(later, 1.02, 1.0)
        sums = find(h[h["asset"] < max(stocks, 36)])[2]
        assert sums.steps_on_day == Counter({np.datetime64("2019-01-31").item(): stocks})
        if is_refused:
            with pytest.raises(BarsError, match=f"adj_factor of {stocks} of .* 2019-01-31"):
                check_jumps(Quality(), sums, allowed=0)
        else:
            check_jumps(Quality(), sums, allowed=0)

    @pytest.mark.parametrize("by", [100.0, 0.01])
    @pytest.mark.parametrize(("stocks", "is_refused"), [(15, False), (20, True), (36, True)])
    def test_volume_and_amount_in_another_unit_from_a_day_on(
        self, stocks: int, is_refused: bool, by: float
    ) -> None:
        h = history(assets=36)
        later = (h["position"] >= 30) & (h["asset"] < stocks)
        for name in ("volume", "amount"):
            h[name] = h[name].where(~later, h[name] * by)
        sums = replace(find(h)[2], steps_on_day=Counter())  # all stocks of this market pay at once
        if is_refused:
            with pytest.raises(BarsError, match=r"the volume of \d+ of 36 stocks .* 2019-01-31"):
                check_jumps(Quality(), sums, allowed=0)
        else:
            check_jumps(Quality(), sums, allowed=0)

    def test_a_rate_that_does_not_follow_the_volume(self) -> None:
        h = history(assets=40)
        assert find(h)[2].unsteady == 0
        mine = h["asset"] < 2
        others = np.random.default_rng(3).permutation(h.loc[mine, "turnover_rate"])
        h.loc[mine, "turnover_rate"] = others  # of another day and stock
        _, notes, sums = find(h)
        assert sums.unsteady == 2
        assert h["asset"][np.flatnonzero(notes[UNSTEADY])].tolist() == [0, 1]
        sums = replace(sums, steps_on_day=Counter())
        note = {UNSTEADY: Finding(count=2, example={"code": "x"})}
        with pytest.raises(BarsError, match=r"2 of 40 stocks: turnover_rate .*panel.without="):
            check_jumps(Quality(notes=note), sums, allowed=0)
        check_jumps(Quality(notes=note), replace(sums, assets=200), allowed=0)

    def test_a_copy_of_the_day_before_and_a_cap_that_stands_still(self) -> None:
        h = history()
        h.loc[20:22, [*PRICES, "volume"]] = h.loc[19, [*PRICES, "volume"]].to_numpy()
        h.loc[DAYS : 2 * DAYS - 1, "market_cap"] = 1e9
        reasons, notes, _ = find(h)
        assert rows_of(reasons) == {jumps.REPEATED: [20, 21, 22]}
        ex_dates = (DAYS - 1) // 20
        assert notes[jumps.STALE_CAP].sum() == DAYS - 1 - ex_dates

    def test_a_split_that_leaves_the_market_cap_as_it_was_is_none(self) -> None:
        h = history()
        spoil(h, 30, [*PRICES], h["close"][29] / h["close"][30] / 2, last=True)
        spoil(h, 30, ["volume", "adj_factor"], 2, last=True)
        h.loc[30, "market_cap"] = h["market_cap"][29]
        assert not find(h)[1][jumps.STALE_CAP].any()

    def test_the_synthetic_market_breaks_nothing(self) -> None:
        bars = make_bars(SyntheticConfig(assets=60, signal_ic=0)).to_pandas()
        bars = bars.sort_values(["code", "date"])
        h = bars[history().columns[:9]].assign(
            asset=bars["code"].astype("category").cat.codes,
            date=pd.to_datetime(bars["date"]),
            position=bars["date"].rank(method="dense").astype(int),
            limit=0.2,
            is_st=bars["is_st"],
        )
        reasons, notes, sums = find(h)
        assert rows_of(reasons) == rows_of(notes) == {}
        check_jumps(Quality(), sums, allowed=0)


class TestExDates:
    """A factor that stops, never moves or lacks a part, in a market whose ex-dates are known."""

    @pytest.mark.parametrize("limits", ["ashare", "none"])
    def test_a_right_factor_has_them_all(self, limits: PriceLimits) -> None:
        h = two_years()
        sums = find(h)[2]
        check_jumps(Quality(), sums, allowed=0)
        check_ex_dates(sums, BarsFormat(price_limits=limits))
        assert (sums.payers, sums.stopped) == (Counter({2018: 60}), Counter())
        assert sum(sums.steps_on_day.values()) == 120
        assert (sums.issues, sums.diluted / sums.grown) == (20, pytest.approx(0, abs=0.1))

    @pytest.mark.parametrize(
        ("what", "match"),
        [
            ("stops", "stops too early"),
            ("half stops", "adj_factor of 3. of [56]. stocks that paid a dividend in 2017 "),
            ("stops in summer", "stops too early"),
            ("dividends left out", "lacks dividends"),
            ("splits left out", r"lacks splits or bonus issues: \d+ times"),
            ("1 without splits", "lacks dividends"),
            ("never moves", "adj_factor"),
        ],
    )
    def test_what_is_wrong_is_told(self, what: str, match: str) -> None:
        h = two_years()
        factor, issued = h["adj_factor"], h["issued"]
        first = h["date"].dt.year < 2018
        early = h.groupby("asset")["adj_factor"].transform(lambda f: f.iloc[259])
        h["adj_factor"] = {
            "stops": factor.where(first, early),
            "half stops": factor.where(first | (h["asset"] % 5 < 2), early),
            "stops in summer": factor.where(h["date"] < "2018-05-12", early),
            "dividends left out": issued,
            "splits left out": factor / issued,
            "1 without splits": factor.where(h["asset"] % 6 == 0, 1.0),
            "never moves": 1.0,
        }[what]
        for limits in ("ashare", "none") if what in ("stops", "half stops") else ("ashare",):
            with pytest.raises(BarsError, match=match):
                check_ex_dates(find(h)[2], BarsFormat(price_limits=limits))


class TestMarks:
    """Special treatment of 2 % of the stocks, and what makes marks of it that no market has."""

    @pytest.mark.parametrize(
        ("what", "match"),
        [
            ("right", ""),
            ("inverted", "marks 98% of the rows of 2017"),
            ("inverted in 2018", "marks 98% of the rows of 2018"),
            ("half inverted", "marks 50% of the rows of 2017"),
            ("lost in 2018", "0.00% of the rows of 2018, and 2.00% of the other years"),
            ("lost", "marks 0.00% of the rows of 800 stocks"),
        ],
    )
    def test_shares_are_held_against_the_market(self, what: str, match: str) -> None:
        rows = Counter({2017: 800 * 242, 2018: 800 * 242})
        share = {
            "right": (0.02, 0.02),
            "inverted": (0.98, 0.98),
            "inverted in 2018": (0.02, 0.98),
            "half inverted": (0.5, 0.5),
            "lost in 2018": (0.02, 0.0),
            "lost": (0.0, 0.0),
        }[what]
        special = Counter({y: round(s * rows[y]) for y, s in zip(rows, share, strict=True)})
        sums = JumpSums(assets=800, rows_in=rows, special_in=special)
        form = BarsFormat(price_limits="ashare")
        if not match:
            check_marks(sums, form, is_given=True)
            return
        with pytest.raises(BarsError, match=match):
            check_marks(sums, form, is_given=True)
        if what == "lost":
            check_marks(sums, form, is_given=False)
            check_marks(sums, BarsFormat(), is_given=True)

    def test_rows_are_counted_by_year(self) -> None:
        h = two_years()
        h["is_st"] = (h["asset"] < 3) & (h["date"].dt.year == 2018)
        sums = find(h)[2]
        assert sums.rows_in == Counter(h["date"].dt.year)
        assert sums.special_in == {2018: 3 * (h["date"].dt.year == 2018).sum() / 60}


class TestNoLimits:
    """Where no limits are known, real moves are as wide as splits."""

    @pytest.mark.parametrize("has_news", [True, False])
    def test_real_moves_are_no_splits(self, has_news: bool) -> None:
        h = two_years(limit=np.nan)
        rng = np.random.default_rng(5)
        for row in rng.choice(np.flatnonzero(h["position"] > 0), 200, replace=False):
            last = h.index[h["asset"] == h.loc[row, "asset"]].max()
            by = np.exp(rng.choice([-1, 1]) * rng.uniform(0.22, 0.65))
            h.loc[row:last, [*PRICES, "market_cap"]] *= by
            h.loc[row, ["volume", "amount", "turnover_rate"]] *= 60 if has_news else 1
        reasons, notes, sums = find(h)
        assert rows_of(reasons) == {}
        counts = {name: Finding(count=int(mask.sum()), example={}) for name, mask in notes.items()}
        assert (counts[JUMP].count > 50) != has_news  # by chance at a ratio
        counted = {name: found for name, found in counts.items() if found.count}
        check_jumps(Quality(notes=counted), sums, allowed=1e-4)

    def test_missing_splits_are_found(self) -> None:
        h = two_years(limit=np.nan)
        rng = np.random.default_rng(6)
        rows = rng.choice(np.flatnonzero(h["position"] > 30), 20, replace=False)
        for row in rows:
            last = h.index[h["asset"] == h.loc[row, "asset"]].max()
            h.loc[row:last, PRICES[:4]] /= 2
            h.loc[row:last, "volume"] *= 2
        reasons, notes, sums = find(h)
        found = set(rows_of(notes)[JUMP])
        assert found == set(rows.tolist())
        counted = {JUMP: Finding(count=len(found), example={})}
        with pytest.raises(BarsError, match="20 of 31140 daily moves"):
            check_jumps(Quality(notes=counted), sums, allowed=1e-4)
        assert rows_of(reasons) == {}


class TestProperties:
    @pytest.mark.parametrize("cut", [7, 20, 21, 22, 40])
    def test_appended_days_change_no_earlier_row(self, cut: int) -> None:
        h = history()
        for row in (20, DAYS + 20, 2 * DAYS + 21, 3 * DAYS + 21):
            spoil(h, row, PRICES, 3.0, last=row > 2 * DAYS)
        spoil(h, 4 * DAYS + 20, ["adj_factor"], 10.0)
        h.loc[6 * DAYS + 15 : 6 * DAYS + 30, "adj_factor"] *= 30.0
        spoil(h, 7 * DAYS + 18, ["adj_factor"], 0.1, last=True)
        first, names = 5 * DAYS + 20, [*PRICES, "volume"]
        h.loc[first : first + 3, names] = h.loc[first - 1, names].to_numpy()
        early = h["position"] <= cut
        whole, some = find(h)[0], find(h[early])[0]
        for reason in whole:
            np.testing.assert_array_equal(whole[reason][early], some[reason])

    def test_a_spike_goes_and_leaves_no_trace(self) -> None:
        h = history()
        spoil(h, 30, PRICES, 3.0)
        spoil(h, DAYS + 30, ["adj_factor"], 10.0)
        reasons, notes, _ = find(h)
        assert rows_of(reasons) == {LEAVES: [30], SPIKE: [DAYS + 30]}
        assert rows_of(notes) == {}

    def test_what_stays_is_counted_once(self) -> None:
        h = history()
        spoil(h, 30, PRICES, 0.5, last=True)
        spoil(h, DAYS + 30, ["adj_factor"], 10.0, last=True)
        notes = rows_of(find(h)[1])
        assert (notes[JUMP], notes[STEP]) == ([30], [DAYS + 30])

    @pytest.mark.parametrize("limit", [0.1, np.nan])
    @pytest.mark.parametrize("by", [1 / 30, 0.5, 2.0, 30.0])
    def test_a_span_with_another_factor_goes_whole_and_the_stock_returns(
        self, by: float, limit: float
    ) -> None:
        h = history(limit=limit)
        h.loc[15:44, "adj_factor"] *= by
        reasons, notes, _ = find(h)
        assert rows_of(reasons) == {SPIKE: [15], AFTER: list(range(16, 45))}
        assert rows_of(notes) == {STEP: [15]}

    def test_what_does_not_return_goes_to_the_end(self) -> None:
        h = history()
        spoil(h, 30, PRICES, 1 / 1.3, last=True)  # ten for three, without a factor
        spoil(h, DAYS + 30, ["adj_factor"], 4.0, last=True)
        spoil(h, DAYS + 40, ["adj_factor"], 0.5, last=True)  # halfway is not back
        reasons = rows_of(find(h)[0])
        assert reasons[LEAVES] == [30]
        assert reasons[SPIKE] == [DAYS + 30, DAYS + 40]
        ends = [31, DAYS], [DAYS + 31, DAYS + 40], [DAYS + 41, 2 * DAYS]
        assert reasons[AFTER] == [row for low, high in ends for row in range(low, high)]

    def test_a_bad_row_before_a_suspension(self) -> None:
        h = history()
        spoil(h, 30, PRICES, 3.0)
        h.loc[31 : DAYS - 1, "position"] += 20
        h.loc[31 : DAYS - 1, "date"] += np.timedelta64(20, "D")
        assert rows_of(find(h)[0]) == {LEAVES: [30]}

    def test_a_suspension_that_ends_without_a_limit(self) -> None:
        """A stock is renamed, and rises by 30 % with many times the trade: no row after is lost."""
        h = history()
        for stock in range(3):
            first, last = stock * DAYS + 30, (stock + 1) * DAYS - 1
            spoil(h, first, PRICES, 1.45, last=True)
            h.loc[first:last, "position"] += 1
            h.loc[first:last, "date"] += np.timedelta64(1, "D")
        h.loc[[30, 2 * DAYS + 30], ["volume", "amount"]] *= 40
        h.loc[2 * DAYS + 20 : 3 * DAYS - 1, "adj_factor"] /= 30  # what was wrong before stays so
        reasons = rows_of(find(h)[0])
        assert reasons[LEAVES] == [30, DAYS + 30, 2 * DAYS + 30]
        ends = [DAYS + 31, 2 * DAYS], [2 * DAYS + 21, 2 * DAYS + 30], [2 * DAYS + 31, 3 * DAYS]
        assert reasons[AFTER] == [row for low, high in ends for row in range(low, high)]

    def test_limits_are_not_asked_where_there_are_none(self) -> None:
        for limit, gap in ((np.inf, 1), (0.1, 200)):
            h = history(limit=limit)
            spoil(h, 30, PRICES, 1.6, last=True)
            h.loc[30 : DAYS - 1, "position"] += gap
            assert rows_of(find(h)[0]) == {}

    def test_prices_that_stand_still(self) -> None:
        h = history()
        h.loc[10:49, PRICES[:4]] = 9.0
        h["adj_factor"] = 1.0
        assert rows_of(find(h)[0])[FLAT] == list(range(30, 50))

    def test_sums_do_not_depend_on_buckets(self) -> None:
        h = history()
        parts = [find(h[h["asset"] % 3 == k])[2] for k in range(3)]
        whole, summed = find(h)[2], sum(parts, JumpSums())
        assert (summed.pairs, summed.steps, summed.assets) == (whole.pairs, whole.steps, 8)
        assert summed.squared == pytest.approx(whole.squared)

    def test_no_rows(self) -> None:
        h = history()
        assert find(h[h["asset"] < 0])[2] == JumpSums()


class TestValidation:
    def test_the_message_can_be_pasted(self) -> None:
        found = Finding(count=3, example={"date": "2019-01-02", "code": "x"})
        match = r"3 of 1000 daily moves .* --set bars.max_jumps=0.003$"
        with pytest.raises(BarsError, match=match):
            check_jumps(Quality(notes={JUMP: found}), JumpSums(pairs=1000), allowed=1e-4)
        check_jumps(Quality(notes={JUMP: found}), JumpSums(pairs=1000), allowed=0.003)
        assert resolve_format(BarsConfig(max_jumps=0.003)).price_limits == "none"

    def test_a_restless_factor(self) -> None:
        h = history()
        h.loc[: 3 * DAYS - 1, "adj_factor"] *= np.tile([1.0, 1.03], 3 * DAYS // 2)
        _, notes, sums = find(h)
        assert sums.restless == 3
        rows = rows_of(notes)[jumps.RESTLESS]
        assert h["asset"][rows].tolist() == [0, 1, 2]
        note = {jumps.RESTLESS: Finding(count=3, example={})}
        with pytest.raises(BarsError, match="3 of 8 stocks: adj_factor changes on more than"):
            check_jumps(Quality(notes=note), sums, allowed=1)
