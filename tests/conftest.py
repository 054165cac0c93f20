"""Shared fixtures: one Ray cluster, one S3 server, and a process that each test finds as it was.

Warnings of Ray tests are let pass.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from s3.server import S3Server, running

settings.register_profile("busy", deadline=None)  # 200 ms an example measure the machine's load
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray warns about itself; everywhere else a warning is an error (pyproject.toml)."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.filterwarnings("default", "ignore::DeprecationWarning:ray"))


@contextmanager
def restore_process(temporary: Path) -> Iterator[None]:
    """Put back what the code under test changes in its process, so that no order of tests matters.

    These are the package's logger, the registries with the modules of users' own code (those that
    a test writes, and `my_plugin`), the environment and the import path.
    """
    # not before jaxtyping's hook is there
    from gangru_dist.config.settings import CALLBACKS, LABEL_TRANSFORMS, PREDICTORS
    from gangru_dist.features.price_volume import FEATURES

    registries = (CALLBACKS, FEATURES, LABEL_TRANSFORMS, PREDICTORS)
    logger = logging.getLogger("gangru_dist")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    items = [dict(registry) for registry in registries]
    modules, path, environment = set(sys.modules), list(sys.path), dict(os.environ)
    yield
    for name in set(sys.modules) - modules:
        file = vars(sys.modules[name]).get("__file__") or ""
        if name == "my_plugin" or file.startswith(str(temporary)):
            del sys.modules[name]
    for registry, before in zip(registries, items, strict=True):
        registry.clear()
        registry.update(before)
    logger.handlers, logger.level, logger.propagate = handlers, level, propagate
    sys.path[:] = path
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


@pytest.fixture(autouse=True, scope="module")
def _same_process_for_every_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with restore_process(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture(autouse=True)
def _same_process_for_every_test(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with restore_process(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with an empty bucket, started by the first test that asks."""
    with running(tmp_path_factory.mktemp("s3") / "server") as server:
        yield server


@pytest.fixture
def on_s3(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, its keys in the environment as on a node of a cluster."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local cluster, started by the first test that asks; mark those `ray`.

    Two CPUs, and a GPU that is only promised.
    """
    from gangru_dist.cluster.session import open_session
    from gangru_dist.config.settings import RunConfig

    with open_session(RunConfig(), cpus=2, gpus=1, dashboard=True):
        yield
