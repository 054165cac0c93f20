"""The synthetic market's assets: who is listed, suspended, under special treatment, and when.

Everything here is drawn before prices move and knows nothing of them, so that no event of
an asset's life tells anything about its returns. Rates are assumptions of the right size
for the A-share market, not estimates. Codes look like A-share codes, because the price-limit
rule reads the board from them; they name no real company.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import SyntheticConfig

FILE = re.compile(r"\d{4}-[0-9a-f]{12}\.parquet")
"""Names of the market's files, by which they are recognized: year and hash of the content."""


def is_synthetic(bars: Storage) -> bool:
    """Whether a folder holds the made-up market's bars, and nothing else."""
    names = bars.list_files()
    return bool(names) and all(FILE.fullmatch(name) for name in names)


INDUSTRIES = (
    "Agriculture", "Appliances", "Autos", "Banks", "Beverages", "Building materials",
    "Chemicals", "Coal", "Computers", "Construction", "Defense", "Electronics", "Energy",
    "Food", "Health care", "Insurance", "Leisure", "Machinery", "Media", "Metals", "Paper",
    "Power equipment", "Real estate", "Retail", "Steel", "Telecom", "Transport", "Utilities",
)  # fmt: skip
"""As many as the real classification has; small markets use the first few."""

_STAR_OPENS = np.datetime64("2019-07-22")
_CHINEXT_WIDENS = np.datetime64("2020-08-24")
_MIN_DAYS = 60
_LATE_SHARE = 0.2
_DELISTED_SHARE = 0.03
_ST_SHARE = 0.04
_ST_DAYS = 120
_SUSPENSIONS_PER_DAY = 0.002
_PAYING_SHARE = 0.6
_SPLITTING_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Lives:
    """What happens to N assets over D trading days, prices aside."""

    dates: np.ndarray
    """(D,) datetime64[D], the trading calendar."""
    assets: np.ndarray
    """(N,) str such as 600000.SH, ascending."""
    industry: Int[np.ndarray, " N"]
    """Index into `INDUSTRIES`."""
    list_date: np.ndarray
    """(N,) datetime64[D]; before the calendar for most assets."""
    traded: Bool[np.ndarray, "D N"]
    """Listed, not yet delisted, not suspended."""
    is_st: Bool[np.ndarray, "D N"]
    """Under special treatment."""
    limit: Float[np.ndarray, "D N"]
    """Daily price limit as a fraction: 0.05, 0.1 or 0.2."""
    adj_factor: Float[np.ndarray, "D N"]
    """Cumulative backward factor: dividends and splits."""
    split_factor: Float[np.ndarray, "D N"]
    """The splits alone, 1 on the first day: what multiplies the shares."""


def draw_lives(cfg: SyntheticConfig, rng: np.random.Generator) -> Lives:
    """Draw every asset's life.

    Raises:
        ConfigError: Between `synthetic.first` and `synthetic.last` lie too few trading days.
    """
    dates = trading_calendar(cfg)
    assets = _codes(cfg.assets, star=bool(dates[-_MIN_DAYS] > _STAR_OPENS))
    first, last = _draw_spans(dates, assets, rng)
    day = np.arange(len(dates))[:, None]
    listed = (day >= first) & (day <= last)
    is_st = _draw_st(listed, last, rng)
    adj_factor, split_factor = _draw_factors(dates, listed, rng)
    kinds = int(np.clip(cfg.assets // 16, 4, len(INDUSTRIES)))
    industry = rng.integers(0, kinds, cfg.assets)
    age = np.round(365.25 * rng.uniform(0.7, 15, cfg.assets)).astype("timedelta64[D]")
    return Lives(
        dates=dates,
        assets=assets,
        industry=industry,
        list_date=np.where(first > 0, dates[first], dates[0] - age),
        traded=listed & ~_draw_suspensions(listed, first, last, rng),
        is_st=is_st,
        limit=price_limit(dates, assets, is_st),
        adj_factor=adj_factor,
        split_factor=split_factor,
    )


def trading_calendar(cfg: SyntheticConfig) -> np.ndarray:
    """Weekdays from `first` to `last` without fixed holidays, (D,) datetime64[D].

    The spring festival is put on 1 to 7 February of every year.
    """
    days = np.arange(np.datetime64(cfg.first, "D"), np.datetime64(cfg.last, "D") + 1)
    days = days[np.is_busday(days)]
    month = days.astype("datetime64[M]").astype(int) % 12 + 1
    day = (days - days.astype("datetime64[M]")).astype(int) + 1
    holiday = (month == 1) & (day == 1) | (month == 5) & (day <= 3)
    holiday |= np.isin(month, (2, 10)) & (day <= 7)
    dates: np.ndarray = days[~holiday]
    if len(dates) < _MIN_DAYS:
        raise ConfigError(
            f"synthetic.first={cfg.first} to synthetic.last={cfg.last} are {len(dates)} trading "
            f"days; the market needs at least {_MIN_DAYS}: move one of the two."
        )
    return dates


def price_limit(
    dates: np.ndarray, assets: np.ndarray, is_st: Bool[np.ndarray, "D N"]
) -> Float[np.ndarray, "D N"]:
    """Daily limit as a fraction, from the board in the code, the day and the ST mark."""
    star, chinext = np.char.startswith(assets, "688"), np.char.startswith(assets, "30")
    wide = star | chinext & (dates >= _CHINEXT_WIDENS)[:, None]
    return np.where(wide, 0.2, np.where(is_st, 0.05, 0.1))


def _codes(count: int, *, star: bool) -> np.ndarray:
    """Codes on four boards, (count,) str, ascending; the two small boards have little room."""
    on_star = min(count // 20, 900) if star else 0
    on_chinext = min(count // 6, 1_900)
    on_shenzhen = count // 3
    on_shanghai = count - on_star - on_chinext - on_shenzhen
    boards = (
        (1, on_shenzhen, "SZ"),
        (300_001, on_chinext, "SZ"),
        (600_000, on_shanghai, "SH"),
        (688_001, on_star, "SH"),
    )
    return np.array([f"{start + k:06d}.{city}" for start, n, city in boards for k in range(n)])


def _draw_spans(
    dates: np.ndarray, assets: np.ndarray, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """First and last listed day of every asset, indices into `dates`."""
    count, end = len(assets), len(dates) - 1
    late = rng.random(count) < _LATE_SHARE
    first = np.where(late, rng.integers(1, end - _MIN_DAYS // 2, count), 0)
    opens = int(np.searchsorted(dates, _STAR_OPENS))
    star = np.char.startswith(assets, "688")
    first = np.where(star, rng.integers(min(opens, end - 1), end, count), first)
    leaves = (rng.random(count) < _DELISTED_SHARE) & (first == 0)
    last = np.where(leaves, rng.integers(_MIN_DAYS // 2, end, count), end)
    return first, last


def _draw_st(
    listed: Bool[np.ndarray, "D N"], last: Int[np.ndarray, " N"], rng: np.random.Generator
) -> Bool[np.ndarray, "D N"]:
    """A spell for a few assets, and the last months of those that delist."""
    days, count = listed.shape
    day = np.arange(days)[:, None]
    chosen = rng.random(count) < _ST_SHARE
    start, length = rng.integers(0, days, count), rng.integers(_ST_DAYS, 2 * _ST_DAYS, count)
    spell = chosen & (day >= start) & (day < start + length)
    dying = (last < days - 1) & (day > last - _ST_DAYS)
    return np.asarray((spell | dying) & listed)


def _draw_suspensions(
    listed: Bool[np.ndarray, "D N"],
    first: Int[np.ndarray, " N"],
    last: Int[np.ndarray, " N"],
    rng: np.random.Generator,
) -> Bool[np.ndarray, "D N"]:
    """Mostly days, one in ten for months; never on an asset's first or last day."""
    days, count = listed.shape
    starts = np.argwhere(rng.random((days, count)) < _SUSPENSIONS_PER_DAY)
    short, long = rng.geometric(0.2, len(starts)), rng.integers(20, 90, len(starts))
    length = np.where(rng.random(len(starts)) < 0.1, long, short)
    edge = np.zeros((days + 1, count), dtype=np.int32)
    np.add.at(edge, (starts[:, 0], starts[:, 1]), 1)
    np.add.at(edge, (np.minimum(starts[:, 0] + length, days), starts[:, 1]), -1)
    suspended = np.cumsum(edge, axis=0)[:-1] > 0
    column = np.arange(count)
    suspended[first, column] = suspended[last, column] = False
    return suspended


def _draw_factors(
    dates: np.ndarray, listed: Bool[np.ndarray, "D N"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "D N"], Float[np.ndarray, "D N"]]:
    """Adjustment and split factors: one ex-date a year, between May and July."""
    days, count = listed.shape
    dividends, splits = np.ones((days, count)), np.ones((days, count))
    for year in np.unique(dates.astype("datetime64[Y]")):
        season = (dates >= year + np.timedelta64(4, "M")) & (dates < year + np.timedelta64(7, "M"))
        pays, divides = rng.random(count) < _PAYING_SHARE, rng.random(count) < _SPLITTING_SHARE
        where = rng.random(count)
        payout, ratio = rng.uniform(0.005, 0.03, count), rng.choice((1.3, 1.5, 2.0), count)
        if season.any():
            row = np.flatnonzero(season)[(where * season.sum()).astype(int)]
            dividends[row, np.arange(count)] = np.where(pays, 1 / (1 - payout), 1)
            splits[row, np.arange(count)] = np.where(divides, ratio, 1)
    before = np.where(listed[0], np.exp(rng.uniform(0, 1.2, count)), 1.0)
    later = np.vstack([np.zeros((1, count), dtype=bool), listed[:-1]])  # none on the listing day
    split_factor = np.cumprod(np.where(later, splits, 1), axis=0)
    paid = np.cumprod(np.where(later, dividends, 1), axis=0)
    return np.round(before * paid * split_factor, 6), split_factor
