"""The synthetic market: sound bars, the planted rank IC, and nothing else."""

import dataclasses
import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from scipy import stats

from gangru_dist.bars.files import list_files
from gangru_dist.base.errors import ConfigError, StorageError
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import SyntheticConfig
from gangru_dist.synthetic.assets import trading_calendar
from gangru_dist.synthetic.market import make_bars, write_bars
from tests.synthetic.planted import planted_signal

SMALL = SyntheticConfig(assets=60, last=dt.date(2018, 3, 30), seed=5)
MEMORY = 41
"""Trading days that a signal and the day of its first effect span."""


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    """A market of the default size, as pandas sees it."""
    return make_bars(SyntheticConfig()).to_pandas()


@pytest.fixture(scope="module")
def small() -> pa.Table:
    return make_bars(SMALL)


def wide(bars: pd.DataFrame, column: str) -> pd.DataFrame:
    """Days x assets of one column."""
    return bars.set_index(["date", "code"])[column].unstack()  # noqa: PD010


def adjusted_close(bars: pd.DataFrame) -> pd.DataFrame:
    return wide(bars, "close") * wide(bars, "adj_factor")


def forward_return(close: pd.DataFrame) -> pd.DataFrame:
    """Return from the next close to the one 20 days on; NaN if not traded on entry."""
    held = close.ffill()
    return (held.shift(-21) / held.shift(-1) - 1).where(close.shift(-1).notna())


def rank_ics(signal: pd.DataFrame, outcome: pd.DataFrame) -> np.ndarray:
    """Spearman correlation of every fifth day on which both are known."""
    signal, outcome = signal.iloc[45:-21:5], outcome.iloc[45:-21:5]
    both = signal.notna() & outcome.notna()
    ranks = signal.where(both).rank(axis=1)
    return ranks.corrwith(outcome.where(both).rank(axis=1), axis=1).to_numpy()


def standard_error(ics: np.ndarray) -> float:
    """Of the mean of ICs 5 days apart whose labels last 20 days."""
    return float(ics.std() / np.sqrt(len(ics) / 4))


def signal_grid(table: pa.Table, like: pd.DataFrame) -> pd.DataFrame:
    """The planted signal, with the days and assets of `like`."""
    found = planted_signal(table).rename(columns={"asset": "code"})
    found["date"] = found["date"].dt.date
    return wide(found, "signal").reindex_like(like)


def signal_by_hand(bars: pd.DataFrame, date: dt.date) -> pd.Series:
    """The planted signal of one day, asset by asset, with plain pandas."""
    days = sorted(set(bars["date"]))
    end = days.index(date)
    window = bars[bars["date"].isin(days[end - 39 : end + 1])]
    parts = {}
    for code, own in window.groupby("code"):
        if own["date"].max() != date or len(own) < 30:
            continue
        close = own["close"] * own["adj_factor"]
        volume = np.log(1 + own["volume"] / own["adj_factor"])
        recent = volume[own["date"].isin(days[end - 4 : end + 1])].mean()
        parts[code] = (
            (close.iloc[-1] - close.mean()) / close.std(ddof=0),
            (recent - volume.mean()) / volume.std(ddof=0),
        )
    table = pd.DataFrame(parts, index=["position", "activity"]).T
    raw = -((table - table.mean()) / table.std(ddof=0)).sum(axis=1)
    return (raw - raw.mean()) / raw.std(ddof=0)


class TestReference:
    def test_signal_equals_its_definition_worked_out_by_hand(self, small):
        rows, found = small.to_pandas(), planted_signal(small)
        for date in sorted(set(rows["date"]))[39::60]:
            expected = signal_by_hand(rows, date)
            day = found[found["date"] == np.datetime64(date)].set_index("asset")["signal"]
            assert list(day.index) == sorted(expected.index)
            np.testing.assert_allclose(day, expected.loc[day.index], rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("signal_ic", [0.1, 0.3])
    def test_planted_rank_ic_is_what_was_asked_for(self, signal_ic):
        table = make_bars(SyntheticConfig(assets=600, signal_ic=signal_ic, seed=1))
        outcome = forward_return(adjusted_close(table.to_pandas()))
        ics = rank_ics(signal_grid(table, outcome), outcome)
        assert standard_error(ics) < 0.012
        assert abs(ics.mean() - signal_ic) < 3 * standard_error(ics)

    def test_without_a_signal_no_statistic_of_the_past_has_an_ic(self):
        table = make_bars(SyntheticConfig(assets=600, signal_ic=0, seed=2))
        rows = table.to_pandas()
        close, turnover = adjusted_close(rows), wide(rows, "turnover_rate")
        daily = close.ffill().pct_change()
        outcome = forward_return(close)
        past = {
            "planted": signal_grid(table, outcome),
            "return_1d": daily,
            "return_5d": close.ffill().pct_change(5),
            "return_20d": close.ffill().pct_change(20),
            "volatility": daily.rolling(20).std(),
            "turnover": turnover,
            "turnover_trend": turnover.ffill().rolling(5).mean() / turnover.rolling(40, 30).mean(),
            "amplitude": wide(rows, "high") / wide(rows, "low"),
            "market_cap": wide(rows, "market_cap"),
        }
        for name, statistic in past.items():
            ics = rank_ics(statistic, outcome)
            assert abs(ics.mean()) < max(3.5 * standard_error(ics), 0.005), name

    def test_the_forward_return_itself_would_be_noticed(self):
        close = adjusted_close(make_bars(SMALL).to_pandas())
        outcome = forward_return(close)
        assert rank_ics(outcome.shift(5), outcome).mean() > 0.3


class TestProperties:
    def test_the_same_seed_gives_the_same_market_another_seed_another(self, small):
        assert make_bars(SMALL).equals(small)
        assert not make_bars(dataclasses.replace(SMALL, seed=6)).equals(small)

    def test_another_signal_changes_prices_only(self, small):
        other = make_bars(dataclasses.replace(SMALL, signal_ic=0.3))
        for column in ("date", "code", "volume", "adj_factor", "turnover_rate", "is_st"):
            assert other[column].equals(small[column]), column
        assert not other["close"].equals(small["close"])

    def test_signals_move_no_price_before_they_could_be_known(self, small):
        weak, strong = (wide(table.to_pandas(), "close") for table in (small, make_bars(
            dataclasses.replace(SMALL, signal_ic=0.3)
        )))  # fmt: skip
        pd.testing.assert_frame_equal(weak.iloc[:MEMORY], strong.iloc[:MEMORY])
        assert not weak.iloc[MEMORY].equals(strong.iloc[MEMORY])

    @pytest.mark.parametrize("cut", [39, 60, 150])
    def test_signal_ignores_the_future(self, small, cut):
        day = sorted(set(small["date"].to_pylist()))[cut]
        later = np.array(small["date"].to_pylist()) > day
        shaken = np.where(later, 7.0, 1.0) * small["close"].to_numpy()
        tampered = small.set_column(small.column_names.index("close"), "close", pa.array(shaken))
        past = small.filter(pa.array(~later))
        expected = planted_signal(past)
        assert len(expected) > 0
        for table in (small, tampered):
            found = planted_signal(table)
            found = found[found["date"] <= np.datetime64(day)]
            pd.testing.assert_frame_equal(found, expected, check_exact=True)

    def test_bars_are_sound(self, bars):
        assert not bars.isna().any().any()
        assert not bars.duplicated(["date", "code"]).any()
        assert bars[["date", "code"]].equals(bars[["date", "code"]].sort_values(["date", "code"]))
        assert (bars[["open", "high", "low", "close", "adj_factor", "market_cap"]] > 0).all().all()
        assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
        assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
        assert (bars["volume"] > 0).all()
        assert (bars["volume"] % 100 == 0).all()
        vwap = bars["amount"] / bars["volume"]
        assert (vwap >= bars["low"] * (1 - 1e-12)).all()
        assert (vwap <= bars["high"] * (1 + 1e-12)).all()
        assert bars["turnover_rate"].between(0, 0.6).all()
        assert (pd.to_datetime(bars["list_date"]) <= pd.to_datetime(bars["date"])).all()

    def test_prices_are_in_cents_and_within_the_days_limits(self, bars):
        prices = bars[["open", "high", "low", "close"]]
        np.testing.assert_allclose(prices * 100, (prices * 100).round(), atol=1e-6)
        previous = adjusted_close(bars).ffill().shift() / wide(bars, "adj_factor")
        star = previous.columns.str.startswith("688")
        allowed = np.where(star, 0.2, np.where(wide(bars, "is_st") == True, 0.05, 0.1))  # noqa: E712
        for column in ("low", "close", "high"):  # two roundings of half a cent each
            move = (wide(bars, column) - previous).abs()
            assert ((move <= previous * allowed + 0.0111) | move.isna()).all().all(), column
        rise = wide(bars, "close") / previous - 1
        assert (rise > allowed - 0.002).sum().sum() > 20, "limit-up days must occur"
        assert (rise < -allowed + 0.002).sum().sum() > 20, "limit-down days must occur"

    def test_payouts_leave_the_adjusted_price_alone(self, bars):
        factor = wide(bars, "adj_factor").ffill()
        jump = factor / factor.shift() > 1.25
        raw, adjusted = wide(bars, "close").ffill(), adjusted_close(bars).ffill()
        assert jump.sum().sum() > 5
        assert (factor.diff().min() >= 0).all()
        assert ((raw / raw.shift()).to_numpy()[jump] < 0.9).all()
        assert ((adjusted / adjusted.shift()).to_numpy()[jump] > 0.85).all()

    def test_lives_are_varied(self, bars):
        close = wide(bars, "close")
        days = trading_calendar(SyntheticConfig())
        assert np.array_equal(close.index.to_numpy().astype("datetime64[D]"), days)
        assert close.shape == (len(days), 200)
        assert 820 < len(days) < 880
        late = close.iloc[0].isna() & (close.notna().idxmax() > close.index[10])
        gone = close.iloc[-1].isna() & (close[::-1].notna().idxmax() < close.index[-100])
        inside = close.ffill().notna() & close.bfill().notna()
        assert 20 < late.sum() < 70
        assert 1 <= gone.sum() < 20
        assert 0.005 < (close.isna() & inside).sum().sum() / inside.sum().sum() < 0.05
        assert 0.005 < bars["is_st"].mean() < 0.08
        assert bars["industry"].nunique() == 12
        assert len(bars[["code", "industry"]].drop_duplicates()) == 200
        listed = bars.groupby("code").agg(first=("date", "min"), said=("list_date", "first"))
        assert (listed["first"] == listed["said"])[late].all()

    def test_returns_have_fat_tails_and_the_size_of_a_markets(self, bars):
        daily = np.log(adjusted_close(bars)).diff()
        market = daily.mean(axis=1)
        own = daily.sub(market, axis=0).to_numpy().ravel()
        assert stats.kurtosis(own, nan_policy="omit") > 2
        assert 0.015 < np.nanstd(own) < 0.03
        assert 0.008 < market.std() < 0.016

    def test_written_bars_are_read_back_whole_and_written_once(self, tmp_path):
        storage = Storage(str(tmp_path / "bars"))
        write_bars(storage, SMALL)
        first = {name: (tmp_path / "bars" / name).stat() for name in storage.list_files()}
        write_bars(storage, SMALL)
        again = {name: (tmp_path / "bars" / name).stat() for name in storage.list_files()}
        assert [name[:4] for name in sorted(first)] == ["2017", "2018"]
        assert {k: (s.st_ino, s.st_mtime_ns) for k, s in first.items()} == {
            k: (s.st_ino, s.st_mtime_ns) for k, s in again.items()
        }
        parts = [pq.read_table(tmp_path / "bars" / name) for name in sorted(first)]
        assert pa.concat_tables(parts).equals(make_bars(SMALL))

    def test_a_write_that_was_cut_off_is_in_nobodys_way(self, tmp_path):
        storage = Storage(str(tmp_path / "bars"))
        write_bars(storage, SMALL)
        first = list_files(storage.uri)
        (tmp_path / "bars" / f"2017-0123456789ab.parquet.{'0' * 32}.part").write_bytes(b"PAR1")
        write_bars(storage, SMALL)
        assert list_files(storage.uri) == first

    def test_another_market_replaces_the_one_before(self, tmp_path):
        storage = Storage(str(tmp_path / "bars"))
        write_bars(storage, SMALL)
        other = dataclasses.replace(SMALL, seed=9, last=dt.date(2017, 12, 29))
        write_bars(storage, other)
        (name,) = storage.list_files()
        assert pq.read_table(tmp_path / "bars" / name).equals(make_bars(other))


class TestValidation:
    def test_a_signal_too_strong_to_plant(self):
        with pytest.raises(ValidationError, match=r"less than or equal to 0\.3"):
            dataclasses.replace(SMALL, signal_ic=0.5)

    @pytest.mark.parametrize("last", [dt.date(2017, 2, 10), dt.date(2016, 1, 1)])
    def test_too_few_days(self, last):
        with pytest.raises(ConfigError, match=r"synthetic.last=201[67].* at least 60"):
            make_bars(dataclasses.replace(SMALL, last=last))

    def test_a_folder_with_files_of_someone_else(self, tmp_path):
        storage = Storage(str(tmp_path))
        storage.write_bytes("mine/2017.parquet", b"")
        with pytest.raises(StorageError, match=r"1 files .* first mine/2017.parquet"):
            write_bars(storage, SMALL)
        assert storage.list_files() == ["mine/2017.parquet"]
