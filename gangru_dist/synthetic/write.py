"""The synthetic market: bars that look like the real ones, with a planted, known dependence.

Industries, market caps, listings, delistings, suspensions, special treatment, splits and
dividends, price limits, fat tails. `synthetic.signal_ic` is the rank IC that the
planted signal (`synthetic/market.py` says what it is) has with the return of the 20 days from
the next close on; with 0, no statistic of the past has any. Suspended days have no row.
"""

from __future__ import annotations

import io
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from gangru_dist.config import SyntheticConfig
from gangru_dist.errors import StorageError
from gangru_dist.storage import Storage
from gangru_dist.synthetic import market
from gangru_dist.synthetic.assets import INDUSTRIES, Lives, draw_lives
from gangru_dist.synthetic.files import FILE


def make_bars(cfg: SyntheticConfig) -> pa.Table:
    """The whole market as bars in our own column names and units.

    A function of `cfg` alone. Sorted by (date, code); besides the required columns it has
    `adj_factor`, `turnover_rate`, `market_cap`, `industry`, `is_st` and `list_date`. Another
    `signal_ic` with the same seed gives the same assets, suspensions and volumes.

    Raises:
        ConfigError: `signal_ic` is too high, or the dates leave too few trading days.
    """
    drift = market.drift_per_signal(cfg.signal_ic)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(cfg.seed).spawn(5)]
    lives = draw_lives(cfg, streams[0])
    noise = market.draw_noise(lives, streams[1])
    shares = market.draw_shares(lives, streams[2])
    volume = market.draw_volume(lives, noise, shares, streams[3])
    closes = market.run_market(lives, noise, shares.price, volume, drift)
    prices = market.draw_days(lives, noise, closes, streams[4]) | {"close": closes.close}
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
    files = dict(_file_of_year(part) for part in _by_year(bars))
    present = set(storage.list_files())
    for name in sorted(present - set(files)):
        storage.delete(name)
    for name in sorted(set(files) - present):
        storage.write_bytes(name, files[name])


def _to_table(
    lives: Lives,
    shares: market.Shares,
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


def _by_year(bars: pa.Table) -> list[pa.Table]:
    """The rows of each calendar year, in order."""
    year = bars["date"].to_numpy().astype("datetime64[Y]")
    first = np.flatnonzero(np.r_[True, year[1:] != year[:-1]])
    ends = np.r_[first[1:], len(year)]
    return [bars.slice(start, end - start) for start, end in zip(first, ends, strict=True)]


def _file_of_year(bars: pa.Table) -> tuple[str, bytes]:
    """Name and content of one year's file; the name follows from the content."""
    sink = io.BytesIO()
    pq.write_table(bars, sink, compression="zstd")
    data = sink.getvalue()
    return f"{bars['date'][0].as_py().year}-{sha256(data).hexdigest()[:12]}.parquet", data
