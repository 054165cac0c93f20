"""The newest day of the bars: emptied, late, corrected, incomplete; and days that were never any.

What is expected is another panel: the one of the bars as they should be.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gangru_dist.base.errors import BarsError, PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import BarsConfig, PanelConfig, RunConfig
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.copies import REPEATED_DAY
from gangru_dist.panel.manifest import Manifest, panel_schema
from gangru_dist.panel.store import read_rows
from tests.bars.corpus_market import CODES, DAYS, market
from tests.made_bars import write

FEATURES = ("close", "daily_return", "turnover_rate", "volatility_5d")
CFG = RunConfig(
    bars=BarsConfig(price_limits="ashare", max_quarantined=0.2),
    panel=PanelConfig(features=FEATURES, buckets=3),
)
NEWEST, BEFORE = DAYS[-1], DAYS[-2]


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def build(root: Storage, frame: pd.DataFrame, cfg: RunConfig = CFG, **options: bool) -> Manifest:
    folder = Path(f"{root.uri}-bars")
    write(folder, frame)
    return build_panel(str(folder), root, cfg, runner=map_here, **options)


def meant(tmp_path: Path, frame: pd.DataFrame) -> str:
    """Fingerprint of a panel that is built of these bars at once."""
    return build(Storage(str(tmp_path / f"meant-{len(frame)}")), frame).fingerprint


def rows(root: Storage, manifest: Manifest) -> pd.DataFrame:
    names = panel_schema(manifest.features).names
    found = read_rows(
        root, manifest, start=DAYS[0].date(), end=DAYS[-1].date(), columns=names
    ).to_pandas()
    return found.sort_values(["date", "asset"], ignore_index=True)


def without_factor(frame: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """The factor of the day is not published yet."""
    return frame.assign(adj_factor=frame["adj_factor"].mask(frame["date"] == day))


def served_again(frame: pd.DataFrame, day: pd.Timestamp, back: int = 1) -> pd.DataFrame:
    """The rows of an earlier day, the one before, under the day's date."""
    before = frame[frame["date"] == DAYS[DAYS.get_loc(day) - back]]
    return pd.concat([frame[frame["date"] != day], before.assign(date=day)])


def served_late(frame: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """The rows of three days ago."""
    return served_again(frame, day, 3)


def served_changed(frame: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """The prices of the day before, with less volume."""
    frame = served_again(frame, day)
    less = np.where(frame["date"] == day, 0.99, 1.0)
    return frame.assign(
        **{name: frame[name] * less for name in ("volume", "amount", "turnover_rate")}
    )


def factor_of_one(frame: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    return frame.assign(adj_factor=frame["adj_factor"].mask(frame["date"] == day, 1.0))


def part(frame: pd.DataFrame, day: pd.Timestamp, stocks: int = 7) -> pd.DataFrame:
    """60 % of the stocks."""
    return frame[(frame["date"] != day) | frame["code"].isin(CODES[:stocks])]


EMPTIED: dict[str, Callable[[pd.DataFrame, pd.Timestamp], pd.DataFrame]] = {
    "the factor is not published yet": without_factor,
    "yesterday's rows are served again": served_again,
    "the factor is 1 throughout": factor_of_one,
    "the rows of three days ago are served": served_late,
    "yesterday's prices are served with another volume": served_changed,
}


class TestEmptied:
    @pytest.mark.parametrize("kind", EMPTIED)
    def test_the_panel_ends_the_day_before_until_the_right_rows_arrive(
        self, root: Storage, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        logging.getLogger("gangru_dist").propagate = True
        first = build(root, EMPTIED[kind](market(), NEWEST))
        assert (first.calendar[-1], first.set_aside) == (
            np.datetime64(BEFORE.date()),
            f"{NEWEST:%Y-%m-%d}",
        )
        assert f"newest_day_set_aside date={NEWEST:%Y-%m-%d}" in caplog.text
        assert first.fingerprint == meant(tmp_path, market()[market()["date"] < NEWEST])
        second = build(root, market())
        assert (second.fingerprint, second.set_aside) == (meant(tmp_path, market()), None)
        assert second.rewritten == {}

    @pytest.mark.parametrize("kind", EMPTIED)
    @pytest.mark.parametrize("days", [1, 2])
    def test_in_the_past_it_is_no_trading_day(
        self, root: Storage, tmp_path: Path, kind: str, days: int
    ) -> None:
        frame = market()
        for day in DAYS[40 : 40 + days]:
            frame = EMPTIED[kind](frame, day)
        rest = market()[~market()["date"].isin(DAYS[40 : 40 + days])]
        assert build(root, frame).fingerprint == meant(tmp_path, rest)
        quality = root.child("panel").read_json("quality.json")
        assert quality["rows_quarantined"] == days * len(CODES)

    def test_a_holiday_filled_with_copies(self, root: Storage, tmp_path: Path) -> None:
        """Three days of the week before are a holiday, and the vendor repeats the last rows."""
        holiday = DAYS[30:33]
        right = market()[~market()["date"].isin(holiday)]
        last = right[right["date"] == DAYS[29]]
        filled = pd.concat([right, *(last.assign(date=day) for day in holiday)])
        for end in (DAYS[32], NEWEST):
            found = build(root, filled[filled["date"] <= end])
            assert found.fingerprint == meant(tmp_path, right[right["date"] <= end])
        assert found.rewritten == {}

    def test_a_week_served_again_is_told_at_once(self, root: Storage, tmp_path: Path) -> None:
        """Five days have the rows of the week before; all are found in one go, and named."""
        frame = market()
        for day in DAYS[40:45]:
            frame = served_again(frame, day, 5)
        rest = market()[~market()["date"].isin(DAYS[40:45])]
        assert build(root, frame).fingerprint == meant(tmp_path, rest)
        found = root.child("panel").read_json("quality.json")["notes"][REPEATED_DAY]
        assert found["count"] == 5
        assert found["example"] == {"date": f"{DAYS[40]:%F}", "as": f"{DAYS[35]:%F}"}

    def test_half_of_the_prices_are_needed(self, root: Storage) -> None:
        """Rows of five of the twelve stocks are as three days ago: each is an ordinary row."""
        frame, late = market(), served_late(market(), DAYS[40])
        some = frame["code"].isin(CODES[:5])
        frame = pd.concat([frame[~some], late[late["code"].isin(CODES[:5])]])
        assert DAYS[40].to_datetime64() in build(root, frame).calendar

    def test_days_to_come_change_nothing(self, root: Storage, tmp_path: Path) -> None:
        frame = market()
        for place, spoil in zip((34, 35, 37, 40, 41, 50, 51), [*EMPTIED.values()] * 2):  # noqa: B905
            frame = spoil(frame, DAYS[place])
        whole = rows(root, build(root, frame))
        for place in range(33, 54):
            early = Storage(str(tmp_path / f"to-{place}"))
            found = rows(early, build(early, frame[frame["date"] <= DAYS[place]]))
            known = whole[whole["date"] <= DAYS[place].date()].reset_index(drop=True)
            pd.testing.assert_frame_equal(found, known, check_exact=True)


class TestLate:
    def corrected(self, *days: pd.Timestamp) -> pd.DataFrame:
        frame = market()
        return frame.assign(
            market_cap=frame["market_cap"].mask(frame["date"].isin(days), 2 * frame["market_cap"])
        )

    @pytest.mark.parametrize("late", [1, 2, 3])
    def test_a_corrected_day_of_the_newest_is_taken(
        self, root: Storage, tmp_path: Path, late: int
    ) -> None:
        frame = self.corrected(DAYS[-late])
        build(root, frame)
        found = build(root, market())
        assert found.fingerprint == meant(tmp_path, market())
        assert list(found.rewritten) == [f"{DAYS[-late]:%Y-%m}"]

    def test_a_late_stock_and_a_late_day(self, root: Storage, tmp_path: Path) -> None:
        build(root, part(market()[market()["date"] != BEFORE], NEWEST))
        found = build(root, market())
        assert found.fingerprint == meant(tmp_path, market())
        assert found.rewritten.keys() == {f"{NEWEST:%Y-%m}"}

    @pytest.mark.parametrize("late", [0, 2, 3])
    def test_older_ones_are_refused(self, root: Storage, late: int) -> None:
        cfg = replace(CFG, panel=replace(CFG.panel, late_days=late))
        build(root, self.corrected(DAYS[-1 - late], NEWEST), cfg)
        with pytest.raises(PanelError, match=f"e.g. {DAYS[-1 - late]:%Y-%m-%d} .*market_cap"):
            build(root, market(), cfg)

    def test_a_lost_day_is_refused(self, root: Storage) -> None:
        build(root, market())
        with pytest.raises(PanelError, match="they lack 1 of the panel's 80 trading days"):
            build(root, served_again(market(), NEWEST))


class TestIncomplete:
    @pytest.mark.parametrize(("stocks", "incomplete"), [(7, True), (8, False), (11, False)])
    def test_part_of_the_stocks_is_said(
        self, root: Storage, stocks: int, incomplete: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        logging.getLogger("gangru_dist").propagate = True
        found = build(root, part(market(), NEWEST, stocks))
        assert found.incomplete == (f"{NEWEST:%Y-%m-%d}" if incomplete else None)
        assert found.calendar[-1] == np.datetime64(NEWEST.date())
        assert (f"newest_day_incomplete date={found.incomplete}" in caplog.text) == incomplete
        quality = root.child("panel").read_json("quality.json")
        noted = quality["notes"].get("newest day with clearly fewer stocks than usual")
        assert noted == (
            {"count": 1, "example": {"date": f"{NEWEST:%Y-%m-%d}", "stocks": stocks}}
            if incomplete
            else None
        )

    def test_a_calendar_that_has_ended_is_refused(self, root: Storage, tmp_path: Path) -> None:
        listed = tmp_path / "days.txt"
        listed.write_text("\n".join(f"{day:%Y-%m-%d}" for day in DAYS[:-2]))
        cfg = replace(CFG, bars=replace(CFG.bars, calendar=str(listed)))
        build(root, market()[market()["date"] <= DAYS[-3]], cfg)
        with pytest.raises(BarsError, match=f"ends on .*{DAYS[-3]:%F}, .* up to {NEWEST:%F}: "):
            build(root, market(), cfg)
        listed.write_text("\n".join(f"{day:%Y-%m-%d}" for day in DAYS))
        assert build(root, market(), cfg).calendar[-1] == np.datetime64(NEWEST.date())
