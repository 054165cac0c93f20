"""One root URI for everything a run reads and writes; files appear whole or not at all.

A laptop's folder and `s3://bucket/prefix` behave the same: local files are written beside
their place and renamed, object stores take one PUT. pyarrow's native filesystems serve
`file`, `s3`, `gs`, `az` and `hdfs`; fsspec serves every other scheme.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow.fs as pafs

from gangru_dist.errors import StorageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")


class RetryingS3FileSystem(pafs.S3FileSystem):  # type: ignore[misc]  # pyarrow is untyped
    """pyarrow's S3 with ten attempts that survive pickling; holds no keys.

    Credentials come from the environment or the node's role wherever it is rebuilt.
    pyarrow forgets the strategy when it pickles an `S3FileSystem`; hence `__reduce__`.
    """

    def __init__(self, options: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(
            retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=10),
            allow_delayed_open=True,
            **dict(options),
        )
        self._gangru_options = options

    def __reduce__(self) -> tuple[Any, ...]:
        return (RetryingS3FileSystem, (self._gangru_options,))


def checked_name(name: str, *, what: str) -> str:
    """Return `name` if it is safe as one path component.

    Raises:
        StorageError: It has a separator, starts with a dot, or is empty.
    """
    if not _NAME.fullmatch(name):
        raise StorageError(
            f"{what} {name!r} cannot be a folder's name. Use letters, digits and . _ = -, "
            "starting with a letter or a digit."
        )
    return name


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Filesystem and path of a URI or a local path.

    Raises:
        StorageError: The scheme is unknown, or its library is not installed.
    """
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme in ("", "file"):
        local = urlsplit(uri).path if scheme else uri
        return pafs.LocalFileSystem(), str(Path(local).expanduser().resolve())
    if scheme == "s3":
        return _resolve_s3(uri)
    try:
        if scheme in ("gs", "gcs", "abfs", "abfss", "hdfs", "viewfs"):
            filesystem, path = pafs.FileSystem.from_uri(uri)
            return filesystem, path
        return _resolve_fsspec(uri)
    except (ValueError, ImportError, OSError) as error:
        raise StorageError(
            f"cannot use {uri!r}: {error}. Known without more: a local path, file://, s3://, "
            "gs://, abfs://, hdfs://; other schemes need their fsspec package installed."
        ) from error


def _resolve_s3(uri: str) -> tuple[pafs.FileSystem, str]:
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    unknown = sorted(set(options) - {"endpoint_override", "region", "scheme"})
    if unknown or parts.username or not parts.netloc:
        raise StorageError(
            f"s3 URI of bucket {parts.hostname!r} has what it may not: "
            f"{unknown or 'user or no bucket'}. Write s3://bucket/prefix?endpoint_override="
            "host:port&region=…&scheme=http; keys come from the environment or the node's role."
        )
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override" not in options:
        options["endpoint_override"] = urlsplit(endpoint).netloc
        options.setdefault("scheme", urlsplit(endpoint).scheme)
    path = parts.netloc + parts.path.rstrip("/")
    return RetryingS3FileSystem(tuple(sorted(options.items()))), path


def _resolve_fsspec(uri: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(uri)
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


class Storage:
    """A folder at a URI. Cheap to make, safe to pickle: it carries the URI alone."""

    def __init__(self, uri: str) -> None:
        self.filesystem, self.path = resolve(uri)
        self.uri = uri if "://" in uri else self.path  # absolute: workers have other folders

    def __reduce__(self) -> tuple[Any, ...]:
        return (Storage, (self.uri,))

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def child(self, *names: str) -> Storage:
        """A folder below this one; each name is checked."""
        tail = "/".join(checked_name(name, what="storage name") for name in names)
        if "://" not in self.uri:
            return Storage(f"{self.path.rstrip('/')}/{tail}")
        base, question, query = self.uri.partition("?")
        return Storage(f"{base.rstrip('/')}/{tail}{question}{query}")

    def full(self, name: str) -> str:
        """Path of `name` (may contain slashes) for `self.filesystem`."""
        if ".." in name.split("/") or name.startswith("/"):
            raise StorageError(f"file name {name!r} would leave {self.uri}.")
        return f"{self.path}/{name}"

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        info = self.filesystem.get_file_info(self.full(name))
        return bool(info.type == pafs.FileType.File)

    def read_bytes(self, name: str) -> bytes:
        """Content of a file; FileNotFoundError if there is none."""
        with self.filesystem.open_input_file(self.full(name)) as file:
            return bytes(file.readall())

    def read_json(self, name: str) -> Any:
        """Content of a JSON file; FileNotFoundError if there is none."""
        return json.loads(self.read_bytes(name))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file so that a reader sees the old one or the new one, never a part."""
        target = self.full(name)
        if not self.is_local:
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(data)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        part = Path(f"{target}.{uuid.uuid4().hex}.part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all; keys keep their order."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.write_bytes(name, text.encode() + b"\n")

    def list_files(self, folder: str = "") -> list[str]:
        """Names below `folder`, sorted, relative to this storage; unfinished writes left out."""
        base = self.full(folder) if folder else self.path
        selector = pafs.FileSelector(base, recursive=True, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        names = [info.path for info in found if info.type == pafs.FileType.File]
        return sorted(name[len(self.path) + 1 :] for name in names if not name.endswith(".part"))

    def delete(self, name: str) -> None:
        """Remove a file; no error if it is gone already."""
        if self.exists(name):
            self.filesystem.delete_file(self.full(name))

    def delete_folder(self, folder: str) -> None:
        """Remove a folder and all below it; no error if it is gone already."""
        info = self.filesystem.get_file_info(self.full(folder))
        if info.type == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.full(folder))
