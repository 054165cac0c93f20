"""A model in storage is whole, or it is not there."""

from pathlib import Path

import pytest

from gangru_dist.report.training import read_models
from gangru_dist.storage import Storage
from gangru_dist.training.artifact import (
    ABOUT,
    finished_models,
    read_about,
    read_model,
    write_model,
)
from gangru_dist.training.state import TrainingState
from tests.training.store import TINY

WINDOW = "2018-12-31"


class TestWriteModel:
    def test_killed_between_its_two_files_the_window_is_not_trained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other settings' weights took the place; `model.json` must not say they are the old."""
        run = Storage(str(tmp_path))
        write_model(run, WINDOW, 0, TrainingState(TINY, 0), {"identity": "a"})
        assert read_model(run, WINDOW, 0)[1]["identity"] == "a"

        def killed(self: Storage, name: str, value: object) -> None:
            assert name.endswith(ABOUT)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Storage, "write_json", killed)
            with pytest.raises(KeyboardInterrupt):
                write_model(run, WINDOW, 0, TrainingState(TINY, 1), {"identity": "b"})
        assert read_about(run, WINDOW, 0) is None
        assert finished_models(run) == {}
        write_model(run, WINDOW, 0, TrainingState(TINY, 0), {"identity": "a"})
        assert read_model(run, WINDOW, 0)[1]["identity"] == "a"

    def test_a_model_that_goes_while_all_are_read_counts_as_not_trained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = Storage(str(tmp_path))
        for seed in (0, 1):
            write_model(run, WINDOW, seed, TrainingState(TINY, seed), {"identity": "a"})
        listed = run.list_files("windows")
        run.delete(f"windows/{WINDOW}/seed-1/{ABOUT}")
        monkeypatch.setattr(Storage, "list_files", lambda *_: listed)
        assert set(finished_models(run)[WINDOW]) == {0}
        assert [model["seed"] for model in read_models(run)] == [0]
