"""Explain what stores and disks refuse, with the way out; repeat a read that was cut off."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from gangru_dist.base.errors import StorageError

A = TypeVar("A")
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
