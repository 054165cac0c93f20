"""A store that a job cannot use is refused before the job begins, in one message."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from gangru_dist.bars.files import list_files
from gangru_dist.base import store_check
from gangru_dist.base.errors import StorageError
from gangru_dist.base.storage import Storage
from gangru_dist.base.store_check import check_answer, check_store
from gangru_dist.commands import main
from gangru_dist.panel.build import remove_leftovers

SILENT = "s3://bucket/x?endpoint_override=127.0.0.1:{}&scheme=http&region=us-east-1"


@pytest.fixture
def silent() -> Iterator[str]:
    """URI of a store that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield SILENT.format(server.getsockname()[1])


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A folder without hard links."""
    tools = ("mkfs.exfat", "mount.exfat-fuse", "losetup", "umount")
    if os.geteuid() or not Path("/dev/fuse").exists() or not all(map(shutil.which, tools)):
        pytest.skip("needs root, /dev/fuse and Debian's exfat-fuse and exfatprogs")
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(80 * 2**20)
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    device = subprocess.run(
        ["losetup", "-f", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        subprocess.run(["mount.exfat-fuse", device, folder], check=True, capture_output=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=False)
        subprocess.run(["losetup", "-d", device], check=True)


class TestReference:
    def test_a_folder_is_left_as_it_was(self, tmp_path: Path) -> None:
        check_store(Storage(tmp_path), writes=True)
        check_store(Storage(tmp_path / "not" / "yet"), writes=True)
        assert list(tmp_path.iterdir()) == []

    def test_what_a_killed_check_left_goes_an_hour_later(self, tmp_path: Path) -> None:
        old, young = (tmp_path / f"check-{letter * 32}" for letter in "ab")
        for folder in (old, young):
            folder.mkdir()
            (folder / "file").write_text("x")
        os.utime(old, (time.time() - 3700,) * 2)
        check_store(Storage(tmp_path), writes=True)
        assert list(tmp_path.iterdir()) == [young]

    def test_nothing_is_written_where_nothing_will_be(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Storage, "write_bytes", None)
        check_store(Storage(tmp_path), writes=False)

    def test_a_folder_without_hard_links(self, exfat: Path) -> None:
        """Without the check a job trains there and cannot commit."""
        says = rf"{exfat}.*refuses a commit.*Unable to rename file Operation not permitted.*hard li"
        with pytest.raises(StorageError, match=says):
            check_store(Storage(exfat / "new"), writes=True)
        assert list(exfat.iterdir()) == []

    def test_a_store_that_replaces_a_commit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DeltaTable, "create", lambda *_, **__: None)
        with pytest.raises(StorageError, match="took the same commit from two jobs at once"):
            check_store(Storage(tmp_path), writes=True)
        assert list(tmp_path.iterdir()) == []

    def test_a_store_that_does_not_show_what_was_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Storage, "list_files", lambda *_: [])
        with pytest.raises(StorageError, match="does not show what was just written"):
            check_store(Storage(tmp_path), writes=True)


class TestAnotherProcess:
    def test_one_that_never_answers(self, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_check, "_SECONDS", 0.3)
        started = time.monotonic()
        with pytest.raises(StorageError, match=r"s3://bucket/x.* has not answered within 0 s"):
            check_store(Storage(silent), writes=True)
        assert time.monotonic() - started < 15

    @pytest.mark.parametrize("end", [subprocess.TimeoutExpired, KeyboardInterrupt])
    def test_one_that_is_ended_cleans_up(
        self,
        end: type[BaseException],
        silent: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Too slow, or its job is interrupted: what it wrote on the store goes."""
        left = tmp_path / "left"
        text = f"""
import pathlib, time
left = pathlib.Path({str(left)!r})
left.touch()
try:
    time.sleep(60)
finally:
    left.unlink()
"""
        monkeypatch.setattr(store_check, "_CHILD", text)
        wait, calls = subprocess.Popen.communicate, iter([1])

        def communicate(child: subprocess.Popen[str], timeout: float) -> tuple[str, str]:
            if not next(calls, 0):
                return wait(child, timeout=timeout)
            while not left.exists():
                time.sleep(0.01)
            raise end("", 0)

        monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
        with pytest.raises(StorageError if end is subprocess.TimeoutExpired else end):
            check_store(Storage(silent), writes=True)
        assert not left.exists()

    def test_what_a_killed_one_left_goes_with_staged_rows(self, tmp_path: Path) -> None:
        """On a remote store, a day later; nothing else looks for it there."""
        panel = Storage(tmp_path)
        for name in ("file", "_delta_log/0.json"):
            panel.write_bytes(f"{store_check._STAGED}a/{name}", b"x")
            os.utime(tmp_path / f"{store_check._STAGED}a" / name, (0, 0))
        panel.write_bytes("manifest.json", b"{}")
        remove_leftovers(panel, ())
        assert panel.list_files() == ["manifest.json"]

    def test_one_whose_client_dies(self, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """As Azure's does without credentials."""
        text = "import os; os.write(2, b'terminate called\\n  what(): no key'); os.abort()"
        monkeypatch.setattr(store_check, "_CHILD", text)
        with pytest.raises(StorageError, match=r"its client died \(what\(\): no key\)"):
            check_store(Storage(silent), writes=True)

    @pytest.mark.parametrize("job", ["panel", "runs"])
    def test_no_credentials_are_one_message(
        self, job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY", raising=False)
        uri = "abfs://c@account.dfs.core.windows.net/x?blob_storage_authority=127.0.0.1:9"
        words = ["--bars", "synthetic"] if job == "panel" else []
        assert main([job, "--storage", f"{uri}&enable_tls=false", *words]) == 2
        shown = capsys.readouterr().err
        assert "abfs://c@account.dfs.core.windows.net/x cannot be used" in shown
        assert "AZURE_STORAGE_ACCOUNT_KEY" in shown
        assert "Traceback" not in shown

    def test_bars_are_asked_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY", raising=False)
        uri = "abfs://c@account.dfs.core.windows.net/x?blob_storage_authority=127.0.0.1:9"
        with pytest.raises(StorageError, match="AZURE_STORAGE_ACCOUNT_KEY"):
            list_files(f"{uri}&enable_tls=false")

    def test_others_are_not(self, silent: str) -> None:
        check_answer(silent)


class TestNames:
    @pytest.mark.parametrize(
        "uri", ["sftp://user@host/x", "smb://host/x", "local:///x", "wasb://x", "viewfs://x/y"]
    )
    def test_what_delta_does_not_support_is_no_storage(self, uri: str) -> None:
        with pytest.raises(StorageError, match=r"cannot be a storage: Delta.* folders, s3://"):
            Storage(uri)

    @pytest.mark.parametrize(
        ("uri", "address", "options"),
        [
            (
                "abfs://c@acc.dfs.core.windows.net/p/q",
                "abfs://c/p/q",
                {"ENDPOINT": "https://acc.blob.core.windows.net", "HTTP": "false"},
            ),
            (
                "abfss://c@acc.dfs.core.chinacloudapi.cn/p",
                "abfs://c/p",
                {"ENDPOINT": "https://acc.blob.core.chinacloudapi.cn", "HTTP": "false"},
            ),
            (
                "abfs://acc.blob.core.windows.net/c/p",
                "abfs://c/p",
                {"ENDPOINT": "https://acc.blob.core.windows.net", "HTTP": "false"},
            ),
            (
                "az://c/p?blob_storage_authority=h:1&enable_tls=false",
                "abfs://c/p",
                {"ENDPOINT": "http://h:1/acc", "HTTP": "true"},
            ),
        ],
    )
    def test_azure(
        self,
        uri: str,
        address: str,
        options: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
        found, given = Storage(uri).find_delta_address()
        assert found == address
        assert given == {
            "AZURE_STORAGE_ACCOUNT_NAME": "acc",
            "AZURE_STORAGE_ENDPOINT": options["ENDPOINT"],
            "AZURE_ALLOW_HTTP": options["HTTP"],
        }

    @pytest.mark.parametrize(
        ("uri", "says"),
        [
            ("abfs://c/p", "names no account"),
            ("abfs://c@acc.elsewhere.net/p", "names no account"),
            ("abfs://c@acc.dfs.core.windows.net/p?buffer_size=1", "has the option.* buffer_size"),
        ],
    )
    def test_azure_without(self, uri: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
        with pytest.raises(StorageError, match=says):
            Storage(uri)

    def test_google(self) -> None:
        uri = "gs://anonymous@b/p?endpoint_override=h:1&scheme=http"
        assert Storage(uri).child("r").find_delta_address() == (
            "gs://b/p/r",
            {
                "GOOGLE_SKIP_SIGNATURE": "true",
                "GOOGLE_BASE_URL": "http://h:1",
                "GOOGLE_ALLOW_HTTP": "true",
            },
        )
        assert Storage("gs://b/p").find_delta_address() == ("gs://b/p", {})
