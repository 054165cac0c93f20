"""One root URI for everything a run reads and writes; files appear whole or not at all.

A laptop's folder and `s3://bucket/prefix` behave the same: files are written beside their place
and renamed, object stores take one PUT. pyarrow's native filesystems serve
`file`, `s3`, `gs`, `az` and `hdfs`; fsspec serves every other scheme.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow.fs as pafs

from gangru_dist.errors import StorageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")
_AWS = re.compile(r"When (?P<what>.*?): AWS Error (?P<code>[A-Z_]+)", re.DOTALL)
_KEYS = (
    "the store refuses the credentials it was given, or got none. They come from the environment "
    "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE) or the node's "
    "role, on every node"
)
_NO_ANSWER = "NETWORK_CONNECTION"
_REFUSALS = {
    "ACCESS_DENIED": _KEYS,
    "EXPIRED_TOKEN": _KEYS,
    "INVALID_ACCESS_KEY_ID": _KEYS,
    "INVALID_CLIENT_TOKEN_ID": _KEYS,
    "SIGNATURE_DOES_NOT_MATCH": _KEYS,
    "NO_SUCH_BUCKET": "there is no such bucket. Create it, or mend the URI",
    _NO_ANSWER: "the store does not answer. Check AWS_ENDPOINT_URL, endpoint_override "
    "and the network; then run the job again",
}
"""AWS's code -> what to do. Its own text is left out: it may name the access key."""
_LIST_ATTEMPTS = 5
"""Of a listing whose folders vanish under it, as another job's old checkpoints do."""
_WRITE_ATTEMPTS = 3
_WHOLE_WHEN_CLOSED = frozenset(
    {"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oss", "s3", "s3a"}
)
"""fsspec's names of stores that show a file once all of it is there."""


@contextmanager
def clear_refusals() -> Iterator[None]:
    """Turn what a store refuses for good into a StorageError; other errors pass."""
    try:
        yield
    except OSError as error:
        found = _AWS.search(str(error))
        if found is None or found["code"] not in _REFUSALS:
            raise
        advice = _REFUSALS[found["code"]]
        raise StorageError(f"{found['what']}: {found['code']}: {advice}.") from None


def _is_refused(error: OSError) -> bool:
    """Whether the store will say the same again."""
    found = _AWS.search(str(error))
    return found is not None and found["code"] in _REFUSALS.keys() - {_NO_ANSWER}


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

    def get_file_info(self, paths_or_selector: Any) -> Any:
        """As pyarrow's; a refusal is a StorageError. So are those of the following."""
        with clear_refusals():
            return super().get_file_info(paths_or_selector)

    def open_input_file(self, path: str) -> Any:
        """A file for random access."""
        with clear_refusals():
            return super().open_input_file(path)

    def open_input_stream(self, path: str, **options: Any) -> Any:
        """A file to read from its start."""
        with clear_refusals():
            return super().open_input_stream(path, **options)

    def delete_file(self, path: str) -> None:
        """Remove a file."""
        with clear_refusals():
            super().delete_file(path)

    def delete_dir(self, path: str) -> None:
        """Remove a folder and what is below it."""
        with clear_refusals():
            super().delete_dir(path)


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

    A path is taken as it stands; in a file:// URI, %20 is a blank.

    Raises:
        StorageError: The scheme is unknown, its library is not installed, or the URI has a `#`.
    """
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme and "#" in uri:
        shown = uri.rpartition("@")[2]  # without user and password
        raise StorageError(
            f"{shown!r} has a '#', and what follows one is no part of a URI's path: all folders "
            "below would be the same. Take a folder without it (in a file:// URI, write %23)."
        )
    if scheme in ("", "file"):
        local = unquote(urlsplit(uri).path) if scheme else uri
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
    path = "/".join(filter(None, (parts.netloc + parts.path).split("/")))  # no store keeps a//b
    return RetryingS3FileSystem(tuple(sorted(options.items()))), path


def _resolve_fsspec(uri: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(uri)
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


def _move(filesystem: pafs.FileSystem, source: str, target: str) -> None:
    """Move a file; where its new name must be free and is not, leave it."""
    if not isinstance(filesystem, pafs.PyFileSystem):
        filesystem.move(source, target)
        return
    try:
        filesystem.handler.fs.mv(source, target)  # pyarrow adds an argument that sftp's mv lacks
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise


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

    @property
    def _grows_in_sight(self) -> bool:
        """Whether a reader sees a file before it is whole: no object store, and not local."""
        if isinstance(self.filesystem, pafs.PyFileSystem):
            protocol = self.filesystem.handler.fs.protocol
            names = {protocol} if isinstance(protocol, str) else set(protocol)
            return not names & _WHOLE_WHEN_CLOSED
        return isinstance(self.filesystem, pafs.HadoopFileSystem)

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
        return "/".join([self.path, *filter(None, name.split("/"))])  # a//b is a/b, as in a folder

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return self._is_file(self.full(name))

    def _is_file(self, path: str) -> bool:
        return bool(self.filesystem.get_file_info(path).type == pafs.FileType.File)

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
            self._upload(target, data)
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

    def _upload(self, target: str, data: bytes) -> None:
        """One PUT, or a large file's parts; the whole again if the network failed a part for good.

        AWS's own ten attempts are of one part and one answer each; a busy store, or an answer
        that was lost, can outlast them.
        """
        put = self._put_and_move if self._grows_in_sight else self._put
        with clear_refusals():
            for attempt in range(_WRITE_ATTEMPTS):
                try:
                    put(target, data)
                    return
                except OSError as error:
                    if attempt == _WRITE_ATTEMPTS - 1 or _is_refused(error):
                        raise
                    time.sleep(2.0**attempt)

    def _put(self, target: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(target) as stream:
            stream.write(data)

    def _put_and_move(self, target: str, data: bytes) -> None:
        """Write beside the place, then move there, also where only a free name can be moved to."""
        part = f"{target}.{uuid.uuid4().hex}.part"
        self.filesystem.create_dir(target.rpartition("/")[0], recursive=True)
        try:
            self._put(part, data)
            _move(self.filesystem, part, target)
            if self._is_file(part):
                with suppress(FileNotFoundError):
                    self.filesystem.delete_file(target)
                _move(self.filesystem, part, target)
            if not self._is_file(target):
                raise OSError(f"{target} was written as {part} and cannot be moved to its place.")
        finally:
            if self._is_file(part):
                self.filesystem.delete_file(part)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all; keys keep their order."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.write_bytes(name, text.encode() + b"\n")

    def list_files(self, folder: str = "") -> list[str]:
        """Names below `folder`, sorted, relative to this storage; unfinished writes left out."""
        base = self.full(folder) if folder else self.path
        names = [info.path for info in self._below(base) if info.type == pafs.FileType.File]
        return sorted(name[len(self.path) + 1 :] for name in names if not name.endswith(".part"))

    def _below(self, base: str) -> list[pafs.FileInfo]:
        """Everything below a folder; listed again if a part of it is deleted meanwhile."""
        selector = pafs.FileSelector(base, recursive=True, allow_not_found=True)
        for _ in range(_LIST_ATTEMPTS - 1):
            with suppress(FileNotFoundError):
                return list(self.filesystem.get_file_info(selector))
        return list(self.filesystem.get_file_info(selector))

    def delete(self, name: str) -> None:
        """Remove a file; no error if it is gone already."""
        if self.exists(name):
            with suppress(FileNotFoundError):  # another was faster
                self.filesystem.delete_file(self.full(name))

    def delete_folder(self, folder: str) -> None:
        """Remove a folder and all below it; no error if it is gone already."""
        info = self.filesystem.get_file_info(self.full(folder))
        if info.type == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.full(folder))
