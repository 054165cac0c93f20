"""One two-node cluster for all submitted jobs."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.nodes import Cluster, two_nodes
from s3.server import S3Server


@pytest.fixture(scope="session")
def cluster(s3: S3Server) -> Iterator[Cluster]:
    """Two nodes that have the storage's credentials; a short path, for Ray's sockets."""
    with (
        tempfile.TemporaryDirectory(prefix="g", ignore_cleanup_errors=True) as folder,
        two_nodes(Path(folder), s3.environment) as nodes,
    ):
        yield nodes
