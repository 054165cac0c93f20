"""What notebooks use: the same functions as the commands, and any factor judged."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from tiny import SETTINGS

import gangru_dist
from gangru_dist.base.errors import ConfigError, EvaluationError
from gangru_dist.cluster.map import map_here
from gangru_dist.config import identity, sources
from gangru_dist.evaluation.market import to_market
from gangru_dist.panel.build import build_panel
from gangru_dist.runs.run import open_run
from gangru_dist.scoring.table import to_qlib
from tests.evaluation.worlds import config, evaluate, random_block, random_table
from tests.made_bars import make_bars, write

NOTEBOOK = Path(__file__).parents[1] / "docs" / "first-run.ipynb"


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

    def test_a_wrong_key(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"training\.epoch"):
            open_run(str(tmp_path), settings={"training.epoch": 7})


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

    def test_no_factor(self, tmp_path: Path) -> None:
        empty = pd.DataFrame({"date": [], "asset": [], "factor": []})
        with pytest.raises(EvaluationError, match="factor table"):
            gangru_dist.evaluate(open_run(str(tmp_path)), empty, market=random_block())

    def test_no_report_yet(self, tmp_path: Path) -> None:
        with pytest.raises(EvaluationError, match="gangru report"):
            gangru_dist.read_metrics(open_run(str(tmp_path)))


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
