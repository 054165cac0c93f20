"""Check a store before a job begins: it takes seconds and gives one message.

| what is missing | what happened without the check |
|---|---|
| credentials for gs:// | three waits of 15 minutes each, deaf to SIGTERM |
| credentials for abfs:// | Azure's library aborts the process |
| hard links in a folder (CIFS, exFAT, some FUSE mounts) | hours of training, then no commit |
| writes that never replace a file | of two jobs that commit at once, one is lost |

A child process with a time limit asks a remote store, since neither a wait nor an abort in C++ can
be caught. The check writes to a store only once, before its first panel: later jobs only ask for
that panel, in one request.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from gangru_dist.base.errors import StorageError, extract_reason
from gangru_dist.base.filesystems import open_filesystem
from gangru_dist.base.redaction import AZURE, GOOGLE, redact
from gangru_dist.base.refusals import explain_refusals
from gangru_dist.base.storage import Storage

_SECONDS = 60.0
"""How long a store may take."""
_GOOGLE_SECONDS = 10
"""How long Google's client repeats a request here; else 15 minutes."""
_CLEANING_SECONDS = 3.0
"""How long a check that is ended may take to delete what it wrote."""
_OLD_SECONDS = 3600
"""Longer than any check takes."""
_LEAST_BYTES = 50 * 2**20
_FIRST_PANEL = "panel/manifest.json"
_FIRST_COMMIT = "_delta_log/00000000000000000000.json"
_STAGED = "staging-check-"
"""On a remote store a check is in `panel/`, where builds remove what killed ones have staged."""
_CHILD = "import sys; from gangru_dist.base.store_check import main; main(*sys.argv[1:])"
_KEYS = {
    **dict.fromkeys(
        GOOGLE,
        "Credentials come from GOOGLE_APPLICATION_CREDENTIALS or the node's service account, on "
        "every node",
    ),
    **dict.fromkeys(
        AZURE,
        "Credentials come from AZURE_STORAGE_ACCOUNT_KEY, or from AZURE_CLIENT_ID and its like, or "
        "the node's managed identity, on every node",
    ),
}
"""Scheme -> where its keys come from."""


def check_store(root: Storage, *, writes: bool) -> None:
    """Check that a job can use a storage; once a job.

    Args:
        root: The storage.
        writes: Whether the job will write, and commit a factor table.

    Raises:
        StorageError: It does not answer, refuses, or cannot hold a run; or its disk is full.
    """
    if not root.is_local:
        _ask(root.uri, "write" if writes else "read")
    elif writes:
        here = Path(root.path)
        there = next(place for place in (here, *here.parents) if place.exists())
        free = shutil.disk_usage(there).free
        if free < _LEAST_BYTES:
            raise StorageError(
                f"the disk of {root.uri} has {free / 2**20:.0f} MB free; a job needs at least "
                f"{_LEAST_BYTES / 2**20:.0f} MB. Free some space, or give another --storage."
            )
        if there.is_dir():  # else the job's first write says what is in the way
            _remove_old(there)
            if not root.exists(_FIRST_PANEL):
                _try_writing(Storage(there))


def _remove_old(folder: Path) -> None:
    """Remove what checks that were killed have left."""
    for old in folder.glob("check-*"):
        with suppress(OSError):  # gone, or not ours to delete
            if time.time() - old.stat().st_mtime > _OLD_SECONDS:
                shutil.rmtree(old)


def check_answer(uri: str) -> None:
    """Check that a store of bars answers, where its client would wait or abort; once a job.

    Raises:
        StorageError: It does not.
    """
    if urlsplit(uri).scheme in _KEYS:
        _ask(uri, "list")


def _ask(uri: str, what: str) -> None:
    """Try the store in a child process, which is stopped on timeout or when this process ends."""
    shown, keys = redact(uri), _KEYS.get(urlsplit(uri).scheme, "Check its credentials")
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, what, uri],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # a terminal's Ctrl-C comes from here, once
    ) as child:
        try:
            said, errors = child.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            raise StorageError(
                f"{shown} has not answered within {_SECONDS:.0f} s. {keys}; and check the network."
            ) from None
        finally:
            if child.poll() is None:  # too slow, or this process is ended
                _end(child)
    if child.returncode:
        died = f"{shown}: its client died ({extract_reason(Exception(errors))}). {keys}."
        raise StorageError(said or died)


def _end(child: subprocess.Popen[str]) -> None:
    """End a check, which first deletes what it has written, if it still can."""
    child.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=_CLEANING_SECONDS)
    child.kill()


def main(what: str, uri: str) -> None:
    """Try a store; if it cannot be used, say why on standard output, with status 2."""
    if urlsplit(uri).scheme in GOOGLE and "retry_limit_seconds" not in uri:
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={_GOOGLE_SECONDS}"
    try:
        with explain_refusals():
            if what == "list":
                filesystem, path = open_filesystem(uri)
                filesystem.get_file_info(path)
            elif not (root := Storage(uri)).exists(_FIRST_PANEL) and what == "write":
                _try_writing(root.child("panel"), _STAGED)
    except StorageError as error:
        text = str(error)
    except Exception as error:  # noqa: BLE001  # each library has errors of its own
        keys = _KEYS.get(urlsplit(uri).scheme, "Check its credentials")
        text = f"{redact(uri.partition('?')[0])} cannot be used: {_flatten(error)}. {keys}."
    else:
        return
    sys.stdout.write(text)
    sys.stdout.flush()
    os._exit(2)  # a client's own threads may never end


def _try_writing(root: Storage, prefix: str = "check-") -> None:
    """Write, replace, commit, list, read and delete in a folder of its own.

    What a killed check leaves goes with the next check here, or, on a remote store, as what a
    killed build of the panel has staged: a day later.
    """
    place = root.child(f"{prefix}{uuid.uuid4().hex}")
    try:
        for data in (b"old", b"new"):
            place.write_bytes("file", data)
        _commit_twice(place)
        if not {"file", _FIRST_COMMIT} <= {*place.list_files()} or place.read_bytes("file") != data:
            raise StorageError(
                f"{root.uri} does not show what was just written there. Use a store that does, and "
                "the same endpoint and region for all."
            )
    except BaseException:
        with suppress(OSError, StorageError):  # the first error counts
            place.delete_folder("")
        raise
    place.delete_folder("")


def _commit_twice(place: Storage) -> None:
    """Commit the first version of a Delta table twice at once; one of them must be refused.

    It may find a store that takes both, not certainly: the second may come after the first, which
    every store refuses.
    """
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable, Schema
    from deltalake.exceptions import DeltaError

    uri, options = place.find_delta_address()
    schema = Schema.from_arrow(pa.schema([("x", pa.int64())]))
    once = CommitProperties(max_commit_retries=0)

    def commit(_: int) -> Exception | None:
        try:
            DeltaTable.create(uri, schema, storage_options=options, commit_properties=once)
        except (DeltaError, OSError) as error:
            return error
        return None

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(commit, range(2))
    if first is None and second is None:
        raise StorageError(
            f"{place.uri} took the same commit from two jobs at once, so that one would be lost. "
            "Use a store that writes only what is not there (If-None-Match: *)."
        )
    if first is not None and second is not None:
        advice = (
            "Name a folder that takes hard links: those on CIFS, exFAT and some FUSE mounts do not"
            if place.is_local
            else "It must write what is not there yet, and only that (If-None-Match: *)"
        )
        raise StorageError(
            f"{place.uri} refuses a commit of the factor table, a Delta table: {_flatten(first)}. "
            f"{advice}."
        )


def _flatten(error: Exception) -> str:
    """Another library's message on one line, without colours; its end, where the cause is."""
    text = " ".join(re.sub(r"\x1b\[\d*m|↳", "", str(error)).split()).rstrip(".")
    return text if len(text) <= 400 else f"… {text[-400:]}"
