"""The A-share price limits, against cases worked out by hand from the exchanges' rules."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pyarrow as pa
import pytest

from gangru_dist.panel.price_limits import at_limit, find_boards, limit_share


class TestReference:
    @pytest.mark.parametrize(
        ("code", "board"),
        [
            ("600000.SH", "main"),
            ("sh.600000", "main"),
            ("SZ000001", "main"),
            ("1", "main"),
            ("688981", "star"),
            ("sz.300750", "chinext"),
            ("301236.SZ", "chinext"),
            ("430047.BJ", "beijing"),
            ("920002.BJ", "beijing"),
        ],
    )
    def test_board(self, code: str, board: str) -> None:
        assert find_boards(pa.array([code]).dictionary_encode()).tolist() == [board]

    @pytest.mark.parametrize(
        ("board", "day", "listed", "st", "share"),
        [
            ("main", "2019-06-03", 500, False, 0.10),
            ("main", "2019-06-03", 500, True, 0.05),
            ("main", "2019-06-03", 0, False, np.inf),
            ("main", "2019-06-03", 1, False, 0.10),
            ("main", "2023-04-10", 4, False, np.inf),
            ("main", "2023-04-10", 5, False, 0.10),
            ("star", "2019-07-29", 4, False, np.inf),
            ("star", "2019-07-29", 5, True, 0.20),
            ("chinext", "2020-08-21", 500, False, 0.10),
            ("chinext", "2020-08-21", 500, True, 0.05),
            ("chinext", "2020-08-24", 500, False, 0.20),
            ("chinext", "2020-08-24", 500, True, 0.20),
            ("chinext", "2020-08-24", 0, False, np.inf),
            ("beijing", "2022-01-04", 1, True, 0.30),
            ("main", "1996-12-13", 500, False, np.inf),
            ("main", "1996-12-16", 500, False, 0.10),
            ("main", "2026-07-03", 500, True, 0.05),
            ("main", "2026-07-06", 500, True, 0.10),
            ("main", "2026-07-06", 4, True, np.inf),
            ("chinext", "2026-07-06", 500, True, 0.20),
        ],
    )
    def test_share(self, board: str, day: str, listed: int, st: bool, share: float) -> None:
        found = limit_share(
            np.array([board]), np.array([day], "datetime64[D]"), np.array([listed]), np.array([st])
        )
        assert found.tolist() == [share]

    @pytest.mark.parametrize("share", ["0.05", "0.1", "0.2", "0.3"])
    def test_every_price_up_to_100_rounds_as_decimals_do(self, share: str) -> None:
        cents = np.arange(100, 10_001)
        limits = np.array(
            [
                float((Decimal(int(c)) / 100 * (1 + Decimal(share))).quantize(
                    Decimal("0.01"), ROUND_HALF_UP
                ))
                for c in cents
            ]
        )  # fmt: skip
        reference, spread = cents / 100, np.full(len(cents), float(share))
        up, _ = at_limit(limits, reference, spread)
        below, _ = at_limit(limits - 0.01, reference, spread)
        assert up.all()
        assert not below.any()


class TestProperties:
    def test_no_reference_no_limit(self) -> None:
        up, down = at_limit(np.array([10.0]), np.array([np.nan]), np.array([0.1]))
        assert not (up | down).any()

    def test_without_a_limit_nothing_is_at_it(self) -> None:
        up, down = at_limit(np.array([100.0, 0.01]), np.array([10.0, 10.0]), np.full(2, np.inf))
        assert not (up | down).any()

    def test_a_close_beyond_the_limit_has_another_reference(self) -> None:
        """As after a row that was set aside: 4.48, (4.93), 5.05 is no limit of 4.93."""
        closes, reference = np.array([4.93, 4.94, 4.95, 5.05]), np.full(4, 4.48)
        up, _ = at_limit(closes, reference, np.full(4, 0.1))
        assert up.tolist() == [True, True, False, False]
        _, down = at_limit(np.array([4.03, 4.02, 4.01]), reference[:3], np.full(3, 0.1))
        assert down.tolist() == [True, True, False]

    def test_lower_limit(self) -> None:
        _, down = at_limit(np.array([9.0, 9.01]), np.array([10.0, 10.0]), np.full(2, 0.1))
        assert down.tolist() == [True, False]
