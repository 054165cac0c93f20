"""Everyday commands on a run with scores: picks, export, delete; what a notebook reads of it."""

import dataclasses
import datetime as dt
import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import gangru_dist as g
from gangru_dist import api
from gangru_dist.base import store_check
from gangru_dist.base.errors import ConfigError, FactorError, PanelError, StorageError
from gangru_dist.base.storage import Storage
from gangru_dist.commands import export, main
from gangru_dist.commands.export import _write_sql
from gangru_dist.panel.manifest import read_manifest
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
        kept = pd.read_csv(file)
        assert kept["asset"].tolist() == best.index.tolist()
        assert kept["rank"].tolist() == list(range(1, 8))
        assert kept["date"].unique() == [DAY]
        np.testing.assert_allclose(kept["factor"], best)
        panel = g.read_panel(run_of(root), DAY, DAY)
        caps = dict(zip(panel.assets, panel.market_cap[0], strict=True))
        np.testing.assert_allclose(kept["market_cap"], [caps[one] for one in kept["asset"]])
        assert all(asset in shown for asset in best.index)

    def test_the_kept_list_is_whole_and_never_replaced(
        self, root: Storage, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, day = Path(run_of(root).folder.path, "picks"), "2019-04-29"
        words = ["picks", "--run", RUN, "--date", day, "--top"]
        assert call(root, *words, "7") == 0
        first = (folder / f"{day}.csv").read_bytes()
        factor = g.read_factor(root.uri, RUN, day, day)["factor"].notna().sum()
        whole = min(run_of(root).cfg.evaluation.picks, factor)
        assert whole > 7
        assert len(first.splitlines()) == 1 + whole
        assert call(root, *words, "2") == 0
        assert list(folder.glob(f"{day}*")) == [folder / f"{day}.csv"]
        (folder / f"{day}.csv").write_bytes(first[:-9])  # of other models
        capsys.readouterr()
        for _ in range(2):
            assert call(root, *words, "2") == 0
            assert f"{day}.csv is another list of that day, and is kept" in capsys.readouterr().out
        (other,) = folder.glob(f"{day}-*")
        assert other.read_bytes() == first
        assert (folder / f"{day}.csv").read_bytes() == first[:-9]

    def test_an_asset_that_the_panel_has_lost_since_gets_nobody_elses_facts(
        self, root: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = run_of(root)
        best = g.read_picks(run, DAY, top=1)["asset"][0]
        block = g.read_panel(run, DAY, DAY)
        assets = np.where(block.assets == best, "another", block.assets)
        later = dataclasses.replace(block, assets=assets)
        monkeypatch.setattr(api, "read_panel", lambda *_: later)
        with pytest.raises(FactorError, match=rf"no row of 1 of .* {DAY}, first {best}: .*Run"):
            g.read_picks(run, DAY)

    def test_picks_of_models_that_are_gone_are_warned_of(
        self, root: Storage, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = run_of(root)
        g.read_picks(run, DAY)
        assert not caplog.records
        longer = dataclasses.replace(run.cfg.windows, history_days=run.cfg.windows.history_days + 1)
        other = dataclasses.replace(run, cfg=dataclasses.replace(run.cfg, windows=longer))
        g.read_picks(other, DAY)
        assert f"factor_outdated run={RUN} days=1 first={DAY}" in caplog.text

    @pytest.mark.parametrize(
        ("day", "says"),
        [
            ("2019-04-28", r"no trading day, or none of a model; 2019-04-26 and 2019-04-29 are"),
            ("2099-04-28", r"The last scored day is .* Add bars"),
            ("2001-04-28", r"The first scored day is"),
        ],
    )
    def test_a_day_without_scores_names_those_beside_it(
        self, root: Storage, day: str, says: str
    ) -> None:
        with pytest.raises(FactorError, match=rf"has no scores of {day}\. .*{says}"):
            g.read_picks(run_of(root), day)

    @pytest.mark.parametrize("word", ["April", ""])
    def test_a_word_is_no_day(
        self, root: Storage, word: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(root, "picks", "--run", RUN, "--date", word) == 2
        assert f"--date={word!r} is no day" in capsys.readouterr().err

    def test_an_industry_that_is_not_known_is_called_so(
        self, root: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, block = run_of(root), g.read_panel(run_of(root), DAY, DAY)
        known = g.read_picks(run, DAY, top=2)
        block.industry[0, block.assets == known["asset"][0]] = -1
        monkeypatch.setattr(api, "read_panel", lambda *_: block)
        found = g.read_picks(run, DAY, top=2)
        assert found["industry"].tolist() == ["unknown", known["industry"][1]]

    @pytest.mark.parametrize(
        ("words", "text"),
        [(["--top", "0"], "Give 1 or more"), (["--csv", "lists/"], "names a folder")],
    )
    def test_nothing_to_pick_or_to_write_to_is_refused(
        self, words: list[str], text: str, root: Storage, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(root, "picks", "--run", RUN, *words) == 2
        assert text in capsys.readouterr().err

    def test_the_newest_day_as_json(
        self, root: Storage, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(root, "picks", "--run", RUN, "--json") == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {row["date"][:10] for row in rows} == {"2019-05-10"}

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["picks"], f"there is no run 'mine' in .*; there are: {RUN}"),
            (
                ["export", "x.csv"],
                r"no factor table at .*/runs/mine/factor\. Correct the run's name",
            ),
        ],
    )
    def test_a_run_that_is_not_there(
        self, root: Storage, capsys: pytest.CaptureFixture[str], words: list[str], said: str
    ) -> None:
        assert call(root, *words, "--run", "mine") == 2
        assert re.search(said, capsys.readouterr().err)


class TestExport:
    def test_csv_parquet_and_a_database_have_the_same_rows(
        self, root: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        expected = g.read_factor(root.uri, RUN, "2019-04-01", DAY)
        files = [tmp_path / "f.csv", tmp_path / "f.parquet"]
        url = f"sqlite:///{tmp_path}/research.db"
        span = ["--run", RUN, "--from", "2019-04-01", "--to", DAY]
        for place in (*files, url):
            given = [str(place), *span, *(["--table", "mine"] if place == url else [])]
            assert call(root, "export", *given) == 0
            assert call(root, "export", *given) == 2
            assert "--overwrite" in capsys.readouterr().err
            assert call(root, "export", *given, "--overwrite") == 0
        assert call(root, "export", str(files[0]), *span, "--table", "mine", "--overwrite") == 2
        assert "Leave --table out" in capsys.readouterr().err
        with sqlite3.connect(tmp_path / "research.db") as connection:
            stored = pd.read_sql("select * from mine", connection, parse_dates=["date"])
        read = pd.read_csv(files[0], parse_dates=["date"])
        for found in (pd.read_parquet(files[1]), read, stored):
            assert len(found) == len(expected) > 100
            pd.testing.assert_frame_equal(found, expected, check_dtype=False)

    def test_an_export_that_fails_leaves_the_table_that_was_there(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/research.db"
        _write_sql(pd.DataFrame({"a": [1, 2]}), url, "mine", replace=True)
        too_large = pd.DataFrame({"a": [3, 2**70]}, dtype=object)
        with pytest.raises(ConfigError, match="cannot be written"):
            _write_sql(too_large, url, "mine", replace=True)
        with sqlite3.connect(tmp_path / "research.db") as connection:
            assert connection.execute("select a from mine").fetchall() == [(1,), (2,)]

    def test_the_password_of_a_database_is_not_printed(
        self, root: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(export, "_write_sql", lambda *_, **__: None)
        assert call(root, "export", "postgresql://me:s3cret@host/research", "--run", RUN) == 0
        shown = capsys.readouterr().out
        assert "host/research" in shown
        assert "s3cret" not in shown

    @pytest.mark.parametrize("place", ["factor.txt", "s3://bucket/factor", "nosuch://host/db"])
    def test_a_place_that_is_neither_is_refused(
        self, place: str, root: Storage, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(root, "export", place, "--run", RUN) == 2
        assert capsys.readouterr().err.startswith("error: ")


class TestStore:
    @pytest.mark.parametrize(
        "words", [["picks", "--run", RUN], ["export", "f.csv"], ["delete", RUN]]
    )
    def test_it_is_checked_first(
        self,
        words: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def refuse(root: Storage, *, writes: bool) -> None:
            raise StorageError("no credentials.")

        monkeypatch.setattr(store_check, "check_store", refuse)
        assert call(Storage(str(tmp_path)), *words) == 2
        assert capsys.readouterr().err == "error: no credentials.\n"


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

    def test_a_day_with_too_few_before_it_is_refused(self, root: Storage) -> None:
        run = run_of(root)
        days = read_manifest(run.root).calendar
        with pytest.raises(PanelError, match=r"is day 5 of the panel, and a sample has 6 days"):
            g.read_samples(run, days[4])
        assert g.read_samples(run, days[5]).x.shape[1] == 6

    def test_what_is_shown_is_short(self, root: Storage) -> None:
        run, block = run_of(root), g.read_panel(run_of(root), "2019-04-01", DAY)
        assert repr(run) == f"Run(name=r, storage={root.uri}, variant=gru, predictor=gru)"
        assert repr(block).startswith("PanelBlock(days=22, first=2019-04-01, last=2019-04-30, ")
        for shown in (run, block, g.evaluate(run, g.read_factor(root.uri, RUN))):
            assert len(repr(shown)) < 200
            assert shown._repr_html_().startswith(f"<table><caption>{type(shown).__name__}<")
        assert block.row("2019-04-02") == block.row(dt.date(2019, 4, 2)) == 1
