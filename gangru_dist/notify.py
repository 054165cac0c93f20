"""Tells another program how a job ended: one POST of JSON, never a reason to fail."""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

_logger = logging.getLogger(__name__)
_ATTEMPTS, _SECONDS = 3, 10.0
_AS_THEY_ARE = "%:/?#[]@!$&'()*+,;="
"""What a URL is made of; other letters, such as Chinese ones, are percent-encoded."""


def address(text: str) -> str:
    """A URL on the command line; only the web's."""
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.netloc.isascii():
        raise argparse.ArgumentTypeError(f"{text!r} is not an http or https URL")
    return quote(text, safe=_AS_THEY_ARE)


def post(url: str, result: Mapping[str, Any]) -> bool:
    """Send a result; False, and a warning, if nobody took it.

    The log names the host alone: the rest of such a URL is often a secret.
    """
    body = json.dumps(result, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json"}
    for attempt in range(_ATTEMPTS):
        try:
            request = urllib.request.Request(url, body, headers, method="POST")
            with urllib.request.urlopen(request, timeout=_SECONDS):
                return True
        except (ValueError, http.client.InvalidURL):  # whose text has the URL, perhaps a secret
            reason = "the URL cannot be used"
            break
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            time.sleep(attempt)
    _logger.warning("not_notified host=%s error=%s", urlsplit(url).hostname, reason)
    return False
