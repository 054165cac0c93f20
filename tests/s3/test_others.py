"""Stores besides SeaweedFS's S3: what a storage needs of them, and the whole pipeline there."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from s3.others import STORES, WHEN_REQUIRED, Store, environment, google, place
from s3.server import check_files
from tiny import FLAGS

from gangru_dist.base.errors import StorageError
from gangru_dist.base.storage import Storage
from gangru_dist.base.store_check import check_store

PROJECT = Path(__file__).parents[2]


@contextmanager
def here(store: Store) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    with STORES[request.param](tmp_path_factory.mktemp("store") / "s") as found:
        yield found


@pytest.fixture(scope="module")
def gs(tmp_path_factory: pytest.TempPathFactory):
    with google(tmp_path_factory.mktemp("gs") / "s") as found:
        yield found


@pytest.mark.slow
class TestFiles:
    def test_a_storage(self, store: Store) -> None:
        with here(store):
            root = Storage(place(store, "files"))
            check_store(root, writes=True)
            check_files(root)

    def test_google(self, gs: Store) -> None:
        check_files(Storage(place(gs, "files")))

    def test_the_emulator_of_google_takes_no_commit(self, gs: Store) -> None:
        """It would train, and fail at its end: the check says so before."""
        root = Storage(place(gs, "commit"))
        with pytest.raises(StorageError, match="refuses a commit of the factor table"):
            check_store(root, writes=True)
        assert root.list_files() == []

    def test_an_older_ceph_is_told_what_it_lacks(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not store.uri.startswith("s3"):
            pytest.skip("this is not Ceph")
        with here(store):
            for name in WHEN_REQUIRED:
                monkeypatch.delenv(name)
            with pytest.raises(StorageError, match="AWS_REQUEST_CHECKSUM_CALCULATION=when_req"):
                check_store(Storage(place(store, "older")), writes=True)


@pytest.mark.ray
@pytest.mark.trials
@pytest.mark.timeout(1800)
def test_the_pipeline(store: Store) -> None:
    if store.uri.startswith("abfs"):
        pytest.skip("Azurite ignores startFrom, so that delta-rs finds no second commit of a table")
    words = ["--preset", "demo", "--run", "tiny", "--bars", "synthetic", *FLAGS]
    command = [sys.executable, "jobs/pipeline.py", "--storage", place(store, "whole"), *words]
    with tempfile.TemporaryDirectory(prefix="g", ignore_cleanup_errors=True) as folder:
        own = {"RAY_TMPDIR": folder, "RAY_raylet_start_wait_time_s": "300"}
        for _ in range(2):  # the second finds everything done
            done = subprocess.run(
                command, cwd=PROJECT, env=environment(store) | own, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr[-3000:]
    with here(store):
        files = Storage(place(store, "whole")).list_files("runs/tiny")
    assert "runs/tiny/report/report.html" in files
