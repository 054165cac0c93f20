"""Storage against a real S3 server, plain and through a proxy that loses a third of the answers."""

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from s3.faults import FaultProxy, faulty
from s3.server import BUCKET, S3Server, check_files

from gangru_dist.base.errors import StorageError
from gangru_dist.base.filesystems import RetryingS3FileSystem
from gangru_dist.base.storage import Storage

pytestmark = pytest.mark.slow
ROOT = f"s3://{BUCKET}"


@pytest.fixture(scope="module")
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with faulty(s3, rate=0.3, seed=7) as found:
        yield found


@pytest.mark.usefixtures("on_s3")
class TestReference:
    def test_write_read_list_delete(self) -> None:
        check_files(Storage(f"{ROOT}/plain"))

    @pytest.mark.parametrize("uri", [f"{ROOT}//twice//deep/", f"{ROOT}/twice/deep//"])
    def test_doubled_slashes_are_one(self, uri: str) -> None:
        Storage(uri).child("c").write_bytes("d//x", b"1")
        assert Storage(f"{ROOT}/twice/deep").read_bytes("c/d/x") == b"1"

    def test_the_endpoint_comes_from_the_uri_too(
        self, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        uri = f"{ROOT}/by-uri?endpoint_override={s3.address}&scheme=http&region=us-east-1"
        Storage(uri).write_bytes("x", b"1")
        assert Storage(uri).list_files() == ["x"]

    def test_keys_come_from_a_shared_file(
        self, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = ["[default]", f"aws_access_key_id={s3.access_key}"]
        lines.append(f"aws_secret_access_key={s3.secret_key}")
        (tmp_path / "credentials").write_text("\n".join(lines))
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        Storage(f"{ROOT}/by-file").write_bytes("x", b"1")
        assert Storage(f"{ROOT}/by-file").read_bytes("x") == b"1"


@pytest.mark.usefixtures("on_s3")
class TestProperties:
    def test_a_reader_sees_the_old_or_the_new(self) -> None:
        root = Storage(f"{ROOT}/atomic")
        contents = [bytes([n]) * 300_000 for n in range(2)]
        root.write_bytes("x", contents[0])
        with ThreadPoolExecutor(2) as pool:
            writes = pool.submit(lambda: [root.write_bytes("x", contents[n % 2]) for n in range(9)])
            seen = [root.read_bytes("x") for _ in range(20)]
            writes.result()
        assert all(data in contents for data in seen)

    def test_pickles_have_the_strategy_and_no_secret(self, s3: S3Server) -> None:
        filesystem = Storage(f"{ROOT}/pickled").filesystem
        data = pickle.dumps((Storage(f"{ROOT}/pickled"), filesystem))
        assert s3.secret_key.encode() not in data
        assert s3.access_key.encode() not in data
        assert isinstance(pickle.loads(data)[1], RetryingS3FileSystem)

    def test_nothing_is_lost_or_wrong_under_faults(self, proxy: FaultProxy) -> None:
        """The filesystem is pickled first: the retries must be those of the copy."""
        root = pickle.loads(pickle.dumps(Storage(proxy.uri(f"{BUCKET}/faults"))))
        rng = np.random.default_rng(0)
        contents = {f"k{n}": rng.bytes(20_000) for n in range(25)}
        for name, data in contents.items():
            root.write_bytes(name, data)
        assert {name: root.read_bytes(name) for name in contents} == contents
        assert root.list_files() == sorted(contents)
        for name in contents:
            root.delete(name)
        assert root.list_files() == []
        counts = proxy.counts()
        kinds = {"503", "500", "reset_before", "reset_after", "truncate", "delay"}
        assert kinds <= set(counts)
        assert sum(counts[kind] for kind in kinds) > 0.2 * counts["requests"]

    def test_a_file_of_many_parts_under_faults(self, proxy: FaultProxy) -> None:
        root = Storage(proxy.uri(f"{BUCKET}/faults"))
        data = np.random.default_rng(1).bytes(22_000_000)
        root.write_bytes("large", data)
        assert root.read_bytes("large") == data


@pytest.mark.usefixtures("on_s3")
class TestValidation:
    @pytest.mark.parametrize("action", ["read", "write", "list", "exists", "delete", "remove"])
    def test_wrong_keys_are_refused_clearly(
        self, monkeypatch: pytest.MonkeyPatch, action: str
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "WRONGSECRET")
        root = Storage(f"{ROOT}/refused")
        actions = {
            "read": lambda: root.read_bytes("x"),
            "write": lambda: root.write_bytes("x", b"1"),
            "list": root.list_files,
            "exists": lambda: root.exists("x"),
            "delete": lambda: root.delete("x"),
            "remove": lambda: root.delete_folder("x"),
        }
        with pytest.raises(StorageError, match=r"refuses the credentials.*environment") as caught:
            actions[action]()
        assert "WRONGSECRET" not in str(caught.value)

    def test_no_keys_at_all(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        with pytest.raises(StorageError, match="refuses the credentials"):
            Storage(f"{ROOT}/refused").list_files()
