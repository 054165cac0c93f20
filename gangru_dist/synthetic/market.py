"""The synthetic market: bars that look like the real ones, with a planted, known dependence.

Industries, market caps, listings, delistings, suspensions, special treatment, splits and
dividends, price limits, fat tails. `synthetic.signal_ic` is the rank IC that the planted signal
has with the return of the 20 days from the next close on; with 0, no statistic of the past has
any. Suspended days have no row.

The planted signal of an asset is high when its price lies low within its own last 40 days and
its recent volume is quiet: a reversal with drying turnover. Both are shapes within the 40
days, so they survive the standardization of samples: the newest `close` and the mean of the
five newest `volume` of a standardized sample are the signal, up to a monotone map.

The daily log return of an asset on day t is

    market + industry + idiosyncratic + drift x signal(t - 2),

all but the last symmetric about zero and drawn independently of the past, so that without a
signal no statistic of past bars has a rank IC. (Volatility differs between assets and clusters;
it is log returns that are symmetric, for a rank correlation sees no compounding. Every asset
has a market beta of 1: with others, the one realized path of the market would be a lasting
reward of beta.) signal(t - 2) is known after the close of t - 2 and acts from the close of
t - 1 on, which is the entry day of a label with `entry_lag` 1.

Constants are assumptions of the right size for the A-share market, not estimates; `RANK_ICS`
was measured on the market they make and belongs to them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from gangru_dist.base.errors import StorageError
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import SyntheticConfig
from gangru_dist.synthetic.assets import FILE, INDUSTRIES, Lives, draw_lives

LOOKBACK = 40
"""Days the signal looks back."""
MIN_TRADED = 30
"""Days traded among them that a signal needs."""
DELAY = 2
"""Days from a signal to the first daily return it acts on."""
DRIFTS = (0.0, 0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005)
"""Daily log returns per unit of signal at which the rank IC was measured."""
RANK_ICS = (0.0, 0.0215, 0.052, 0.1, 0.144, 0.184, 0.247, 0.288, 0.311)
"""What they gave: means over 6 seeds of 1,500 assets x 863 days, standard error 0.001 to 0.002.

Less than in proportion, for the drift itself wears the reversal out: bought low, prices rise.
"""

_RECENT = 5
_VOLATILITY = 0.02
_INDUSTRY_VOLATILITY = 0.006
_MARKET_VOLATILITY = 0.011
_FREEDOM = 4
_TICK = 0.01
_LOWEST = 0.1


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What is drawn before the market runs; D days x N assets."""

    shock: Float[np.ndarray, "D N"]
    """Daily log return but for the planted drift."""
    volatility: Float[np.ndarray, "D N"]
    """Idiosyncratic volatility a day, a fraction."""
    surprise: Float[np.ndarray, "D N"]
    """Absolute idiosyncratic return in units of its volatility."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Share counts of D days x N assets; splits multiply them."""

    total: Float[np.ndarray, "D N"]
    """Whole shares issued."""
    free: Float[np.ndarray, "D N"]
    """Whole shares that can be traded."""
    price: Float[np.ndarray, " N"]
    """First price, currency per share."""


def draw_noise(lives: Lives, rng: np.random.Generator) -> Noise:
    """Fat-tailed returns whose volatility differs between assets and clusters in time."""
    days, count = lives.traded.shape
    level = _VOLATILITY * np.exp(0.25 * rng.standard_normal(count))
    wave = _autoregression(rng.standard_normal((days, 1)), 0.97, 0.2)
    own = _autoregression(rng.standard_normal((days, count)), 0.98, 0.25)
    volatility = level * np.exp(wave + own)
    own_return = _student(rng, (days, count))
    by_industry = _student(rng, (days, int(lives.industry.max()) + 1))
    market = _student(rng, (days, 1)) * np.exp(wave)
    shock = _MARKET_VOLATILITY * market + volatility * own_return
    shock += _INDUSTRY_VOLATILITY * by_industry[:, lives.industry]
    return Noise(shock=shock, volatility=volatility, surprise=np.abs(own_return))


def draw_shares(lives: Lives, rng: np.random.Generator) -> Shares:
    """Market caps of 8 billion in the median, prices of 12."""
    count = len(lives.assets)
    cap = 8e9 * np.exp(1.1 * rng.standard_normal(count))
    price = np.clip(np.round(12 * np.exp(0.6 * rng.standard_normal(count)), 2), 3, 150)
    total = np.round(cap / price / 1000) * 1000
    free = np.round(total * rng.uniform(0.35, 1, count) / 1000) * 1000
    split = lives.split_factor
    return Shares(total=np.round(total * split), free=np.round(free * split), price=price)


def draw_volume(
    lives: Lives, noise: Noise, shares: Shares, rng: np.random.Generator
) -> Float[np.ndarray, "D N"]:
    """Shares traded, in lots of 100; 0 where the asset does not trade.

    Turnover has a level of its own, waves of weeks, and rises with the day's surprise,
    whatever its sign.
    """
    shape = lives.traded.shape
    level = np.log(0.012) + 0.4 * rng.standard_normal(shape[1])
    wave = _autoregression(rng.standard_normal(shape), 0.95, 0.5)
    everywhere = _autoregression(rng.standard_normal((shape[0], 1)), 0.95, 0.2)
    day = 0.3 * rng.standard_normal(shape) + 0.25 * (noise.surprise - 0.7)
    turnover = np.minimum(np.exp(level + wave + everywhere + day), 0.5)
    lots = np.maximum(np.round(turnover * shares.free / 100), 1)
    return np.where(lives.traded, 100 * lots, 0.0)


def run_market(
    lives: Lives,
    noise: Noise,
    first_price: Float[np.ndarray, " N"],
    volume: Float[np.ndarray, "D N"],
    drift: float,
) -> tuple[Float[np.ndarray, "D N"], Float[np.ndarray, "D N"]]:
    """Run prices through all days, one after the other.

    Returns the closes as traded, in ticks and within the day's limits, NaN where the asset did not
    trade; and the last close before each, adjusted for what the day pays out. Currency per share.

    A suspension passes without a return. The signal of a day is computed from the closes of
    that day and before, and moves prices from `DELAY` days later on.
    """
    days = len(lives.dates)
    factor = lives.adj_factor
    close, adjusted, reference = (np.full(factor.shape, np.nan) for _ in range(3))
    activity = np.log1p(volume / factor)
    last = first_price * factor[np.argmax(lives.traded, axis=0), np.arange(len(lives.assets))]
    signals = np.zeros(factor.shape)
    for t in range(days):
        push = drift * signals[t - DELAY] if t >= DELAY else 0.0
        reference[t] = last / factor[t]
        low, high = limit_prices(reference[t], lives.limit[t])
        price = np.clip(to_tick(reference[t] * np.exp(noise.shock[t] + push)), low, high)
        close[t] = np.where(lives.traded[t], price, np.nan)
        adjusted[t] = close[t] * factor[t]
        last = np.where(lives.traded[t], adjusted[t], last)
        if drift and t + 1 >= LOOKBACK:
            window = slice(t + 1 - LOOKBACK, t + 1)
            signals[t] = np.nan_to_num(signal_of_window(adjusted[window], activity[window]))
    return close, reference


def draw_days(
    lives: Lives,
    noise: Noise,
    close: Float[np.ndarray, "D N"],
    reference: Float[np.ndarray, "D N"],
    rng: np.random.Generator,
) -> dict[str, Float[np.ndarray, "D N"]]:
    """Open, high, low and average price around given closes, within the day's limits.

    Keys `open`, `high`, `low`, `vwap`; currency per share, NaN where there is no close. A
    third of the day's return is made overnight. The average price lies within low and high.
    """
    shape = close.shape
    bottom, top = limit_prices(reference, lives.limit)
    gap = 0.3 * noise.volatility * rng.standard_normal(shape)
    overnight = np.exp(0.3 * np.log(close / reference) + gap)
    start = np.clip(to_tick(reference * overnight), bottom, top)
    up, down = 0.5 * noise.volatility * np.abs(rng.standard_normal((2, *shape)))
    high = np.clip(to_tick(np.maximum(start, close) * np.exp(up)), bottom, top)
    low = np.clip(to_tick(np.minimum(start, close) * np.exp(-down)), bottom, top)
    middle = (start + high + low + close) / 4
    vwap = np.clip(middle + 0.2 * (high - low) * rng.standard_normal(shape), low, high)
    return {"open": start, "high": high, "low": low, "vwap": vwap}


def signal_of_window(
    close: Float[np.ndarray, "T N"], activity: Float[np.ndarray, "T N"]
) -> Float[np.ndarray, " N"]:
    """The planted signal of the window's last day, z-scored across assets.

    Args:
        close: Adjusted close of T days; NaN where the asset did not trade.
        activity: log(1 + volume / adjustment factor); read where `close` is a number.

    Returns:
        Mean 0 and standard deviation 1 across the assets; NaN for one that did not trade on
        the last day or on too few days before.
    """
    traded = np.isfinite(close)
    position = _recent_against_window(close, traded, 1)
    volume = _recent_against_window(activity, traded, _RECENT)
    known = traded[-1] & (traded.sum(axis=0) >= MIN_TRADED)
    raw = -(_across(position, known) + _across(volume, known))
    return _across(raw, known)


def _recent_against_window(
    values: Float[np.ndarray, "T N"], traded: np.ndarray, recent: int
) -> Float[np.ndarray, " N"]:
    """Mean of the `recent` newest days less the window's, in its standard deviations."""
    count = np.maximum(traded.sum(axis=0), 1)
    mean = np.where(traded, values, 0.0).sum(axis=0) / count
    deviation = np.where(traded, values - mean, 0.0)
    spread = np.sqrt(np.square(deviation).sum(axis=0) / count)
    newest = deviation[-recent:].sum(axis=0) / np.maximum(traded[-recent:].sum(axis=0), 1)
    return np.asarray(np.divide(newest, spread, out=np.zeros_like(newest), where=spread > 0))


def _across(values: Float[np.ndarray, " N"], known: np.ndarray) -> Float[np.ndarray, " N"]:
    """z-score across the known assets; NaN for the others, 0 if all are equal."""
    result = np.full(values.shape, np.nan)
    if known.any():
        chosen = values[known]
        result[known] = (chosen - chosen.mean()) / (chosen.std() or 1.0)
    return result


def limit_prices(
    reference: Float[np.ndarray, "*shape"], limit: Float[np.ndarray, "*shape"]
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Lowest and highest price of the day, currency: reference x (1 -+ limit), to the tick.

    `reference` is the previous close, adjusted for what the day pays out; it is rounded to the
    tick itself first, as the exchange does.
    """
    reference = to_tick(reference)
    return to_tick(reference * (1 - limit)), to_tick(reference * (1 + limit))


def to_tick(price: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Round to cents, half up, never under ten cents."""
    cents = np.floor(price / _TICK + 0.5 + 1e-6)
    return np.asarray(np.maximum(np.round(cents * _TICK, 2), _LOWEST))


def _student(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with unit variance."""
    return np.asarray(rng.standard_t(_FREEDOM, shape) / np.sqrt(_FREEDOM / (_FREEDOM - 2)))


def _autoregression(
    noise: Float[np.ndarray, "D M"], memory: float, spread: float
) -> Float[np.ndarray, "D M"]:
    """Stationary first-order autoregression with standard deviation `spread`."""
    result = spread * noise
    for t in range(1, len(noise)):
        result[t] = memory * result[t - 1] + np.sqrt(1 - memory**2) * result[t]
    return result


def make_bars(cfg: SyntheticConfig) -> pa.Table:
    """The whole market as bars in our own column names and units.

    A function of `cfg` alone. Sorted by (date, code); besides the required columns it has
    `adj_factor`, `turnover_rate`, `market_cap`, `industry`, `is_st` and `list_date`. Another
    `signal_ic` with the same seed gives the same assets, suspensions and volumes.

    Raises:
        ConfigError: The dates leave too few trading days.
    """
    drift = float(np.interp(cfg.signal_ic, RANK_ICS, DRIFTS))
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(cfg.seed).spawn(5)]
    lives = draw_lives(cfg, streams[0])
    noise = draw_noise(lives, streams[1])
    shares = draw_shares(lives, streams[2])
    volume = draw_volume(lives, noise, shares, streams[3])
    close, reference = run_market(lives, noise, shares.price, volume, drift)
    prices = draw_days(lives, noise, close, reference, streams[4]) | {"close": close}
    return _to_table(lives, shares, volume, prices)


def write_bars(storage: Storage, cfg: SyntheticConfig) -> None:
    """Write the market's bars as one parquet file a year; the same market only once.

    Files are named by year and content: what is there already is left alone, and another
    market's files are removed first, so that two markets never lie side by side.

    Raises:
        ConfigError: As `make_bars`.
        StorageError: The folder holds files of someone else's.
    """
    bars = make_bars(cfg)
    foreign = [name for name in storage.list_files() if not FILE.fullmatch(name)]
    if foreign:
        raise StorageError(
            f"{storage.uri} holds {len(foreign)} files that are not of the synthetic market, first "
            f"{foreign[0]}. Choose another --storage, or remove them."
        )
    files, year = {}, pc.year(bars["date"])
    for value in pc.unique(year).to_pylist():
        sink = io.BytesIO()
        pq.write_table(bars.filter(pc.equal(year, value)), sink, compression="zstd")
        data = sink.getvalue()
        files[f"{value}-{sha256(data).hexdigest()[:12]}.parquet"] = data
    present = set(storage.list_files())
    for name in sorted(present - set(files)):
        storage.delete(name)
    for name in sorted(set(files) - present):
        storage.write_bytes(name, files[name])


def _to_table(
    lives: Lives,
    shares: Shares,
    volume: Float[np.ndarray, "D N"],
    prices: dict[str, Float[np.ndarray, "D N"]],
) -> pa.Table:
    """One row per traded (date, asset), sorted."""
    row, column = np.nonzero(lives.traded)
    value = {name: grid[lives.traded] for name, grid in prices.items()}
    traded = volume[lives.traded]
    return pa.table(
        {
            "date": pa.array(lives.dates[row]),
            "code": pa.array(lives.assets.tolist()).take(pa.array(column)),
            **{name: value[name] for name in ("open", "high", "low", "close")},
            "volume": traded.astype(np.int64),
            "amount": traded * value["vwap"],
            "adj_factor": lives.adj_factor[lives.traded],
            "turnover_rate": traded / shares.free[lives.traded],
            "market_cap": value["close"] * shares.total[lives.traded],
            "industry": pa.array(INDUSTRIES).take(pa.array(lives.industry[column])),
            "is_st": lives.is_st[lives.traded],
            "list_date": pa.array(lives.list_date[column]),
        }
    )
