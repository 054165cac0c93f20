"""Shared fixtures: one Ray cluster a session, few threads, warnings of Ray tests let pass."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("busy", deadline=None)  # 200 ms an example measure the machine's load
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray warns about itself; everywhere else a warning is an error (pyproject.toml)."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.filterwarnings("default", "ignore::DeprecationWarning:ray"))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local cluster, started by the first test that asks; mark those `ray`.

    Two CPUs, and a GPU that is only promised.
    """
    from gangru_dist.cluster.session import session
    from gangru_dist.config.settings import RunConfig

    with session(RunConfig(), cpus=2, gpus=1, dashboard=True):
        yield
