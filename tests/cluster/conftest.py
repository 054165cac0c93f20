"""One S3 server and one two-node cluster for all submitted jobs."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.nodes import Cluster, two_nodes
from s3.server import S3Server, running


@pytest.fixture(scope="session")
def s3_of_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with an empty bucket."""
    with running(tmp_path_factory.mktemp("s3") / "server") as server:
        yield server


@pytest.fixture(scope="session")
def cluster(s3_of_cluster: S3Server) -> Iterator[Cluster]:
    """Two nodes that have the storage's credentials; a short path, for Ray's sockets."""
    with (
        tempfile.TemporaryDirectory(prefix="g", ignore_cleanup_errors=True) as folder,
        two_nodes(Path(folder), s3_of_cluster.environment) as nodes,
    ):
        yield nodes
