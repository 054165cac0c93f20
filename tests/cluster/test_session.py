import os
from typing import Any

import pytest

from gangru_dist.base.errors import ResourceError
from gangru_dist.cluster import session
from gangru_dist.config.settings import ResourcesConfig, RunConfig

NODES = [
    {"CPU": 4.0, "GPU": 1.0, "object_store_memory": 7.0},
    {"CPU": 2.0, "object_store_memory": 6.0},
    {"memory": 1.0, "object_store_memory": 2.0},
]


def as_ray_says(nodes: list[dict[str, float]]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": node} for node in nodes]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"Alive": False, "Resources": {"CPU": 64.0}}
    monkeypatch.setattr(session.ray, "nodes", lambda: [*as_ray_says(NODES), gone])


def size(cpus: float, gpus: float = 0.0, **more: float) -> ResourcesConfig:
    return ResourcesConfig(cpus_per_worker=cpus, gpus_per_worker=gpus, **more)  # type: ignore[arg-type]


@pytest.mark.usefixtures("nodes")
class TestReference:
    @pytest.mark.parametrize(
        ("cpus", "gpus", "expected"),
        [
            (1, 0, 6),
            (2, 0, 3),
            (3, 0, 1),
            (0.1, 0, 60),
            (1, 1, 1),
            (1, 0.5, 2),
            (1, 0.3, 3),
            (5, 0, 0),
        ],
    )
    def test_slots_are_whole_workers_of_single_nodes(
        self, cpus: float, gpus: float, expected: int
    ) -> None:
        assert session.count_workers(size(cpus, gpus)) == expected
        if expected:
            assert session.find_room("a window", size(cpus, gpus)) == expected

    def test_a_cluster_that_grows_is_given_all(self) -> None:
        """Its autoscaler sees what waits; elsewhere that would only wait."""
        assert session.find_slots("an actor", size(2), 9) == 3
        assert session.find_slots("an actor", size(2, wait_for_nodes_minutes=1), 9) == 9
        assert session.count_cpus() == 4

    def test_every_node_that_works_has_room_in_its_object_store(self) -> None:
        assert session.count_store_bytes() == 6


class TestValidation:
    @pytest.mark.usefixtures("nodes")
    def test_a_request_that_can_never_be_met_says_the_numbers(self) -> None:
        session.find_room("a window", size(2), 2)
        match = (
            r"a window asks for 4 worker\(s\) of 2 CPU and 0 GPU.*room for 3.*4 CPU 1 GPU, 2 CPU"
        )
        with pytest.raises(ResourceError, match=match):
            session.find_room("a window", size(2), 4)

    def test_a_cluster_that_grows_is_given_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It starts with no node; what is asked of the autoscaler is taken back in the end."""
        there: list[dict[str, float]] = []
        asked: list[list[dict[str, float]]] = []

        def request(bundles: list[dict[str, float]]) -> None:
            asked.append(bundles)
            there.append({"CPU": 2.0, "GPU": 1.0})

        monkeypatch.setattr(session.ray, "nodes", lambda: as_ray_says(there))
        monkeypatch.setattr(session, "request_resources", request)
        with pytest.raises(ResourceError, match=r"nodes: none.*resources\.wait_for_nodes_minutes"):
            session.find_room("a window", size(1, 0.5), 2)
        session.find_room("a window", size(1, 0.5, wait_for_nodes_minutes=1), 2)
        assert asked == [[{"CPU": 1, "GPU": 0.5}] * 2, []]

    @pytest.mark.usefixtures("nodes")
    def test_time_that_was_not_enough_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session, "request_resources", lambda bundles: None)
        with pytest.raises(ResourceError, match=r"room for 1 after 0\.001 minutes"):
            session.find_room("a window", size(3, wait_for_nodes_minutes=0.001), 2)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
class TestCluster:
    def test_workers_are_quiet_and_have_the_package(self) -> None:
        @session.ray.remote
        def look() -> tuple[dict[str, str], str]:
            import gangru_dist

            return dict(os.environ), gangru_dist.__name__

        environment, name = session.ray.get(look.remote())
        wanted = session.make_worker_environment(RunConfig())
        assert {key: environment.get(key) for key in wanted} == wanted
        assert (wanted["OMP_WAIT_POLICY"], wanted["OMP_NUM_THREADS"]) == ("passive", "1")
        assert name == "gangru_dist"

    def test_a_session_inside_another_leaves_it_running(self) -> None:
        cfg = RunConfig(resources=ResourcesConfig())
        with session.open_session(cfg):
            assert session.count_workers(cfg.resources) == 2
        assert session.ray.is_initialized()
