from __future__ import annotations

import dataclasses
import datetime as dt
import html
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import gangru_dist
from gangru_dist.base.errors import ConfigError, EvaluationError, FactorError, PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.config import sources
from gangru_dist.config.identity import to_dict
from gangru_dist.config.settings import RunConfig
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.writer import write_names
from gangru_dist.report import document
from gangru_dist.report.document import write_report
from gangru_dist.report.text import format_number, format_percent, format_signed_percent
from gangru_dist.runs.run import Run
from gangru_dist.scoring.table import FactorTable
from tests.evaluation.worlds import evaluate, random_table
from tests.report.store import (
    COMMIT,
    RESUMED,
    RUN,
    World,
    model_hash,
    samples_of,
    write_days,
    write_factor,
    write_models,
    write_world,
)


def read_csv(folder: Storage, name: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(folder.read_bytes(name)))


def names_of(assets, since: str, name: str, *, later: str) -> pa.Table:
    """Names since a day, and others from the day after `later` on."""
    after = dt.date.fromisoformat(later) + dt.timedelta(days=1)
    rows = [(a, dt.date.fromisoformat(since), name.format(a)) for a in assets]
    rows += [(a, after, f"Renamed {a}") for a in assets]
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(("asset", "since", "name"), map(list, columns), strict=True)))


class _Tags(HTMLParser):
    """Checks that tags nest, and collects ids and addresses."""

    VOID = frozenset({"meta", "br", "link", "img", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.addresses.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("stored"), runs=(RUN, "other"))


def _copy(stored: World, folder: Path) -> World:
    shutil.copytree(stored.root.path, folder)
    return dataclasses.replace(stored, root=Storage(str(folder)))


@pytest.fixture(scope="module")
def world(stored: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """With a report of its run beside the other one."""
    world = _copy(stored, tmp_path_factory.mktemp("reported") / "s")
    write_report(Run(world.root, RUN, world.cfg), "other")
    return world


@pytest.fixture(scope="module")
def page(world: World) -> str:
    return _page(world)


@pytest.fixture
def fresh(stored: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy whose reports have no figures: `page` has them all, and they take seconds."""
    monkeypatch.setattr(document, "draw_figures", lambda *_: {})
    return _copy(stored, tmp_path / "s")


def _with_source(root: Storage, **facts: object) -> None:
    """Let the manifest say so of the bars."""
    manifest = read_manifest(root)
    manifest = dataclasses.replace(manifest, source={**manifest.source, **facts})
    root.child("panel").write_json("manifest.json", manifest.to_json())


def _page(world: World) -> str:
    return world.root.child("runs", RUN, "report").read_bytes("report.html").decode()


def _report(world: World, cfg: RunConfig | None = None, compare: str | None = None) -> str:
    """A fresh page."""
    write_report(Run(world.root, RUN, cfg or world.cfg), compare, overwrite=True)
    return _page(world)


def _warnings(world: World, cfg: RunConfig | None = None, compare: str | None = None) -> list[str]:
    page = _report(world, cfg, compare)
    return [html.unescape(note) for note in re.findall(r'<p class="warn">(.*?)</p>', page)]


class TestReference:
    def test_metrics_are_those_of_the_evaluation(self, world):
        found = world.root.child("runs", RUN, "report").read_json("metrics.json")
        expected = evaluate(world.table, world.block, world.cfg).metrics
        other = found.pop("compared")["other"]
        pair = found.pop("comparisons")["other"]
        assert pair["ic"]["mean_difference"] == pytest.approx(
            found["ic"]["mean"] - other["ic"]["mean"]
        )
        assert pair["correlation"]["months"] == 13
        assert found.pop("run") == RUN
        assert found["ic"] == pytest.approx(expected["ic"])
        assert found["long_with_costs"] == pytest.approx(expected["long_with_costs"])
        assert found.pop("published") == other.pop("published")
        assert found.keys() == other.keys() == expected.keys()
        assert other["ic"] != found["ic"]

    def test_tables_are_csv(self, world):
        report = world.root.child("runs", RUN, "report")
        names = {name for name in report.list_files() if name.endswith(".csv")}
        assert {"monthly.csv", "daily.csv", "picks.csv", "coverage.csv", "training.csv"} <= names
        daily = read_csv(report, "daily.csv").astype({"date": "datetime64[s]"})
        expected = evaluate(world.table, world.block, world.cfg).daily
        pd.testing.assert_frame_equal(daily, expected, check_dtype=False, rtol=1e-6)

    def test_what_is_drawn_of_another_run_is_csv_too(self, world):
        report = world.root.child("runs", RUN, "report")
        ours, other = (read_csv(report, name) for name in ("monthly.csv", "monthly.other.csv"))
        assert list(ours.columns) == list(other.columns)
        assert ours["ic"].ne(other["ic"]).any()
        found = report.read_json("metrics.json")["compared"]["other"]
        assert other["ic"].mean() == pytest.approx(found["ic"]["mean"])
        daily = read_csv(report, "daily.other.csv")
        assert daily["long"].iloc[-1] - 1 == pytest.approx(found["long"]["total_return"])

    def test_a_compared_run_is_judged_by_its_own_quantiles(self, fresh):
        table = random_table(fresh.block, seed=3, quantiles=5)
        write_factor(fresh.root, "other", table)
        cfg = sources.with_values(fresh.cfg, {"factor.quantiles": 5}, "test")
        fresh.root.child("runs", "other").write_json("config.json", {"config": to_dict(cfg)})
        write_report(Run(fresh.root, RUN, fresh.cfg), "other")
        found = fresh.root.child("runs", RUN, "report").read_json("metrics.json")
        fifths = found["compared"]["other"]["quantiles"]
        assert [row["quantile"] for row in fifths["table"]] == [1, 2, 3, 4, 5]
        best, worst = fifths["table"][-1]["mean_return"], fifths["table"][0]["mean_return"]
        assert fifths["long_short_mean"] == pytest.approx(best - worst)

    def test_quality_is_csv(self, world):
        report = world.root.child("runs", RUN, "report")
        table = read_csv(report, "quality.csv")
        assert table.to_numpy().tolist() == [
            ["quarantined", "price <= 0", 2, "file=a.csv close=-1"],
            ["notes", "not sorted", 1, "file=a.csv"],
        ]

    def test_page_prints_the_figures(self, world, page):
        metrics = evaluate(world.table, world.block, world.cfg).metrics
        assert f"{metrics['ic']['mean']:.4f}".replace("-", "\N{MINUS SIGN}") in page
        assert f"{metrics['turnover']:.2f}" in page
        for theirs in ("0.1096 ***", "38.13", "23.18", "27.29", "22.32", "Southwest Securities"):
            assert theirs in page


class TestProperties:
    def test_page_is_whole_and_needs_nothing_else(self, page):
        tags = _Tags()
        tags.feed(page)
        assert tags.open == []
        assert len(tags.ids) == len(set(tags.ids))
        contents = set(re.findall(r'<li><a href="#([^"]+)"', page))
        assert len(contents) >= 7
        assert contents <= set(tags.ids)
        assert all(address.startswith("#") for address in tags.addresses)
        assert not re.search(r"@import|url\((?!#)", page)

    def test_picks_are_one_table_with_rank_before_and_change(self, world, page):
        part = page.partition("<h2>Picks of")[2].partition("</table>")[0]
        ranks = [int(rank) for rank in re.findall(r"<tr><td>(\d+)</td>", part)]
        found = evaluate(world.table, world.block, world.cfg)
        universe = found.metrics["period"]["newest_universe"]
        assert ranks == list(range(1, min(50, universe) + 1))
        assert part.count('<td class="l">new</td>') == found.metrics["changes"]["new"]
        assert f"dropped: <b>{len(found.dropped)}</b>" in part

    def test_what_the_figures_rest_on_is_said_in_words(self, page):
        assert "discriminator tells 60\N{NARROW NO-BREAK SPACE}% of real" in page
        assert "gan_gru had an IC of 0.107 and gru 0.108, no difference beyond the error" in page
        assert "Runs in this storage: 2; trials" in page
        words = re.sub('<span class="whole">([^<]+)</span>', r"\1", page)
        assert "<b>judged</b> 2019-02 to 2020-02, <b>picked</b> for 2020-03" in words

    def test_little_to_judge_by_is_said_beside_the_figures(self, world, page):
        """Once, above them; and nothing there is called significant."""
        metrics = evaluate(world.table, world.block, world.cfg).metrics
        members, held = metrics["period"]["newest_universe"], metrics["capacity"]["targets"]
        (said,) = re.findall(r'<p class="caution">([^<]+)</p>', page)
        assert said.startswith(f"Little to judge by: 13 months, {members} stocks, {held} holdings;")
        ours = re.search(r"<tr><td class=.l.>Rank IC.*?</tr>", page)[0].partition('class="theirs"')
        assert "*" not in ours[0]
        assert "significant at" not in page

    def test_the_first_screen_has_what_changed_on_the_month(self, world, page):
        found = evaluate(world.table, world.block, world.cfg)
        tiles = re.search(r'<dl class="tiles">.*?</dl>', page, re.DOTALL)[0]
        assert tiles.count("<dt>") == 6
        ics = found.monthly["ic"]
        change = ics.mean() - ics[:-1].mean()
        assert f"{format_number(change, 4, '+')} on the month" in tiles
        top = page.partition('id="ic"')[0]
        assert 'aria-label="Value of one unit of capital, and its drawdown"' in top
        assert re.search(r"issued \d{4}-\d\d-\d\d</span>", top)
        assert "Annualized with 252 trading days a year." in top

    def test_one_period_holds_for_all_figures(self, world):
        """The months compound to the value, and the value ends with the last month judged."""
        found = evaluate(world.table, world.block, world.cfg)
        months, daily = found.monthly, found.daily
        assert daily["date"].iloc[-1] == months["exit"].iloc[-1]
        for name in ("long", "long_net", "universe", "excess"):
            grown = (1 + months[f"{name}_return"]).prod()
            assert grown == pytest.approx(daily[name].iloc[-1])
        period = found.metrics["period"]
        assert period["last_day"] == f"{daily['date'].iloc[-1]:%Y-%m-%d}"
        assert world.block.dates[-1] > months["exit"].iloc[-1].to_numpy()

    def test_drawdowns_have_dates_and_are_the_deepest(self, world, page):
        found = evaluate(world.table, world.block, world.cfg)
        value = found.daily.set_index("date")["long"]
        rows = found.drawdowns[found.drawdowns["of"] == "long"]
        assert rows["depth"].iloc[0] == pytest.approx(found.metrics["long"]["max_drawdown"])
        for row in rows.itertuples():
            assert value[row.trough] / value[row.peak] - 1 == pytest.approx(-row.depth)
            until = value.index[-1] if pd.isna(row.recovered) else row.recovered
            assert value[row.peak : until].iloc[:-1].max() <= value[row.peak]
            assert value.index.get_loc(until) - value.index.get_loc(row.peak) == row.days
            assert f'<td class="l">{row.trough:%Y-%m-%d}</td>' in page

    def test_the_excess_is_taken_apart_and_adds_up(self, world, page):
        parts = evaluate(world.table, world.block, world.cfg).metrics["decomposition"]
        rows = re.search(r'<table id="path">.*?</table>', page, re.DOTALL)[0]
        shown = re.findall(r"<td>(?:<b>)?([^<]*)(?:</b>)?</td></tr>", rows)
        steps = [parts["path"][name] for name in ("signal", "delay", "limits", "costs", "net")]
        assert shown == [format_signed_percent(value) for value in steps]
        assert sum(steps[:4]) == pytest.approx(steps[4])
        for group, part, digits in [
            ("side", "long", 2),
            ("size", "selection", 2),
            ("benchmark", "cap", 1),
            ("breadth", "twice", 1),
        ]:
            assert (
                format_signed_percent(parts[group][part], digits) in page.partition('id="path"')[2]
            )

    def test_an_index_has_its_rows_its_name_and_its_line(self, tmp_path):
        world = write_world(tmp_path / "s")
        closes = 3000 * np.cumprod(1 + np.random.default_rng(0).normal(0, 0.01, 450))
        days = pd.DataFrame({"date": world.block.dates.astype(str), "close": closes})
        days.to_csv(tmp_path / "CSI 300.csv", index=False)
        cfg = sources.with_values(
            world.cfg, {"evaluation.index": str(tmp_path / "CSI 300.csv")}, "test"
        )
        page = _report(world, cfg)
        figures = world.root.child("runs", RUN, "report").read_json("metrics.json")["index"]
        row = re.search(r"Annualized excess over the index, geometric.*?</tr>", page, re.DOTALL)[0]
        assert format_percent(figures["excess"]["annualized_return"], 2) in row
        assert format_percent(figures["excess_with_costs"]["annualized_return"], 2) in row
        row = re.search(r">Beta <.*?</tr>", page, re.DOTALL)[0]
        assert format_number(figures["beta"]) in row
        assert "Index: CSI 300." in page
        found = gangru_dist.evaluate(Run(world.root, RUN, cfg), world.table)
        assert json.loads(json.dumps(found.metrics["index"])) == figures
        assert "index CSI 300" in page.partition('aria-label="Value of one unit of capital')[2]

    def test_a_made_up_market_has_a_banner(self, fresh):
        assert "Made-up market" not in _report(fresh)
        fresh.root.child("bars").write_bytes(f"2019-{'a' * 12}.parquet", b"")
        _with_source(fresh.root, uri=fresh.root.child("bars").uri)
        assert "Made-up market" in _report(fresh)

    def test_all_figures_are_there_and_say_their_values(self, page):
        figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
        assert len(figures) == 14
        assert all(re.search(r'<rect class="tip"[^>]*><title>[^<]*\d', one) for one in figures)

    def test_no_number_is_missing_by_accident(self, page):
        text = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
        assert not re.search(r"\bnan\b|\binf\b|Undefined", text)

    def test_names_from_data_are_escaped_and_a_lost_generator_is_said(self, fresh):
        write_models(fresh.root, RUN, accuracy=0.99)
        folder = fresh.root.child("panel")
        quality = folder.read_json("quality.json")
        quality["quarantined"] = {"<script>x</script>": {"rows": 2, "example": {"a": "<b>"}}}
        folder.write_json("quality.json", quality)
        page = _report(fresh)
        assert "<script>x" not in page
        assert "&lt;script&gt;" in page
        assert "may have collapsed" in page

    def test_names_of_stocks_are_those_of_the_day_and_escaped(self, fresh):
        run = Run(fresh.root, RUN, fresh.cfg)
        write_report(run)
        folder = run.report
        bare = read_csv(folder, "picks.csv")
        assert "name" not in bare  # a panel of an earlier version has none
        assert '<th class="l">Name</th>' not in folder.read_bytes("report.html").decode()
        day = folder.read_json("metrics.json")["period"]["newest_rebalance"]
        write_names(
            fresh.root.child("panel"),
            [names_of(fresh.block.assets, "2018-07-02", "=<b>{}</b>", later=day)],
        )
        write_report(run)
        for name in ("picks", "picks_by_industry", "dropped"):
            table = read_csv(folder, f"{name}.csv")
            assert list(table["name"]) == [f"'=<b>{asset}</b>" for asset in table["asset"]]
            assert list(table.columns).index("name") == list(table.columns).index("asset") + 1
        page = folder.read_bytes("report.html").decode()
        assert f"<b>{bare['asset'][0]}" not in page
        assert f'<td class="l">=&lt;b&gt;{bare["asset"][0]}&lt;/b&gt;</td>' in page
        assert page.count('<th class="l">Name</th>') == 2
        assert "Renamed" not in page  # only a day later

    def test_bars_and_buckets_are_those_of_the_panel(self, fresh):
        """A monthly score or report job need not be told of the vendor's format again."""
        _with_source(fresh.root, bars={"format": "tushare", "price_limits": "ashare"})
        page = _report(fresh)
        text = re.sub(r"<[^>]+>", " ", page)
        assert re.search(r"bars\.\s*format\s+tushare", text)
        assert re.search(r"bars\.\s*price_limits\s+ashare", text)
        assert re.search(r"panel\.\s*buckets\s+2\b", text)  # the configuration says 64

    def test_real_and_generated_values_are_shown_and_a_collapse_is_said(self, tmp_path):
        world = write_world(tmp_path)
        names = tuple(world.cfg.panel.features)
        write_models(world.root, RUN, samples=samples_of(names), windows=("2018-12-31",))
        write_models(
            world.root, RUN, samples=samples_of(names[:7], spread=0.04), windows=("2019-06-28",)
        )
        write_report(Run(world.root, RUN, world.cfg))
        folder = world.root.child("runs", RUN, "report")
        page = folder.read_bytes("report.html").decode()
        assert page.count("<svg") == 15
        tips = re.findall(r"<title>open\nreal ([^<]*)\ngenerated [^<]*\nspread ([^<]*)<", page)
        assert tips == [(f"{samples_of(names).real['open'].mean:.2f} ± 1.00", "0.04")]
        assert "in 1 of 2 models" in page
        assert "a mode collapse (features open, high, low, close, vwap …; refit days 2019" in page
        features = read_csv(folder, "gan_features.csv")
        assert len(features) == len(names) + 7
        assert set(features["spread"].round(6)) == {0.9, 0.04}
        histograms = read_csv(folder, "gan_histograms.csv")
        shares = histograms.groupby(["window", "feature"])[["real", "generated"]].sum()
        assert shares.to_numpy() == pytest.approx(1.0)
        training = read_csv(folder, "training.csv")
        assert training["lowest_spread"].dropna().tolist() == pytest.approx([0.9, 0.04])

    def test_variants_and_several_seeds_are_told_apart(self, fresh):
        write_models(fresh.root, RUN, seeds=(0, 1, 2))
        for run, variant in ((RUN, "gan_gru"), ("other", "gru")):
            cfg = sources.with_values(fresh.cfg, {"variant": variant}, "test")
            Run(fresh.root, run, cfg).claim(overwrite=True)
        cfg = sources.with_values(fresh.cfg, {"training.seeds": [0, 1, 2]}, "test")
        page = _report(fresh, cfg, "other")
        assert f"{RUN} <small>gan_gru</small>" in page
        assert "other <small>gru</small>" in page
        assert page.count('<td class="l">2018-12-31</td>') == 1
        for seed in range(3):
            assert page.count(f"<code>{model_hash('2018-12-31', seed)[:12]}</code>") == 1

    def test_a_day_without_a_factor_is_not_neutralized_by_nothing(self, fresh):
        days = list(FactorTable(Run(fresh.root, RUN, fresh.cfg).factor).read_coverage().values())
        days[5] = dataclasses.replace(days[5], ranked=0, neutralized="")
        table = fresh.table.copy()
        table.loc[table["date"] == days[5].date, ["factor", "quantile"]] = np.nan, 0
        write_days(fresh.root, RUN, table, days)
        cfg = sources.with_values(fresh.cfg, {"evaluation.top_fraction": 0.025}, "test")
        page = _report(fresh, cfg)
        assert "Neutralized by: industry + market cap." in page
        assert "holds the top 2.5\u202f% of the universe" in page

    def test_a_number_of_assets_is_said_in_place_of_a_share(self, fresh):
        given = {"evaluation.top_count": 7, "evaluation.weights": "score"}
        page = _report(fresh, sources.with_values(fresh.cfg, given, "test"))
        assert "rules and costs: the best 7 earn" in page
        assert "Weight: before trading restrictions; none below the targets." in page
        assert "equal among the targets" not in page

    def test_a_search_space_takes_a_row_a_setting(self, world, page):
        text = re.sub(r"<wbr>", "", page)
        assert "<td>tune.space.gan.noise_channels</td><td>low 0.0, high 16.0, step 4.0</td>" in text

    def test_runs_without_models_and_quality_still_report(self, fresh):
        fresh.root.child("panel").delete("quality.json")
        fresh.root.child("runs", RUN).delete_folder("windows")
        page = _report(fresh)
        assert "<h2>Training</h2>" not in page
        assert "no quality.json" in page

    def test_scores_of_other_settings_are_said(self, fresh, caplog):
        days = fresh.table["date"].nunique()
        assert not _warnings(fresh)
        changed = sources.with_values(fresh.cfg, {"factor.winsorize_mad": 3.0}, "test")
        said = f"{days} days of the factor table, 2019-01-01 to 2020-03-20, are not of today"
        (warning,) = _warnings(fresh, changed)
        assert warning.startswith(said)
        assert f"factor_outdated run={RUN} days={days} first=2019-01-01" in caplog.text
        write_models(fresh.root, RUN, cfg=changed)
        retrained = sources.with_values(fresh.cfg, {"gru.hidden": 16}, "test")
        assert _warnings(fresh, retrained) == [warning]  # no model of theirs is there

    def test_one_window_trained_anew_is_said(self, fresh):
        name = "windows/2019-06-28/seed-0/model.json"
        folder = fresh.root.child("runs", RUN)
        folder.write_json(name, folder.read_json(name) | {"sha256": "f" * 64})
        (warning,) = _warnings(fresh)
        assert "days of the factor table, 2019-07-01 to 2019-12-31, are not" in warning

    def test_a_compared_run_is_held_against_its_own_settings(self, fresh):
        cfg = sources.with_values(fresh.cfg, {"factor.winsorize_mad": 3.0}, "test")
        other = fresh.root.child("runs", "other")
        other.write_json("config.json", {"config": to_dict(cfg)})
        (warning,) = _warnings(fresh, compare="other")
        assert warning.startswith("other: ")
        assert "are not of today" in warning

    @pytest.mark.parametrize("first", ["2019-06-01", "2029-01-01"])
    def test_a_compared_run_is_judged_over_the_pages_windows(self, fresh, first):
        """Its `config.json` has those of whatever job came last."""
        cfg = sources.with_values(fresh.cfg, {"windows.first": first}, "test")
        other = fresh.root.child("runs", "other")
        other.write_json("config.json", {"config": to_dict(cfg)})
        assert not _warnings(fresh, compare="other")

    def test_runs_judged_over_other_months_are_said(self, fresh):
        """First and last month are the same; the compared run has a gap between."""
        table = random_table(fresh.block, seed=11)
        table.loc[table["date"] == "2019-05-31", "factor"] = 0.5
        write_factor(fresh.root, "other", table)
        gap, months = _warnings(fresh, compare="other")
        assert gap.startswith("other: No factor on the month-ends 2019-05-31")
        assert "r: 13 months (2019-02 to 2020-02), other: 12 months (2019-02 to 2020-02)" in months
        assert not _warnings(fresh)

    def test_factors_of_other_universes_are_said(self, fresh):
        table = random_table(fresh.block, seed=11)
        write_factor(fresh.root, "other", table[table["asset"] < fresh.block.assets[15]])
        (said,) = [note for note in _warnings(fresh, compare="other") if "universe" in note]
        assert re.search(r"\(newest month-end, r: \d+, other: 1\d\)", said)

    def test_only_configured_windows_and_seeds_are_reported(self, fresh):
        write_models(fresh.root, RUN, seeds=(0, 7))
        cfg = sources.with_values(fresh.cfg, {"windows.first": "2019-06-01"}, "test")
        assert not _warnings(fresh, cfg)
        report = fresh.root.child("runs", RUN, "report")
        tables = {
            name: read_csv(report, f"{name}.csv") for name in ("monthly", "coverage", "training")
        }
        assert tables["monthly"]["month"].iloc[0] == "2019-08"
        assert tables["coverage"]["date"].iloc[0] == "2019-07-01"
        kept = tables["training"][["window", "seed"]].to_numpy().tolist()
        assert kept == [["2019-06-28", 0], ["2019-12-31", 0]]

    def test_models_say_by_which_code_and_in_how_long_they_were_trained(self, fresh, monkeypatch):
        """The report's own job may be of another commit, and a last attempt is not the whole."""
        folder = fresh.root.child("runs", RUN)
        version = {"package_version": "9.9", "commit": "d1" * 20}
        monkeypatch.setattr("gangru_dist.runs.run.read_code_version", lambda: version)
        cfg = sources.with_values(fresh.cfg, {"training.seeds": [0, RESUMED]}, "test")
        pages = []
        for seeds in ((0,), (0, RESUMED)):
            write_models(fresh.root, RUN, seeds=seeds, cfg=cfg)
            write_report(Run(fresh.root, RUN, cfg))
            pages.append(folder.read_bytes("report/report.html").decode())
        for page in pages:
            assert f"<td>models: commit</td><td>{COMMIT}</td>" in page
            assert f"<td>last job: commit</td><td>{'d1' * 20}</td>" in page
        assert ["Minutes after" in page for page in pages] == [False, True]
        assert ["<td>&gt; 1.5</td>" in page for page in pages] == [False, True]

    def test_needs_neither_torch_nor_ray(self):
        code = (
            "import sys, gangru_dist.report.document\n"
            "bad = {'torch', 'ray'} & set(sys.modules)\n"
            "assert not bad, bad"
        )
        root = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=300)


class TestValidation:
    def test_no_panel(self, tmp_path, world):
        run = Run(Storage(str(tmp_path)), RUN, world.cfg)
        run.claim()
        with pytest.raises(PanelError, match="no finished panel"):
            write_report(run)

    def test_no_factor_table(self, world):
        run = Run(world.root, "never-scored", world.cfg)
        run.claim()
        with pytest.raises(FactorError):
            write_report(run)

    def test_no_run(self, world):
        with pytest.raises(ConfigError, match=f"no run 'never' in .*; there are: .*{RUN}"):
            write_report(Run(world.root, "never", world.cfg))
        assert world.root.list_files("runs/never") == []

    def test_another_configuration_is_refused(self, world):
        """Whoever calls: the promise is the run's, not the command line's."""
        cfg = sources.with_values(world.cfg, {"evaluation.cost_bps": 3.0}, "test")
        with pytest.raises(ConfigError, match=r"another configuration: evaluation.cost_bps: 15"):
            write_report(Run(world.root, RUN, cfg))

    def test_compared_with_itself(self, world):
        with pytest.raises(ConfigError, match="the run itself"):
            write_report(Run(world.root, RUN, world.cfg), RUN)

    def test_one_month_leaves_nothing_behind(self, world):
        table = world.table
        write_models(world.root, "short")
        write_factor(
            world.root, "short", table[table["date"] > table["date"].max() - pd.DateOffset(days=9)]
        )
        with pytest.raises(EvaluationError, match="two rebalance days"):
            write_report(Run(world.root, "short", world.cfg))
        assert world.root.child("runs", "short", "report").list_files() == []

    def test_no_row_of_a_configured_window(self, world):
        cfg = sources.with_values(world.cfg, {"windows.refit_months": [9]}, "test")
        with pytest.raises(FactorError, match=r"windows 2018-12-31.*has 2019-09-30\. Run"):
            write_report(Run(world.root, RUN, cfg), overwrite=True)
