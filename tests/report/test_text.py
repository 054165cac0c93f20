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
        (text.format_duration(None), "–"),  # noqa: RUF001
        (text.format_duration(40.4), "40\u202fs"),
        (text.format_duration(750), "12\u202fmin"),
        (text.format_duration(9000), "2.5\u202fh"),
        (text.format_count(1234567), "1\u202f234\u202f567"),
    ],
)
def test_numbers(shown, expected):
    assert shown == expected


def test_the_summary_says_what_it_measures_and_how_surely():
    block = random_block(days=200)
    found = evaluate(random_table(block), block, config())
    metrics, latest = copy.deepcopy(found.metrics), found.monthly.iloc[-1].to_dict()
    metrics["ic"]["months"] = 5

    def summarize(stars: str, **few: str) -> str:
        metrics["ic"]["stars"] = stars
        row = latest | {"long_return": 0.10, "universe_return": 0.044, "excess_return": 0.0536}
        given = {"metrics": metrics, "latest": row, "cautions": {"ic": "", **few}}
        return text.render_page("summary.html", costs="15 bp per side", **given)

    surely, unsure, hardly = summarize("**"), summarize(""), summarize("***", ic="5 months")
    for sentence in (surely, unsure, hardly):
        assert sentence.startswith(f"In {latest['month']} the factor's IC was ")
        assert "over 5 months" in sentence
        assert "+5.6\u202f% (arithmetic difference), +5.4\u202f% geometric" in sentence
        assert f'to <span class="whole">{metrics["period"]["last_day"]}</span> it is' in sentence
        assert f"holds {metrics['capacity']['targets']} of" in sentence
    assert "significant at 5\u202f%" in surely
    assert "not significantly" in unsure
    assert "significant" not in hardly  # where there is little to judge by
    assert "too little to judge by" in hardly


def test_costs_of_either_side():
    both = {"cost_bps": 15.0, "sell_cost_bps": None}
    assert text.format_costs(both) == "15 bp per side"
    assert text.format_costs(both | {"sell_cost_bps": 15.0}) == "15 bp per side"
    by_side = text.format_costs({"cost_bps": 2.5, "sell_cost_bps": 7.5})
    assert by_side == "2.5 bp bought, 7.5 bp sold"
