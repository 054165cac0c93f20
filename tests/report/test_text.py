from __future__ import annotations

import copy

import pytest

from gangru_dist.report import text
from tests.evaluation.worlds import config, evaluate, random_block, random_table


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
        (text.format_count(1234567), "1\u202f234\u202f567"),
    ],
)
def test_numbers(shown, expected):
    assert shown == expected


def test_the_summary_says_in_words_which_way_and_how_surely():
    block = random_block(days=200)
    found = evaluate(random_table(block), block, config())
    metrics, latest = copy.deepcopy(found.metrics), found.monthly.iloc[-1].to_dict()
    metrics["ic"]["months"] = 5

    def summarize(stars: str, excess: float) -> str:
        metrics["ic"]["stars"] = stars
        row = latest | {"excess_return": excess}
        return text.render_page("summary.html", metrics=metrics, latest=row, picks=[])

    better, worse = summarize("**", 0.02), summarize("", -0.02)
    for sentence in (better, worse):
        assert sentence.startswith(f"In {latest['month']} the factor's IC was ")
        assert "over 5 months" in sentence
        assert "2.0\u202f%" in sentence
    assert "significant at 5\u202f%" in better
    assert "beat" in better
    assert "not significantly" in worse
    assert "lagged" in worse
