"""Storage of a run at one root URI, with atomic file writes.

A local folder and `s3://bucket/prefix` behave the same: in folders a file is written under a
temporary name and renamed; object stores get a single PUT.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow.fs as pafs

from gangru_dist.base.errors import StorageError, extract_reason
from gangru_dist.base.filesystems import Place, open_filesystem, to_uri
from gangru_dist.base.redaction import AZURE, GOOGLE
from gangru_dist.base.refusals import explain_refusals, is_refused, retry

_logger = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")
READERS = 16
"""Small files that a job reads at once: of a distant store, each is two answers to wait for."""
_LIST_ATTEMPTS = 5
"""Attempts to list a folder while another job deletes files in it, e.g. old checkpoints."""
_WRITE_ATTEMPTS = 3
_PART = re.compile(r".*\.[0-9a-f]{32}\.part")
_OLD_SECONDS = 7 * 86400
"""Longer than any job takes: who wrote a `.part` file then is dead, whatever clock says so."""
_clean: set[Path] = set()
"""Folders in which this process has looked for such files."""


def check_name(name: str, *, what: str) -> str:
    """Return `name` if it is safe as one path component.

    Raises:
        StorageError: It has a separator, starts with a dot, or is empty.
    """
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise StorageError(
            f"{what} {name!r} cannot be a folder name. Use letters, digits and . _ = -, "
            "starting with a letter or a digit."
        )
    return name


def split_uri(place: str) -> tuple[str, str]:
    """Folder and name of a file's path or URI; the folder of a bare name is the working one.

    Raises:
        StorageError: It ends in a slash: a folder.
    """
    folder, _, name = place.rpartition("/")
    if not name:
        raise StorageError(f"{place!r} names a folder. Give a file in it, such as {place}table.csv")
    return folder or ("/" if place.startswith("/") else "."), name


def _make_clean(folder: Path) -> None:
    """Make a folder, or remove what writes that were killed have left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder in _clean:
        return
    _clean.add(folder)
    for file in folder.iterdir():
        if _PART.fullmatch(file.name):
            with suppress(OSError):  # gone, or not ours to delete
                if time.time() - file.stat().st_mtime > _OLD_SECONDS:
                    file.unlink()


class Storage:
    """A folder at a URI. Cheap to make and to pickle: only the URI is stored."""

    def __init__(self, uri: Place) -> None:
        uri = to_uri(uri, what="the storage")
        self.filesystem, self.path = open_filesystem(uri, for_storage=True)
        # HDFS shows a file while it is written; object stores do not
        self._write_beside = isinstance(self.filesystem, pafs.HadoopFileSystem)
        self.uri = uri if "://" in uri else self.path  # absolute: workers have other folders

    def __reduce__(self) -> tuple[Any, ...]:
        return (Storage, (self.uri,))

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def child(self, *names: str) -> Storage:
        """A folder below this one; each name is checked."""
        tail = "/".join(check_name(name, what="storage name") for name in names)
        if "://" not in self.uri:
            return Storage(f"{self.path.rstrip('/')}/{tail}")
        base, question, query = self.uri.partition("?")
        return Storage(f"{base.rstrip('/')}/{tail}{question}{query}")

    def full_path(self, name: str) -> str:
        """Path of `name`, which may contain slashes, for `self.filesystem`."""
        if ".." in name.split("/") or name.startswith("/"):
            raise StorageError(f"file name {name!r} would leave {self.uri}.")
        return "/".join([self.path, *filter(None, name.split("/"))])  # a//b is a/b, as in a folder

    def exists(self, name: str) -> bool:
        """Whether the file exists."""
        return self._is_file(self.full_path(name))

    def _is_file(self, path: str) -> bool:
        return bool(self.filesystem.get_file_info(path).type == pafs.FileType.File)

    def read_bytes(self, name: str) -> bytes:
        """Content of a file; FileNotFoundError if it does not exist.

        Raises:
            StorageError: The store refuses, the file may not be read, or it is a folder.
        """
        path = self.full_path(name)

        def read() -> bytes:
            if self.is_local and Path(path).is_dir():
                raise StorageError(
                    f"{path} is a folder, not a file of ours. Move it away, then run the job again."
                )
            with self.filesystem.open_input_file(path) as file:
                return bytes(file.readall())

        with explain_refusals():
            return retry(read)

    def read_json(self, name: str) -> Any:
        """Content of a JSON file; FileNotFoundError if it does not exist."""
        return json.loads(self.read_bytes(name))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file atomically: a reader sees the old content or the new, never a part.

        Raises:
            StorageError: The store refuses, the disk is full, or the path is not writable.
        """
        with explain_refusals():
            write = self._write_local if self.is_local else self._upload
            write(self.full_path(name), data)

    def _write_local(self, target: str, data: bytes) -> None:
        """Write under a temporary name, then rename; again if the folder went meanwhile.

        As a task's checkpoints do when another job has finished its model.
        """
        try:
            self._write_and_rename(target, data)
        except FileNotFoundError:
            self._write_and_rename(target, data)

    def _write_and_rename(self, target: str, data: bytes) -> None:
        _make_clean(Path(target).parent)
        part = Path(f"{target}.{uuid.uuid4().hex}.part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def _upload(self, target: str, data: bytes) -> None:
        """Write to a remote store; on a network error, write the whole file again.

        AWS's own ten attempts cover one part and one response each; an overloaded store or a lost
        response can outlast them.
        """
        put = self._put_and_move if self._write_beside else self._put
        for attempt in range(_WRITE_ATTEMPTS):
            try:
                put(target, data)
                return
            except OSError as error:
                if attempt == _WRITE_ATTEMPTS - 1 or is_refused(error):
                    raise
                time.sleep(2.0**attempt)

    def _put(self, target: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(target) as stream:
            stream.write(data)

    def _put_and_move(self, target: str, data: bytes) -> None:
        """Write under a temporary name, then move, also where a move cannot replace a file."""
        part = f"{target}.{uuid.uuid4().hex}.part"
        self.filesystem.create_dir(target.rpartition("/")[0], recursive=True)
        try:
            self._put(part, data)
            self.filesystem.move(part, target)
            if self._is_file(part):
                with suppress(FileNotFoundError):
                    self.filesystem.delete_file(target)
                self.filesystem.move(part, target)
            if not self._is_file(target):
                raise OSError(f"{part} cannot be renamed to {target}.")
        finally:
            if self._is_file(part):
                self.filesystem.delete_file(part)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file atomically; keys keep their order."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.write_bytes(name, text.encode() + b"\n")

    def list_files(self, folder: str = "") -> list[str]:
        """List names below `folder`, sorted, relative to this storage; no unfinished writes."""
        return sorted(self.list_infos(folder))

    def list_infos(self, folder: str = "") -> dict[str, pafs.FileInfo]:
        """List the same names, each with its size and the time of its last write if known."""
        return {
            info.path[len(self.path.rstrip("/")) + 1 :]: info
            for info in self._below(self.full_path(folder) if folder else self.path)
            if info.type == pafs.FileType.File and not info.path.endswith(".part")
        }

    def _below(self, base: str) -> list[pafs.FileInfo]:
        """Everything below a folder; listed again if files are deleted meanwhile."""
        selector = pafs.FileSelector(base, recursive=True, allow_not_found=True)
        for _ in range(_LIST_ATTEMPTS - 1):
            with suppress(FileNotFoundError):
                return list(self.filesystem.get_file_info(selector))
        return list(self.filesystem.get_file_info(selector))

    def delete(self, name: str) -> None:
        """Delete a file; no error if it does not exist."""
        if self.exists(name):  # HDFS gives an input/output error if it does not
            with suppress(FileNotFoundError):  # another job deleted it first
                self.filesystem.delete_file(self.full_path(name))

    def delete_unfinished(self, before: dt.datetime) -> None:
        """Delete unfinished writes that were begun before a time: whoever wrote them is dead."""
        for info in self._below(self.path):
            if _PART.fullmatch(info.path) and info.mtime is not None and info.mtime < before:
                with suppress(FileNotFoundError):
                    self.filesystem.delete_file(info.path)

    def discard(self, name: str) -> None:
        """Delete a file or a folder that only uses disk; if the store refuses, log that alone."""
        try:
            self.delete(name)
            self.delete_folder(name)
        except (OSError, StorageError) as error:
            text = "left_behind place=%s reason=%s"
            _logger.warning(text, self.full_path(name), extract_reason(error))

    def delete_folder(self, folder: str) -> None:
        """Delete a folder and its content; no error if it does not exist."""
        info = self.filesystem.get_file_info(self.full_path(folder))
        if info.type == pafs.FileType.Directory:
            with suppress(
                FileNotFoundError
            ):  # Google's, last, of the folder's mark: nobody set one
                self.filesystem.delete_dir(self.full_path(folder))

    def find_delta_address(self) -> tuple[str, dict[str, str]]:
        """URI and options of this folder for delta-rs; credentials come from the environment."""
        scheme, given = urlsplit(self.uri).scheme, getattr(self.filesystem, "options", ())
        if self.is_local:
            return self.path, {}
        if scheme == "hdfs":
            return self.uri.partition("?")[0], {}
        query = dict(parse_qsl(urlsplit(self.uri).query)) | dict(given)
        if scheme in AZURE:
            account, domain = query["account_name"], query["blob_storage_authority"]
            host = f"{account}{domain}" if domain.startswith(".") else f"{domain}/{account}"
            protocol = query["blob_storage_scheme"]
            endpoint = f"{protocol}://{host}"
            return f"abfs://{self.path}", {
                "AZURE_STORAGE_ACCOUNT_NAME": account,
                "AZURE_STORAGE_ENDPOINT": endpoint,
                "AZURE_ALLOW_HTTP": str(protocol == "http").lower(),
            }
        options = {"AWS_REGION": query["region"]} if "region" in query else {}
        if scheme in GOOGLE and urlsplit(self.uri).username == "anonymous":
            options["GOOGLE_SKIP_SIGNATURE"] = "true"
        if "endpoint_override" in query:
            protocol = query.get("scheme", "https")
            cloud, name = ("GOOGLE", "BASE_URL") if scheme in GOOGLE else ("AWS", "ENDPOINT_URL")
            options[f"{cloud}_{name}"] = f"{protocol}://{query['endpoint_override']}"
            options[f"{cloud}_ALLOW_HTTP"] = str(protocol == "http").lower()
            if scheme == "s3" and not os.environ.get("AWS_ACCESS_KEY_ID"):
                options["AWS_FORCE_CREDENTIAL_LOAD"] = "true"  # else only the node's role is tried
        return f"{scheme}://{self.path}", options
