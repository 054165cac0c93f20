"""What a URI says, and what of it may be seen: one parser, one redaction, for every scheme.

A URI that carries a secret is refused before anybody opens, logs or stores it
(`filesystems.resolve`); what is logged or raised goes through `safe` all the same, for libraries
and names from data say what they like.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

HIDDEN = "***"
_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_USERS = frozenset(
    {"abfs", "abfss", "ftp", "hdfs", "sftp", "smb", "ssh", "viewfs", "webhdfs", "wasb", "wasbs"}
)
"""Schemes whose `name@` is a user or a container; elsewhere it may be a key by itself."""
_OPTIONS = frozenset(
    {
        "blob_storage_authority",
        "blob_storage_scheme",
        "buffer_size",
        "default_block_size",
        "dfs_storage_authority",
        "dfs_storage_scheme",
        "enable_tls",
        "endpoint_override",
        "project_id",
        "region",
        "replication",
        "retry_limit_seconds",
        "scheme",
        "user",
    }
)
"""Keys of a query that hold no secret; what is not known may be one."""
_STORES = frozenset(
    {"abfs", "abfss", "adl", "az", "gcs", "gs", "oss", "s3", "s3a", "s3n", "tos", "wasb", "wasbs"}
)
"""Schemes whose host has no port: what follows a colon there is a key, even `KEY:12/34@bucket`."""
_PORT = re.compile(r"[^/:@]*:\d+(/.*)?", re.DOTALL)
_IN_TEXT = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<user>[^\s'\"<>/@]*:[^\s'\"<>]*|[^\s'\"<>/@:]*)@"
)
_SECRET_WORD = re.compile(
    r"(?P<key>[?&;][^=&\s'\"<>]*(?:key|secret|token|sig|password|passwd|pwd|credential|auth|pass)"
    r"[^=&\s'\"<>]*)=[^&\s'\"<>]*",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, colours it, or turns the direction of its text; not tab and
line feed."""


@dataclass(frozen=True)
class Uri:
    """Parts of `scheme://user@host/path?query`, as they stand."""

    scheme: str
    """In small letters."""
    user: str
    """Before the @, a colon and what follows it included; empty if there is none."""
    host: str
    """With its port; of an object store the bucket."""
    path: str
    query: dict[str, str]
    fragment: str

    @property
    def secret(self) -> str | None:
        """Which part is, or may be, a secret; None if none is."""
        if ":" in unquote(self.user) or not self._has_plain_host:
            return "a password"
        if self.user and self.scheme not in _USERS:
            return "a user or a key"
        unknown = sorted(set(self.query) - _OPTIONS)
        return f"the option(s) {', '.join(unknown)}" if unknown else None

    @property
    def shown(self) -> str:
        """The URI without what may be secret."""
        return f"{self.scheme}://{self.host if self._has_plain_host else HIDDEN}{self.path}"

    @property
    def _has_plain_host(self) -> bool:
        """False of what stands before a password's # or ?, as in `s3://KEY:SEC#RET@bucket`."""
        _, colon, port = self.host.rpartition("]")[2].partition(":")
        if not colon:
            return True
        later = "".join((self.fragment, *self.query, *self.query.values()))
        return self.scheme not in _STORES and (port or "0").isdecimal() and "@" not in later


def parse(text: str) -> Uri | None:
    """Parts of a URI; None of a plain path, which has no `scheme://`.

    A password may have a slash in it, as AWS's do: `s3://KEY:SEC/RET@bucket` names a bucket, not a
    host `KEY` with a port.
    """
    found = _URI.fullmatch(text)
    if found is None:
        return None
    parts = urlsplit(text)
    place = found["rest"].partition("?")[0].partition("#")[0]
    authority, slash, path = place.partition("/")
    user, at, host = authority.rpartition("@")
    if not at and ":" in authority and "@" in path and not _is_port(parts.scheme, place):
        user, _, rest = place.rpartition("@")
        host, slash, path = rest.partition("/")
    return Uri(
        scheme=parts.scheme,
        user=user,
        host=host,
        path=slash + path,
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        fragment=parts.fragment,
    )


def _is_port(scheme: str, place: str) -> bool:
    """Whether the colon in `host:9000/path@version` is of a port."""
    return scheme not in _STORES and bool(_PORT.fullmatch(place))


def redacted(text: str) -> str:
    """The same text; in each URI of it, *** for passwords, keys and what options hold of them."""
    if "://" not in text:
        return text
    return _SECRET_WORD.sub(rf"\g<key>={HIDDEN}", _IN_TEXT.sub(_hidden, text))


def _hidden(found: re.Match[str]) -> str:
    user, scheme = found["user"], found["scheme"].lower()
    is_name = ":" not in unquote(user) and scheme in _USERS
    return found[0] if is_name or _is_port(scheme, user) else f"{found['scheme']}://{HIDDEN}@"


def safe(text: str) -> str:
    """What may be shown on a terminal: `redacted`, and control characters in words."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], redacted(text))
