"""Tells another program how a job ended: one POST of JSON, never a reason to fail."""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import string
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

_logger = logging.getLogger(__name__)
_ATTEMPTS, _SECONDS = 3, 10.0


def address(text: str) -> str:
    """A URL on the command line; only the web's."""
    try:
        parts = urlsplit(_encoded(text))
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http or https URL")
    return text


def _encoded(url: str) -> str:
    """The URL in ASCII, as it is sent; what is encoded already stays. ValueError if it is none."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    port = "" if parts.port is None else f":{parts.port}"
    user, path, query = (
        quote(text, safe=string.punctuation) for text in (user, parts.path, parts.query)
    )
    return urlunsplit((parts.scheme, f"{user}{at}{host}{port}", path, query, ""))


def post(url: str, result: Mapping[str, Any]) -> bool:
    """Send a result; False, and a warning, if nobody took it.

    The log names the host alone: the rest of such a URL is often a secret.
    """
    # a path may have bytes that are no text: JSON has an escape for them
    body = json.dumps(result, ensure_ascii=False).encode(errors="backslashreplace")
    headers = {"Content-Type": "application/json"}
    for attempt in range(_ATTEMPTS):
        try:
            request = urllib.request.Request(_encoded(url), body, headers, method="POST")
            with urllib.request.urlopen(request, timeout=_SECONDS):
                return True
        except (ValueError, http.client.InvalidURL):  # what they say may repeat the URL
            reason = "the URL cannot be used"
            break
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            time.sleep(attempt)
    _logger.warning("not_notified host=%s error=%s", _host(url), reason)
    return False


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
