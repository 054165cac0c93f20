"""Scoring days: equal to a plain forward pass, repeatable, blind to the future, all or nothing."""

import dataclasses
import datetime as dt
import shutil
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from deltalake import DeltaTable

from gangru_dist.base.errors import ConfigError, FactorError, PanelError, WindowError
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import FactorConfig, TrainingConfig
from gangru_dist.maths.calendar import make_windows
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.runs.run import Run
from gangru_dist.samples.standardize import Standardizer, ts_standardize
from gangru_dist.scoring import score
from gangru_dist.scoring.factor import to_factor
from gangru_dist.scoring.reader import read_factor
from gangru_dist.scoring.score import score_days
from gangru_dist.scoring.table import FactorTable
from gangru_dist.training.checkpoint import read_model
from tests.scoring.market import (
    CFG,
    DAYS,
    FEATURES,
    RUN,
    make_rows,
    make_world,
    run_of,
    score_here,
    write_models,
)
from tests.scoring.market import write_panel as rewrite_panel


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    """The same world as built, and scored once: copied by the tests that change them."""
    folder = tmp_path_factory.mktemp("worlds")
    built = make_world(str(folder / "built"))
    shutil.copytree(built.path, folder / "scored")
    scored = Storage(str(folder / "scored"))
    score_here(run_of(scored))
    return built, scored


@pytest.fixture
def root(worlds, tmp_path):
    """Panel and models, nothing scored."""
    shutil.copytree(worlds[0].path, tmp_path / "root")
    return Storage(str(tmp_path / "root"))


@pytest.fixture
def scored(worlds, tmp_path):
    """The same, all days scored."""
    shutil.copytree(worlds[1].path, tmp_path / "scored")
    return Storage(str(tmp_path / "scored"))


def table(root):
    return read_factor(root.uri, RUN)


def window_of(day, cfg=CFG):
    calendar = np.array(DAYS, dtype="datetime64[D]")
    windows, _ = make_windows(calendar, cfg.windows, cfg.label, lookback=cfg.samples.lookback)
    index = int(np.searchsorted(calendar, np.datetime64(day)))
    return next(w.name for w in windows if w.score_first <= index <= w.score_last)


def plain_scores(root, frame, day, seed=0, cfg=CFG):
    """A day's scores by pandas pivots and one forward pass, and its members' rows."""
    position = DAYS.get_loc(day)
    lookback = DAYS[position - cfg.samples.lookback + 1 : position + 1]
    recent = frame[frame["date"].isin(lookback)]
    today = frame[frame["date"] == day].set_index("asset")
    listed = DAYS.get_indexer(today["list_date"], method="bfill")
    early = today["list_date"] < DAYS[0]
    traded = recent.groupby("asset").size().reindex(today.index)
    chosen = (
        ~today["is_st"]
        & (early | (position - listed >= cfg.universe.min_listed_days))
        & (traded >= cfg.universe.min_traded_days)
    )
    members = today.index[chosen].sort_values()
    wide = [
        recent.pivot_table(name, "date", "asset", dropna=False)
        .reindex(index=lookback, columns=members)
        .to_numpy()
        for name in FEATURES
    ]
    raw = torch.from_numpy(np.stack(wide, axis=-1).astype(np.float32)).transpose(0, 1)
    z, known = ts_standardize(raw, cfg.samples)
    mean = z.double().sum(0) / known.sum(0).clamp(min=1)
    std = ((z.double() - mean).square() * known).sum(0) / known.sum(0).clamp(min=1)
    x = ((z - mean) / std.sqrt().clamp(min=1e-9)).clamp(-cfg.samples.z_clip, cfg.samples.z_clip)
    network, _ = read_model(run_of(root, cfg), window_of(day, cfg), seed)
    with torch.no_grad():
        return pd.Series(network((x * known).float()).numpy(), index=members), today.loc[members]


class TestReference:
    def test_scores_are_those_of_a_plain_forward_pass(self, scored):
        got = table(scored).set_index(["date", "asset"])
        days = got.index.get_level_values("date").unique()
        assert days[0] > pd.Timestamp("2019-01-31")
        assert days[-1] == DAYS[-1]
        for day in days[::6]:
            expected, _ = plain_scores(scored, make_rows(), day)
            pd.testing.assert_series_equal(
                got.loc[day, "score"], expected, check_names=False, rtol=0, atol=1e-6,
                check_index_type=False,
            )  # fmt: skip

    def test_factor_is_that_of_the_days_own_columns(self, scored):
        day = pd.Timestamp("2019-03-20")
        got = table(scored).query("date == @day")
        _, today = plain_scores(scored, make_rows(), day)
        codes = today["industry"].map({"bank": 0, "coal": 1}).fillna(-1).astype(np.int16)
        expected = to_factor(
            got["score"].to_numpy(np.float64)[None],
            codes.to_numpy()[None],
            today["market_cap"].to_numpy()[None],
            CFG.factor,
        )
        np.testing.assert_allclose(got["factor"], expected.factor[0], atol=1e-5)
        info = FactorTable(run_of(scored).factor).read_coverage()[day.date()]
        assert info.missing_industry == today["industry"].isna().sum() > 0
        assert info.missing_market_cap == today["market_cap"].isna().sum() > 0
        assert info.universe == info.ranked == len(got)
        assert info.neutralized == "industry+size"

    def test_ensemble_averages_standardized_scores(self, tmp_path):
        cfg = dataclasses.replace(CFG, training=TrainingConfig(seeds=(0, 7)))
        root = make_world(str(tmp_path), cfg)
        score_here(run_of(root, cfg))
        day = pd.Timestamp("2019-04-10")
        parts = [plain_scores(root, make_rows(), day, seed, cfg)[0] for seed in (0, 7)]
        expected = sum((part - part.mean()) / part.std(ddof=0) for part in parts) / 2
        got = table(root).query("date == @day")
        np.testing.assert_allclose(got["score"], expected, atol=1e-5)

    @pytest.mark.parametrize("members_only", [True, False])
    def test_members_are_scored_as_told(self, tmp_path, monkeypatch, members_only):
        real = SharedPanel.read

        def marked(*args, **given):
            block = real(*args, **given)
            member = np.broadcast_to(np.arange(len(block.assets)) % 2 == 0, block.traded.shape)
            return dataclasses.replace(block, member=member)

        monkeypatch.setattr(SharedPanel, "read", marked)
        factor = dataclasses.replace(CFG.factor, members=members_only)
        cfg = dataclasses.replace(CFG, factor=factor)
        root = make_world(str(tmp_path), cfg)
        score_here(run_of(root, cfg))
        odd = table(root)["asset"].str[:6].astype(int) % 2 == 1
        assert odd.any() != members_only

    def test_lineage_names_the_weights(self, scored):
        frame = table(scored)
        models = run_of(scored).read_models()
        pairs = frame[["window", "model"]].drop_duplicates().itertuples(index=False, name=None)
        assert dict(pairs) == {window: model.model for (window, _), model in models.items()}
        for day, window in frame.groupby("date")["window"].first().items():
            assert window == window_of(day)

    @pytest.mark.ray
    @pytest.mark.parametrize(
        "actors", [*(pytest.param(n, marks=pytest.mark.trials) for n in (1, 2)), 3]
    )
    def test_actors_change_nothing(self, root, tmp_path_factory, actors, ray_cluster, caplog):
        resources = dataclasses.replace(CFG.resources, scoring_actors=actors, cpus_per_worker=0.5)
        cfg = dataclasses.replace(CFG, resources=resources)
        with caplog.at_level("INFO", logger="gangru_dist.cluster.map"):
            summary = score_days(run_of(root, cfg))
        assert f"actors_start actors={actors}" in caplog.messages
        assert summary.scored == len(summary.days)
        got = table(root).set_index(["date", "asset"])["score"]
        for day in got.index.get_level_values("date").unique()[::9]:
            expected, _ = plain_scores(root, make_rows(), day)
            assert list(got.loc[day].index) == list(expected.index)
            np.testing.assert_allclose(got.loc[day], expected, rtol=0, atol=1e-6)
        alone = make_world(str(tmp_path_factory.mktemp("alone")))
        score_here(run_of(alone))
        pd.testing.assert_frame_equal(table(root), table(alone))

    @pytest.mark.ray
    def test_an_error_in_an_actor_is_one_clear_error(self, root, ray_cluster):
        spoil(root)
        with pytest.raises(FactorError, match="are not finite"):
            score_here(run_of(root))


def spoil(root):
    """Make one model's weights infinite, with a matching hash."""
    from gangru_dist.training.checkpoint import TrainingState, write_model

    run = run_of(root)
    (window, seed), model = next(iter(run.read_models().items()))
    state = TrainingState(CFG, seed=0)
    with torch.no_grad():
        next(state.network.parameters()).fill_(float("nan"))
    write_model(run, window, seed, state, identity=model.identity)


class TestProperties:
    def test_a_second_run_has_nothing_to_do(self, root):
        first = score_here(run_of(root))
        before, version = table(root), FactorTable(run_of(root).factor).require().version()
        second = score_here(run_of(root))
        assert (second.scored, second.up_to_date) == (0, first.scored)
        assert FactorTable(run_of(root).factor).require().version() == version
        pd.testing.assert_frame_equal(table(root), before)

    def test_a_job_opens_the_table_once(self, scored, monkeypatch):
        real, opened = DeltaTable.__init__, []

        def count(self, *args, **given):
            opened.append(args)
            real(self, *args, **given)

        monkeypatch.setattr(DeltaTable, "__init__", count)
        summary = score_here(run_of(scored), start=dt.date(2019, 3, 20), end=dt.date(2019, 4, 10))
        assert summary.scored
        assert len(opened) == 1

    @pytest.mark.parametrize(("address", "sessions"), [("10.0.0.1:6379", 1), ("local", 0)])
    def test_a_cluster_counts_rows_that_no_actor_scored(self, root, monkeypatch, address, sessions):
        """Only what a session exports reaches its Prometheus."""
        opened = []
        monkeypatch.setattr(score.session, "open_session", lambda _: nullcontext(opened.append(1)))
        monkeypatch.setenv("RAY_ADDRESS", address)
        score_here(run_of(root))
        assert len(opened) == sessions

    def test_from_and_to_score_again_and_change_nothing_else(self, scored):
        before = table(scored)
        summary = score_here(run_of(scored), start=dt.date(2019, 3, 20), end=dt.date(2019, 4, 10))
        assert summary.scored == len(pd.bdate_range("2019-03-20", "2019-04-10"))
        pd.testing.assert_frame_equal(table(scored), before)

    def test_pieces_give_the_same_table_as_one_run(self, scored, tmp_path_factory):
        other = make_world(str(tmp_path_factory.mktemp("pieces")))
        score_here(run_of(other), start=dt.date(2019, 4, 15))
        score_here(run_of(other), end=dt.date(2019, 2, 20))
        score_here(run_of(other))
        pd.testing.assert_frame_equal(table(scored), table(other))
        assert (
            FactorTable(run_of(scored).factor).read_coverage()
            == FactorTable(run_of(other).factor).read_coverage()
        )

    def test_daily_adds_the_newest_day(self, root, tmp_path_factory):
        grown = Storage(str(tmp_path_factory.mktemp("grown")))
        short = DAYS[:-1]
        manifest = rewrite_panel(grown, make_rows(days=short), short)
        write_models(grown, manifest)
        score_here(run_of(grown))
        rewrite_panel(grown, make_rows())  # the evening's bars
        summary = score_here(run_of(grown), daily=True)
        assert (summary.scored, summary.ok) == (1, True)
        score_here(run_of(root))
        pd.testing.assert_frame_equal(table(grown), table(root))
        assert score_here(run_of(grown)).scored == 0  # appended bars do not make the old stale

    def test_daily_fills_the_days_that_were_missed_and_says_so(
        self, root, tmp_path_factory, caplog
    ):
        grown = Storage(str(tmp_path_factory.mktemp("missed")))
        short = DAYS[:-21]
        manifest = rewrite_panel(grown, make_rows(days=short), short)
        write_models(grown, manifest)
        score_here(run_of(grown))
        rewrite_panel(grown, make_rows())
        with caplog.at_level("WARNING"):
            assert score_here(run_of(grown), daily=True).scored == 21
            assert f"days_missed first={DAYS[-21]:%Y-%m-%d} days=20: scored now" in caplog.text
            assert "nothing_new" not in caplog.text
            assert score_here(run_of(grown), daily=True).scored == 0
        assert f"nothing_new newest_day={DAYS[-1]:%Y-%m-%d} is scored already" in caplog.text
        score_here(run_of(root))
        pd.testing.assert_frame_equal(table(grown), table(root))

    def test_days_of_an_older_model_are_scored_anew(self, scored):
        before = table(scored)
        write_models(scored, read_manifest(scored), salt=1)
        assert score_here(run_of(scored)).scored == before["date"].nunique()
        after = table(scored)
        assert len(after) == len(before)
        assert not set(after["model"]) & set(before["model"])

    def test_other_factor_settings_make_all_days_stale(self, scored):
        cfg = dataclasses.replace(CFG, factor=FactorConfig(quantiles=5))
        assert score_here(run_of(scored, cfg), overwrite=True).up_to_date == 0
        assert table(scored)["quantile"].max() == 5

    def test_rewritten_bars_make_their_month_and_later_ones_stale(self, scored):
        frame = make_rows()
        late = frame["date"] == "2019-04-15"
        frame.loc[late, "close"] += 1
        rewrite_panel(scored, frame)
        summary = score_here(run_of(scored))
        assert summary.scored == (DAYS >= "2019-04-01").sum()

    @pytest.mark.parametrize(
        "gone",
        [["2019-04-15"], DAYS[-22:].astype(str), DAYS[DAYS >= "2019-05-01"].astype(str)],
        ids=["a day", "days of two months", "a month"],
    )
    def test_days_that_the_panel_lost_leave_the_table(self, scored, gone):
        """A wrong day, or whole months of them, taken out of the bars with --overwrite."""
        before = table(scored)
        frame, lost = make_rows(), pd.to_datetime(gone)
        assert before["date"].isin(lost).any()
        rewrite_panel(scored, frame[~frame["date"].isin(lost)], DAYS[~DAYS.isin(lost)])
        summary = score_here(run_of(scored))
        days = set(table(scored)["date"].astype(str))
        assert days == set(before["date"].astype(str)) - set(gone)
        assert {str(day) for day in FactorTable(run_of(scored).factor).read_coverage()} == days
        assert set(summary.days) == set(FactorTable(run_of(scored).factor).read_coverage())
        assert score_here(run_of(scored)).scored == 0

    @pytest.mark.parametrize("cut", ["2019-02-14", "2019-03-29", "2019-04-30"])
    def test_scores_ignore_the_future(self, scored, tmp_path_factory, cut):
        other = make_world(str(tmp_path_factory.mktemp("tampered")))
        past, future = make_rows(), make_rows(seed=1)
        tampered = pd.concat([past[past["date"] <= cut], future[future["date"] > cut]])
        manifest = rewrite_panel(other, tampered)
        write_models(other, manifest)
        score_here(run_of(other))
        expected, got = (frame[frame["date"] <= cut] for frame in (table(scored), table(other)))
        pd.testing.assert_frame_equal(
            got.drop(columns="model"), expected.drop(columns="model"), check_exact=True
        )
        late, moved = (frame[frame["date"] > cut] for frame in (table(scored), table(other)))
        assert (
            not late["score"].reset_index(drop=True).equals(moved["score"].reset_index(drop=True))
        )

    def test_the_check_has_teeth(self, root, tmp_path_factory, monkeypatch):
        """Samples that look one day ahead must fail it."""
        honest = Standardizer.standardize_day

        def leaks(self, panel, day, members):
            return honest(self, panel, min(day + 1, len(panel) - 1), members)

        monkeypatch.setattr(Standardizer, "standardize_day", leaks)
        score_here(run_of(root))
        with pytest.raises(AssertionError):
            self.test_scores_ignore_the_future(root, tmp_path_factory, "2019-04-17")

    def test_the_universe_is_that_of_the_day(self, scored):
        got = table(scored)
        assert got.query("asset == '000003.SZ'")["date"].max() <= pd.Timestamp("2019-03-10")
        newcomer = got.query("asset == '000004.SZ'")["date"].min()
        assert newcomer >= DAYS[DAYS.get_loc("2019-03-01") + CFG.universe.min_listed_days]

    def test_buckets_change_nothing(self, root, tmp_path_factory):
        other = Storage(str(tmp_path_factory.mktemp("buckets")))
        write_models(other, rewrite_panel(other, make_rows(), buckets=1))
        score_here(run_of(root))
        score_here(run_of(other))
        pd.testing.assert_frame_equal(table(root), table(other))

    def test_a_window_without_model_is_named_and_the_others_scored(self, root):
        run = run_of(root)
        windows = sorted({window for window, _ in run.read_models()})
        run.folder.delete_folder(f"windows/{windows[-1]}")
        summary = score_here(run_of(root))
        assert not summary.ok
        (part,) = summary.unscored
        assert part.window == windows[-1]
        assert "no finished model of seed 0" in part.reason
        assert set(table(root)["window"]) == set(windows[:-1])
        stored = run.folder.read_json("factor-summary.json")
        assert stored["unscored"][0]["days"] == part.days > 0
        assert any("unscored window=" in line for line in summary.format_lines())

    def test_days_of_an_empty_or_a_small_universe_are_covered_and_counted(self, tmp_path):
        frame = make_rows()
        few = (frame["date"] == "2019-04-16") & ~frame["asset"].isin(["000010.SZ", "000012.SZ"])
        gone = frame["date"] == "2019-04-18"
        root = make_world(str(tmp_path), frame=frame[~few & ~gone])
        summary = score_here(run_of(root))
        day = table(root).query("date == @pd.Timestamp('2019-04-16')")
        assert len(day) == 2
        assert day["factor"].isna().all()
        assert set(day["quantile"]) == {0}
        odd = summary.count_odd_days()
        assert (odd["empty_universe"], odd["too_few_assets_for_a_factor"]) == (1, 1)
        assert summary.days[dt.date(2019, 4, 18)].universe == 0
        assert score_here(run_of(root)).scored == 0

    @pytest.mark.parametrize("column", ["industry", "market_cap"])
    def test_a_missing_column_leaves_its_step_out_and_says_so(self, tmp_path, column):
        root = make_world(str(tmp_path), frame=make_rows().assign(**{column: None}))
        summary = score_here(run_of(root))
        left = "size" if column == "industry" else "industry"
        assert {day.neutralized for day in summary.days.values()} == {left}
        assert table(root)["factor"].notna().all()


class TestValidation:
    def test_no_model_at_all(self, tmp_path):
        root = Storage(str(tmp_path))
        rewrite_panel(root, make_rows())
        run_of(root).claim()
        with pytest.raises(WindowError, match=r"can be scored.*no finished model.*`?gangru train"):
            score_here(run_of(root))

    def test_model_of_other_settings(self, root):
        cfg = dataclasses.replace(
            CFG, universe=dataclasses.replace(CFG.universe, min_listed_days=1)
        )
        with pytest.raises(WindowError, match="other settings or on another panel"):
            score_here(run_of(root, cfg), overwrite=True)

    def test_no_trading_day(self, root):
        with pytest.raises(FactorError, match="no trading day from 2019-03-30 to 2019-03-31"):
            score_here(run_of(root), start=dt.date(2019, 3, 30), end=dt.date(2019, 3, 31))

    def test_days_before_the_first_window(self, root):
        with pytest.raises(WindowError, match="no window scores a day"):
            score_here(run_of(root), end=dt.date(2018, 12, 10))

    def test_days_after_the_last_window_that_is_wanted(self, root):
        windows = dataclasses.replace(CFG.windows, last=dt.date(2019, 1, 31))
        run = run_of(root, dataclasses.replace(CFG, windows=windows))
        with pytest.raises(WindowError, match=r"no window .*\(windows.last=2019-01-31 ends them\)"):
            score_here(run, start=dt.date(2019, 4, 15), overwrite=True)

    def test_bars_too_short_for_a_model_are_told_so(self, root):
        windows = dataclasses.replace(CFG.windows, history_days=400)
        run = run_of(root, dataclasses.replace(CFG, windows=windows))
        with pytest.raises(WindowError, match=r"history: \d+ trading days .*400 .* Add bars"):
            score_here(run, overwrite=True)

    @pytest.mark.parametrize("given", ["start", "end"])
    def test_daily_with_a_span_is_refused_rather_than_ignored(self, tmp_path, given):
        run = run_of(Storage(str(tmp_path)))
        with pytest.raises(ConfigError, match=r"--daily .* 2019-03-29"):
            score_here(run, daily=True, **{given: dt.date(2019, 3, 29)})

    def test_daily_does_not_take_yesterday_for_today(self, root):
        manifest = dataclasses.replace(read_manifest(root), set_aside="2019-05-06")
        root.write_json("panel/manifest.json", manifest.to_json())
        match = r"no row of 2019-05-06, .* instead\. .*--from \d{4}-\d\d-\d\d"
        with pytest.raises(FactorError, match=match):
            score_here(run_of(root), daily=True)
        assert score_here(run_of(root)).ok

    def test_a_newest_day_with_part_of_the_stocks_is_not_scored_as_whole(self, scored):
        day = str(read_manifest(scored).calendar[-1])
        manifest = dataclasses.replace(read_manifest(scored), incomplete=day)
        scored.write_json("panel/manifest.json", manifest.to_json())
        with pytest.raises(FactorError, match=rf"^{day}, .* clearly fewer stocks .*--from {day}$"):
            score_here(run_of(scored), daily=True)
        run = run_of(scored)
        days = FactorTable(run.factor).read_coverage()
        FactorTable(run.factor).commit([], drop=[day])
        summary = score_here(run)
        assert not summary.ok
        assert [(part.first, part.last) for part in summary.unscored] == [(day, day)]
        assert summary.days.keys() == days.keys() - {dt.date.fromisoformat(day)}
        assert score_here(run, start=dt.date.fromisoformat(day)).days.keys() == days.keys()

    def test_the_way_out_of_bad_weights_is_one_that_trains_again(self, root):
        name = next(n for n in root.list_files(f"runs/{RUN}") if n.endswith(".safetensors"))
        root.write_bytes(name, root.read_bytes(name) + b"x")
        with pytest.raises(WindowError, match=r"Delete windows/.*, then run `?gangru train"):
            score_here(run_of(root))

    def test_no_panel(self, tmp_path):
        run = run_of(Storage(str(tmp_path)))
        run.claim()
        with pytest.raises(PanelError, match="no finished panel"):
            score_here(run)

    def test_another_configuration_is_refused(self, root):
        """Whoever calls: the promise is the run's, not the command line's."""
        cfg = dataclasses.replace(CFG, factor=FactorConfig(quantiles=5))
        with pytest.raises(ConfigError, match=r"another configuration: factor.*quantiles: 3 -> 5"):
            score_here(run_of(root, cfg))
        assert FactorTable(run_of(root).factor).read_coverage() == {}

    def test_a_run_that_is_not_there(self, root):
        with pytest.raises(ConfigError, match=f"no run 'never' in .*; there are: {RUN}"):
            score_here(Run(root, "never", CFG))
        assert root.list_files("runs/never") == []

    def test_a_feature_that_the_panel_lacks_takes_no_name(self, root):
        panel = dataclasses.replace(CFG.panel, features=("clsoe",))
        run = Run(root, RUN, dataclasses.replace(CFG, panel=panel))
        with pytest.raises(PanelError, match="lacks the feature"):
            score_here(run, overwrite=True)
        assert run.read_claim().parse_settings() == CFG

    def test_weights_that_predict_nonsense_leave_the_table_as_it_was(self, scored):
        before = table(scored)
        spoil(scored)
        with pytest.raises(FactorError, match="are not finite"):
            score_here(run_of(scored))
        pd.testing.assert_frame_equal(table(scored), before)

    def test_models_trained_anew_meanwhile(self, root, monkeypatch):
        real = score.Scorer

        def late(*args):
            write_models(root, read_manifest(root), salt=5)
            return real(*args)

        monkeypatch.setattr(score, "Scorer", late)
        with pytest.raises(FactorError, match="trained again while it was scored"):
            score_here(run_of(root))
