"""Both roads of a window's panel on three raylets and S3; `-s` shows what each took."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from s3.server import BUCKET, S3Server

from benchmarks import ingest
from benchmarks.training_speed import Size
from gangru_dist.base.storage import Storage
from gangru_dist.cluster import session
from gangru_dist.config.settings import RunConfig

pytestmark = [pytest.mark.ray, pytest.mark.trials, pytest.mark.timeout(1800)]


@pytest.fixture
def three_raylets(on_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nodes of one CPU each, as processes of this machine; they have the server's keys."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # for `benchmarks` there
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    head = {"num_cpus": 1, "include_dashboard": False}  # its port may be taken
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        with session.open_session(RunConfig()):
            yield
    finally:
        cluster.shutdown()


@pytest.mark.usefixtures("three_raylets")
def test_both_ways_give_the_same_bytes_on_three_nodes() -> None:
    root = Storage(f"s3://{BUCKET}/ingest")
    assert session.count_nodes() == 3
    size = Size(stored_assets=400, stored_days=960, buckets=16)
    found = ingest.measure(root, size, windows=5, count=5)
    digests = {done.digests for rounds in found.values() for done in rounds}
    assert len(digests) == 1
