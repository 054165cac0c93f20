"""A study on the made-up market: trained once, judged as by hand, blind behind its last day."""

import dataclasses
import datetime as dt
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.storage import Storage
from gangru_dist.config import sources
from gangru_dist.synthetic.market import make_bars
from studies import compare, run, textbook, years
from studies.protocol import PROTOCOLS, Part, Protocol, Study, Unit, judge, trial_config
from studies.trials import TRIALS
from tests.chain import build_panel

PROTOCOL = Protocol(
    name="development", refits=("2018-06-29", "2018-12-31"), last=dt.date(2019, 4, 30)
)
SMALL = (
    "windows.history_days=100",
    "samples.lookback=10",
    "universe.min_traded_days=5",
    "universe.min_listed_days=20",
    "gru.hidden=4",
    "gru.layers=1",
    "gru.head=[4]",
    "training.epochs=2",
    "training.precision=float32",
)
MADE = {"small": SMALL, "rank": (*SMALL, "label.transform=rank")}


def panel(folder: Path, *, changed_after: dt.date | None = None) -> Storage:
    cfg = sources.load(
        "demo",
        overrides=[
            "synthetic.assets=60",
            "synthetic.first=2018-01-02",
            "synthetic.last=2019-06-28",
            "panel.buckets=2",
        ],
    )
    bars = make_bars(cfg.synthetic)
    if changed_after is not None:
        frame = bars.to_pandas()
        late = pd.to_datetime(frame["date"]).dt.date > changed_after
        for name in ("open", "high", "low", "close"):
            frame[name] = frame[name].where(~late, 7.0)
        bars = pa.Table.from_pandas(frame, schema=bars.schema, preserve_index=False)
    root = Storage(str(folder / "storage"))
    manifest = build_panel(bars, cfg, folder / "bars", root)
    root.child("panel").write_json("manifest.json", manifest.to_json())
    return root


def study(root: Storage, folder: Path) -> Study:
    return Study(root, Storage(str(folder)), PROTOCOL, Part(of=2))


@dataclasses.dataclass
class World:
    root: Storage
    out: Path
    study: Study
    lines: list[dict]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("study")
    root = panel(folder)
    made = study(root, folder / "out")
    lines = [json.loads(line) for line in made.run(MADE, [0, 1])]
    return World(root, folder / "out", made, lines)


class TestRun:
    def test_one_line_a_model(self, world: World) -> None:
        seen = {(line["trial"], line["window"], line["seed"]) for line in world.lines}
        assert len(world.lines) == len(seen) == 2 * 2 * 2

    def test_what_is_done_is_skipped(self, world: World) -> None:
        assert list(study(world.root, world.out).run(MADE, [0, 1])) == []

    def test_a_name_with_other_settings_is_refused(self, world: World) -> None:
        other = {"small": (*SMALL, "training.epochs=1")}
        with pytest.raises(ConfigError, match="Name the trial anew"):
            list(study(world.root, world.out).run(other, [0]))

    def test_only_its_part_is_trained_on_and_as_many_others_are_scored(self, world: World) -> None:
        own = world.study.part.mask(world.study.block.assets)
        assert 0 < own.sum() < len(own) == 60
        scores = world.study.scores(Unit(trial="small", window="2018-06-29", seed=0))
        assert np.isfinite(scores.to_numpy()[:, ~own]).any()
        window = world.study.window(trial_config(SMALL), "2018-06-29")
        data = world.study.read_data(trial_config(SMALL), window)
        assert 0 < data.panel.shape[1] <= own.sum()  # some are never in the universe

    def test_bars_after_the_last_day_change_nothing(self, world: World, tmp_path: Path) -> None:
        root = panel(tmp_path, changed_after=PROTOCOL.last)
        again = study(root, tmp_path / "out").run({"small": SMALL}, [0])
        before = [line for line in world.lines if (line["trial"], line["seed"]) == ("small", 0)]
        after = [json.loads(line) for line in again]
        for line in (*before, *after):
            line.pop("cpu_seconds")
        assert after == before

    def test_the_check_has_teeth(self, world: World, tmp_path: Path) -> None:
        root = panel(tmp_path, changed_after=PROTOCOL.last - dt.timedelta(days=14))
        (line, *_) = study(root, tmp_path / "out").run({"small": SMALL}, [0])
        assert json.loads(line)["ic"] == world.lines[0]["ic"]  # the first half-year is over
        late = judge(world.study, *world.study.mean_scores("small", [0]))
        other = study(root, world.out)
        assert judge(other, *other.mean_scores("small", [0])).daily[-1] != late.daily[-1]

    def test_a_model_that_fails_stops_the_study(self, world: World, tmp_path: Path) -> None:
        longer = {"long": (*SMALL, "windows.history_days=120")}
        with pytest.raises(ConfigError, match="2018-06-29 cannot be trained"):
            list(study(world.root, tmp_path / "out").run(longer, [0]))

    def test_every_trial_is_a_configuration(self) -> None:
        for changes in TRIALS.values():
            trial_config(changes)


class TestJudge:
    def test_ic_is_scipys_of_factor_and_next_20_days(self, world: World) -> None:
        scores, days = world.study.mean_scores("small", [0, 1])
        judged = judge(world.study, scores, days)
        block, market = world.study.block, world.study.market
        day = int(days[0])
        assert judged.dates[0] == block.dates[day]
        raw = pd.Series(scores[0], block.assets)
        earned = pd.Series(market.price[day + 21] / market.price[day + 1] - 1, block.assets)
        earned = earned[block.traded[day + 1]]
        both = pd.concat([raw, earned], axis=1).dropna()
        assert judged.daily_raw[0] == pytest.approx(stats.spearmanr(both[0], both[1]).statistic)
        assert np.isnan(judged.daily[-1])  # its label would end behind the last day

    def test_mean_is_of_standardized_scores(self, world: World) -> None:
        scores, _ = world.study.mean_scores("small", [0, 1])
        alone = [
            world.study.scores(Unit(trial="small", window="2018-12-31", seed=seed)).iloc[-1]
            for seed in (0, 1)
        ]
        expected = np.mean([stats.zscore(one, nan_policy="omit") for one in alone], axis=0)
        np.testing.assert_allclose(scores[-1], expected, rtol=1e-6)

    def test_two_refits_share_the_second_window(self, world: World) -> None:
        once, days = world.study.mean_scores("small", [0])
        twice, _ = world.study.mean_scores("small", [0], refits=2)
        late = world.study.block.dates[days] > np.datetime64("2018-12-31")
        np.testing.assert_array_equal(once[~late], twice[~late])
        first = world.study.scores(Unit(trial="small", window="2018-06-29", seed=0))
        z = stats.zscore(first.iloc[-1], nan_policy="omit")
        np.testing.assert_allclose(twice[-1], (once[-1] + z) / 2, rtol=1e-6)


class TestCompare:
    def test_table_and_pairs(
        self, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(PROTOCOLS, PROTOCOL.name, PROTOCOL)
        asked = ["--storage", world.root.uri, "--out", str(world.out), "--of", "2"]
        assert compare.main(asked) == 0
        assert "2 settings tried; best monthly ICIR" in capsys.readouterr().out
        assert compare.main([*asked, "small", "small+rank"]) == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in ("every fifth day", "month", "2018-09"))
        assert compare.main([*asked, "small"]) == 0
        assert "2018-12-31" in capsys.readouterr().out

    def test_excess_is_taken_apart_by_refit(self, world: World) -> None:
        (found,) = compare.load_results(world.study, ["small"])
        table = compare.decompose(world.study, found)
        late = world.study.block.dates[found.days] > np.datetime64("2018-12-31")
        alone = judge(world.study, found.scores[late], found.days[late]).evaluation.decomposition
        assert table["2018-12-31"].to_numpy() == pytest.approx(alone["value"], nan_ok=True)

    def test_gap_and_its_error(self, world: World) -> None:
        a, b = compare.load_results(world.study, ["small", "rank"])
        gap = a.whole.monthly - b.whole.monthly
        row = compare.compare_pairs(a, b).set_index("paired by").loc["month"]
        assert row["gap"] == pytest.approx(gap.mean())
        assert row["error"] == pytest.approx(gap.std(ddof=1) / np.sqrt(len(gap)))

    def test_trials_of_other_days_are_not_compared(self, world: World) -> None:
        a, b = compare.load_results(world.study, ["small", "rank"])
        moved = dataclasses.replace(b.whole, dates=b.whole.dates + 10_000)
        with pytest.raises(ConfigError, match="small and rank have no scored day in common"):
            compare.compare_pairs(a, dataclasses.replace(b, whole=moved))


def test_unknown_trial_is_named(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--storage", world.root.uri, "--out", str(world.out), "wrong"])
    assert "no trial wrong; there are both" in capsys.readouterr().err


class TestTextbook:
    def test_mix_is_the_mean_of_five_z_scores(self, world: World) -> None:
        """Of one stock on one day, from the panel's own features."""
        block, cfg = world.study.block, trial_config(SMALL)
        mix = textbook.compute_mix(block, cfg)
        day = int(world.study.all_days()[-1])
        members = np.flatnonzero(np.isfinite(mix[day]))
        assert len(members) > 10
        span = slice(day - 19, day + 1)

        def of(feature: str) -> np.ndarray:
            return block.features[span, members, block.feature_names.index(feature)].astype(float)

        price = pd.DataFrame(block.adj_close).ffill().to_numpy()
        found = [
            price[day, members] / price[day - 20, members] - 1,
            np.nanstd(of("daily_return"), axis=0, ddof=1),
            np.nanmean(of("turnover_rate"), axis=0),
            np.nanmean(np.abs(of("overnight_return")), axis=0),
            np.nanmean(of("amplitude"), axis=0),
        ]
        expected = -np.mean([stats.zscore(values) for values in found], axis=0)
        np.testing.assert_allclose(mix[day, members], expected, rtol=1e-6, atol=1e-9)

    def test_it_does_not_see_the_future(self, world: World, tmp_path: Path) -> None:
        day = world.study.all_days()[-3]
        last = world.study.block.dates[day].astype(dt.date)
        root = panel(tmp_path, changed_after=last)
        both = [
            textbook.compute_mix(made.block, trial_config(SMALL))
            for made in (world.study, study(root, tmp_path / "out"))
        ]
        np.testing.assert_array_equal(both[1][: day + 1], both[0][: day + 1])
        assert not np.array_equal(both[1][day + 1 :], both[0][day + 1 :], equal_nan=True)

    def test_it_is_judged_on_the_days_of_the_models(self, world: World) -> None:
        alone, mean = compare.load_results(world.study, ["textbook", "small+textbook"])
        np.testing.assert_array_equal(alone.days, mean.days)
        assert np.isnan(alone.figures()["cpu_min"])
        assert compare.compare_pairs(mean, alone)["paired by"].tolist() == [
            "every fifth day",
            "month",
        ]


class TestYears:
    def test_the_rule_of_default_is_that_of_the_preset(self) -> None:
        rules = trial_config(years.RULES[years.DEFAULT]).evaluation
        assert rules == sources.load("default").evaluation

    def test_a_row_a_year_and_one_of_all(self, world: World) -> None:
        (result,) = compare.load_results(world.study, ["small"])
        table = years.by_year(world.study, result, "tenth")
        assert table.index.tolist() == ["2018", "2019", "all"]
        whole = result.whole.evaluation.metrics
        assert table.loc["all", "net"] == whole["excess_with_costs"]["annualized_return"]
        assert table.loc["all", "ic"] == pytest.approx(whole["ic"]["mean"])

    def test_every_rule_is_tried(self, world: World) -> None:
        (result,) = compare.load_results(world.study, ["small"])
        table = years.compare_rules(world.study, result)
        assert sorted(table.index) == sorted(years.RULES)
        assert table["net"].is_monotonic_decreasing
