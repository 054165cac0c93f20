"""Where trials happen: base storages and undisturbed ends, made once; a folder, disk or S3 each.

<folder>/market/            settings and bars
         base/<state>/      storages that jobs start from
         ends/<key>.json    what undisturbed jobs lead to
         trials/            the storage and messages of each trial that is under way or failed
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from tests.s3.server import BUCKET, S3Server, running
from tests.soak import jobs
from tests.soak.outcome import files_of, outcome

PROJECT = Path(__file__).parents[2]
DISK_BYTES = 96 << 20
"""Of a trial's own disk; a job asks for 50 MB before it starts."""


class Helper:
    """The process that forks jobs."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.helper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=environment,
        )
        if self._read() != "ready":
            raise RuntimeError("the helper did not start")

    def start(self, order: dict[str, Any]) -> int:
        """Start a job; its process, which leads a session of its own."""
        return int(self._ask(order))

    def wait(self, pid: int, seconds: float) -> int | None:
        """Its exit status, minus a signal's number; None if it is still running after so long."""
        status = json.loads(self._ask({"wait": pid, "seconds": seconds}))
        return None if status is None else int(status)

    def close(self) -> None:
        """End the helper."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, order: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@dataclass
class Site:
    """What all trials of a soak share."""

    folder: Path
    helper: Helper
    s3: S3Server | None = None
    _moments: dict[str, int] = field(default_factory=dict)

    @property
    def market(self) -> Path:
        """Bars and settings."""
        return self.folder / "market"

    def base(self, state: str) -> Path:
        """A storage in a state; made by undisturbed jobs."""
        target = self.folder / "base" / state
        if target.exists():
            return target
        part = target.with_name(f"{state}.part")
        shutil.rmtree(part, ignore_errors=True)
        if state == "empty":
            part.mkdir(parents=True)
        else:
            last = jobs.STATES[state]
            shutil.copytree(self.base(jobs.JOBS[last].start), part)
            self.run(last, part)
        part.rename(target)
        return target

    def run(self, job: str, storage: Path, **order: Any) -> None:
        """One job without faults."""
        log = self.folder / "undisturbed.log"
        pid = self.helper.start(self.order(job, str(storage), log, **order))
        status = self.helper.wait(pid, 300)
        if status != 0:
            raise RuntimeError(f"undisturbed {job} ended with {status}: {log.read_text()[-2000:]}")

    def order(
        self, job: str, storage: str, log: Path, *, faults: Sequence[Any] = (), **more: Any
    ) -> dict[str, Any]:
        """What the helper needs to know."""
        environment = {} if self.s3 is None else self.s3.environment
        words = jobs.argv(job, self.market, storage)
        return {"argv": words, "env": environment, "log": str(log), "faults": [*faults], **more}

    def moments(self, job: str) -> int:
        """Moments of the undisturbed job."""
        return int(self.end(job)["moments"])

    def end(self, *names: str) -> dict[str, Any]:
        """Where the jobs, one after another, lead undisturbed: `outcome`, `files`, `moments`."""
        file = self.folder / "ends" / f"{'+'.join(names)}.json"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            work = self.folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(self.base(start_of(names)), work)
            count = self.folder / "moments"
            for name in names:
                self.run(name, work, moments=str(count))
            found = {
                "outcome": outcome(work),
                "files": sorted(files_of(work)),
                "moments": int(count.read_text()),
            }
            file.write_text(json.dumps(found))
            shutil.rmtree(work)
        result: dict[str, Any] = json.loads(file.read_text())
        return result


def start_of(names: Sequence[str]) -> str:
    """The state from which jobs start together: the furthest that one of them needs."""
    order = ("empty", "panel", "trained", "scored", "reported")
    return max((jobs.JOBS[name].start for name in names), key=order.index)


@contextmanager
def opened(folder: Path, *, s3: bool) -> Iterator[Site]:
    """The site below a folder, new or begun earlier."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "market").exists():
        part = folder / "market.part"
        shutil.rmtree(part, ignore_errors=True)
        jobs.write_market(part)
        part.rename(folder / "market")
    shutil.rmtree(folder / "s3", ignore_errors=True)
    helper = Helper()
    try:
        if s3:
            with running(folder / "s3") as server:
                os.environ.update(server.environment)
                yield Site(folder, helper, server)
        else:
            yield Site(folder, helper)
    finally:
        helper.close()


class Place:
    """A trial's storage: put there, mended, and looked at."""

    def __init__(self, site: Site, folder: Path, state: str) -> None:
        self.folder = folder
        self.storage = str(folder / "storage")
        shutil.copytree(site.base(state), self.storage)

    def mend(self) -> None:
        """Take all faults away."""

    def content(self) -> Path:
        """What it holds, in a local folder."""
        return Path(self.storage)

    def close(self) -> None:
        """Give back what it used."""


class Disk(Place):
    """A small disk of its own, which can be full or read-only; needs the right to mount."""

    def __init__(self, site: Site, folder: Path, state: str) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir(parents=True)
        mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "soak", str(self.disk))
        super().__init__(site, self.disk, state)

    def mend(self) -> None:
        mount("-o", "remount,rw,bind", str(self.disk))
        (self.disk / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.disk)], check=True)


class Bucket(Place):
    """A folder of the S3 server; faults come from a proxy in front of it."""

    def __init__(self, site: Site, folder: Path, state: str) -> None:
        assert site.s3 is not None
        self.path, self._local = f"{BUCKET}/{folder.name}", folder / "fetched"
        self._filesystem = site.s3.filesystem()
        source = f"{site.base(state)}"
        pafs.copy_files(
            source, self.path, destination_filesystem=self._filesystem, use_threads=True
        )
        self.storage = f"s3://{self.path}"

    def content(self) -> Path:
        shutil.rmtree(self._local, ignore_errors=True)
        self._local.mkdir(parents=True)
        pafs.copy_files(self.path, str(self._local), source_filesystem=self._filesystem)
        return self._local

    def close(self) -> None:
        with suppress(OSError):
            self._filesystem.delete_dir(self.path)


def mount(*words: str) -> None:
    """Mount, in this process's own namespace (`__main__` sees to that)."""
    subprocess.run(["mount", *words], check=True)


def can_mount() -> bool:
    """Whether this process has a mount namespace of its own, in which it may mount."""
    return "SOAK_NAMESPACE" in os.environ
