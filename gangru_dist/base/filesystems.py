"""Filesystem of a URI: pyarrow's own, S3 with retries, or fsspec for other schemes.

pyarrow serves `file`, `s3`, `gs`, `abfs` and `hdfs`, which may hold a storage; fsspec serves every
other scheme, which may hold bars. `open_filesystem` refuses a URI that carries a secret.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow.fs as pafs

from gangru_dist.base.errors import StorageError, shorten
from gangru_dist.base.redaction import AZURE, GOOGLE, find_secret, redact
from gangru_dist.base.refusals import explain_refusals

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
Place = str | os.PathLike[str]
"""A path or a URI."""
_HALF_URI = re.compile(r"[a-z][a-z0-9+.-]+:/(?!/)")


class RetryingS3FileSystem(pafs.S3FileSystem):  # type: ignore[misc]  # pyarrow is untyped
    """pyarrow's S3 filesystem with ten attempts, also after pickling; holds no keys.

    Credentials come from the environment or the role of the node where it is unpickled.
    pyarrow loses the retry strategy when it pickles an `S3FileSystem`; hence `__reduce__`.
    """

    def __init__(self, options: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(
            retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=10),
            allow_delayed_open=True,
            **dict(options),
        )
        self.options = options

    def __reduce__(self) -> tuple[Any, ...]:
        return (RetryingS3FileSystem, (self.options,))

    # As pyarrow's, but a refusal is a StorageError.
    get_file_info = explain_refusals()(pafs.S3FileSystem.get_file_info)
    open_input_file = explain_refusals()(pafs.S3FileSystem.open_input_file)
    open_input_stream = explain_refusals()(pafs.S3FileSystem.open_input_stream)
    delete_file = explain_refusals()(pafs.S3FileSystem.delete_file)
    delete_dir = explain_refusals()(pafs.S3FileSystem.delete_dir)


class KeylessAzureFileSystem(pafs.AzureFileSystem):  # type: ignore[misc]  # pyarrow is untyped
    """pyarrow's Azure filesystem; holds no key, also after pickling.

    The account's key comes from AZURE_STORAGE_ACCOUNT_KEY where it is unpickled; without one,
    Azure's default credentials count: variables, workload or managed identity.
    """

    def __init__(self, options: tuple[tuple[str, str], ...]) -> None:
        key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY")
        super().__init__(account_key=key, **dict(options))
        self.options = options

    def __reduce__(self) -> tuple[Any, ...]:
        return (KeylessAzureFileSystem, (self.options,))


def to_uri(place: object, *, what: str = "a place") -> str:
    """Return the text of a URI or path; StorageError if it is neither text nor a `Path`."""
    if isinstance(place, str | os.PathLike) and isinstance(text := os.fspath(place), str):
        return text
    raise StorageError(
        f"{what} is given as a {type(place).__name__}. Give a path or a URI as text, or a Path."
    )


def open_filesystem(uri: str, *, for_storage: bool = False) -> tuple[pafs.FileSystem, str]:
    """Open the filesystem of a URI or a local path, and return it with the path there.

    A plain path is taken literally; in a file:// URI, %20 is a space.

    Args:
        uri: Where.
        for_storage: Refuse at once what can hold no factor table.

    Raises:
        StorageError: The scheme is unknown, its library is not installed, or the URI would not
            lead to the place it seems to name.
    """
    if not uri:
        raise StorageError("the path is empty. Name a folder or a URI.")
    if not _URI.match(uri):
        _check_path(uri)
        return pafs.LocalFileSystem(), _local_path(uri)
    try:
        place, secret = urlsplit(uri), find_secret(uri)
    except ValueError:
        raise StorageError("a URI has a [ or ] in its host. Write %5B or %5D instead.") from None
    shown = redact(uri).partition("?")[0].partition("#")[0]
    _check_uri(uri, place, shown, secret)
    if place.scheme == "file":
        return pafs.LocalFileSystem(), _local_path(unquote(place.path))
    if place.scheme == "s3":
        return _open_s3(place, shown)
    if place.scheme in AZURE:
        return _open_azure(place, shown)
    if for_storage and place.scheme not in (*GOOGLE, "hdfs"):
        raise StorageError(
            f"{shown!r} cannot be a storage: Delta, which keeps the factor table, supports local "
            "folders, s3://, gs://, abfs:// and hdfs://. Bars may be elsewhere."
        )
    try:
        if place.scheme in (*GOOGLE, "hdfs", "viewfs"):
            filesystem, path = pafs.FileSystem.from_uri(uri)
            return filesystem, path
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(uri)
        return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path
    except Exception as error:  # noqa: BLE001  # each scheme's library has errors of its own
        advice = (
            "Check the host's name, and that this machine reaches it"
            if isinstance(error, OSError)
            else "Built in are a local path, file://, s3://, gs://, abfs:// and hdfs://; other "
            "schemes need their fsspec package"
        )
        raise StorageError(
            f"cannot use {shown!r}: {shorten(error)}. {advice}."
        ) from None  # the library may repeat the URI


def _check_path(path: str) -> None:
    """Refuse a path that seems to be a URI, or that the system's encoding does not hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise StorageError(
            f"the path {path!r} is not UTF-8. Rename the folder, or set PYTHONUTF8=1 in the "
            "environment."
        ) from None
    if _HALF_URI.match(path):
        raise StorageError(
            f"{path.rpartition('@')[2]!r} is an incomplete URI. Write two slashes after the "
            "colon (file:///path has three), or put ./ before a folder name."
        )
    if "::" in path and "://" in path:
        raise _explain_archive(path)
    if "://" in path:
        raise StorageError(
            f"{path.rpartition('@')[2].partition('?')[0]!r} is no URI: only the name of a "
            "scheme may stand before ://, as in s3://bucket/prefix."
        )


def _check_uri(uri: str, place: SplitResult, shown: str, secret: str | None) -> None:
    """Refuse a URI that carries a secret, or would silently lead elsewhere."""
    if place.scheme == "file" and (place.netloc not in ("", "localhost") or place.query):
        raise StorageError(
            f"{shown!r} contains a host or a query, and only {urlsplit(shown).path!r} would be "
            "used. Write file:///path (%3F for a question mark), or the plain path."
        )
    if place.scheme in ("s3", *GOOGLE, *AZURE) and not place.netloc:
        query = "?region=…" if place.scheme == "s3" else ""
        raise StorageError(
            f"{shown!r} names no bucket. Write {place.scheme}://bucket/prefix{query}"
        )
    if place.scheme in _ARCHIVES and (not secret or "::/" in uri):  # a chain has colons
        raise _explain_archive(uri)
    if secret:
        raise StorageError(
            f"{shown!r} comes with {secret}, but a URI is logged and stored. Keys and "
            "passwords belong in the environment, the library's own files or the node's role; a "
            "'@' or ':' that is part of a name goes after the first slash."
        )
    if place.scheme in ("http", "https"):
        raise StorageError(
            f"{shown!r} is a web address: it cannot be listed, and takes no files. Download the "
            "files, and name their folder."
        )
    if place.scheme == "memory":
        raise StorageError(
            f"{shown!r} is the memory of one process, which no other job or worker can "
            "read. Name a folder or a store."
        )
    if "#" in uri:
        raise StorageError(
            f"{shown!r} contains '#', which ends the path of a URI, so all folders below "
            "would be the same. Use a folder without it (in a file:// URI, write %23)."
        )


def _explain_archive(uri: str) -> StorageError:
    return StorageError(
        f"{uri.partition('://')[0]}:// names a place within a file or another place, which cannot "
        "be listed or written from several nodes. Unpack or copy it, and name the folder."
    )


_ARCHIVES = ("zip", "tar", "libarchive", "reference", "dir")
"""Schemes of what lies within another file."""
_NO_FOLDERS = ("/proc", "/sys", "/dev")
_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes


def _local_path(path: str) -> str:
    """Return the absolute path; refuse the system's own folders."""
    try:
        found = Path(path).expanduser().resolve()
    except (RuntimeError, OSError, ValueError) as error:  # no such user, no working folder
        raise StorageError(
            f"{path[:200]!r} leads nowhere: {shorten(error)}. Give an absolute path."
        ) from None
    if len(raw := os.fsencode(found)) > _LONGEST_PATH or (
        max(map(len, raw.split(b"/"))) > _LONGEST_NAME
    ):
        raise StorageError(
            f"the path {path[:60]!r}... is too long: {len(raw)} bytes, and a system takes "
            f"{_LONGEST_NAME} a name and {_LONGEST_PATH} in all. Name a shorter one."
        )
    tops = {str(top) for top in (found, *found.parents)}
    if tops & set(_NO_FOLDERS) and "/dev/shm" not in tops:
        raise StorageError(f"{str(found)!r} is a system folder. Name another.")
    return str(found)


def _open_s3(place: SplitResult, shown: str) -> tuple[pafs.FileSystem, str]:
    options = dict(parse_qsl(place.query, keep_blank_values=True))
    unknown = sorted(set(options) - {"endpoint_override", "region", "scheme"})
    if unknown:
        raise StorageError(
            f"{shown!r} has the option(s) {', '.join(unknown)}. Known are "
            "endpoint_override=host:port, region and scheme=http."
        )
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override" not in options:
        options["endpoint_override"] = urlsplit(endpoint).netloc
        options.setdefault("scheme", urlsplit(endpoint).scheme)
    path = "/".join(filter(None, (place.netloc + place.path).split("/")))  # a//b is a/b
    return RetryingS3FileSystem(tuple(sorted(options.items()))), path


def _open_azure(place: SplitResult, shown: str) -> tuple[pafs.FileSystem, str]:
    """Open `container@account.dfs.core.windows.net/path`, or of another of Azure's clouds.

    `container/path` is of the account that AZURE_STORAGE_ACCOUNT_NAME names.
    """
    given = dict(parse_qsl(place.query, keep_blank_values=True))
    container, at, host = place.netloc.rpartition("@")
    if not at and "." not in host:
        container, host = host, os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    account, _, domain = host.partition(".")
    service, _, cloud = domain.partition(".")
    known = {"blob_storage_authority", "dfs_storage_authority", "enable_tls"}
    unknown = ", ".join(sorted(given.keys() - known))
    if unknown or not account or (domain and service not in ("blob", "dfs")):
        raise StorageError(
            f"{shown!r} {f'has the option(s) {unknown}' if unknown else 'names no account'}. "
            "Write abfs://container@account.dfs.core.windows.net/path; a private endpoint or an "
            "emulator follows as ?blob_storage_authority=host:port&enable_tls=false"
        )
    blob = given.get("blob_storage_authority", f".blob.{cloud or 'core.windows.net'}")
    dfs = f".dfs.{cloud or 'core.windows.net'}" if blob.startswith(".blob.") else blob
    scheme = "http" if given.get("enable_tls") == "false" else "https"
    options = {
        "account_name": account,
        "blob_storage_authority": blob,
        "blob_storage_scheme": scheme,
        "dfs_storage_authority": given.get("dfs_storage_authority", dfs),
        "dfs_storage_scheme": scheme,
    }
    path = "/".join(filter(None, (container + place.path).split("/")))
    return KeylessAzureFileSystem(tuple(options.items())), path
