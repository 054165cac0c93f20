"""A model in storage is whole, or it is not there."""

from pathlib import Path

import pytest

from gangru_dist.storage import Storage
from gangru_dist.training.artifact import ABOUT, read_about, read_model, write_model
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
        write_model(run, WINDOW, 0, TrainingState(TINY, 0), {"identity": "a"})
        assert read_model(run, WINDOW, 0)[1]["identity"] == "a"
