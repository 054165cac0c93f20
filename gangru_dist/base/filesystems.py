"""Filesystem of a URI: pyarrow's own, S3 with retries, or fsspec for other schemes.

pyarrow serves `file`, `s3`, `gs`, `abfs` and `hdfs`, where a storage may be; fsspec serves every
other scheme, where bars may be. A request that a store refuses for good raises a StorageError that
says what to do.

`open_filesystem` refuses a URI that carries a secret before anybody opens, logs or stores it. What
is logged or raised goes through `sanitize` all the same: libraries and names from data say what
they like.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow.fs as pafs

from gangru_dist.base.errors import StorageError, shorten

_HIDDEN = "***"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
AZURE = ("abfs", "abfss", "az")
GOOGLE = ("gs", "gcs")
_USERS = frozenset(
    {"ftp", "hdfs", "sftp", "smb", "ssh", "viewfs", "webhdfs", "wasb", "wasbs", *AZURE}
)
"""Schemes whose `name@` is a user or a container; elsewhere it may be a key by itself."""
_OPTIONS = {
    "blob_storage_authority", "blob_storage_scheme", "buffer_size", "default_block_size",
    "dfs_storage_authority", "dfs_storage_scheme", "enable_tls", "endpoint_override", "project_id",
    "region", "replication", "retry_limit_seconds", "scheme", "user",
}  # fmt: skip
"""Keys of a query that hold no secret; what is not known may be one."""
_STORES = frozenset(
    {"abfs", "abfss", "adl", "az", "gcs", "gs", "oss", "s3", "s3a", "s3n", "tos", "wasb", "wasbs"}
)
"""Object stores: a file appears when it is complete, and their hosts have no port. What follows a
colon there is a key, even in `KEY:12/34@bucket`."""
_PORT = re.compile(r"[^/:@]*:\d+(/.*)?", re.DOTALL)
_USER = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^{0}/@]*:[^{0}]*|[^{0}/@:]*)@"
"""What stands before the last @ that a password can end with; {0} are the characters that end it.
A password may have a slash in it, as AWS's do: `s3://KEY:SEC/RET@bucket`."""
_USER_IN_TEXT = re.compile(_USER.format(r"\s'\"<>"))
_USER_IN_URI = re.compile(_USER.format(r"\0"))
_SECRET_WORD = re.compile(
    r"(?P<key>[?&;][^=&\s'\"<>]*(?:key|secret|token|sig|password|passwd|pwd|credential|auth(?!ority)|pass)"
    r"[^=&\s'\"<>]*)=[^&\s'\"<>]*",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, colours it, or turns the direction of its text; not tab and
line feed."""


def find_secret(uri: str) -> str | None:
    """Name the part of a URI that is, or may be, a secret; None if there is none.

    Raises:
        ValueError: The host has a [ or ] and is no IPv6 address.
    """
    parts = urlsplit(uri)
    _, colon, port = parts.netloc.rpartition("]")[2].rpartition("@")[2].partition(":")
    is_key = colon and (parts.scheme in _STORES or not (port or "0").isdecimal())
    if is_key or _USER_IN_URI.sub(_hide_user, uri) != uri:
        return "a password or a key"
    unknown = dict(parse_qsl(parts.query, keep_blank_values=True)).keys() - _OPTIONS
    return f"the option(s) {', '.join(sorted(unknown))}" if unknown else None


def redact(text: str) -> str:
    """Put *** for the passwords, keys and secret options of each URI in a text."""
    if "://" not in text:
        return text
    return _SECRET_WORD.sub(rf"\g<key>={_HIDDEN}", _USER_IN_TEXT.sub(_hide_user, text))


def _hide_user(found: re.Match[str]) -> str:
    """Leave names, and the colon of a port as in `host:9000/path@version`."""
    user, scheme = found["user"], found["scheme"].lower()
    is_name = ":" not in unquote(user) and scheme in _USERS
    is_name |= scheme in GOOGLE and user == "anonymous"  # Google's way to give no key
    is_port = scheme not in _STORES | {"file"} and _PORT.fullmatch(user)
    return found[0] if is_name or is_port else f"{found['scheme']}://{_HIDDEN}@"


def sanitize(text: str) -> str:
    """Redact a text and spell out its control characters, so that a terminal may show it."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], redact(text))


A = TypeVar("A")
Place = str | os.PathLike[str]
"""A path or a URI."""
_READ_ATTEMPTS = 6
_AWS = re.compile(
    r"When (?P<what>.*?): AWS Error (?P<code>[A-Z_]+(?: \(HTTP status 411\))?)", re.DOTALL
)
_KEYS = (
    "the store refuses the credentials, or got none. They come from the environment "
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
    "NO_SUCH_BUCKET": "there is no such bucket. Create it, or correct the URI",
    _NO_ANSWER: "the store does not answer. Check AWS_ENDPOINT_URL, endpoint_override "
    "and the network; then run the job again",
    "UNKNOWN (HTTP status 411)": "the store does not know the AWS library's checksums, as older "
    "versions of Ceph. Set AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
    "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required in the environment, on every node",
}
"""AWS error code -> what to do. AWS's own text is left out: it may contain the access key."""
_CUT = re.compile(
    "Failed to flush response stream|error reading a body|end of file before message length"
)
"""An answer that ended too early, as the AWS library and delta-rs put it; neither asks again."""
_HALF_URI = re.compile(r"[a-z][a-z0-9+.-]+:/(?!/)")
_PLACE = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM), "Let this user read and write there, or name another place"
    ),
    errno.EROFS: "Name a place that can be written",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free some space, or name another place"),
    errno.EFBIG: "Raise the limit of a file's size (`ulimit -f`), or name another place",
    **dict.fromkeys(
        (errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTDIR), "Correct the path"
    ),
}
"""Error number of a full disk, or of a path that cannot be used -> what to do."""


@contextmanager
def explain_refusals() -> Iterator[None]:
    """Raise a refusal of a store or a disk, or a broken answer, as StorageError."""
    try:
        yield
    except OSError as error:
        if _CUT.search(str(error)):
            raise StorageError(
                "the store or the network cut an answer short. Run the same command again to "
                "continue."
            ) from None
        found = _AWS.search(str(error))
        if found and (advice := _REFUSALS.get(found["code"])):
            raise StorageError(f"{found['what']}: {found['code']}: {advice}.") from None
        if found or error.errno not in _PLACE:
            raise
        raise StorageError(
            f"{error}. {_PLACE[error.errno]}, then run the same command again to continue."
        ) from error


def is_refused(error: OSError) -> bool:
    """Whether another attempt would fail in the same way."""
    found = _AWS.search(str(error))
    return found is not None and found["code"] in _REFUSALS.keys() - {_NO_ANSWER}


def retry(read: Callable[[], A]) -> A:
    """Return what `read` gives; call it again if a connection was cut within an answer.

    AWS's client and delta-rs repeat requests, but not one whose answer has begun.

    Raises:
        OSError: The last attempt's; one of the disk, or a refusal, at once.
    """
    for attempt in range(_READ_ATTEMPTS - 1):
        try:
            return read()
        except OSError as error:
            if error.errno is not None or isinstance(error, FileNotFoundError) or is_refused(error):
                raise
            time.sleep(0.1 * 2.0**attempt)
    return read()


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
