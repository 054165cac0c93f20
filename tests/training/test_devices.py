"""A run's precision: `auto` decided once, arithmetic that a device lacks refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gangru_dist.base.errors import ConfigError, ResourceError, TrainingError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.config.identity import model_identity, with_precision
from gangru_dist.models import precision
from gangru_dist.models.precision import Device, require_precision
from gangru_dist.runs.run import Run
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.launch import train_windows
from gangru_dist.training.plan import require_native, resolve_precision, resolve_run
from tests.training.store import TINY, stored_panel

OLD = Device(name="CPU old")
NEW = Device(name="CPU new", fast=frozenset({"bf16"}))
Has = Callable[..., None]


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch) -> Has:
    """Makes the cluster's nodes, one a device, and this process's CPU the first of them."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def made(*found: Device) -> None:
        places = [(f" on node 10.0.0.{i}", (device,)) for i, device in enumerate(found, 1)]
        monkeypatch.setattr(session, "ask_nodes", lambda cfg, question: places)
        monkeypatch.setattr(precision, "describe_device", lambda _: found[0])

    return made


def run_in(folder: Path, asked: str, name: str = "r") -> Run:
    return Run(Storage(str(folder)), name, with_precision(TINY, asked))


class TestAuto:
    def test_the_run_keeps_what_its_first_start_found(self, tmp_path: Path, has: Has) -> None:
        has(NEW, NEW)
        run = resolve_run(run_in(tmp_path, "auto"))
        assert run.cfg == with_precision(TINY, "bf16")
        run.claim()
        has(OLD)
        assert resolve_run(run_in(tmp_path, "auto")).cfg.training.precision == "bf16"
        assert run_in(tmp_path, "auto").with_claimed_precision().cfg == run.cfg
        resolve_run(run_in(tmp_path, "auto")).claim()
        assert resolve_run(run_in(tmp_path, "auto"), anew=True).cfg.training.precision == "float32"

    def test_one_old_node_makes_it_float32(self, tmp_path: Path, has: Has) -> None:
        has(NEW, OLD)
        run = resolve_run(run_in(tmp_path, "auto"))
        assert run.cfg == TINY

    @pytest.mark.parametrize("asked", ["float32", "bf16", "float64"])
    def test_what_is_given_stays(self, tmp_path: Path, asked: str, has: Has) -> None:
        has(OLD)
        run_in(tmp_path, "float32").claim()
        assert resolve_run(run_in(tmp_path, asked)).cfg.training.precision == asked

    def test_a_model_is_of_what_it_stands_for(self, has: Has) -> None:
        has(NEW)
        cfg = with_precision(TINY, "auto")
        found = model_identity(resolve_precision(cfg), "2018-12-31", 0, "x")
        assert found == model_identity(with_precision(TINY, "bf16"), "2018-12-31", 0, "x")
        assert resolve_precision(cfg, "float64").training.precision == "float64"
        with pytest.raises(ConfigError, match="auto is replaced when a run starts"):
            model_identity(cfg, "2018-12-31", 0, "x")


class TestValidation:
    @pytest.mark.parametrize("asked", ["bf16", "tf32"])
    def test_refused_before_the_name_is_taken(self, tmp_path: Path, asked: str, has: Has) -> None:
        has(OLD)
        root = stored_panel(tmp_path)
        with pytest.raises(ResourceError) as refused:
            train_windows(Run(root, "r", with_precision(TINY, asked)))
        assert "CPU old on node 10.0.0.1. Give --set training.precision=float32" in str(
            refused.value
        )
        assert not list(root.list_files("runs"))

    def test_names_only_the_nodes_without(self, has: Has) -> None:
        has(NEW, OLD, NEW)
        with pytest.raises(ResourceError, match=r"without it: CPU old on node 10\.0\.0\.2\."):
            require_native(TINY, with_precision(TINY, "bf16"))

    def test_float32_asks_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def asked(*_: Any) -> None:
            raise AssertionError

        monkeypatch.setattr(session, "ask_nodes", asked)
        require_native(TINY, with_precision(TINY, "float64"))
        assert resolve_precision(TINY) is TINY

    def test_a_worker_that_cannot_keep_it_stops_all(self, has: Has) -> None:
        """Rank 0 has bf16, rank 1 has not: both raise, so that none waits for the other."""
        cfg, cpu, told = with_precision(TINY, "bf16"), torch.device("cpu"), list[str | None]()

        def gather(value: str | None) -> list[str | None]:
            told.append(value)
            return told

        has(NEW)
        require_precision(cfg, cpu, gather)
        assert told == [None]
        for mine in (OLD, NEW):
            has(mine)
            with pytest.raises(TrainingError, match=r"without it: CPU old on node .*another --run"):
                require_precision(cfg, cpu, gather)


class TestScoring:
    def test_a_model_trained_in_bf16_is_scored_in_float32(self, has: Has) -> None:
        """Weights stay float32, so any machine scores what another one trained."""
        from gangru_dist.scoring.predictor import predict

        has(OLD)
        states = [TrainingState(with_precision(TINY, name), 0) for name in ("bf16", "float32")]
        x = torch.randn(5, TINY.samples.lookback, len(TINY.features))
        networks = [state.network.eval() for state in states]
        found = [predict(network, x) for network in networks]
        assert found[0].dtype == "float32"
        assert (found[0] == found[1]).all()
