"""Everyday commands on a run with scores: picks, export, delete; what a notebook reads of it."""

import datetime as dt
import json
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import gangru_dist as g
from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.commands import main
from gangru_dist.scoring.predictor import predict
from tests.scoring.market import RUN, make_world, run_of, score_here

DAY = "2019-04-30"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    root = make_world(str(tmp_path_factory.mktemp("world")))
    score_here(run_of(root))
    return root


def call(root: Storage, *words: str) -> int:
    return main([words[0], "--storage", root.uri, *words[1:]])


class TestPicks:
    def test_the_days_best_are_printed_and_kept(
        self, root: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "mine.csv"
        words = ["--run", RUN, "--date", DAY, "--top", "7", "--csv", str(file)]
        assert call(root, "picks", *words) == 0
        shown = capsys.readouterr().out
        day = g.read_factor(root.uri, RUN, DAY, DAY).set_index("asset")
        best = day["factor"].sort_values(ascending=False).head(7)
        for place in (file, Path(run_of(root).folder.path, "picks", f"{DAY}.csv")):
            kept = pd.read_csv(place)
            assert kept["asset"].tolist() == best.index.tolist()
            assert kept["rank"].tolist() == list(range(1, 8))
            assert kept["date"].unique() == [DAY]
            np.testing.assert_allclose(kept["factor"], best)
        panel = g.read_panel(run_of(root), DAY, DAY)
        caps = dict(zip(panel.assets, panel.market_cap[0], strict=True))
        np.testing.assert_allclose(kept["market_cap"], [caps[one] for one in kept["asset"]])
        assert all(asset in shown for asset in best.index)

    def test_the_newest_day_as_json(
        self, root: Storage, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(root, "picks", "--run", RUN, "--json") == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {row["date"][:10] for row in rows} == {"2019-05-10"}

    def test_a_day_without_scores_names_those_there_are(
        self, root: Storage, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(root, "picks", "--run", RUN, "--date", "2019-04-28") == 2
        assert "no scores of 2019-04-28; there are 2019-02-01 to" in capsys.readouterr().err
        assert call(root, "picks", "--run", RUN, "--date", "April") == 2


class TestExport:
    def test_csv_parquet_and_a_database_have_the_same_rows(
        self, root: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        expected = g.read_factor(root.uri, RUN, "2019-04-01", DAY)
        files = [tmp_path / "f.csv", tmp_path / "f.parquet"]
        url = f"sqlite:///{tmp_path}/research.db"
        span = ["--run", RUN, "--from", "2019-04-01", "--to", DAY]
        for place in (*files, url):
            assert call(root, "export", str(place), *span, "--table", "mine") == 0
            assert call(root, "export", str(place), *span, "--table", "mine") == 2
            assert "--overwrite" in capsys.readouterr().err
            assert call(root, "export", str(place), *span, "--table", "mine", "--overwrite") == 0
        with sqlite3.connect(tmp_path / "research.db") as connection:
            stored = pd.read_sql("select * from mine", connection, parse_dates=["date"])
        read = pd.read_csv(files[0], parse_dates=["date"])
        for found in (pd.read_parquet(files[1]), read, stored):
            assert len(found) == len(expected) > 100
            pd.testing.assert_frame_equal(found, expected, check_dtype=False)

    @pytest.mark.parametrize("place", ["factor.txt", "s3://bucket/factor", "nosuch://host/db"])
    def test_a_place_that_is_neither_is_refused(
        self, place: str, root: Storage, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(root, "export", place, "--run", RUN) == 2
        assert capsys.readouterr().err.startswith("error: ")


class TestDelete:
    def test_it_says_what_would_go_then_deletes_one_run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = make_world(str(tmp_path))
        assert call(root, "delete", RUN) == 0
        assert "would delete" in capsys.readouterr().out
        assert (tmp_path / "runs" / RUN / "config.json").exists()
        assert call(root, "delete", RUN, "--yes") == 0
        assert not (tmp_path / "runs" / RUN).exists()
        assert (tmp_path / "panel" / "manifest.json").exists()
        assert call(root, "delete", RUN, "--yes") == 2
        assert call(root, "delete", "../panel", "--yes") == 2
        assert (tmp_path / "panel" / "manifest.json").exists()


class TestNotebook:
    def test_a_model_scores_what_it_saw(self, root: Storage) -> None:
        run, day = run_of(root), dt.date.fromisoformat(DAY)
        stored = g.read_factor(root.uri, RUN, day, day)
        (window,) = stored["window"].unique()
        samples = g.read_samples(run, day)
        assert samples.x.shape == (len(stored), 6, 3)
        assert samples.assets.tolist() == stored["asset"].tolist()
        for spelled in (window, dt.date.fromisoformat(window)):
            scores = predict(g.load_model(run, spelled, 0), samples.x)
            np.testing.assert_allclose(scores, stored["score"], rtol=1e-5)

    def test_a_day_that_is_none_is_refused(self, root: Storage) -> None:
        with pytest.raises(PanelError, match="no trading day"):
            g.read_samples(run_of(root), "2019-04-28")

    def test_what_is_shown_is_short(self, root: Storage) -> None:
        run, block = run_of(root), g.read_panel(run_of(root), "2019-04-01", DAY)
        assert repr(run) == f"Run(name=r, storage={root.uri}, variant=gru, predictor=gru)"
        assert repr(block).startswith("PanelBlock(days=22, first=2019-04-01, last=2019-04-30, ")
        for shown in (run, block, g.evaluate(run, g.read_factor(root.uri, RUN))):
            assert len(repr(shown)) < 200
            assert shown._repr_html_().startswith(f"<table><caption>{type(shown).__name__}<")
        assert block.row("2019-04-02") == block.row(dt.date(2019, 4, 2)) == 1
