"""What a model's settings get wrong is said before anything is claimed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gangru_dist.base.errors import ConfigError
from gangru_dist.config import sources
from gangru_dist.runs.run import Run
from gangru_dist.training import plan
from gangru_dist.training.launch import train_windows
from tests.training.store import TINY, stored_panel


class Unweighted:
    def __init__(self, features: int, cfg: Any) -> None:
        pass

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.mean_ = y.mean()

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), self.mean_)


OWN = f"{__name__}:Unweighted"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"predictor": "transformer", "gru.options.heads": 3}, "gru.options.heads=3 must divide"),
        ({"predictor": "transformer", "gru.options.head": 2}, "has the options heads (4)"),
        ({"gru.options.heads": 4}, "predictor=gru has no options"),
        ({"predictor": "lstm", "gru.options.dropout": 0.3}, "predictor=lstm has no options"),
        ({"predictor": "ridge", "gru.options.alfa": 3}, "has the options alpha (1.0)"),
        (
            {"samples.channels": ["level"], "panel.features": ["open", "volume"]},
            "add the feature 'close'",
        ),
        ({"predictor": OWN, "windows.half_life_days": 9}, "has no parameter sample_weight"),
    ],
)
def test_what_cannot_be_trained_claims_no_name(
    tmp_path: Path, given: dict[str, Any], says: str
) -> None:
    root = stored_panel(tmp_path)
    cfg = sources.with_values(TINY, {"variant": "gru", **given}, "test")
    with pytest.raises(ConfigError, match=re.escape(says)):
        train_windows(Run(root, "wrong", cfg))
    assert not root.child("runs").list_files()


def test_an_estimator_without_weights_goes_with_days_that_count_alike() -> None:
    plan.require_model(sources.with_values(TINY, {"predictor": OWN}, "test"))
