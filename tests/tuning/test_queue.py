"""A search without Ray: proposals, bookkeeping, kills, outputs."""

import importlib
import json
import logging
import math
import pickle
import sys
import tomllib
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.log import subscribe
from gangru_dist.base.storage import Storage
from gangru_dist.commands import main
from gangru_dist.config import sources
from gangru_dist.config.identity import MODEL_SECTIONS, to_dict
from gangru_dist.config.settings import LABEL_TRANSFORMS, RunConfig
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import TrialRecord, find_best_trial, read_trials
from gangru_dist.tuning import search
from gangru_dist.tuning.queue import TrialQueue, describe_search
from gangru_dist.tuning.search import Listener, count_at_once
from gangru_dist.tuning.space import apply, make_parameters, propose, rate_importance
from gangru_dist.tuning.trial import choose_windows
from tests.tuning import store
from tests.tuning.test_windows import CALENDAR


def open_queue(folder: Path, cfg: RunConfig, **more: Any) -> TrialQueue:
    space = make_parameters(cfg)
    windows = choose_windows(CALENDAR, cfg, [cfg], None)
    record = describe_search(cfg, space, CALENDAR, windows, "fingerprint")
    return TrialQueue(Storage(str(folder)), cfg, space, record, **more)


def quality(values: Mapping[str, Any]) -> float:
    """Best at a learning rate of 1e-3 and six units."""
    rate, hidden = values.get("training.learning_rate", 1e-3), values.get("gru.hidden", 6)
    return 0.2 - 0.05 * abs(math.log10(rate) + 3) - 0.01 * (6 - hidden)


def metrics(ic: float, *, windows_done: int = 2, epochs: int = 8) -> dict[str, Any]:
    ics = (ic,) * max(1, windows_done)
    counts = {"windows_done": windows_done, "epochs": epochs, "gan_epochs": 0}
    whole = {"objective": ic if windows_done == 2 else None, "window_ics": ics}
    return {"step": epochs, "mean_ic": ic, **whole, **counts}


def finish(queue: TrialQueue, record: TrialRecord) -> None:
    queue.report(record.number, metrics(quality(record.settings)))
    queue.end(record.number)


def run_to_the_end(queue: TrialQueue) -> None:
    while queue.remaining and (record := queue.start_next()):
        finish(queue, record)


class TestReference:
    def test_tpe_finds_the_good_region_and_random_trials_do_not(self, tmp_path: Path) -> None:
        """Seeded: the best of 20 proposals is better than nearly all of 20 random ones."""
        reached = {}
        for sampler in ("tpe", "random"):
            cfg = store.config(tune={"trials": 20, "sampler": sampler})
            queue = open_queue(tmp_path / sampler, cfg)
            run_to_the_end(queue)
            reached[sampler] = sorted(record.objective or 0 for record in queue.records)
        assert reached["tpe"][-1] > 0.19
        assert reached["tpe"][-1] > reached["random"][10] + 0.02
        assert sum(reached["tpe"][10:]) > sum(reached["random"][10:])

    def test_importance_knows_what_mattered(self, tmp_path: Path) -> None:
        queue = open_queue(tmp_path, store.config(tune={"trials": 24}))
        run_to_the_end(queue)
        shares = rate_importance(queue.space, queue.records)
        assert next(iter(shares)) == "training.learning_rate"
        assert sum(shares.values()) == pytest.approx(1)

    def test_best_toml_says_if_every_window_was_used_for_tuning(self, tmp_path: Path) -> None:
        for last, words in (
            ("2020-04-30", "of windows used for tuning"),
            ("2020-05-31", "No window"),
        ):
            folder = tmp_path / last
            run_to_the_end(open_queue(folder, store.config(windows={"last": last})))
            text = (folder / "best.toml").read_text()
            assert words in text
            assert ("from windows.first on" in text) == (words == "No window")
            first = tomllib.loads(text)["windows"]["first"]
            assert first == ("none" if words != "No window" else "2020-05-31")
            told = json.loads((folder / "search.json").read_text())["reported_first"]
            assert told == (None if first == "none" else first)

    def test_best_toml_is_the_winner_on_any_preset(self, tmp_path: Path) -> None:
        bars = {"format": "tushare", "columns": {"turnover_rate": "tr"}, "scales": {"volume": 100}}
        cfg = store.config(bars=bars)
        queue = open_queue(tmp_path, cfg)
        run_to_the_end(queue)
        best = find_best_trial(queue.records)
        assert best is not None
        won = to_dict(apply(cfg, best.settings))
        won["windows"]["first"] = "2020-05-31"  # not used for tuning
        for preset in ("demo", "report"):
            loaded = to_dict(sources.load(preset, str(tmp_path / "best.toml")))
            assert [n for n in MODEL_SECTIONS if loaded[n] != won[n]] == []
            assert [loaded[name] for name in ("bars", "panel")] == [won["bars"], won["panel"]]
        assert tomllib.loads((tmp_path / "best.toml").read_text())["variant"] == "gru"

    def test_the_table_has_a_row_a_trial(self, tmp_path: Path) -> None:
        queue = open_queue(tmp_path, store.config())
        run_to_the_end(queue)
        lines = (tmp_path / "trials.csv").read_text().splitlines()
        assert len(lines) == 5
        assert "valid_ic 2020-03-31,valid_ic 2020-04-30,training.learning_rate" in lines[0]


class TestProperties:
    def test_a_sink_receives_begin_epochs_and_end_and_trials_of_earlier_sessions(
        self, tmp_path: Path
    ) -> None:
        events: list[Any] = []
        with subscribe(events.append):
            queue = open_queue(tmp_path, store.config())
            record = queue.start_next()
            assert record is not None
            finish(queue, record)
            pickle.dumps(queue)  # by Tune
            trials = [event.trial for event in events]
            assert [(one.status, len(one.reports)) for one in trials] == [
                ("running", 0),
                ("running", 1),
                ("complete", 1),
            ]
            open_queue(tmp_path, store.config())
        assert [event.trial for event in events[3:]] == trials[-1:]

    def test_the_configuration_goes_first_then_nothing_twice(self, tmp_path: Path) -> None:
        queue = open_queue(tmp_path, store.config(tune={"trials": 15}))
        run_to_the_end(queue)
        tried = [json.dumps(record.settings) for record in queue.records]
        assert json.loads(tried[0])["training.learning_rate"] == 0.001
        assert len(set(tried)) == 15

    def test_a_killed_search_goes_on_as_if_nothing_had_happened(self, tmp_path: Path) -> None:
        cfg = store.config(tune={"trials": 9})
        undisturbed = open_queue(tmp_path / "a", cfg)
        run_to_the_end(undisturbed)
        killed = open_queue(tmp_path / "b", cfg)
        for _ in range(4):
            record = killed.start_next()
            assert record is not None
            finish(killed, record)
        killed.start_next()  # began, and was cut off
        files = {p.name: p.read_bytes() for p in (tmp_path / "b/trials").iterdir()}
        again = open_queue(tmp_path / "b", cfg)
        assert (again.ended_before, again.remaining) == (4, 5)
        run_to_the_end(again)
        for name in sorted(files)[:4]:
            assert (tmp_path / "b/trials" / name).read_bytes() == files[name]
        assert [r.settings for r in again.records] == [r.settings for r in undisturbed.records]
        assert [r.starts for r in again.records] == [1, 1, 1, 1, 2, 1, 1, 1, 1]

    def test_more_trials_continue_a_finished_search(self, tmp_path: Path) -> None:
        run_to_the_end(open_queue(tmp_path, store.config()))
        more = open_queue(tmp_path, store.config(tune={"trials": 6}))
        assert (more.ended_before, more.remaining) == (4, 2)

    def test_every_end_is_kept(self, tmp_path: Path) -> None:
        queue = open_queue(tmp_path, store.config(tune={"trials": 5}))
        for index in range(5):
            record = queue.start_next()
            assert record is not None
            if index in (1, 3):
                queue.report(record.number, metrics(0.1, windows_done=index // 3, epochs=3))
            if index == 2:
                queue.report(record.number, {"status": "diverged", "reason": "loss is nan"})
            if index == 0:
                queue.report(record.number, metrics(0.2))
            queue.end(record.number, error="process died" if index == 4 else None)
        found = [(r.status, r.objective, r.reason) for r in read_trials(queue.folder)]
        assert found == [
            ("complete", 0.2, ""),
            ("pruned", None, ""),
            ("diverged", None, "loss is nan"),
            ("pruned", None, ""),
            ("failed", None, "process died"),
        ]
        assert not queue.remaining

    def test_an_exhausted_space_ends_the_search(self, tmp_path: Path) -> None:
        cfg = store.config(tune={"space": {"gru.layers": {"low": 1, "high": 3}}, "trials": 9})
        queue = open_queue(tmp_path, cfg)
        run_to_the_end(queue)
        assert sorted(r.settings["gru.layers"] for r in queue.records) == [1, 2, 3]

    def test_bad_trials_repel(self) -> None:
        """Rates above 1e-3 (half the range) diverged; what is asked next lies mostly below."""
        rates = 10.0 ** np.linspace(-4.9, -1.1, 20)
        records = [
            TrialRecord(
                number=number,
                settings={
                    "training.learning_rate": float(rate),
                    "gru.hidden": 4,
                    "label.transform": "rank",
                },
                status="diverged" if rate > 1e-3 else "complete",
                objective=None if rate > 1e-3 else 0.1,
            )
            for number, rate in enumerate(rates)
        ]
        asked = []
        for seed in range(12):
            cfg = store.config(tune={"seed": seed})
            values = propose(cfg, make_parameters(cfg), records)
            assert values is not None
            asked.append(values["training.learning_rate"] < 1e-3)
        assert sum(asked) >= 10

    def test_overwrite_begins_anew(self, tmp_path: Path) -> None:
        run_to_the_end(open_queue(tmp_path, store.config()))
        anew = open_queue(tmp_path, store.config(tune={"seed": 7}), overwrite=True)
        assert (anew.ended_before, anew.remaining) == (0, 4)
        assert not (tmp_path / "best.toml").exists()


class TestOptunaReadsTheSearch:
    @pytest.fixture
    def study(self, tmp_path: Path) -> optuna.Study:
        """Of four trials, one of each end; the first is outside of the space."""
        space = {**store.SPACE, "gru.head": {"choices": [[4], [6, 3]]}}
        queue = open_queue(tmp_path, store.config(tune={"space": space, "trials": 4}))
        for reports in (
            [metrics(0.05)],
            [metrics(0.05, windows_done=1, epochs=3), metrics(0.2)],
            [metrics(0.05, windows_done=1, epochs=3)],
            [{"status": "diverged", "reason": "loss is nan"}],
        ):
            record = queue.start_next()
            assert record is not None
            for report in reports:
                queue.report(record.number, report)
            queue.end(record.number)
        backend = JournalFileBackend(str(tmp_path / "study.log"))
        return optuna.load_study(study_name="search", storage=JournalStorage(backend))

    def test_values_and_states(self, study: optuna.Study) -> None:
        assert [(t.user_attrs["trial"], t.state.name) for t in study.trials] == [
            (1, "COMPLETE"),
            (2, "PRUNED"),
            (3, "PRUNED"),
        ]
        assert study.best_value == 0.2
        assert study.trials[0].intermediate_values == {3: 0.05, 8: 0.2}
        assert study.trials[2].user_attrs["reason"] == "loss is nan"
        assert study.trials[2].value is None

    def test_settings(self, study: optuna.Study) -> None:
        params = study.trials[0].params
        assert list(params) == [*store.SPACE, "gru.head"]
        assert params["gru.head"] in ("[4]", "[6, 3]")


@pytest.mark.parametrize(
    ("resources", "left", "at_once"),
    [
        ({}, 40, 3),
        ({}, 2, 2),
        ({"max_concurrent": 2}, 40, 2),
        ({"max_concurrent": 20}, 40, 3),
        ({"wait_for_nodes_minutes": 1}, 40, 8),
        ({"wait_for_nodes_minutes": 1}, 5, 5),
        ({"wait_for_nodes_minutes": 1, "max_concurrent": 20}, 40, 20),
    ],
)
def test_trials_at_once(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, Any], left: int, at_once: int
) -> None:
    """There is room for three; a cluster that grows gets no trial that TPE could learn for."""
    monkeypatch.setattr(search.session, "find_room", lambda *_: 3)
    cfg = store.config(resources=resources, tune={"startup_trials": 8})
    assert count_at_once(cfg, left) == at_once


def test_the_panels_blocks_leave_the_store_before_the_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shared:
        pass

    held: list[weakref.ref[Shared]] = []

    def share(*_: Any, **__: Any) -> Shared:
        held.append(weakref.ref(shared := Shared()))
        return shared

    monkeypatch.setattr(search, "share_panel", share)
    monkeypatch.setattr(search, "read_window", lambda shared, name, variants: f"block {name}")
    monkeypatch.setattr(search.ray, "put", lambda block: f"reference of {block}")
    cfg, root = store.config(), Storage(str(tmp_path))
    manifest = store.write_panel(root, store.market())
    names = choose_windows(manifest.calendar, cfg, [cfg], None)
    blocks = search._put_windows(Run(root, "a", cfg), manifest, names, [cfg])
    assert blocks == {name: f"reference of block {name}" for name in names}
    assert held[0]() is None


@pytest.mark.parametrize(
    ("gpus", "device", "warnings"), [(0, "cpu", 0), (0.25, "cuda", 0), (0.25, "cpu", 1)]
)
def test_trials_on_the_cpu_in_place_of_a_promised_gpu_are_named_once(
    tmp_path: Path, gpus: float, device: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    queue = open_queue(tmp_path, store.config(resources={"gpus_per_worker": gpus}))
    record = queue.start_next()
    assert record is not None
    listener = Listener(queue)
    trial = SimpleNamespace(config={"number": 0})
    with caplog.at_level(logging.WARNING):
        for epoch in range(1, 4):
            report = {**metrics(0.1, windows_done=0, epochs=epoch), "device": device}
            listener.on_trial_result(epoch, [], trial, report)
    assert len(queue.records[0].reports) == 3
    assert [one.message.startswith("no_gpu") for one in caplog.records] == [True] * warnings


class TestValidation:
    def test_another_search_under_the_same_name_is_refused(self, tmp_path: Path) -> None:
        open_queue(tmp_path, store.config())
        with pytest.raises(ConfigError, match=r"model.gru.layers: 2 -> 1.*--overwrite"):
            open_queue(tmp_path, store.config(gru={"layers": 1}))

    def test_code_of_a_choice_is_of_the_search(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`my_label:clip` is no setting of the configuration itself, and its code counts."""
        monkeypatch.syspath_prepend(str(tmp_path))
        for sign in ("", "-"):
            (tmp_path / "my_label.py").write_text(
                f"def clip(returns, cfg):\n    return {sign}returns\n"
            )
            space = {"label.transform": {"choices": ["zscore", "my_label:clip"]}}
            cfg = store.config(tune={"space": space})
            sys.modules.pop("my_label", None)
            clip = importlib.import_module("my_label").clip
            monkeypatch.setitem(LABEL_TRANSFORMS, "my_label:clip", clip)
            if not sign:
                open_queue(tmp_path / "search", cfg)
        with pytest.raises(ConfigError, match=r"has another search: model\.code"):
            open_queue(tmp_path / "search", cfg)

    def test_the_removed_export_names_what_replaces_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            main(["tune", "--storage", str(tmp_path), "--run", "search", "--export", "a.db"])
        assert "tune/study.log" in capsys.readouterr().err
