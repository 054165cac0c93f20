"""What notebooks use: the same functions as the commands, and any factor judged."""

import ast
import datetime as dt
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from tiny import SETTINGS

import gangru_dist
from gangru_dist.base.errors import ConfigError, EvaluationError, StorageError
from gangru_dist.cluster.map import map_here
from gangru_dist.config import identity, sources
from gangru_dist.evaluation.market import to_market
from gangru_dist.panel.build import build_panel
from gangru_dist.runs.run import open_run
from gangru_dist.scoring.reader import to_qlib
from tests.evaluation.worlds import config, evaluate, random_block, random_table
from tests.made_bars import make_bars, write

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "first-run.ipynb"


class TestSurface:
    def test_every_name_is_there_and_typed(self) -> None:
        for name in gangru_dist.__all__:
            assert getattr(gangru_dist, name), name
        assert set(gangru_dist.__all__) <= set(dir(gangru_dist))
        with pytest.raises(AttributeError, match="no attribute 'train'"):
            _ = gangru_dist.train  # type: ignore[attr-defined]

    def test_the_import_is_light(self) -> None:
        look = (
            "import sys, gangru_dist; sys.exit(bool({'ray', 'torch', 'pandas'} & set(sys.modules)))"
        )
        assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0


class TestOpenRun:
    def test_settings_and_the_runs_own(self, tmp_path: Path) -> None:
        run = open_run(str(tmp_path), "mine", preset="demo", settings={"training.epochs": 7})
        assert (run.name, run.cfg.training.epochs) == ("mine", 7)
        run.claim()
        assert open_run(str(tmp_path), "mine").cfg == run.cfg
        assert open_run(str(tmp_path), preset="demo").name == "demo"
        assert open_run(str(tmp_path)).name == "default"

    def test_settings_of_numpy(self, tmp_path: Path) -> None:
        given = {"training.epochs": np.int64(7), "evaluation.cost_bps": np.float32(2.5),
                 "training.seeds": np.arange(2), "universe.exclude_st": np.bool_(False),
                 "evaluation.index": tmp_path / "index.csv"}  # fmt: skip
        cfg = open_run(tmp_path, settings=given).cfg
        assert (cfg.training.epochs, cfg.evaluation.cost_bps) == (7, 2.5)
        assert (cfg.training.seeds, cfg.universe.exclude_st) == ((0, 1), False)
        assert cfg.evaluation.index == str(tmp_path / "index.csv")

    def test_a_wrong_key(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"training\.epoch"):
            open_run(str(tmp_path), settings={"training.epoch": 7})


class TestPages:
    """Code blocks of docs/notebook.md."""

    TEXT = (ROOT / "docs" / "notebook.md").read_text()

    def test_the_orders_of_a_backtest_are_the_portfolio(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a market of which most is never held; a plain simulation gives the page's values."""
        block, cfg = random_block(assets=297, days=150), config(cost_bps=0)
        found = evaluate(random_table(block), block, cfg)
        said: list[tuple[pd.DataFrame, pd.DataFrame]] = []

        class Portfolio:
            @staticmethod
            def from_orders(prices: pd.DataFrame, orders: pd.DataFrame, **rest: Any) -> None:
                assert rest["size_type"] == "targetpercent"
                said.append((prices, orders))

        monkeypatch.setitem(sys.modules, "vectorbt", SimpleNamespace(Portfolio=Portfolio))
        monkeypatch.setattr(gangru_dist, "open_run", lambda *names: None, raising=False)
        monkeypatch.setattr(gangru_dist, "read_factor", lambda *names: None, raising=False)
        monkeypatch.setattr(gangru_dist, "evaluate", lambda *given: found, raising=False)
        monkeypatch.setattr(gangru_dist, "read_panel", lambda run: block, raising=False)
        (code,) = re.findall(r"```python\n(import pandas.*?)```", self.TEXT, re.DOTALL)
        exec(code, {})
        prices, orders = said[0]
        assert prices.shape == orders.shape == (150, 297)
        assert found.weights.shape[1] < 297
        cash, shares, path = 1.0, np.zeros(297), {}
        for day, row in prices.fillna(0).iterrows():
            price, wanted = row.to_numpy(), orders.loc[day].to_numpy()
            value = cash + shares @ price
            moved = np.isfinite(wanted)
            shares[moved] = wanted[moved] * value / price[moved]
            cash, path[day] = value - shares @ price, value
        expected = found.daily.set_index("date")["long"]
        ours = pd.Series(path).reindex(expected.index)
        np.testing.assert_allclose(ours, expected, rtol=1e-9)


class TestEvaluate:
    def test_a_series_a_table_and_a_block_already_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        block = random_block()
        table = random_table(block)[["date", "asset", "factor"]]
        run = open_run(str(tmp_path))
        series = table.set_index(["date", "asset"])["factor"]
        ours, theirs = (gangru_dist.evaluate(run, given, market=block) for given in (table, series))
        pd.testing.assert_frame_equal(ours.monthly, theirs.monthly)
        expected = evaluate(table, block, run.cfg)
        assert ours.metrics == expected.metrics

    @pytest.mark.parametrize("with_amount", [True, False])
    def test_a_panel_that_has_the_traded_value(self, tmp_path: Path, with_amount: bool) -> None:
        write(tmp_path / "bars", make_bars())
        features = ["close", "amount"] if with_amount else ["close"]
        run = open_run(str(tmp_path / "s"), settings={"panel.features": features})
        panel = build_panel(str(tmp_path / "bars"), run.root, run.cfg, runner=map_here)
        days = [str(day) for day in panel.calendar]
        table = pd.DataFrame(
            {
                "date": np.repeat(days, 9),
                "asset": [f"{600000 + i}.SH" for i in range(9)] * len(days),
            }
        )
        found = gangru_dist.evaluate(run, table.assign(factor=np.arange(len(table)) % 7.0))
        assert (found.metrics["capacity"]["capital"] is not None) == with_amount

    @pytest.mark.parametrize(
        "change",
        {
            "swapped levels": lambda t: t.set_index(["asset", "date"])["factor"],
            "levels without names": lambda t: pd.Series(
                t["factor"].to_numpy(), pd.MultiIndex.from_arrays([t["date"], t["asset"]])
            ),
            "swapped levels without names": lambda t: pd.Series(
                t["factor"].to_numpy(), pd.MultiIndex.from_arrays([t["asset"], t["date"]])
            ),
            "qlib's": lambda t: t.rename(
                columns={"date": "datetime", "asset": "instrument", "factor": "score"}
            ).set_index(["datetime", "instrument"]),
            "date in the index": lambda t: t.set_index("date"),
            "a column called otherwise": lambda t: t.rename(columns={"factor": "alpha101"}),
            "tushare's": lambda t: t.rename(columns={"date": "trade_date", "asset": "ts_code"}),
            "days x assets": lambda t: t.pivot_table(index="date", columns="asset").droplevel(
                0, axis=1
            ),
            "UTC": lambda t: t.assign(date=t["date"].dt.tz_localize("UTC")),
            "China's midnights in UTC": lambda t: t.assign(
                date=t["date"].dt.tz_localize("Asia/Shanghai").dt.tz_convert("UTC")
            ),
            "China's closes in UTC": lambda t: t.assign(
                date=(t["date"] + pd.Timedelta(hours=15))
                .dt.tz_localize("Asia/Shanghai")
                .dt.tz_convert("UTC")
            ),
            "closes": lambda t: t.assign(date=t["date"] + pd.Timedelta(hours=15)),
            "whole numbers": lambda t: t.assign(date=t["date"].dt.strftime("%Y%m%d").astype(int)),
            "dates": lambda t: t.assign(date=t["date"].dt.date),
            "periods": lambda t: t.assign(date=t["date"].dt.to_period("D")),
            "strings": lambda t: t.assign(date=t["date"].dt.strftime("%Y/%m/%d")),
            "categories": lambda t: t.astype({"asset": "category"}),
            "other codes": lambda t: t.assign(asset="sh." + t["asset"].str[:6]),
            "bare codes": lambda t: t.assign(asset=t["asset"].str[:6]),
            "codes without zeros": lambda t: t.assign(asset=t["asset"].str[:6].astype(int)),
            "numbers as text": lambda t: t.assign(factor=t["factor"].map(repr)),
        }.items(),
        ids=lambda item: item[0],
    )
    def test_a_factor_of_somebody_else(self, tmp_path: Path, change: tuple[str, Any]) -> None:
        block, run = random_block(), open_run(tmp_path)
        table = random_table(block)[["date", "asset", "factor"]]
        expected = evaluate(table, block, run.cfg)
        found = gangru_dist.evaluate(run, change[1](table), market=block)
        pd.testing.assert_frame_equal(found.monthly, expected.monthly)
        pd.testing.assert_frame_equal(found.coverage, expected.coverage)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda t: t.drop(columns="date"), r"lacks the columns \['date'\]; it has"),
            (lambda t: t.assign(b=t["factor"]).rename(columns={"factor": "a"}), r"\['factor'\]"),
            (lambda t: t.assign(date="01/02/2019"), r"'01/02/2019' \(row 0\) is no day"),
            (lambda t: t.assign(date=17897), "17897. .* is no day"),
            (
                lambda t: t.assign(date=t["date"].dt.to_period("W")),
                r"'2019-\d\d-\d\d/2019-\d\d-\d\d' .* is a period\[W-SUN\]\. Give the day",
            ),
            (
                lambda t: t.assign(date=t["date"].dt.to_period("M")).set_index(["date", "asset"]),
                r"'2019-\d\d' .* is a period\[M\]\. Give the day",
            ),
            (lambda t: t.assign(date=pd.NaT), "is missing: each row needs a day"),
            (lambda t: t.assign(asset=None), "is missing: each row needs an asset"),
            (lambda t: t.assign(asset="XYZ"), "asset that is not in the panel, first XYZ"),
            (lambda t: t.assign(factor="high"), "'high' .* is no number"),
            (lambda t: t.assign(factor=np.inf), "is infinite"),
            (lambda t: t.assign(factor=1j), "is complex"),
            (lambda t: t.iloc[:0], "has no rows"),
            (lambda t: pd.concat([t, t]), "repeated"),
            (lambda t: pd.concat([t, t], axis=1), "two columns of one name"),
            (
                lambda t: t.assign(datetime=t["date"]).rename(columns={"date": "trade_date"}),
                "columns 'trade_date' and 'datetime', which both mean date",
            ),
            (
                lambda t: t.assign(symbol=t["asset"]).rename(columns={"asset": "ts_code"}),
                "columns 'ts_code' and 'symbol', which both mean asset",
            ),
            (
                lambda t: t[["date"]].assign(**{"1": 1.0}).join(pd.Series(2.0, t.index, name=1)),
                "columns '1' and 1, which both mean 1",
            ),
            (
                lambda t: t.assign(date=t["date"] + pd.to_timedelta(range(len(t)), unit="s")),
                "has another time of day",
            ),
        ],
    )
    def test_one_that_could_mean_anything(self, tmp_path: Path, change: Any, says: str) -> None:
        block = random_block()
        table = random_table(block)[["date", "asset", "factor"]]
        with pytest.raises(EvaluationError, match=says):
            gangru_dist.evaluate(open_run(tmp_path), change(table), market=block)

    def test_what_is_no_run_no_place_and_no_factor(self, tmp_path: Path) -> None:
        """In an interpreter of its own, where nothing checks annotations."""
        code = """
            import sys
            import numpy as np, pandas as pd
            import gangru_dist as g
            from gangru_dist.base.errors import GangruError
            run, frame = g.open_run(sys.argv[1]), pd.DataFrame({"date": [1]})
            calls = {
                "build_panel": [lambda: g.build_panel("s", "b"), lambda: g.build_panel(run, frame)],
                "run_pipeline": [lambda: g.run_pipeline("s", bars="b"),
                                 lambda: g.run_pipeline(run, bars=frame),
                                 lambda: g.run_pipeline(run, bars=None)],
                "evaluate": [lambda: g.evaluate("s", frame),
                             lambda: g.evaluate(run, {"date": 1}),
                             lambda: g.evaluate(run, np.ones((2, 2))),
                             lambda: g.evaluate(run, None),
                             lambda: g.evaluate(run, pd.DataFrame(columns=["date", "asset",
                                                "factor"], data=[["2019-01-02", "a", 1.0]]),
                                                market=frame)],
                "load_model": [lambda: g.load_model("s", "2019-06-28"),
                               lambda: g.load_model(run, 5)],
                "read_picks": [lambda: g.read_picks("s"), lambda: g.read_picks(run, [1])],
                "read_samples": [lambda: g.read_samples("s", "2019-06-28"),
                                 lambda: g.read_samples(run, [1])],
                "open_run": [lambda: g.open_run(3), lambda: g.open_run(None),
                             lambda: g.open_run("s", 5), lambda: g.open_run("s", preset=5),
                             lambda: g.open_run("s", config=5),
                             *[lambda v=v: g.open_run("s", settings=v) for v in (
                                 [5], {5: 5}, {"training.epochs": frame},
                                 {"training.epochs": {1}}, {"training.epochs": b"7"},
                                 {"training": object()}, "training.epochs=5",
                                 {"training.epochs": np.float64("nan")})]],
                "read_factor": [lambda: g.read_factor(None, "run"),
                                lambda: g.read_factor(sys.argv[1], 5),
                                lambda: g.read_factor(sys.argv[1], "run", [1])],
                "read_metrics": [lambda: g.read_metrics("s")],
                "read_models": [lambda: g.read_models("s")],
                "read_panel": [lambda: g.read_panel("s"), lambda: g.read_panel(run, object())],
                "score_days": [lambda: g.score_days("s"), lambda: g.score_days(run, start=[1])],
                "to_alphalens": [lambda: g.to_alphalens([1], None),
                                 lambda: g.to_alphalens(frame, None)],
                "to_qlib": [lambda: g.to_qlib([1]), lambda: g.to_qlib(frame)],
                "train_windows": [lambda: g.train_windows("s"),
                                  lambda: g.train_windows(run, only=5)],
                "write_report": [lambda: g.write_report("s"), lambda: g.write_report(run, 5)],
            }
            assert {*calls} == {*g.__all__} - {"__version__", "run_here"}
            for name, every in calls.items():
                for number, call in enumerate(every):
                    try:
                        call()
                    except GangruError as error:
                        assert "\\n" not in str(error), error
                    except BaseException as error:
                        print(name, number, type(error).__name__, error)
                    else:
                        print(name, number, "is taken")
        """
        words = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
        found = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
        assert found.stdout == ""
        assert found.returncode == 0, found.stderr

    def test_days_and_paths_of_any_kind(self, tmp_path: Path) -> None:
        write(tmp_path / "bars", make_bars())
        run = open_run(tmp_path / "s", settings={"panel.features": np.array(["close"])})
        build_panel(str(tmp_path / "bars"), run.root, run.cfg, runner=map_here)
        day = dt.date(2019, 1, 4)
        kinds = (day, "2019-01-04", "20190104", 20190104, pd.Timestamp(day), np.datetime64(day))
        for kind in kinds:
            block = gangru_dist.read_panel(run, kind, kind, features="close")
            assert block.dates.tolist() == [day]
        with pytest.raises(ConfigError, match="start='soon' is no day"):
            gangru_dist.read_panel(run, "soon")

    def test_no_factor(self, tmp_path: Path) -> None:
        empty = pd.DataFrame({"date": [], "asset": [], "factor": []})
        with pytest.raises(EvaluationError, match="factor table"):
            gangru_dist.evaluate(open_run(str(tmp_path)), empty, market=random_block())

    def test_no_report_yet(self, tmp_path: Path) -> None:
        with pytest.raises(EvaluationError, match="gangru report"):
            gangru_dist.read_metrics(open_run(str(tmp_path)))

    def test_a_damaged_report_is_said(self, tmp_path: Path) -> None:
        run = open_run(str(tmp_path))
        run.report.write_bytes("metrics.json", b'{"ic": ')
        with pytest.raises(StorageError, match=r"metrics\.json is damaged"):
            gangru_dist.read_metrics(run)


class TestWeights:
    def test_an_engine_that_knows_weights_alone_ends_with_the_same_values(self) -> None:
        block = random_block()
        market = to_market(block)
        found = evaluate(random_table(block), block, config())
        prices = pd.DataFrame(market.price, market.dates, market.assets)[found.weights.columns]
        value, expected = 1.0, found.daily.set_index("date")["long"]
        days = [*found.weights.index, expected.index[-1]]
        for (day, weights), end in zip(found.weights.iterrows(), days[1:], strict=True):
            held = weights[weights > 0]
            growth = prices.loc[end, held.index] / prices.loc[day, held.index]
            value *= float((held * growth).sum() + 1 - held.sum())
            assert value == pytest.approx(expected[end], rel=1e-12)


class TestQlib:
    def test_names_and_index(self) -> None:
        day = pd.Timestamp("2020-01-02")
        frame = pd.DataFrame(
            {"date": day, "asset": ["600000.SH", "ABC", "000001.SZ"], "factor": [1.0, 2.0, np.nan]}
        )
        expected = pd.DataFrame(
            {"score": [2.0, 1.0]},
            pd.MultiIndex.from_tuples(
                [(day, "ABC"), (day, "SH600000")], names=["datetime", "instrument"]
            ),
        )
        pd.testing.assert_frame_equal(to_qlib(frame), expected, check_index_type=False)


class TestNotebook:
    def test_it_is_short_and_names_what_is_there(self) -> None:
        cells = nbformat.read(NOTEBOOK, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        assert len([line for line in code.splitlines() if line.strip()]) < 25
        calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
        ours = [call for call in calls if ast.unparse(call.func).startswith("g.")]
        assert len(ours) > 10
        for call in ours:
            function = getattr(gangru_dist, ast.unparse(call.func).removeprefix("g."))
            given = {str(word.arg): None for word in call.keywords}
            inspect.signature(function).bind(*call.args, **given)

    @pytest.mark.ray
    @pytest.mark.trials
    def test_a_real_kernel_runs_it_from_bars_to_the_report(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As Jupyter does: Ray of its own, pictures and tables in the cells, progress drawn."""
        cfg = identity.to_dict(sources.load("demo", None, SETTINGS))
        given = {
            key: identity.value_at(cfg, key) for key in (one.split("=")[0] for one in SETTINGS)
        }
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        for cell in notebook.cells:
            small = f'preset="demo", settings={given}'
            cell.source = cell.source.replace('preset="demo"', small)
        last = "print(len(signal), weights.sum(axis=1).max(), page)"
        notebook.cells.append(nbformat.v4.new_code_cell(last))
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.delenv("MPLBACKEND", raising=False)
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        (tmp_path / "work").mkdir()
        where = {"metadata": {"path": str(tmp_path / "work")}}
        NotebookClient(notebook, timeout=600, resources=where).execute()
        build, judge, other, models, tools, said = (
            cell.outputs for cell in notebook.cells if cell.cell_type == "code"
        )
        drawn = [output.data["text/plain"] for output in build if "data" in output]
        assert any(re.search(r"train .*━ (\d+)/\1", text) for text in drawn), drawn
        assert {"image/png", "text/html"} <= {kind for output in judge for kind in output.data}
        assert "newey_west_lags" in other[-1].data["text/plain"]
        assert "text/html" in models[-1].data
        assert not tools
        rows, weight, page = said[0].text.split()
        assert int(rows) > 1000
        assert float(weight) <= 1 + 1e-12
        assert Path(page).exists()
        assert [path.name for path in (tmp_path / "work").iterdir()] == ["demo-storage"]
