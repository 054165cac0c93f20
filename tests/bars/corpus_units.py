"""Cases: units, factors, moves: what only other columns, rows and stocks can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.bars.corpus_case import Case, case
from tests.bars.corpus_market import (
    CODES,
    CUT,
    DAY,
    DAYS,
    PRICES,
    SCOPES,
    Change,
    Frame,
    at,
    by_stock,
    one_file,
    scaled,
    two_files,
)  # fmt: skip

_UNITS: list[tuple[str, list[str], float, str]] = [
    ("volume in lots", ["volume"], 1e-2, "amount / volume is 100 x the price"),
    ("volume in thousands", ["volume"], 1e-3, "amount / volume is 1000 x the price"),
    ("volume in ten thousands", ["volume"], 1e-4, "amount / volume is 10000 x the price"),
    ("volume 100 times too large", ["volume"], 1e2, "amount / volume is 0.01 x the price"),
    ("amount in thousands", ["amount"], 1e-3, "amount / volume is 0.001 x the price"),
    ("amount in ten thousands", ["amount"], 1e-4, "amount / volume is 0.0001 x the price"),
    ("amount in hundred millions", ["amount"], 1e-8, "amount / volume is 1e-08 x the price"),
    ("amount in cents", ["amount"], 1e2, "amount / volume is 100 x the price"),
    ("prices in cents", PRICES, 1e2, "amount / volume is 0.01 x the price"),
    ("prices in tenths", PRICES, 1e1, "amount / volume is 0.1 x the price"),
    ("prices in hundreds", PRICES, 1e-2, "amount / volume is 100 x the price"),
    ("turnover_rate in per cent", ["turnover_rate"], 1e2, "turnover_rate"),
    ("turnover_rate in per mille", ["turnover_rate"], 1e3, "turnover_rate"),
    ("turnover_rate a hundredth", ["turnover_rate"], 1e-2, "turnover_rate below"),
    ("market_cap in ten thousands", ["market_cap"], 1e-4, "amount above 10 x market_cap"),
    ("market_cap in hundred millions", ["market_cap"], 1e-8, "amount above 10 x market_cap"),
]
_SETTING = {
    "volume in lots": "--set bars.scales.volume=100",
    "amount in thousands": "--set bars.scales.amount=1000",
    "amount in ten thousands": "--set bars.scales.amount=10000",
    "volume 100 times too large": "--set bars.scales.volume=0.01",
    "prices in cents": " ".join(f"--set bars.scales.{name}=0.01" for name in PRICES),
    "turnover_rate in per cent": "--set bars.scales.turnover_rate=0.01",
    "market_cap in ten thousands": "--set bars.scales.market_cap=10000",
}


_PAIRS: list[tuple[str, str, float, float, str]] = [
    ("lots", "thousands", 1e-2, 1e-3, "--set bars.scales.volume=100 --set bars.scales.amount=1000"),
    ("lots", "ten thousands", 1e-2, 1e-4,
     "--set bars.scales.volume=100 --set bars.scales.amount=10000"),
    ("ten thousands", "hundred millions", 1e-4, 1e-8,
     "--set bars.scales.volume=10000 --set bars.scales.amount=1e+08"),
    ("ten thousands", "ten thousands", 1e-4, 1e-4,
     "--set bars.scales.volume=10000 --set bars.scales.amount=10000"),
    ("ten thousands of lots", "ten thousands", 1e-6, 1e-4,
     "--set bars.scales.volume=1e+06 --set bars.scales.amount=10000"),
]  # fmt: skip


def units() -> Iterator[Case]:
    """A unit everywhere, in one file, for half the stocks, for one stock, in one row."""
    for what, columns, by, reason in _UNITS:
        for scope, (words, where) in SCOPES.items():
            spoil = scaled(where, columns, by)
            told = reason
            if scope == "all":
                told = _SETTING.get(what, reason)
            elif scope == "file":
                told = "a setting holds for all"
            if scope == "row":
                yield case(f"{what} {words}", spoil, "set aside", _row_reason(what, reason))
            else:
                layout = two_files if scope == "file" else one_file
                yield case(f"{what} {words}", spoil, "refused", told, layout)
    for volume, amount, by, times, told in _PAIRS:
        both = _then(scaled(SCOPES["all"][1], ["volume"], by),
                     scaled(SCOPES["all"][1], ["amount"], times))  # fmt: skip
        yield case(f"volume in {volume} and amount in {amount}", both, "refused", told)
        if by != times:
            large = _then(scaled(SCOPES["all"][1], ["volume", "amount"], 100), both)
            yield case(f"volume in {volume} and amount in {amount}, no market_cap",
                       _then(lambda f: f.drop(columns="market_cap"), large), "refused",
                       told)  # fmt: skip
    for what, columns, by, _ in _UNITS[:7]:
        yield case(f"{what} in one file, one file a stock",
                   scaled(SCOPES["stock"][1], columns, by), "refused",
                   "11 of 12 files are not so", by_stock)  # fmt: skip
    yield case("volume and amount exchanged", _exchange, "refused",
               "--set bars.columns.volume=amount --set bars.columns.amount=volume")  # fmt: skip
    yield case("volume and amount exchanged in one file", _where(_exchange, "file"), "refused",
               "the two seem exchanged", two_files)  # fmt: skip
    yield case("volume and amount exchanged in one row", _where(_exchange, "row"), "set aside",
               "volume / amount lies within low to high: the two seem exchanged")  # fmt: skip
    yield case("amount is 0 everywhere", _all("amount", 0.0), "refused", "amount is 0 although")
    yield case("amount is the close everywhere", lambda f: f.assign(amount=f["close"]), "refused",
               "contradict themselves")  # fmt: skip
    yield case("volume is 1 everywhere", _all("volume", 1.0), "refused", "contradict themselves")
    yield case("turnover_rate is 1e9 everywhere", _all("turnover_rate", 1e9), "refused",
               "turnover_rate")  # fmt: skip
    yield case("market_cap is 1 everywhere", _all("market_cap", 1.0), "refused", "market_cap")
    yield case("volume is 0 in one file, amount is not", _where(_all("volume", 0.0), "file"),
               "refused", "volume is 0 although amount is not", two_files)  # fmt: skip
    yield case("volume and amount are 0 in one file", _where(_no_trade, "file"), "refused",
               "less than a hundredth of the market traded", two_files)  # fmt: skip
    yield case("volume and amount are 0 of one stock, from one day on", _no_trade_later,
               "noted", "price moves on a day without volume")  # fmt: skip
    yield case("the close in place of open, high and low",
               lambda f: f.assign(**dict.fromkeys(PRICES, f["close"])), "refused",
               "high equals low")  # fmt: skip
    yield case("market_cap is that of the last day throughout", _last_cap, "noted",
               "market_cap stays the same although the price moves")  # fmt: skip
    yield case("turnover_rate is 0 everywhere, no market_cap",
               _then(lambda f: f.drop(columns="market_cap"), _all("turnover_rate", 0.0)),
               "refused", "turnover_rate is 0 although volume is not")  # fmt: skip
    no_rate: Change = lambda f: f.drop(columns="turnover_rate")  # noqa: E731
    yield case("market_cap x 1e6 for half the stocks, no turnover_rate",
               _then(no_rate, scaled(SCOPES["half"][1], ["market_cap"], 1e6)), "refused",
               "market_cap larger than any stock's")  # fmt: skip
    yield case("market_cap x 1e4 in one file, no turnover_rate",
               _then(no_rate, scaled(SCOPES["file"][1], ["market_cap"], 1e4)), "refused",
               "market_cap jumps fiftyfold against the close", two_files)  # fmt: skip
    for what, columns, by, _ in (_UNITS[0], _UNITS[4], _UNITS[8]):
        yield case(f"{what} in one file, prices adjusted already",
                   _then(_adjusted, scaled(SCOPES["file"][1], columns, by)), "refused",
                   "jumps twentyfold" if columns != PRICES else "market does not allow",
                   two_files, prices="adjusted")  # fmt: skip
    yield case("turnover_rate in per cent in one file, no market_cap",
               _then(lambda f: f.drop(columns="market_cap"),
                     scaled(SCOPES["file"][1], ["turnover_rate"], 1e2)),
               "refused", "turnover_rate", two_files)  # fmt: skip
    yield case("turnover_rate a hundredth in one file, no market_cap",
               _then(lambda f: f.drop(columns="market_cap"),
                     scaled(SCOPES["file"][1], ["turnover_rate"], 1e-2)),
               "refused", "turnover_rate jumps twentyfold", two_files)  # fmt: skip


def factors() -> Iterator[Case]:
    """adj_factor that is not what it should be."""
    step = "step of adj_factor that the price does not show"
    yield case("adj_factor is inverted", lambda f: f.assign(adj_factor=1 / f["adj_factor"]),
               "refused", "inverse")  # fmt: skip
    yield case("adj_factor is squared", lambda f: f.assign(adj_factor=f["adj_factor"] ** 2),
               "refused", step)  # fmt: skip
    yield case("adj_factor is random", _random, "refused", "more than a tenth of a stock's days")
    yield case("adj_factor is a daily ratio", _ratio, "refused", step)
    yield case("adj_factor is 1 throughout, prices as traded", _all("adj_factor", 1.0), "refused",
               "near a split's ratio")  # fmt: skip
    yield case("no adj_factor", lambda f: f.drop(columns="adj_factor"), "refused",
               "has no adjustment factor")  # fmt: skip
    yield case("no adj_factor, prices as traded but called adjusted",
               lambda f: f.drop(columns="adj_factor"), "refused", "near a split's ratio",
               prices="adjusted")  # fmt: skip
    yield case("no adj_factor, prices as traded but called adjusted, limits not known",
               lambda f: f.drop(columns="adj_factor"), "refused", "near a split's ratio",
               prices="adjusted", price_limits="none")  # fmt: skip
    yield case("no adj_factor, prices adjusted already and called so", _adjusted, "accepted",
               "as declared", prices="adjusted")  # fmt: skip
    yield case("no adj_factor, the previous close as the exchange states it", _stated, "accepted",
               "adj_factor follows from it")  # fmt: skip
    yield case("no adj_factor, the change from the previous close in per cent",
               lambda f: _changed(_stated(f)), "accepted", "adj_factor follows from it",
               scales={"daily_change": 0.01})  # fmt: skip
    yield case("no adj_factor, an adjusted close",
               lambda f: f.assign(adj_close=f["close"] * f.pop("adj_factor")), "accepted",
               "adj_factor follows from it")  # fmt: skip
    yield case("prices as traded but called adjusted, the previous close beside them", _stated,
               "refused", "pre_close states an ex-date", prices="adjusted")  # fmt: skip
    yield case("the change from the previous close is that of another unit",
               lambda f: _changed(_stated(f)), "refused",
               "--set bars.scales.daily_change=0.01")  # fmt: skip
    yield case("adjustflag says adjusted, and prices are called as traded",
               lambda f: f.assign(adjustflag=2), "refused", "adjustflag=2 in row 0")  # fmt: skip
    yield case("prices adjusted already, a vwap as traded beside them",
               lambda f: _adjusted(f.assign(vwap=f["amount"] / f["volume"])), "refused",
               "not in the adjustment of the prices", prices="adjusted")  # fmt: skip
    yield case("prices adjusted already, and adj_factor beside them", _twice, "refused",
               "prices seem adjusted")  # fmt: skip
    yield case("prices and volume adjusted already, and adj_factor beside them",
               _then(_twice, lambda f: f.assign(volume=f["volume"] / f["adj_factor"])),
               "refused", step)  # fmt: skip
    yield case("adj_factor normalised to 1 on the last day", _forward, "accepted",
               "another level, the same returns")  # fmt: skip
    yield case("adj_factor normalised to 1 on the last day of each of two files", _forward_twice,
               "refused", "exports of two days were put together", two_files)  # fmt: skip
    yield case("prices adjusted already in one of two files", _where(_twice, "file"), "refused",
               "prices seem adjusted", two_files)  # fmt: skip
    yield case("adj_factor of another stock", _exchanged_factors, "refused", step)
    yield case("adj_factor a week late", _shifted(5), "refused", "adj_factor")
    yield case("adj_factor a day early", _shifted(-1), "set aside",
               "adj_factor changes and the price does not")  # fmt: skip
    yield case("adj_factor newest first", _reversed, "refused", "adj_factor")
    for by in (10.0, 0.1, 2.0, 100.0):
        yield case(f"adj_factor x {by:g} for a day", scaled(at, ["adj_factor"], by), "set aside",
                   "adj_factor changes and the price does not")  # fmt: skip
    for by in (2.0, 10.0, 0.1):
        later = scaled(lambda f: (f["code"] == CODES[4]) & (f["date"] >= DAY), ["adj_factor"], by)
        yield case(f"adj_factor of one stock x {by:g} from one day on", later, "refused",
                   "step of adj_factor that the price does not show")  # fmt: skip
    yield case("adj_factor of one stock 0 throughout", _stock("adj_factor", 0.0), "refused",
               "adj_factor missing, infinite or not above 0")  # fmt: skip


def marks() -> Iterator[Case]:
    """Special treatment that no market has had."""
    yield case("is_st is inverted", lambda f: f.assign(is_st=~f["is_st"].astype(bool)), "refused",
               "its marks seem inverted")  # fmt: skip
    yield case("is_st is missing for a fifth of the rows", _some_missing("is_st", False), "refused",
               "is_st missing, taken as no")  # fmt: skip
    yield case("is_st is 1 or blank", _one_or_blank, "noted", "is_st blank, taken as no")
    yield case("names in place of is_st, a fifth of them empty",
               _then(lambda f: f.drop(columns="is_st"), _some_missing("name", "Bank")), "refused",
               "name missing, so special treatment is not known")  # fmt: skip


def moves() -> Iterator[Case]:
    """Prices against the day before."""
    for ratio in (1.3, 2, 10):
        for limits in ("ashare", "none"):
            words = "known" if limits == "ashare" else "not known"
            told = "the market does not allow" if limits == "ashare" else "near a split's ratio"
            yield case(f"a {ratio:g}:1 split without a factor, limits {words}", _split(ratio),
                       "refused", told, price_limits=limits)  # fmt: skip
    for ratio in (0.5, 0.1):
        yield case(f"a reverse split 1:{1 / ratio:g} without a factor", _split(ratio), "refused",
                   "the market does not allow")  # fmt: skip
    yield case("a move of 13 %, limit 10 %", _split(1 / 1.13), "refused",
               "the market does not allow")  # fmt: skip
    yield case("a constant price throughout", _constant(CODES), "refused",
               "price has not moved for 20 traded days")  # fmt: skip
    yield case("a constant price of one stock", _constant(CODES[4:5]), "refused",
               "price has not moved for 20 traded days")  # fmt: skip
    yield case("a constant price of one stock for 22 days", _constant(CODES[4:5], 22), "set aside",
               "price has not moved for 20 traded days")  # fmt: skip
    yield case("a stock's prices from another stock, from one day on", _other_stock, "refused",
               "contradict")  # fmt: skip


def cases() -> Iterator[Case]:
    """All of them."""
    yield from units()
    yield from factors()
    yield from marks()
    yield from moves()


def _row_reason(what: str, reason: str) -> str:
    return {
        "turnover_rate in per cent": "turnover_rate above 90 x volume x close / market_cap",
        "turnover_rate in per mille": "turnover_rate too large to be true",
        "turnover_rate a hundredth": "turnover_rate below volume x close / market_cap",
    }.get(what, reason)


def _then(*changes: Change) -> Change:
    def change(frame: Frame) -> Frame:
        for each in changes:
            frame = each(frame)
        return frame

    return change


def _where(change: Change, scope: str) -> Change:
    def some(frame: Frame) -> Frame:
        rows = SCOPES[scope][1](frame)
        return frame.where(~rows, change(frame.copy()))

    return some


def _all(column: str, value: float) -> Change:
    return lambda frame: frame.assign(**{column: value})


def _stock(column: str, value: float) -> Change:
    def change(frame: Frame) -> Frame:
        frame.loc[frame["code"] == CODES[4], column] = value
        return frame

    return change


def _exchange(frame: Frame) -> Frame:
    return frame.assign(volume=frame["amount"], amount=frame["volume"])


def _twice(frame: Frame) -> Frame:
    for name in PRICES:
        frame[name] *= frame["adj_factor"]
    return frame


def _adjusted(frame: Frame) -> Frame:
    return _twice(frame).drop(columns="adj_factor")


def _stated(frame: Frame) -> Frame:
    stocks = frame.groupby("code")
    step = frame["adj_factor"] / stocks["adj_factor"].shift()
    pre = (stocks["close"].shift() / step).fillna(frame["open"])
    return frame.assign(pre_close=pre).drop(columns="adj_factor")


def _changed(frame: Frame) -> Frame:
    change = 100 * (frame["close"] / frame["pre_close"] - 1).round(4)
    return frame.assign(daily_change=change).drop(columns="pre_close")


def _random(frame: Frame) -> Frame:
    rng = np.random.default_rng(0)
    return frame.assign(adj_factor=1 + rng.random(len(frame)))


def _ratio(frame: Frame) -> Frame:
    ratio = frame.groupby("code")["adj_factor"].transform(
        lambda f: f / f.shift(fill_value=f.iat[0])
    )
    return frame.assign(adj_factor=ratio)


def _forward(frame: Frame) -> Frame:
    last = frame.groupby("code")["adj_factor"].transform("last")
    return frame.assign(adj_factor=frame["adj_factor"] / last)


def _forward_twice(frame: Frame) -> Frame:
    last = frame.groupby(["code", frame["date"] < CUT])["adj_factor"].transform("last")
    return frame.assign(adj_factor=frame["adj_factor"] / last)


def _no_trade(frame: Frame) -> Frame:
    return frame.assign(volume=0.0, amount=0.0)


def _no_trade_later(frame: Frame) -> Frame:
    later = (frame["code"] == CODES[4]) & (frame["date"] >= DAY)
    return frame.where(~later, _no_trade(frame))


def _last_cap(frame: Frame) -> Frame:
    return frame.assign(market_cap=frame.groupby("code")["market_cap"].transform("last"))


def _some_missing(column: str, value: Any) -> Change:
    def change(frame: Frame) -> Frame:
        return frame.assign(**{column: np.where(frame.index % 5 == 0, None, value)})

    return change


def _one_or_blank(frame: Frame) -> Frame:
    return frame.assign(is_st=np.where(frame["code"] == CODES[4], "1", ""))


def _exchanged_factors(frame: Frame) -> Frame:
    table = frame.pivot_table(index="date", columns="code", values="adj_factor")
    table[:] = np.roll(table.to_numpy(), 1, axis=1)
    factor = table.stack().rename("adj_factor").reset_index()
    return frame.drop(columns="adj_factor").merge(factor, on=["date", "code"])


def _shifted(days: int) -> Change:
    def change(frame: Frame) -> Frame:
        moved = frame.groupby("code")["adj_factor"].transform(
            lambda f: f.shift(days).bfill().ffill()
        )
        return frame.assign(adj_factor=moved)

    return change


def _reversed(frame: Frame) -> Frame:
    turned = frame.groupby("code")["adj_factor"].transform(lambda f: f.to_numpy()[::-1])
    return frame.assign(adj_factor=turned)


def _split(ratio: float) -> Change:
    def change(frame: Frame) -> Frame:
        later = (frame["code"] == CODES[4]) & (frame["date"] >= DAY)
        frame.loc[later, PRICES] /= ratio
        frame.loc[later, "volume"] *= ratio
        before = frame.loc[at(frame, CODES[4], DAYS[39]), "close"].item() / ratio
        day = at(frame, CODES[4])
        frame.loc[day, "open"] = before
        frame.loc[day, "low"] = min(before, frame.loc[day, "low"].item())
        frame.loc[day, "high"] = max(before, frame.loc[day, "high"].item())
        return frame

    return change


def _constant(codes: Any, days: int = len(DAYS)) -> Change:
    def change(frame: Frame) -> Frame:
        rows = frame["code"].isin(codes) & frame["date"].isin(DAYS[:days])
        price = frame.loc[rows].groupby("code")["close"].transform("first")
        for name, by in zip(PRICES, (1, 1.01, 0.99, 1), strict=True):
            frame.loc[rows, name] = price * by
        frame.loc[rows, "amount"] = price * frame.loc[rows, "volume"]
        first = frame.loc[rows].groupby("code")["adj_factor"].transform("first")
        frame.loc[rows, "adj_factor"] = first
        frame["market_cap"] = frame["close"] * 1e7
        return frame

    return change


def _other_stock(frame: Frame) -> Frame:
    one, two = ((frame["code"] == code) & (frame["date"] >= DAY) for code in (CODES[0], CODES[9]))
    names = [*PRICES, "volume", "amount"]
    frame.loc[one, names] = frame.loc[two, names].to_numpy()
    return frame
