from __future__ import annotations

import copy

import pytest

from gangru_dist.report import text
from tests.evaluation.worlds import config, evaluate, random_block, random_table


@pytest.fixture(scope="module")
def found():
    block = random_block(days=200)
    return evaluate(random_table(block), block, config())


class TestReference:
    @pytest.mark.parametrize(
        ("shown", "expected"),
        [
            (text.format_number(-0.056), "−0.06"),  # noqa: RUF001
            (text.format_number(None), "–"),  # noqa: RUF001
            (text.format_number(float("nan")), "–"),  # noqa: RUF001
            (text.format_signed(0.05), "+0.050"),
            (text.format_percent(0.1234), "12.3\u202f%"),
            (text.format_signed_percent(-0.5, 0), "−50\u202f%"),  # noqa: RUF001
            (text.format_short_percent(0.1), "10\u202f%"),
            (text.format_short_percent(0.025), "2.5\u202f%"),
            (text.format_short_percent(0.005), "0.5\u202f%"),
            (text.format_short_percent(0.07), "7\u202f%"),
            (text.format_count(1234567), "1\u202f234\u202f567"),
        ],
    )
    def test_numbers(self, shown, expected):
        assert shown == expected

    def test_key_table_has_two_cells_a_run(self, found):
        rows = text.list_key_rows([found.metrics, found.metrics])
        assert all(len(row["cells"]) == 4 for row in rows)
        assert rows[0]["published"] == "0.1096 ***"
        by_label = {row["label"]: row for row in rows}
        excess = found.metrics["excess_with_costs"]["annualized_return"]
        assert by_label["Annualized excess"]["cells"][1] == text.format_percent(excess, 2)


class TestProperties:
    def test_sentence_names_month_and_direction(self, found):
        latest = found.monthly.iloc[-1].to_dict()
        for excess, word in ((0.02, "beat"), (-0.02, "lagged")):
            sentence = text.summarize(found.metrics, latest | {"excess_return": excess}, 50)
            assert word in sentence
            assert latest["month"] in sentence
            assert "2.0\u202f%" in sentence

    def test_months_are_those_with_an_ic(self, found):
        metrics = copy.deepcopy(found.metrics)
        metrics["ic"]["months"] = 5
        sentence = text.summarize(metrics, found.monthly.iloc[-1].to_dict(), 50)
        assert "over 5 months" in sentence

    def test_significance_is_said_in_words(self, found):
        metrics = copy.deepcopy(found.metrics)
        latest = found.monthly.iloc[-1].to_dict()
        metrics["ic"]["stars"] = "**"
        assert "significant at 5\u202f%" in text.summarize(metrics, latest, 50)
        metrics["ic"]["stars"] = ""
        assert "not significantly" in text.summarize(metrics, latest, 50)
