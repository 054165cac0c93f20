import errno
import os
import pickle
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.fs as pafs
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from gangru_dist.bars.files import _make_file
from gangru_dist.base.errors import StorageError
from gangru_dist.base.filesystems import Place, RetryingS3FileSystem
from gangru_dist.base.refusals import explain_refusals, retry
from gangru_dist.base.storage import Storage, check_name
from gangru_dist.panel.manifest import read_manifest


class Hdfs(Storage):
    """A folder that is written to as HDFS is: beside, then moved."""

    is_local = False

    def __init__(self, uri: Place) -> None:
        super().__init__(uri)
        self.filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(LocalFileSystem()))
        self._write_beside = True


class TestReference:
    def test_local_files(self, tmp_path: Path) -> None:
        root = Storage(str(tmp_path))
        root.write_bytes("a/b/x.bin", b"123")
        root.write_json("a/y.json", {"z": 1, "a": "é"})
        assert (tmp_path / "a/b/x.bin").read_bytes() == b"123"
        assert root.read_json("a/y.json") == {"z": 1, "a": "é"}
        assert list(root.read_json("a/y.json")) == ["z", "a"]
        assert root.list_files() == ["a/b/x.bin", "a/y.json"]
        assert root.list_files("a/b") == ["a/b/x.bin"]
        assert root.exists("a/y.json")
        assert not root.exists("a")
        root.delete("a/y.json")
        root.delete("a/y.json")
        root.delete_folder("a/b")
        root.delete_folder("a/b")
        assert root.list_files() == []

    @pytest.mark.parametrize("prefix", ["", "file://"])
    def test_uris_of_a_folder(self, tmp_path: Path, prefix: str) -> None:
        root = Storage(f"{prefix}{tmp_path}")
        assert root.is_local
        assert root.path == str(tmp_path)
        assert root.child("runs", "r1").path == str(tmp_path / "runs/r1")

    @pytest.mark.parametrize("folder", ["my bars", "a#b", "100%", "价格", "a%20b"])
    def test_a_file_uri_is_quoted_and_a_path_is_not(self, tmp_path: Path, folder: str) -> None:
        by_uri, by_path = Storage((tmp_path / folder).as_uri()), Storage(str(tmp_path / folder))
        assert by_uri.path == by_path.path == str(tmp_path / folder)
        for root in (by_uri, by_path):
            child = pickle.loads(pickle.dumps(root.child("runs", "r1")))
            assert child.path == str(tmp_path / folder / "runs/r1")
            assert Storage(child.uri).path == child.path


class TestProperties:
    @given(st.text(max_size=12))
    def test_a_checked_name_never_leaves_its_folder(self, name: str) -> None:
        base = Path("/base")
        try:
            path = (base / check_name(name, what="name")).resolve()
        except StorageError:
            return
        assert path.parent == base

    def test_a_folder_named_like_a_query(self, tmp_path: Path) -> None:
        root = Storage(str(tmp_path / "a?b"))
        assert root.child("c").path == str(tmp_path / "a?b/c")

    def test_pickled_by_uri_and_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        root = Storage("here")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert pickle.loads(pickle.dumps(root)).path == str(tmp_path / "here")

    @pytest.mark.parametrize("kind", [Storage, Hdfs])
    def test_a_reader_sees_the_old_or_the_new(self, tmp_path: Path, kind: type[Storage]) -> None:
        root = kind(tmp_path)
        contents = [bytes([n]) * 200_000 for n in range(2)]
        root.write_bytes("x", contents[0])
        stop = threading.Event()
        torn: list[bytes] = []

        def read() -> None:
            while not stop.is_set():
                data = root.read_bytes("x")
                if data not in contents:
                    torn.append(data[:1])

        reader = threading.Thread(target=read)
        reader.start()
        for n in range(60):
            root.write_bytes("x", contents[n % 2])
        stop.set()
        reader.join()
        assert torn == []
        assert root.list_files() == ["x"]

    def test_a_failed_write_leaves_what_was_there(self, tmp_path: Path) -> None:
        root = Storage(str(tmp_path))
        root.write_json("x.json", [1])
        with pytest.raises(ValueError, match="not JSON compliant"):
            root.write_json("x.json", [float("nan")])
        (tmp_path / "y").mkdir()
        with pytest.raises(StorageError, match=r"Is a directory: .*y"):
            root.write_bytes("y", b"a folder is in the way")
        assert root.read_json("x.json") == [1]
        assert root.list_files() == ["x.json"]

    def test_a_move_that_does_not_overwrite(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def move(self: pafs.FileSystem, source: str, target: str) -> None:
            if not Path(target).exists():
                Path(source).rename(target)

        monkeypatch.setattr(pafs.FSSpecHandler, "move", move)
        root = Hdfs(tmp_path)
        root.write_bytes("a/x", b"old")
        root.write_bytes("a/x", b"new")
        assert root.read_bytes("a/x") == b"new"
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]

    def test_a_move_that_does_nothing_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pafs.FSSpecHandler, "move", lambda *_: None)
        monkeypatch.setattr("gangru_dist.base.storage.time.sleep", lambda _: None)
        (tmp_path / "x").write_bytes(b"old")
        with pytest.raises(OSError, match=r"/x\..*\.part cannot be renamed to .*/x\."):
            Hdfs(tmp_path).write_bytes("x", b"new")

    def test_a_failed_move_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def move(self: pafs.FSSpecHandler, source: str, target: str) -> None:
            assert Path(source).read_bytes() == b"new"
            raise OSError("the connection was lost")

        root = Hdfs(tmp_path)
        root.write_bytes("x", b"old")
        monkeypatch.setattr(pafs.FSSpecHandler, "move", move)
        monkeypatch.setattr("gangru_dist.base.storage.time.sleep", lambda _: None)
        with pytest.raises(OSError, match="connection was lost"):
            root.write_bytes("x", b"new")
        assert root.read_bytes("x") == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["x"]

    def test_a_full_disk_is_an_error_that_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As our own error, so that it comes whole out of a worker."""

        def full(self: Path, target: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))

        root = Storage(str(tmp_path))
        root.write_bytes("x", b"old")
        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(StorageError, match=r"No space left on device: .*/x.*Free some space"):
            root.write_bytes("x", b"new")
        assert root.read_bytes("x") == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["x"]

    def test_a_folder_in_place_of_a_file(self, tmp_path: Path) -> None:
        storage = Storage(tmp_path)  # a Path is a place too
        (tmp_path / "x.json").mkdir()
        with pytest.raises(StorageError, match=r"x\.json is a folder, not a file of ours"):
            storage.read_json("x.json")
        with pytest.raises(StorageError, match=r"x\.json.*Correct the path"):
            storage.write_json("x.json", {})
        (tmp_path / "panel" / "manifest.json").mkdir(parents=True)
        with pytest.raises(StorageError, match=r"manifest\.json is a folder"):
            read_manifest(storage)

    def test_names_below_the_root_are_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        info = pafs.FileInfo("/bars.csv", pafs.FileType.File, size=3)
        monkeypatch.setattr(Storage, "_below", lambda *_: [info])
        assert Storage("/").list_files() == ["bars.csv"]
        assert _make_file(info, "/").name == "bars.csv"

    def test_what_only_uses_disk_may_stay(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        storage = Storage(str(tmp_path))
        storage.write_bytes("old/x", b"1")

        def refuse(*_: object) -> None:
            raise StorageError("no deletes here")

        with monkeypatch.context() as patch:
            patch.setattr(Storage, "delete_folder", refuse)
            storage.discard("old")
        assert f"left_behind place={tmp_path}/old reason=no deletes here" in caplog.text
        storage.discard("old")
        assert storage.list_files() == []
        storage.discard("old")

    @pytest.mark.parametrize(
        ("number", "advice"),
        [
            (errno.EACCES, "Let this user read and write there"),
            (errno.EFBIG, "ulimit -f"),
            (errno.ENOSPC, "Free some space"),
            (errno.EROFS, "Name a place that can be written"),
        ],
    )
    def test_advice_is_the_errors_own(self, number: int, advice: str) -> None:
        with pytest.raises(StorageError) as raised, explain_refusals():
            raise OSError(number, os.strerror(number), "/x/y")
        assert advice in str(raised.value)
        assert ("space" in str(raised.value)) == (number == errno.ENOSPC)

    def test_deleting_what_is_not_there_where_that_is_an_error(self, tmp_path: Path) -> None:
        """HDFS gives EIO, which is not a FileNotFoundError."""

        class Handler(pafs.FSSpecHandler):
            def delete_file(self, path: str) -> None:
                if not Path(path).exists():
                    raise OSError(errno.EIO, "Input/output error")
                super().delete_file(path)

        root = Hdfs(tmp_path)
        root.filesystem = pafs.PyFileSystem(Handler(LocalFileSystem()))
        root.write_bytes("x", b"1")
        root.delete("x")
        root.delete("x")
        assert root.list_files() == []

    def test_unfinished_writes_are_not_listed(self, tmp_path: Path) -> None:
        (tmp_path / "x.json.0123.part").write_bytes(b"{")
        assert Storage(str(tmp_path)).list_files() == []

    def test_a_folder_that_vanishes_while_a_file_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a checkpoint's does when another job has finished the model."""
        real, calls = os.fsync, []

        def fsync(number: int) -> None:
            real(number)
            if not calls:
                shutil.rmtree(tmp_path / "a")
            calls.append(number)

        monkeypatch.setattr(os, "fsync", fsync)
        root = Storage(str(tmp_path))
        root.write_bytes("a/x", b"1")
        assert root.list_files() == ["a/x"]
        assert len(calls) == 2

    def test_what_a_killed_write_left_goes_a_week_later(self, tmp_path: Path) -> None:
        """With the folder's next write; a write that is under way is left alone."""
        now = time.time()
        for name, age_days in {"a": 8, "b": 6}.items():
            part = tmp_path / f"{name}.json.{name * 32}.part"
            part.write_bytes(b"{")
            os.utime(part, (now, now - age_days * 86400))
        (tmp_path / "mine.part").write_bytes(b"x")
        os.utime(tmp_path / "mine.part", (0, 0))
        Storage(str(tmp_path)).write_bytes("x", b"1")
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == [f"b.json.{'b' * 32}.part", "mine.part", "x"]

    @pytest.mark.parametrize("cuts", [1, 5, 6])
    def test_an_answer_that_is_cut_is_asked_for_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: int
    ) -> None:
        """As S3's are in the soak (seeds 1045, 1084, 1386); a refusal and the disk's errors not."""
        monkeypatch.setattr("time.sleep", lambda _: None)
        cut = OSError("AWS Error INTERNAL_FAILURE during GetObject operation: Failed to flush")
        answers = iter([cut] * cuts + [b"whole"])

        def read() -> bytes:
            answer = next(answers)
            if isinstance(answer, OSError):
                raise answer
            return answer

        if cuts < 6:
            assert retry(read) == b"whole"
        else:
            with pytest.raises(OSError, match="Failed to flush"):
                retry(read)

    @pytest.mark.parametrize(
        "error",
        [
            FileNotFoundError("x"),
            PermissionError(13, "x"),
            OSError("When reading: AWS Error ACCESS_DENIED during x"),
        ],
    )
    def test_what_would_fail_again_is_not(self, error: OSError) -> None:
        calls = []

        def read() -> None:
            calls.append(1)
            raise error

        with pytest.raises(type(error)):
            retry(read)
        assert calls == [1]

    def test_a_folder_that_vanishes_while_it_is_listed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As checkpoints do: listed again, no error."""
        root = Storage(str(tmp_path))
        root.write_bytes("kept/file", b"x")
        lists, calls = root.filesystem.get_file_info, []

        def vanishing(selector: object) -> object:
            calls.append(selector)
            if len(calls) < 3:
                raise FileNotFoundError("cannot list directory")
            return lists(selector)

        monkeypatch.setattr(root, "filesystem", SimpleNamespace(get_file_info=vanishing))
        assert root.list_files() == ["kept/file"]

    @pytest.mark.parametrize(
        ("code", "attempts"), [("NETWORK_CONNECTION", 2), ("UNKNOWN", 2), ("ACCESS_DENIED", 1)]
    )
    def test_what_the_network_fails_is_written_again_and_a_refusal_is_not(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, attempts: int
    ) -> None:
        root = Hdfs(tmp_path)
        root._write_beside = False  # as an object store: whole when closed
        whole, calls = root.filesystem, []

        def open_output_stream(path: str) -> object:
            calls.append(path)
            if len(calls) == 1:
                raise OSError(f"When uploading part for key 'x': AWS Error {code} during PUT: lost")
            return whole.open_output_stream(path)

        monkeypatch.setattr("gangru_dist.base.storage.time.sleep", lambda _: None)
        root.filesystem = SimpleNamespace(open_output_stream=open_output_stream)
        if attempts == 1:
            with pytest.raises(StorageError, match="uploading part for key 'x': ACCESS_DENIED"):
                root.write_bytes("x", b"content")
        else:
            root.write_bytes("x", b"content")
            assert bytes(whole.open_input_file(root.full_path("x")).readall()) == b"content"
        assert len(calls) == attempts

    @pytest.mark.parametrize(
        "said",
        [
            "AWS Error INTERNAL_FAILURE during GetObject: Failed to flush response stream",
            "Generic S3 error: error reading a body from connection: unexpected end",
            "request or response body error: end of file before message length reached",
        ],
    )
    def test_a_broken_answer_is_one_message(self, said: str) -> None:
        says = r"cut an answer short.* Run the same command again"
        with pytest.raises(StorageError, match=says), explain_refusals():
            raise OSError(said)

    def test_an_older_ceph_is_told_from_other_errors(self) -> None:
        said = (
            "When uploading object with key 'a/x' in bucket 'test': AWS Error UNKNOWN (HTTP status "
            "411) during PutObject operation: Unable to parse ExceptionName: MissingContentLength"
        )
        says = "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
        with pytest.raises(StorageError, match=says), explain_refusals():
            raise OSError(said)
        with pytest.raises(OSError, match="status 400"), explain_refusals():
            raise OSError(said.replace("411", "400"))

    def test_a_folder_without_a_mark(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Google's client empties a folder, and then misses the mark that nobody has set."""

        def delete_dir(self: pafs.FSSpecHandler, path: str) -> None:
            shutil.rmtree(path)
            raise FileNotFoundError("google::cloud::Status(NOT_FOUND …)")

        monkeypatch.setattr(pafs.FSSpecHandler, "delete_dir", delete_dir)
        root = Hdfs(tmp_path)
        root.write_bytes("a/x", b"1")
        root.delete_folder("a")
        assert root.list_files() == []

    def test_no_key_travels_with_azure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "S0VZS0VZ")
        root = Storage("abfs://c@acc.dfs.core.windows.net/p")
        pickled = pickle.dumps((root, root.filesystem))
        assert b"S0VZ" not in pickled
        again = pickle.loads(pickled)[1]
        assert (type(again), again.options) == (type(root.filesystem), root.filesystem.options)

    def test_no_secret_travels_with_s3(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEYKEYKEY")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRETSECRET")
        uri = "s3://bucket/prefix?endpoint_override=127.0.0.1:9&scheme=http&region=x"
        root = Storage(uri)
        assert root.path == "bucket/prefix"
        assert root.child("a").uri == uri.replace("prefix", "prefix/a")
        pickled = pickle.dumps((root, root.filesystem))
        assert b"SECRET" not in pickled
        assert b"KEYKEY" not in pickled
        again = pickle.loads(pickled)[1]
        assert isinstance(again, RetryingS3FileSystem)
        assert again == root.filesystem


class TestValidation:
    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", ".hidden", "a b", "a\n", "é"])
    def test_unsafe_names(self, name: str) -> None:
        with pytest.raises(StorageError, match="cannot be a folder name"):
            check_name(name, what="run")

    @pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd"])
    def test_files_outside(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(StorageError, match="would leave"):
            Storage(str(tmp_path)).full_path(name)

    def test_unknown_scheme(self) -> None:
        with pytest.raises(StorageError, match=r"'nope://x' cannot be a storage: .*s3://"):
            Storage("nope://x")

    @pytest.mark.parametrize(
        "uri",
        ["s3://key:secret@bucket/x", "s3:///x", "gs://", "abfs:///x", "s3://bucket/x?access_key=y"],
    )
    def test_s3_uris_carry_no_keys(self, uri: str) -> None:
        with pytest.raises(StorageError, match=r"belong in the environment|no bucket") as caught:
            Storage(uri)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("uri", "says"),
        [
            ("", "the path is empty"),
            ("s3:/bucket/x", "incomplete URI"),
            ("file:/data", "incomplete URI"),
            ("file://data/gangru", "only '/gangru' would be used"),
            ("file:///a/b?c", "only '/a/b' would be used"),
        ],
    )
    def test_what_would_be_another_place(self, uri: str, says: str) -> None:
        with pytest.raises(StorageError, match=says):
            Storage(uri)

    @pytest.mark.parametrize("uri", ["file:///a#b", "sftp://a#b", "s3://bucket/a#", "gs://a/b#c"])
    def test_a_fragment_would_drop_the_folders_below(self, uri: str) -> None:
        with pytest.raises(
            StorageError, match=f"{uri.partition('#')[0]}' contains '#'.*Use a folder without it"
        ):
            Storage(uri)

    def test_a_refused_fragment_shows_no_secret(self) -> None:
        with pytest.raises(StorageError, match="comes with a password") as raised:
            Storage("s3://key:sec#ret@bucket/x")
        assert "sec" not in str(raised.value)
        assert "ret@" not in str(raised.value)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Storage(str(tmp_path)).read_bytes("nope")
