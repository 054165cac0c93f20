"""Start the fault proxy, and ask it what it did."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.s3.server import S3Server, stop_group


@dataclass(frozen=True)
class FaultProxy:
    """A running proxy."""

    port: int

    def uri(self, path: str) -> str:
        """URI of a bucket's path through it."""
        return f"s3://{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def counts(self) -> dict[str, int]:
        """Requests so far, and those among them that failed, by fault."""
        return self._ask("counts")

    def seen(self) -> dict[str, int]:
        """Method and target of each request so far -> how often."""
        return self._ask("seen")

    def _ask(self, what: str) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/__{what}__") as answer:
            found: dict[str, int] = json.load(answer)
        return found


@contextmanager
def faulty(
    server: S3Server, *, rate: float, seed: int = 0, latency: float = 0.0
) -> Iterator[FaultProxy]:
    """A proxy in front of `server` until the block ends; every answer takes `latency` seconds."""
    script = Path(__file__).with_name("proxy.py")
    flags = ["--upstream", server.address, "--seed", str(seed), "--rate", str(rate)]
    flags += ["--latency", str(latency)]
    process = subprocess.Popen(
        [sys.executable, str(script), *flags], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        yield FaultProxy(int(process.stdout.readline()))
        assert process.poll() is None, "the proxy died"
    finally:
        stop_group(process)
        if process.stdout:
            process.stdout.close()
