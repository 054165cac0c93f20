"""Find secrets in URIs before they are opened, logged or stored, and hide them in texts.

Messages of libraries and names from data may hold secrets too, so whatever is logged or raised goes
through `sanitize`.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

_HIDDEN = "***"
AZURE = ("abfs", "abfss", "az")
"""Schemes of Azure's stores."""
GOOGLE = ("gs", "gcs")
"""Schemes of Google's stores."""
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
