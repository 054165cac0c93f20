"""Records as version cf4f81d wrote them, and files that are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from gangru_dist.base.errors import StorageError, WindowError
from gangru_dist.base.records import find_record, to_jsonable, write_record
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import GanConfig, GruConfig, RunConfig
from gangru_dist.models.predictors import FactorNetwork
from gangru_dist.runs.model import GanEpoch, ModelRecord, PredictorEpoch
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import Choices, Numbers, SearchRecord, TrialRecord, read_search
from gangru_dist.runs.summaries import TRAIN_SUMMARY, TrainSummary, WindowResult
from gangru_dist.training.checkpoint import TrainingState, read_model, write_model
from tests.training.store import TINY

FIGURES = {"mean": -2e-09, "std": 0.99, "cs_std": 0.98, "histogram": [1, 0, 2]}
MODEL: dict[str, Any] = {
    "window": "2019-12-31",
    "seed": 0,
    "model": "48c99b5cd988",
    "sha256": "48c99b5cd988225808b6345456ab905b8a2787266c141affb42df1b0cd687a5a",
    "identity": "fa894f0d9fe6",
    "package_version": "0.1.0",
    "commit": "cf4f81dbc76f0591fc68a00fd41fe1c79ed70651",
    "variant": "gan_gru",
    "features": ["open", "high"],
    "workers": 1,
    "device": "cpu",
    "resumed_epochs": 0,
    "days_left_out": [],
    "train_days": ["2018-05-29", "2018-06-05"],
    "valid_days": ["2019-08-19"],
    "seconds": 18.00675654411316,
    "first_step": 1795574204.332584,
    "last_step": 1795574218.3662868,
    "gan_samples": {
        "day": "2018-06-05",
        "assets": 163,
        "bin_centers": [-5.0, 0.0, 5.0],
        "real": {"open": FIGURES},
        "generated": {"open": FIGURES},
    },
    "architecture": {
        "features": 2,
        "gru": {"hidden": 32, "layers": 1, "head": [32, 16]},
        "gan": {
            "hidden": 32,
            "layers": 1,
            "noise_channels": 8,
            "channels": [8, 16],
            "dropout": 0.25,
            "epochs": 2,
            "learning_rate": 0.001,
            "reconstruction_weight": 10.0,
        },
    },
    "best_epoch": 1,
    "best_valid_ic": 0.06433367754403288,
    "history": [
        {
            "stage": "gan",
            "epoch": 1,
            "discriminator_loss": 0.7538704547661741,
            "generator_loss": 8.556714011457997,
            "discriminator_accuracy": 0.8081705601625827,
            "distance": 0.7379799996441411,
        },
        {
            "stage": "predictor",
            "epoch": 1,
            "train_loss": -0.08609011118195445,
            "valid_ic": 0.06433367754403288,
        },
    ],
}
"""`model.json` of the demo, shortened."""
TRIAL: dict[str, Any] = {
    "number": 1,
    "settings": {"gru.head": [4], "training.learning_rate": 0.001},
    "status": "pruned",
    "starts": 1,
    "reports": [[1, 0.01], [4, 0.02]],
    "objective": None,
    "mean_ic": 0.02,
    "window_ics": [0.02],
    "windows_done": 0,
    "epochs": 2,
    "gan_epochs": 0,
    "seconds": 1.5,
    "reason": "",
}
SEARCH: dict[str, Any] = {
    "identity": {"model": {"variant": "gru"}, "seed": 0, "windows": ["2020-03-31"]},
    "windows": ["2020-03-31"],
    "reported_first": None,
    "overlap": [],
    "incomparable": ["label.horizon"],
    "space": {
        "training.learning_rate": {
            "kind": "float",
            "low": 1e-05,
            "high": 0.1,
            "log": True,
            "step": None,
        },
        "gru.hidden": {"kind": "int", "low": 2, "high": 6, "log": False, "step": 2.0},
        "gru.head": {"kind": "choice", "choices": [[8, 4], [4]]},
    },
    "asked_trials": 4,
    "spread_penalty": 0.5,
    "best_trial": None,
    "importances": {"gru.hidden": 1.0},
}
SUMMARY_JSON = {
    "failed": 0,
    "windows": [
        {
            "window": "2017-06-30",
            "seed": None,
            "status": "no history",
            "epochs": 0,
            "best_valid_ic": None,
            "seconds": 0.0,
            "model": None,
            "reason": "121 trading days of history",
        }
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


class TestOfToday:
    """Files that users have: read, and written again to the letter."""

    @pytest.mark.parametrize(
        ("kind", "content"),
        [(ModelRecord, MODEL), (TrialRecord, TRIAL), (SearchRecord, SEARCH)],
        ids=["model", "trial", "search"],
    )
    def test_read_and_written_again(
        self, folder: Storage, kind: type[Any], content: dict[str, Any]
    ) -> None:
        folder.write_json("old.json", content)
        record = find_record(kind, folder, "old.json")
        write_record(folder, "new.json", record)
        assert folder.read_bytes("new.json") == folder.read_bytes("old.json")

    def test_a_training_summary(self, folder: Storage) -> None:
        folder.write_json(TRAIN_SUMMARY, SUMMARY_JSON)
        summary = find_record(TrainSummary, folder, TRAIN_SUMMARY)
        assert summary is not None
        (only,) = summary.windows
        expected = SUMMARY_JSON["windows"][0]  # type: ignore[index]
        assert to_jsonable(only) == expected
        assert only == WindowResult(
            window="2017-06-30", status="no history", reason="121 trading days of history"
        )

    def test_epochs_know_their_stage(self, folder: Storage) -> None:
        folder.write_json("model.json", MODEL)
        record = find_record(ModelRecord, folder, "model.json")
        assert record is not None
        gan, predictor = record.history
        assert isinstance(gan, GanEpoch)
        assert isinstance(predictor, PredictorEpoch)
        assert (record.gan_epochs, record.predictor_epochs) == ([gan], [predictor])

    def test_a_search_with_its_trials(self, folder: Storage) -> None:
        folder.write_json("search.json", SEARCH)
        folder.write_json("trials/0001.json", TRIAL)
        search = read_search(folder)
        assert search is not None
        kinds = [type(span) for span in search.record.space.values()]
        assert kinds == [Numbers, Numbers, Choices]
        assert [trial.current_objective for trial in search.trials] == [0.02]

    def test_what_a_version_before_did_not_measure(self, folder: Storage) -> None:
        early = {name: value for name, value in MODEL.items() if name != "gan_samples"}
        folder.write_json("model.json", early | {"of_a_later_version": [1]})
        record = find_record(ModelRecord, folder, "model.json")
        assert record is not None
        assert record.gan_samples is None


def spoilt(**changes: Any) -> str:
    """`model.json` with some values replaced; `...` = left out."""
    values = {name: value for name, value in (MODEL | changes).items() if value is not ...}
    return json.dumps(values)


class TestDamaged:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", r"not JSON \(EOF"),
            ("{", r"not JSON \(EOF"),
            ("[]", "content: "),
            ("null", "content: "),
            ('"text"', "content: "),
            (spoilt(sha256=...), "sha256: field required"),
            (spoilt(seed="0"), "seed: input should be a valid integer"),
            (spoilt(history={}), "history: "),
            (spoilt(history=[{"stage": "other", "epoch": 1}]), "history.0: "),
            (spoilt(history=[{"stage": "gan", "epoch": 1}]), "history.0.gan.discriminator_loss"),
            (spoilt(gan_samples=3), "gan_samples: "),
        ],
    )
    def test_a_model_says_where_and_what_to_do(self, folder: Storage, text: str, says: str) -> None:
        run = Run(folder, "r", RunConfig())
        place = f"{run.model_folder('2019-12-31', 0)}/model.json"
        run.folder.write_bytes(place, text.encode())
        run.folder.write_bytes(f"{run.model_folder('2019-12-31', 0)}/model.safetensors", b"some")
        match = rf"runs/r/{place} is damaged: {says}.*Delete it, then run the job"
        with pytest.raises(StorageError, match=match):
            run.read_model("2019-12-31", 0)
        with pytest.raises(StorageError, match=match):
            run.read_models()

    @pytest.mark.parametrize("text", ["[]", "null", "{}"])
    @pytest.mark.parametrize("name", ["search.json", "trials/0000.json"])
    def test_a_search_too(self, folder: Storage, name: str, text: str) -> None:
        folder.write_json("search.json", SEARCH)
        folder.write_bytes(name, text.encode())
        with pytest.raises(StorageError, match=f"{name} is damaged"):
            read_search(folder)

    @pytest.mark.parametrize(
        "changed",
        [
            {"features": 18, "gru": {"units": 3}, "gan": None},
            {"features": 3},
            FactorNetwork(18, GruConfig(hidden=7), GanConfig()).architecture,
        ],
    )
    def test_a_network_that_nobody_can_build_or_another(
        self, folder: Storage, changed: dict[str, Any]
    ) -> None:
        run = Run(folder, "r", TINY)
        record = write_model(run, "2019-12-31", 0, TrainingState(TINY, 0), identity="a")
        place = f"{run.model_folder('2019-12-31', 0)}/model.json"
        run.folder.write_json(place, to_jsonable(record) | {"architecture": changed})
        with pytest.raises(WindowError, match=r"not of the network [^\n]* Delete windows"):
            read_model(run, "2019-12-31", 0)
