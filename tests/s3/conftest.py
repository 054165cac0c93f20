"""The server, and its address in the environment of every test here."""

from collections.abc import Iterator

import pytest
from s3.server import S3Server, running


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
