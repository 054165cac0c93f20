"""A model in storage is whole, or it is not there."""

from pathlib import Path

import pytest

from gangru_dist.base.storage import Storage
from gangru_dist.runs.run import MODEL, Run
from gangru_dist.training.checkpoint import TrainingState, read_model, write_model
from tests.training.store import TINY

WINDOW = "2018-12-31"


class TestWriteModel:
    def test_killed_between_its_two_files_the_window_is_not_trained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other settings' weights took the place; `model.json` must not say they are the old."""
        run = Run(Storage(str(tmp_path)), "r", TINY)
        write_model(run, WINDOW, 0, TrainingState(TINY, 0), identity="a")
        assert read_model(run, WINDOW, 0)[1].identity == "a"

        def killed(self: Storage, name: str, value: object) -> None:
            assert name.endswith(MODEL)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Storage, "write_json", killed)
            with pytest.raises(KeyboardInterrupt):
                write_model(run, WINDOW, 0, TrainingState(TINY, 1), identity="b")
        assert run.read_model(WINDOW, 0) is None
        assert run.read_models() == {}
        write_model(run, WINDOW, 0, TrainingState(TINY, 0), identity="a")
        assert read_model(run, WINDOW, 0)[1].identity == "a"

    def test_a_model_that_goes_while_all_are_read_counts_as_not_trained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = Run(Storage(str(tmp_path)), "r", TINY)
        for seed in (0, 1):
            write_model(run, WINDOW, seed, TrainingState(TINY, seed), identity="a")
        listed = run.folder.list_files("windows")
        run.folder.delete(f"windows/{WINDOW}/seed-1/{MODEL}")
        monkeypatch.setattr(Storage, "list_files", lambda *_: listed)
        assert set(run.read_models()) == {(WINDOW, 0)}
