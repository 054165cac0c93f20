"""The page of a factor that no run made."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import gangru_dist as g
from gangru_dist import commands
from gangru_dist.base.errors import ConfigError, EvaluationError
from gangru_dist.base.storage import Storage
from gangru_dist.evaluation.market import to_market
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.universe import select_universe
from gangru_dist.report import document
from gangru_dist.report.document import write_report
from gangru_dist.report.factors import place_factor, read_factor_file, read_factor_market
from gangru_dist.runs.run import Run
from tests.evaluation.worlds import evaluate, random_table
from tests.report.store import CFG, RUN, World, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("storage"))


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds; `test_document` draws them."""
    monkeypatch.setattr(document, "draw_figures", lambda *_: {})


def table_of(world: World, seed: int = 1) -> pd.DataFrame:
    """Of every bar from 2019 on."""
    table = random_table(world.block, seed=seed)[["date", "asset", "factor"]]
    return table[table["date"] >= "2019-01-01"].reset_index(drop=True)


def members_of(world: World) -> set[tuple[pd.Timestamp, str]]:
    """Day and asset of the universe: 30 of the last 40 days traded, 120 days listed, no ST."""
    traded = pd.DataFrame(world.block.traded, world.block.dates, world.block.assets)
    enough = traded.rolling(40, min_periods=1).sum() >= 30
    listed = pd.bdate_range("2018-01-05", world.block.dates[0], inclusive="left").size
    old = np.arange(len(traded))[:, None] + listed >= 120
    rows, columns = np.nonzero((traded & enough).to_numpy() & old)
    return set(zip(traded.index[rows], traded.columns[columns], strict=True))


class TestReference:
    def test_the_runs_universe_is_applied_and_said(self, world):
        run, table = Run(world.root, "nobody", CFG), table_of(world)
        page = Path(write_report(run, factor=table))
        assert page.parent == Path(world.root.path) / "factors" / "factor"
        inside = members_of(world)
        kept = [pair in inside for pair in zip(table["date"], table["asset"], strict=True)]
        assert 0 < sum(kept) < len(table)
        found = Storage(str(page.parent)).read_json("metrics.json")
        market = evaluate(table[kept], world.block, CFG).metrics
        for name in ("ic", "long", "excess", "turnover"):
            assert found[name] == pytest.approx(market[name])
        assert f"{len(table)} values" in found["notes"][0]
        assert f"{len(table) - sum(kept)} outside the universe" in found["notes"][0]
        html = page.read_text()
        assert f"{len(table) - sum(kept)} outside the universe" in html
        assert "factor <b>factor</b>" in html
        assert not Storage(world.root.path).child("runs", "nobody").list_files()

    def test_neutralized_by_least_squares_on_dummies_and_size(self, world):
        manifest, table = read_manifest(world.root), table_of(world)
        block = read_factor_market(world.root, manifest, CFG, {"f": table})
        placed = place_factor(table, block, CFG, neutralize=("industry", "size"))
        day = placed.table["date"].unique()[100]
        found = placed.table[placed.table["date"] == day].set_index("asset")["factor"]
        raw = table[table["date"] == day].set_index("asset")["factor"].reindex(found.index)
        spread = 1.4826 * (raw - raw.median()).abs().median()
        raw = raw.clip(raw.median() - 5 * spread, raw.median() + 5 * spread)
        row = block.row(np.datetime64(day, "D"))
        columns = np.searchsorted(block.assets, found.index)
        industry = pd.get_dummies(pd.Series(block.industry[row, columns])).to_numpy(dtype=float)
        design = np.column_stack([industry, np.log(block.market_cap[row, columns])])
        left = raw - design @ np.linalg.lstsq(design, raw, rcond=None)[0]
        np.testing.assert_allclose(found, left / left.std(ddof=0), atol=1e-9)
        assert set(placed.coverage["neutralized"]) == {"industry+size"}

    def test_nothing_is_left_of_what_the_exposures_explain(self, world):
        table = table_of(world)
        block = read_factor_market(world.root, read_manifest(world.root), CFG, {"f": table})
        rows = [block.row(day) for day in table["date"].to_numpy("datetime64[D]")]
        columns = np.searchsorted(block.assets, table["asset"])
        table["factor"] = np.exp(block.industry[rows, columns] / 7)
        placed = place_factor(table, block, CFG, neutralize=("industry",))
        assert (placed.table["factor"] == 0).all()  # not rounding noise, z-scored

    def test_a_factor_that_is_zero_for_most_is_not_clipped_away(self, world):
        table = table_of(world)
        table.loc[np.random.default_rng(0).random(len(table)) < 0.7, "factor"] = 0.0
        block = read_factor_market(world.root, read_manifest(world.root), CFG, {"f": table})
        placed = place_factor(table, block, CFG, neutralize=("size",)).table
        for day in placed["date"].unique()[[0, 50, 100]]:
            found = placed[placed["date"] == day].set_index("asset")["factor"]
            raw = table[table["date"] == day].set_index("asset")["factor"].reindex(found.index)
            assert (raw == 0).mean() > 0.5
            columns = np.searchsorted(block.assets, found.index)
            size = np.log(block.market_cap[block.row(day), columns])
            left = raw - np.polyval(np.polyfit(size, raw, 1), size)
            np.testing.assert_allclose(found, left / left.std(ddof=0), atol=1e-9)

    def test_a_day_with_too_few_market_caps_is_not_neutralized_by_size(self, world):
        table = table_of(world)
        block = read_factor_market(world.root, read_manifest(world.root), CFG, {"f": table})
        block.market_cap[-5:] = np.nan
        placed = place_factor(table, block, CFG, neutralize=("industry", "size"))
        assert list(placed.coverage["neutralized"][-6:]) == ["industry+size", *["industry"] * 5]

    def test_what_a_factor_adds_to_another(self, world):
        """Ours knows a part of the future and adds it; noise adds nothing, nor does a copy."""
        market = to_market(world.block)
        ours = table_of(world)
        later = pd.DataFrame(market.price, market.dates, market.assets).pct_change(20).shift(-21)
        truth = later.stack().rename_axis(["date", "asset"])  # noqa: PD013
        keys = pd.MultiIndex.from_frame(ours[["date", "asset"]])
        ours["factor"] += 10 * truth.reindex(keys).fillna(0).to_numpy()
        noise = table_of(world, seed=7)
        run = Run(world.root, "nobody", CFG)
        page = Path(write_report(run, factor={"ours": ours, "noise": noise, "same": ours}))
        pairs = Storage(str(page.parent)).read_json("metrics.json")["comparisons"]
        assert list(pairs) == ["noise", "same", "noise.same"]
        known = pairs["noise"]["added"]
        assert known["mean"] > 0.15
        assert known["t"] > 4
        assert abs(pairs["noise"]["added_theirs"]["t"]) < 3
        assert pairs["same"]["correlation"]["mean"] == pytest.approx(1)
        assert pairs["same"]["added"]["mean"] is None  # nothing is left
        assert pairs["noise.same"]["added_theirs"] == pytest.approx(known)
        table = re.search(r'<table id="beside">.*?</table>', page.read_text(), re.DOTALL)[0]
        assert table.count("<tr>") == 4

    def test_a_run_stands_beside_it(self, world):
        page = Path(write_report(Run(world.root, RUN, CFG), RUN, factor={"f": table_of(world)}))
        found = Storage(str(page.parent)).read_json("metrics.json")
        assert list(found["compared"]) == [RUN]
        assert found["comparisons"][RUN]["added"]["months"] > 10


class TestProperties:
    def test_other_days_assets_and_spellings(self, world, caplog):
        table = table_of(world)
        strange = pd.concat(
            [
                table.assign(asset=table["asset"].str[:6]),
                table.head(3).assign(date=pd.Timestamp("2050-01-03")),
                table.head(2).assign(asset="999999.SH"),
            ]
        )
        block = read_factor_market(world.root, read_manifest(world.root), CFG, {"f": table})
        placed, plain = (place_factor(one, block, CFG, universe="all") for one in (strange, table))
        pd.testing.assert_frame_equal(placed.table, plain.table)
        assert placed.note.facts["unknown"] == "5"
        assert f"factor_rows_unknown left_out=5 given={len(strange)}" in caplog.text
        assert len(plain.table) == len(table)

    def test_picks_of_a_month_that_is_judged_say_so(self, world):
        def said(table: pd.DataFrame) -> str:
            page = Path(write_report(Run(world.root, "nobody", CFG), factor=table)).read_text()
            return re.search(r"Made at the close of .*?\.", re.sub(r"<.*?>", "", page))[0]

        table = table_of(world)
        assert said(table).endswith("for 2020-03, which is not judged here.")
        early = said(table[table["date"] <= "2019-11-29"])
        assert early.endswith(
            "for 2019-12, the last month judged here: the factor ends before the bars do."
        )

    def test_a_file_of_the_root_is_not_that_of_the_working_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("there-is-none.csv").write_text("date,asset,factor\n2019-01-02,600000.SH,1\n")
        assert len(read_factor_file("there-is-none.csv")) == 1
        with pytest.raises(EvaluationError, match="no such file"):
            read_factor_file("/there-is-none.csv")

    @pytest.mark.parametrize(("trained", "scored"), [(True, False), (False, True)])
    def test_members_are_those_that_the_run_scores(self, world, trained, scored):
        cfg = dataclasses.replace(
            CFG,
            universe=dataclasses.replace(CFG.universe, members=trained),
            factor=dataclasses.replace(CFG.factor, members=scored),
        )
        table = table_of(world)
        block = read_factor_market(world.root, read_manifest(world.root), CFG, {"f": table})
        member = block.traded & (np.arange(len(block.assets)) < 10)
        placed = place_factor(table, dataclasses.replace(block, member=member), cfg)
        assert (placed.table["asset"].max() < block.assets[10]) == scored

    def test_start_and_the_future(self, world):
        """Values of a day depend on that day's rows and the bars up to it alone."""
        table, day = table_of(world), dt.date(2019, 6, 3)
        block = read_factor_market(world.root, read_manifest(world.root), CFG, {"f": table})
        placed = place_factor(table, block, CFG, start=day, neutralize=("size",))
        assert placed.table["date"].min() == pd.Timestamp(day)
        cut = pd.Timestamp("2019-09-30")
        changed = table.assign(factor=np.where(table["date"] > cut, 1.0, table["factor"]))
        again = place_factor(changed, block, CFG, start=day, neutralize=("size",))
        kept = [one.table[one.table["date"] <= cut] for one in (placed, again)]
        pd.testing.assert_frame_equal(*kept)
        mask = select_universe(block, CFG.universe, CFG.samples.lookback)
        row = block.row(np.datetime64("2019-06-03"))
        assert mask[row].sum() == placed.coverage["scored"][0]
        one = place_factor(table.drop_duplicates("date"), block, CFG, start=day).coverage.iloc[0]
        at = block.row(np.datetime64(one["date"], "D"))
        assert (one["scored"], one["universe"]) == (1, mask[at].sum())


class TestCommand:
    def test_files_side_by_side(self, world, tmp_path, capsys):
        table_of(world).to_parquet(tmp_path / "value.parquet")
        wide = table_of(world, 3).pivot_table(index="date", columns="asset", values="factor")
        wide.to_csv(tmp_path / "momentum.csv")
        flags = ["report", "--storage", world.root.path, "--preset", "demo"]
        flags += ["--factor", str(tmp_path / "value.parquet")]
        flags += ["--factor", str(tmp_path / "momentum.csv"), "--neutralize", "size"]
        flags += ["--start", "2019-03-01", "--set", "evaluation.top_fraction=0.2"]
        assert commands.main([*flags, "--dry-run"]) == 0
        assert "values of momentum" in capsys.readouterr().out
        assert commands.main(flags) == 0
        assert "factors/value/report.html" in capsys.readouterr().out
        found = Storage(world.root.path).child("factors", "value").read_json("metrics.json")
        assert list(found["compared"]) == ["momentum"]
        assert found["period"]["first_day"] >= "2019-03-29"

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"factor": {}}, "factor is empty"),
            ({"factor": {"a": 3}}, "the factor is a int"),
            ({"universe": "all"}, "are of a factor"),
            ({"overwrite": True}, "overwrite is of a run"),
            ({"neutralize": ("beta",)}, "any of industry and size"),
            ({"start": "2050-01-01"}, "none of the 0 factor values"),
        ],
    )
    def test_what_cannot_be_meant(self, world, given, says):
        given = {"factor": table_of(world)} | given
        if given.get("universe") == "all":
            del given["factor"]
        with pytest.raises((EvaluationError, ConfigError), match=says):
            write_report(Run(world.root, "nobody", CFG), **given)

    def test_a_file_that_is_none(self, world, tmp_path):
        from gangru_dist.report.factors import read_factor_files

        with pytest.raises(EvaluationError, match="no such file"):
            read_factor_files([str(tmp_path / "none.csv")])
        (tmp_path / "bad.parquet").write_bytes(b"no table")
        with pytest.raises(EvaluationError, match="no parquet or CSV table"):
            read_factor_files([str(tmp_path / "bad.parquet")])
        with pytest.raises(ConfigError, match="two files are called 'bad'"):
            read_factor_files(["a/bad.csv", "b/bad.parquet"])

    def test_one_call_from_a_notebook(self, world):
        run = g.open_run(world.root.path, "notebook", settings={"evaluation.top_fraction": 0.2})
        series = table_of(world).set_index(["date", "asset"])["factor"]
        assert Path(write_report(run, factor=series, start="2019-02-01")).exists()
