from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from gangru_dist.report import figures, training
from gangru_dist.runs.model import ModelRecord
from tests.report.store import samples_of

MODEL = ModelRecord(
    window="2019-06-28",
    seed=0,
    model="a" * 12,
    sha256="a" * 64,
    identity="b" * 12,
    architecture={},
    best_epoch=1,
    best_valid_ic=0.1,
    history=(),
)


def _industries(*names: str) -> pd.DataFrame:
    values = np.linspace(-0.1, 0.2, len(names))
    columns = ("ic_latest", "ic_mean_12", "excess_latest", "excess_mean_12")
    return pd.DataFrame({"industry": names, **dict.fromkeys(columns, values)})


def _luminance(color: str) -> float:
    """Relative, as the Web Content Accessibility Guidelines define it."""
    parts = np.array([int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


class TestProperties:
    def test_same_table_same_picture(self):
        table = _industries("bank", "coal")
        assert figures.draw_industry_ics(table) == figures.draw_industry_ics(table)

    def test_awkward_names_stay_text(self):
        svg = figures.draw_industry_ics(_industries("<b>&", "$x_1$", "食品饮料"))
        texts = {element.text for element in ET.fromstring(svg).iter() if element.text}
        assert {"<b>&", "$x_1$", "食品饮料"} <= texts

    def test_gaps_do_not_break_a_picture(self):
        table = pd.DataFrame({"quantile": [1, 2], "mean_excess": [np.nan, 0.01]})
        assert "<svg" in figures.draw_quantile_bars(table)
        decay = pd.DataFrame({"horizon": [1, 60], "ic": [0.1, np.nan], "std_error": [np.nan] * 2})
        assert "<svg" in figures.draw_decay(decay)

    def test_industries_without_twelve_months(self):
        table = _industries("bank", "coal").assign(ic_mean_12=np.nan, excess_mean_12=np.nan)
        for svg in (figures.draw_industry_ics(table), figures.draw_industry_excess(table)):
            assert "latest month" in svg
            assert "mean of 12 months" not in svg  # a legend of nothing

    def test_months_of_less_than_a_year_have_no_mean_of_twelve(self):
        months = pd.DataFrame({"month": ["2020-01", "2020-02"], "ic": [0.1, -0.2]})
        assert "mean of 12 months" not in figures.draw_monthly_ic(months.assign(ic_mean_12=np.nan))
        assert "mean of 12 months" in figures.draw_monthly_ic(months.assign(ic_mean_12=0.1))

    def test_months_without_an_ic_do_not_crowd_the_axis(self):
        months = ["2018-08", "2018-11", "2019-04", "2020-10"]
        table = pd.DataFrame({"month": months, "ic_cumulative": 0.1})
        svg = figures.draw_cumulative_ic({"ours": table})
        assert 3 <= len(re.findall(r">20\d\d-\d\d</text>", svg)) <= 7

    @pytest.mark.parametrize("months", [1, 2, 3])
    def test_few_months_are_drawn_with_an_axis_to_read(self, months):
        names = [f"2019-0{4 + n}" for n in range(months)]
        table = pd.DataFrame({"month": names, "ic_cumulative": 0.1, "q1": -0.1, "q2": 0.2})
        table["long_short"] = 0.3
        dates = pd.Series(pd.bdate_range("2019-04-01", periods=21 * months))
        daily = pd.DataFrame({"date": dates, "excess": 1.0, "excess_net": 1.0})
        for svg, lines in (
            (figures.draw_cumulative_ic({"ours": table}), 1),
            (figures.draw_quantile_curves(table), 3),
            (figures.draw_excess(daily, "15 bp", {}), 2),
        ):
            ticks = re.findall(r">((?:20\d\d|\d\d)-\d\d)</text>", svg)
            assert 2 <= len(ticks) <= 7
            assert len(set(ticks)) == len(ticks)
            drawn = re.findall(r'<path d="M [^"]* L [^"]*" clip-path', svg.replace("\n", " "))
            assert len(drawn) >= lines

    def test_a_line_beside_ours_begins_at_1(self):
        """The days before ours are not drawn, nor what was earned on them."""
        date = pd.Series(pd.bdate_range("2019-01-01", periods=200))
        other = pd.DataFrame({"date": date, "excess": np.linspace(1.0, 3.0, 200)})
        ours = other[100:].assign(excess=1.0, excess_net=1.0)
        svg = figures.draw_excess(ours, "15 bp", {"other": other})
        first = re.search(r"<title>2019-05-21\s.*?</title>", svg, re.DOTALL)[0]
        assert "other 1.0000" in first

    def test_lines_of_windows_stand_out_on_white_paper(self):
        rows = [
            {"window": f"20{n}-06-30", "seed": 0, "stage": "predictor", "epoch": e, "valid_ic": 0.1}
            for n in range(10, 19)
            for e in (1, 2)
        ]
        svg = training.draw_validation(pd.DataFrame(rows))
        lines = re.findall(r"stroke: (#[0-9a-f]{6}); stroke-width: 1.5", svg)
        assert len(set(lines)) == 9
        for color in lines:
            assert 1.05 / (_luminance(color) + 0.05) > 3

    def test_more_windows_than_a_legend_holds(self):
        rows = [
            (f"20{year}-06-30", 0, "predictor", n, 0.1) for year in range(10, 24) for n in (1, 2)
        ]
        history = pd.DataFrame(rows, columns=["window", "seed", "stage", "epoch", "valid_ic"])
        drawn = training.draw_validation(history)
        assert "2010-06-30" not in re.sub(r"<title.*?</title>", "", drawn, flags=re.DOTALL)

    def test_several_seeds_add_their_mean_as_far_as_all_go(self):
        rows = [
            ("2019-06-28", seed, "predictor", epoch, 0.1 * seed)
            for seed, epochs in ((0, 5), (1, 3))
            for epoch in range(1, epochs + 1)
        ]
        history = pd.DataFrame(rows, columns=["window", "seed", "stage", "epoch", "valid_ic"])
        drawn = training.draw_validation(history)
        assert drawn.count("stroke-opacity: 0.45") == 2  # thin lines, one a seed
        tips = re.findall(r"<title>epoch (\d)\n2019-06-28 ([^<]+)<", drawn)
        assert tips == [("1", "+0.050"), ("2", "+0.050"), ("3", "+0.050")]


class TestValidation:
    def test_no_models(self):
        assert training.tabulate_models([]).empty
        assert training.tabulate_epochs([]).empty
        assert all(len(training.judge_gan([])[name]) == 0 for name in ("accuracy", "separated"))
        assert training.tabulate_histograms([]).empty
        assert training.find_newest_measured([]) is None

    def test_a_flat_feature_has_no_spread_and_warns_of_nothing(self):
        samples = samples_of(("open",), spread=0.01)
        flat = dataclasses.replace(samples.real["open"], cs_std=0.0)
        samples = dataclasses.replace(samples, real={"open": flat})
        model = dataclasses.replace(MODEL, gan_samples=samples)
        assert training.tabulate_features([model])["spread"].isna().all()
        assert training.judge_gan([model])["collapsed"].empty
        assert "<svg" in training.draw_distributions(samples)
