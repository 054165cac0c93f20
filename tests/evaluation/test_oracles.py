"""Every figure of metrics.json equals its independent recomputation from table and bars.

The market is the project's synthetic one, with limits, suspensions, splits and special treatment;
the factor table is noise with gaps. `recompute.py` says who judges what. The libraries are in the
dev extra alone; empyrical, which needs much to install, is asked after `make oracles`.
"""

from __future__ import annotations

import copy
import datetime as dt
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gangru_dist.base.storage import Storage
from gangru_dist.config import sources
from gangru_dist.config.identity import to_dict
from gangru_dist.config.settings import RunConfig
from gangru_dist.evaluation.comparison import compare_runs
from gangru_dist.evaluation.summary import Evaluation
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import Manifest
from gangru_dist.panel.store import read_block
from gangru_dist.report import document
from gangru_dist.report.tables import add_published
from gangru_dist.runs.run import Run
from gangru_dist.synthetic.market import make_bars
from tests.chain import build_panel
from tests.evaluation import recompute
from tests.evaluation.worlds import evaluate, random_table
from tests.report.store import write_factor, write_models

RUN = "r"


@dataclass
class World:
    """A stored run, and what the figures come from."""

    folder: Path
    cfg: RunConfig
    bars: pd.DataFrame
    block: PanelBlock
    table: pd.DataFrame

    def metrics(self, **given: Any) -> dict[str, Any]:
        return add_published(self.evaluation(**given).metrics)

    def evaluation(self, **given: Any) -> Evaluation:
        cfg = self.with_values(**given)
        return evaluate(self.table_of(cfg), self.block, cfg)

    def table_of(self, cfg: RunConfig) -> pd.DataFrame:
        """The table with its quantiles made into as many as the configuration has."""
        share = self.table["quantile"] / self.cfg.factor.quantiles
        return self.table.assign(quantile=np.ceil(share * cfg.factor.quantiles).astype(int))

    def with_values(self, **given: Any) -> RunConfig:
        named = {name.replace("__", "."): value for name, value in given.items()}
        return sources.with_values(self.cfg, named, "test")

    def recomputed(self, **given: Any) -> dict[str, Any]:
        cfg = self.with_values(**given)
        rules = recompute.Rules(
            loss=cfg.evaluation.delisting_loss,
            sell_cost_bps=cfg.evaluation.sell_cost_bps,
            year=cfg.evaluation.days_per_year,
            entry_lag=cfg.label.entry_lag,
            top_fraction=cfg.evaluation.top_fraction,
            cost_bps=cfg.evaluation.cost_bps,
            quantiles=cfg.factor.quantiles,
            horizons=cfg.evaluation.decay_horizons,
            picks=cfg.evaluation.picks,
        )
        return recompute.recompute(
            self.table_of(cfg), recompute.to_bars(self.bars, limits=True), rules
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("oracles")
    cfg = sources.load(
        "demo",
        None,
        [
            "synthetic.assets=60",
            "synthetic.first=2018-01-02",
            "synthetic.last=2019-12-31",
            "panel.features=['close', 'amount']",
            "panel.buckets=2",
            "evaluation.top_fraction=0.2",
            "windows.history_days=60",
        ],
    )
    bars = make_bars(cfg.synthetic)
    root = Storage(str(folder / "storage"))
    manifest = build_panel(bars, cfg, folder / "bars", root)
    block = _block(root, manifest)
    table = _with_gaps(random_table(block))
    root.child("panel").write_json("manifest.json", manifest.to_json())
    write_models(root, RUN, cfg=cfg)
    write_factor(root, RUN, table, cfg)
    return World(folder=folder, cfg=cfg, bars=bars.to_pandas(), block=block, table=table)


def _block(root: Storage, manifest: Manifest) -> PanelBlock:
    last = manifest.calendar[-1].astype(dt.date)
    return read_block(
        root, manifest, start=dt.date(2018, 3, 1), end=last, features=("amount",), trading=True
    )


def _with_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Without a month-end, a third of another day's rows, the last weeks; one day is flat."""
    ends = table.groupby(table["date"].dt.to_period("M"))["date"].max().to_numpy()
    rng = np.random.default_rng(3)
    thin = (table["date"] == ends[6]) & (rng.random(len(table)) < 0.3)
    gap = table["date"] == ends[4]
    late = table["date"] > table["date"].max() - pd.Timedelta(days=35)
    table.loc[table["date"] == ends[7], "factor"] = 0.0
    return table[~thin & ~gap & ~late].reset_index(drop=True)


class TestReference:
    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"label__entry_lag": 0},
            {"label__entry_lag": 3, "evaluation__cost_bps": 0.0, "factor__quantiles": 5},
            {"evaluation__sell_cost_bps": 65.0, "evaluation__days_per_year": 243},
            {"evaluation__top_fraction": 0.01, "evaluation__decay_horizons": [1, 90, 252]},
            {"evaluation__top_fraction": 0.5, "evaluation__delisting_loss": 0.75},
        ],
        ids=["demo", "same_close", "late_and_free", "by_side", "one_asset", "loss"],
    )
    def test_every_figure(self, world, given):
        rows = recompute.compare(world.metrics(**given), world.recomputed(**given))
        assert len(rows) > 150
        assert [row for row in rows if row[3]] == []

    def test_texts_too(self, world):
        ours, theirs = (
            dict(recompute.leaves(found)) for found in (world.metrics(), world.recomputed())
        )
        texts = {path: value for path, value in ours.items() if isinstance(value, str)}
        told = {path for path in texts if path.startswith(("notes", "published"))}
        assert {path: theirs[path] for path in texts if path not in told} == {
            path: text for path, text in texts.items() if path not in told
        }

    def test_runs_side_by_side(self, world):
        """Over different months, one of them with a single IC more than the other."""
        ours = world.metrics()["monthly"]
        others = {
            "one": ours,
            "late": world.metrics(label__entry_lag=3)["monthly"][3:],
            "short": [row | {"ic": -row["ic"]} for row in ours[-2:]],
            "apart": ours[:1],
        }
        again = {"one": world.recomputed()["monthly"]} | {
            "late": world.recomputed(label__entry_lag=3)["monthly"][3:]
        }
        again |= {"short": [row | {"ic": -row["ic"]} for row in again["one"][-2:]]}
        again |= {"apart": again["one"][:1]}
        rows = recompute.compare(compare_runs(others), recompute.side_by_side(again))
        assert len(rows) > 60
        assert [row for row in rows if row[3]] == []

    def test_the_world_is_awkward_enough(self, world):
        trades = world.evaluation().trades
        assert trades["not_bought"].sum() > 0
        assert trades["not_sold"].sum() > 0
        factors = world.bars.groupby("code")["adj_factor"]
        assert (factors.max() > factors.min()).any()
        (note,) = (n for n in world.metrics()["notes"] if n.startswith("No factor on the month"))
        assert note.count("2018-") == 2  # no rows, the same value for all

    def test_figures_of_a_value_that_one_can_check_on_paper(self):
        value = pd.Series([1.0, 1.1, 0.99, 1.188])  # +10 %, -10 %, +20 %
        found = recompute.value_figures(value)
        assert found["total_return"] == pytest.approx(0.188)
        assert found["annualized_return"] == pytest.approx(1.188**84 - 1)
        deviation = ((0.1 - 0.2 / 3) ** 2 + (-0.1 - 0.2 / 3) ** 2 + (0.2 - 0.2 / 3) ** 2) / 2
        assert found["annualized_volatility"] == pytest.approx((252 * deviation) ** 0.5)
        assert found["max_drawdown"] == pytest.approx(0.1)

    @pytest.mark.filterwarnings("ignore")  # empyrical and pandas 3
    def test_empyrical_judges_a_daily_value_alike(self):
        empyrical = pytest.importorskip("empyrical", reason="`make oracles` installs it")
        value = pd.Series(np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.02, 700))))
        found, returns = recompute.value_figures(value), value.pct_change().dropna()
        given = {"annualization": 252}
        assert found["annualized_return"] == pytest.approx(
            empyrical.annual_return(returns, **given)
        )
        volatility = empyrical.annual_volatility(returns, **given)
        assert found["annualized_volatility"] == pytest.approx(volatility, rel=1e-12)
        assert found["max_drawdown"] == pytest.approx(-empyrical.max_drawdown(returns), rel=1e-12)


class TestProperties:
    def test_the_comparison_has_teeth(self, world):
        metrics, found = world.metrics(), world.recomputed()
        changed = copy.deepcopy(metrics)
        changed["ic"]["icir"] *= 1 + 1e-6
        changed["yearly"][0]["turnover"] = None
        changed["new"] = {"figure": 1.0}
        wrong = {row[0] for row in recompute.compare(changed, found) if row[3]}
        assert wrong == {"ic.icir", "yearly[0].turnover", "new.figure"}

    def test_recomputation_knows_nothing_of_the_package(self):
        code = (
            "import sys, tests.evaluation.recompute\n"
            "ours = [name for name in sys.modules if name.startswith('gangru_dist')]\n"
            "assert not ours, ours"
        )
        root = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=300)


class TestCommand:
    def test_a_stored_run(self, world, monkeypatch, capsys):
        monkeypatch.setattr(document, "draw_figures", lambda *_: {})
        root = Storage(str(world.folder / "storage"))
        document.write_report(Run(root, RUN, world.cfg))
        asked = ["--storage", str(world.folder / "storage"), "--run", RUN]
        asked += ["--bars", str(world.folder / "bars")]
        assert recompute.main(asked) == 0
        said = capsys.readouterr().out
        assert "long_with_costs.max_drawdown" in said
        assert "figures, 0 differ" in said
        folder = root.child("runs", RUN, "report")
        metrics = folder.read_json("metrics.json")
        metrics["ic"]["mean"] += 1e-6
        folder.write_json("metrics.json", metrics)
        assert recompute.main(asked) == 1
        assert "<-- differs" in capsys.readouterr().out

    def test_rows_of_windows_that_are_no_longer_configured_are_left_out(self, world, monkeypatch):
        monkeypatch.setattr(document, "draw_figures", lambda *_: {})
        root = Storage(str(world.folder / "storage"))
        cfg = world.with_values(windows__first="2018-12-01")
        document.write_report(Run(root, RUN, cfg))
        folder = root.child("runs", RUN)
        assert folder.read_json("report/metrics.json")["period"]["first_day"] > "2018-12"
        folder.write_json("config.json", {"config": to_dict(cfg)})
        asked = ["--storage", str(world.folder / "storage"), "--run", RUN]
        assert recompute.main([*asked, "--bars", str(world.folder / "bars")]) == 0
        folder.write_json("config.json", {"config": to_dict(world.cfg)})
