import datetime as dt
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangru_dist.base.errors import ConfigError
from gangru_dist.config import presets
from gangru_dist.config.identity import from_dict, model_settings, to_dict
from gangru_dist.config.sources import difference, find_nearest, format_toml, load


class TestReference:
    @pytest.mark.parametrize("preset", presets.ALL)
    def test_a_preset_alone_is_itself(self, preset: str) -> None:
        assert load(preset) == presets.ALL[preset]()

    @pytest.mark.parametrize(
        ("text", "path", "expected"),
        [
            ("training.epochs=5", "training.epochs", 5),
            ("training.learning_rate=1", "training.learning_rate", 1.0),
            ("training.seeds=[3, 4]", "training.seeds", (3, 4)),
            ("training={epochs=6}", "training.epochs", 6),
            ("variant=gru", "variant", "gru"),
            ('variant="gru"', "variant", "gru"),
            ("windows.first=2019-01-01", "windows.first", dt.date(2019, 1, 1)),
            ("windows.embargo=false", "windows.embargo", False),
            ("resources.max_concurrent=none", "resources.max_concurrent", None),
            ("bars.price_limits=none", "bars.price_limits", "none"),
            ("bars.columns.open=Open", "bars.columns", {"open": "Open"}),
            (
                "bars.columns={open='a b', close='c=d'}",
                "bars.columns",
                {"open": "a b", "close": "c=d"},
            ),
            ("factor.neutralize=[]", "factor.neutralize", ()),
            ("bars.calendar=C:\\days.txt", "bars.calendar", "C:\\days.txt"),
            ("bars.columns.close=收盘价 (元)", "bars.columns", {"close": "收盘价 (元)"}),
            ("bars.columns.市盈率 (TTM)=pe", "bars.columns", {"市盈率 (TTM)": "pe"}),
            ("bars.columns.'a.b'=c", "bars.columns", {"a.b": "c"}),
            ("training = {epochs = 6}  # a line of TOML", "training.epochs", 6),
        ],
    )
    def test_set(self, text: str, path: str, expected: object) -> None:
        value: object = load("default", overrides=[text])
        for name in path.split("."):
            value = getattr(value, name)
        assert value == expected
        assert type(value) is type(expected)

    def test_the_report_preset_follows_the_report(self) -> None:
        cfg = load("report")
        assert (cfg.variant, cfg.label.horizon, cfg.label.entry_lag) == ("gan_gru", 20, 0)
        assert (cfg.samples.lookback, len(cfg.panel.features)) == (40, 18)
        assert (cfg.windows.history_days, cfg.windows.sample_every) == (400, 5)
        assert (cfg.gru.hidden, cfg.gru.layers, cfg.gru.head) == (128, 2, (256, 64, 64))
        assert (cfg.training.epochs, cfg.training.patience) == (50, 10)
        assert cfg.training.learning_rate == cfg.gan.learning_rate == 1e-4
        assert (cfg.gan.reconstruction_weight, cfg.evaluation.cost_bps) == (0.0, 0.0)


class TestProperties:
    def test_later_sources_win(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.toml"
        file.write_text("[training]\nepochs = 7\npatience = 3\n[bars.scales]\nvolume = 100\n")
        cfg = load("demo", str(file), ["training.patience=4", "training.patience=5"])
        assert (cfg.training.epochs, cfg.training.patience) == (7, 5)
        assert cfg.bars.scales == {"volume": 100.0}
        assert cfg.gru == presets.demo().gru
        other = tmp_path / "other.toml"
        other.write_text("[training]\nepochs = 9\n[gru]\nhidden = 8\n")
        both = load("demo", [str(other), str(file)])
        assert (both.training.epochs, both.training.patience, both.gru.hidden) == (7, 3, 8)

    def test_a_file_of_a_windows_editor(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.toml"
        file.write_text("[training]\nepochs = 7\n[gan]\n", encoding="utf-8-sig")
        assert load("demo", str(file)).training.epochs == 7

    @given(st.sampled_from(sorted(presets.ALL)), st.integers(1, 99), st.floats(1e-6, 1.0))
    def test_plain_form_is_lossless(self, preset: str, epochs: int, rate: float) -> None:
        cfg = load(preset, None, [f"gan.epochs={epochs}", f"gan.learning_rate={rate!r}"])
        assert from_dict(to_dict(cfg)) == cfg
        assert (cfg.gan.epochs, cfg.gan.learning_rate) == (epochs, rate)

    def test_features_left_out(self) -> None:
        cfg = load("default", None, ['panel.without=["turnover_rate", "vwap"]'])
        assert len(cfg.panel.features) == 16
        assert not {"turnover_rate", "vwap"} & set(cfg.panel.features)
        assert from_dict(to_dict(cfg)) == cfg
        named = load("default", None, [f"panel.features={list(cfg.panel.features)}"])
        assert model_settings(cfg) == model_settings(named)
        with pytest.raises(ConfigError, match=r"panel.without removes all of panel.features"):
            load("default", None, ['panel.features=["close"]', 'panel.without=["close"]'])

    def test_an_empty_table_clears_a_setting_but_no_section(self) -> None:
        cfg = load("default", None, ["bars.columns.open=o", "bars={}", "gan={}"])
        assert cfg.bars.columns == {"open": "o"}
        assert load("default", None, ["bars.columns.open=o", "bars.columns={}"]) == load("default")

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-9, 9)
            | st.floats(-1, 1)
            | st.text('aé"\\\n .='),
            lambda inner: st.lists(inner) | st.dictionaries(st.text("ab. é-", min_size=1), inner),
        )
    )
    def test_toml_is_read_as_it_was_written(self, value: object) -> None:
        def with_words(part: object) -> object:
            if isinstance(part, dict):
                return {name: with_words(item) for name, item in part.items()}
            if isinstance(part, list):
                return [with_words(item) for item in part]
            return "none" if part is None else part

        assert tomllib.loads(f"x = {format_toml(value)}")["x"] == with_words(value)

    def test_difference_names_what_changed(self) -> None:
        old, new = (to_dict(load("default", None, o)) for o in ([], ["gan.epochs=3"]))
        assert difference(old, old) == []
        assert difference(old, new) == [f"gan.epochs: {old['gan']['epochs']} -> 3"]
        assert difference({"a": 1}, {"b": {"c": 2}}) == ["a: 1 -> None", "b: None -> {'c': 2}"]


class TestValidation:
    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("training.epocs", "training.epochs"),
            ("trainig.epochs", "training.epochs"),
            ("epochs", "training.epochs"),
            ("horizont", "label.horizon"),
            ("window.first", "windows.first"),
            ("label.delay", "label.entry_lag"),
            ("bars.colums.open", "bars.columns"),
        ],
    )
    def test_a_misspelt_key_is_answered_with_the_nearest(self, typed: str, meant: str) -> None:
        assert meant in find_nearest(typed)
        with pytest.raises(ConfigError, match=f"unknown setting '{typed}'.*{meant}"):
            load("default", None, [f"{typed}=1"])

    @pytest.mark.parametrize("depth", [17, 300, 900, 5000])
    @pytest.mark.parametrize(
        "text", ["{d}x = 1", "[{d}x]\ny = 1", "training.seeds = {open}{close}", "x = {a}1{b}"]
    )
    def test_what_lies_deep_is_refused_in_short(
        self, tmp_path: Path, text: str, depth: int
    ) -> None:
        parts = {"d": "a." * depth, "open": "[" * depth, "close": "]" * depth}
        given = text.format(**parts, a="{a=" * depth, b="}" * depth)
        file = tmp_path / "mine.toml"
        file.write_text(given)
        for load_it in (
            lambda: load("default", str(file)),
            lambda: load("default", None, [given.replace("\n", "")]),
        ):
            with pytest.raises(ConfigError, match=r"nested more|recursion|unknown|not key=") as e:
                load_it()
            assert len(str(e.value)) < 600

    @pytest.mark.parametrize("digits", [19, 4000, 5000])
    def test_a_number_of_many_digits(self, tmp_path: Path, digits: int) -> None:
        file = tmp_path / "mine.toml"
        file.write_text(f"[training]\nepochs = {'9' * digits}\n")
        for flags in ((str(file), []), (None, [f"training.epochs={'9' * digits}"])):
            with pytest.raises(ConfigError, match=r"64 bits|4300 digits") as e:
                load("default", *flags)
            assert len(str(e.value)) < 600

    def test_a_misspelt_key_in_a_file_names_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.toml"
        file.write_text("[training]\nepochs = 7\npatients = 3\n")
        with pytest.raises(ConfigError, match=r"'training.patients' \(file .*mine.toml\)"):
            load("default", str(file))

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("training.epochs=abc", r"training.epochs='abc' .*must be a valid integer"),
            ("training.epochs='5'", r"training.epochs='5' .*must be a valid integer"),
            ("training.epochs=true", r"training.epochs=True .*must be a valid integer"),
            ("training.epochs=0", r"training.epochs=0 .*greater than or equal to 1"),
            ("training.learning_rate=nan", r"learning_rate=nan .*finite"),
            ("training.seeds=3", r"training.seeds=3 .*list \[a, b\]"),
            (
                "training.seeds=[1, 1]",
                r"training.seeds=\[1, 1\] .*must be unique; repeated: \[1\]",
            ),
            ("variant=gan", r"variant='gan' .*'gan_gru' or 'gru'"),
            ("windows.first=2020-02-31", r"windows.first='2020-02-31' .*valid date"),
            ("bars.scales.volume=x", r"bars.scales.volume='x' .*valid number"),
            ("training=5", r"'training' .*is a section.*training.patience"),
            ("training.tensorboard=true", r"no longer a setting. Give callbacks=\['tensorboard'\]"),
            ("windows.refit_months=[13]", r"refit_months.0=13 .*less than or equal to 12\.$"),
            ("epochs", r"'epochs' is not key=value"),
            ("=3", r"'=3' is not key=value"),
            ("resources.workers=100", r"resources.workers=100 is more than panel.buckets"),
            ("windows.history_days=20", r"windows.history_days=20 leaves no training day"),
            (
                "evaluation.decay_horizons=[5, -5]",
                r"decay_horizons.1=-5 .*greater than or equal to 1",
            ),
            ("evaluation.decay_horizons=[]", r"decay_horizons=\[\] .*at least 1 item"),
            ("gan.channels=[0, 4]", r"gan.channels.0=0 .*greater than or equal to 1"),
            ("gru.head=[8, 0]", r"gru.head.1=0 .*greater than or equal to 1"),
            ("samples.lookback=10", r"universe.min_traded_days=30 is more than samples.lookback"),
        ],
    )
    def test_a_wrong_value_is_quoted_with_what_is_allowed(self, text: str, says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            load("default", None, [text])

    def test_all_wrong_values_are_named_at_once(self) -> None:
        with pytest.raises(ConfigError, match=r"gan.epochs=0.*training.epochs='x'"):
            load("default", None, ["training.epochs=x", "gan.epochs=0"])

    def test_unknown_preset(self) -> None:
        with pytest.raises(
            ConfigError, match="no preset 'dmeo'; choose one of demo, report, default"
        ):
            load("dmeo")

    def test_missing_and_broken_files(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot read --config .*nope.toml"):
            load("demo", str(tmp_path / "nope.toml"))
        broken = tmp_path / "broken.toml"
        broken.write_text("[training\n")
        with pytest.raises(ConfigError, match=r"broken.toml is not TOML: .*line 1"):
            load("demo", str(broken))

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("tune = 5", r"'tune'.* is a section"),
            ("[windows]\nfirst = {}", r"windows\.first"),
            ("[training]\nseeds = {}", r"training\.seeds"),
            ("[trainig]", "unknown setting 'trainig'"),
            ("[tune.space]\ntraining.learning_rate = [1e-3, 1e-2]", r"learning_rate.*\(file "),
            ("[tune.space]\ngru.layers = {low = 1, hi = 3}", r"gru\.layers\.hi"),
        ],
    )
    def test_a_table_where_none_belongs(self, tmp_path: Path, text: str, says: str) -> None:
        file = tmp_path / "mine.toml"
        file.write_text(text)
        with pytest.raises(ConfigError, match=says):
            load("demo", str(file))

    @pytest.mark.parametrize(
        "given", ["factor.quantiles=40000", f"training.seeds=[{2**63}]", "training.seeds=[1,1]"]
    )
    def test_values_that_no_machine_holds(self, given: str) -> None:
        with pytest.raises(ConfigError, match=given.partition("=")[0]):
            load("demo", None, [given])
