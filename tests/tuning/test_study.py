"""A search exported: what Optuna itself reads of it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.storage import Storage
from gangru_dist.commands import main
from gangru_dist.runs.run import Run
from gangru_dist.tuning.queue import TrialQueue, identity
from gangru_dist.tuning.space import parameters
from gangru_dist.tuning.study import export_study
from gangru_dist.tuning.trial import choose
from tests.tuning import store
from tests.tuning.test_trial_queue import metrics
from tests.tuning.test_windows import CALENDAR


def searched(root: Path, space: dict[str, Any]) -> Run:
    """A search of five trials, one of each status; the first has settings outside of the space."""
    cfg = store.config(tune={"space": space, "trials": 5})
    run = Run(Storage(str(root)), "search", cfg)
    windows = choose(CALENDAR, cfg, [cfg], None)
    facts = identity(cfg, windows, "fingerprint")
    queue = TrialQueue(
        run.tune, cfg, parameters(cfg), windows, facts, clock=iter(range(99)).__next__
    )
    for number, ic in enumerate((0.1, 0.2)):
        queue.next_trial()
        queue.report(number, metrics(0.05, windows_done=0, epochs=1))
        queue.report(number, metrics(ic))
        queue.end(number)
    queue.next_trial()
    queue.report(2, metrics(0.05, windows_done=1, epochs=3))
    queue.end(2)  # pruned
    queue.next_trial()
    queue.report(3, {"outcome": "diverged", "reason": "loss is nan"})
    queue.end(3)
    queue.next_trial()
    return run


SPACE = {**store.SPACE, "gru.head": {"choices": [[4], [6, 3]]}}


@contextmanager
def opened(file: Path) -> Iterator[optuna.Study]:
    """As a reader of the file would; Python 3.13 warns of databases that nobody closes."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    try:
        yield optuna.load_study(study_name="search", storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.fixture
def study(tmp_path: Path) -> Iterator[optuna.Study]:
    file = tmp_path / "here" / "search.db"
    export_study(searched(tmp_path, SPACE), file)
    assert [path.name for path in file.parent.iterdir()] == ["search.db"]
    with opened(file) as study:
        yield study


def test_optuna_reads_trials_values_and_states(study: optuna.Study) -> None:
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
    ]
    assert study.best_trial.number == 1
    assert study.best_value == 0.2
    assert study.trials[1].intermediate_values == {1: 0.05, 8: 0.2}
    assert study.trials[3].user_attrs["reason"] == "loss is nan"
    assert study.trials[1].user_attrs["valid_ic 2020-03-31"] == 0.2
    assert study.trials[1].duration.total_seconds() > 0  # type: ignore[union-attr]


def test_settings_are_parameters_where_the_space_has_them(study: optuna.Study) -> None:
    assert set(study.trials[1].params) == set(SPACE)
    assert study.trials[1].params["gru.head"] in ("[4]", "[6, 3]")
    assert study.trials[1].params["label.transform"] in ("zscore", "rank")
    first = study.trials[0]  # the configuration, which the space need not hold
    assert set(first.params) == {"training.learning_rate", "label.transform"}
    assert json.loads(first.user_attrs["gru.head"]) not in ([4], [6, 3])
    assert first.user_attrs["gru.hidden"] == store.config().gru.hidden


def test_the_command_exports_and_searches_no_further(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searched(tmp_path, store.SPACE)
    file = tmp_path / "search.db"
    words = ["tune", "--storage", str(tmp_path), "--run", "search", "--export", str(file)]
    assert main(words) == 0
    assert str(file) in capsys.readouterr().out
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    with opened(file) as found:
        assert len(found.trials) == 5


def test_without_a_search_there_is_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no search at"):
        export_study(Run(Storage(str(tmp_path)), "none", store.config()), tmp_path / "x.db")
