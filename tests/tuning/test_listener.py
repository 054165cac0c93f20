"""What the driver makes of what Tune tells it; no Ray is started."""

import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from gangru_dist.config.sources import load
from gangru_dist.tuning.queue import TrialQueue
from gangru_dist.tuning.search import Listener


class Heard(TrialQueue):
    """A queue that writes nothing."""

    def __init__(self, gpus: float) -> None:
        self.cfg = load("demo", None, [f"resources.gpus_per_worker={gpus}"])
        self.results: list[Mapping[str, Any]] = []

    def report(self, number: int, metrics: Mapping[str, Any]) -> None:
        self.results.append(metrics)


@pytest.mark.parametrize(
    ("gpus", "device", "warnings"), [(0, "cpu", 0), (0.25, "cuda", 0), (0.25, "cpu", 1)]
)
def test_trials_on_the_cpu_in_place_of_a_promised_gpu_are_said_once(
    gpus: float, device: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard(gpus)
    listener = Listener(heard)
    trial = SimpleNamespace(config={"number": 0})
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            listener.on_trial_result(step, [], trial, {"step": step, "device": device})
    assert len(heard.results) == 3
    assert [record.message.startswith("no_gpu") for record in caplog.records] == [True] * warnings
