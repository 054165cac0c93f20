"""One trial: jobs under faults, then the same jobs in peace, and what must be true afterwards."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.s3.faults import faulty
from tests.soak.jobs import JOBS
from tests.soak.moments import SIGNALS
from tests.soak.outcome import leftovers, outcome
from tests.soak.site import Bucket, Disk, Place, Site, start_of

LIMIT_SECONDS = {"folder": 600.0, "disk": 600.0, "s3": 900.0, "ray": 900.0}
"""After that a job hangs; a pipeline takes 5 s on a quiet machine, two minutes on a busy one."""
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|^thread '.*' panicked", re.MULTILINE)
_TOGETHER = (
    ("panel", "panel"),
    ("append", "append"),
    ("append", "train"),
    ("append", "score"),
    ("append", "report"),
    ("append", "tune"),
    ("train", "train"),
    ("train", "tune"),
    ("score", "score"),
    ("score", "score", "report"),
    ("report", "report"),
    ("tune", "tune"),
    ("pipeline", "pipeline"),
    ("monthly", "monthly"),
    ("monthly", "report"),
    ("monthly", "score"),
)
"""Jobs that are started at once; alone, one after another, they lead to one end."""


VICTIMS = ("driver", "worker", "worker", "worker", "raylet", "gcs_server")
"""A worker is any process of Ray that runs something: task, actor, controller, worker of Train."""


@dataclass
class Plan:
    """What a trial does; a function of its seed."""

    seed: int
    jobs: tuple[str, ...]
    place: str
    """`folder`, `disk`, `s3`; or `ray`, a folder and jobs with a Ray of their own."""
    faults: list[dict[str, Any]] = field(default_factory=list)
    """With `moment`, in the first job; with `after`, by the clock; `s3` has a rate; on Ray a
    `victim` too, which is hit so many seconds after it is seen."""
    delays: tuple[float, ...] = ()
    """Seconds after which further jobs start."""


@dataclass
class Verdict:
    """How it ended."""

    plan: Plan
    verdict: str = "ok"
    """Or `wrong`, `traceback`, `hang`, `orphan`, `silent`, `stuck`."""
    detail: str = ""
    statuses: list[int | None] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    """The first job's error lines."""
    seconds: float = 0.0

    def line(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


def make_plan(seed: int, *, places: Sequence[str], moments: Any) -> Plan:
    """A trial of that seed; `moments` gives the number of a job's moments."""
    rng = random.Random(seed)
    place = rng.choice(places)
    if place == "ray":
        return _plan_on_ray(seed, rng)
    together = rng.random() < 0.3
    names = rng.choice(_TOGETHER) if together else (rng.choice(list(JOBS)),)
    plan = Plan(seed, names, place, delays=tuple(rng.uniform(0, 2) for _ in names[1:]))
    count = moments(names[0])
    if place == "s3":
        rate = rng.choice((0.05, 0.15, 0.3))
        plan.faults.append({"kind": "s3", "rate": rate, "seed": rng.randrange(1000)})
    if place == "disk":
        kind = rng.choice(("full", "readonly"))
        plan.faults.append({"kind": kind, "moment": _moment(rng, count)})
    for _ in range(rng.choice((0, 1, 1)) if place != "folder" or together else rng.choice((1, 2))):
        plan.faults.append(_fault(rng, count))
    return plan


def _plan_on_ray(seed: int, rng: random.Random) -> Plan:
    """Of a search's trials the order in which they end is not Ray's to promise: left out."""
    name = rng.choice(("panel", "append", "train", "train", "score", "pipeline", "monthly"))
    kind = rng.choice(("kill", "kill", "kill", "term", "stop"))
    victim = rng.choice(VICTIMS)
    fault = {"kind": kind, "victim": victim, "after": rng.uniform(0, 4), "pick": rng.random()}
    return Plan(seed, (name,), "ray", [fault | {"seconds": rng.uniform(0.2, 5)}])


def _moment(rng: random.Random, count: int) -> int:
    """One of so many; how many there are changes no later draw, so a seed keeps its kinds."""
    return int(rng.random() * count)


def _fault(rng: random.Random, moments: int) -> dict[str, Any]:
    kind = rng.choice(("kill", "kill", "kill", "term", "int", "stop", "clock"))
    fault: dict[str, Any] = {"kind": kind, "seconds": rng.uniform(0.2, 3)}
    if kind == "clock":
        return fault | {"moment": _moment(rng, moments), "seed": rng.randrange(1000)}
    if rng.random() < 0.7:
        return fault | {"moment": _moment(rng, moments)}
    return fault | {"after": rng.uniform(0, 3)}


class Trial:
    """A plan carried out."""

    def __init__(self, site: Site, plan: Plan) -> None:
        self.site, self.plan, self.verdict = site, plan, Verdict(plan)
        self.folder = site.folder / "trials" / f"trial-{plan.seed}"
        self.limit = LIMIT_SECONDS[plan.place]

    def run(self) -> Verdict:
        """Do it; the folder stays if something is wrong."""
        started = time.monotonic()
        end = self.site.end(*self.plan.jobs)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        makers: dict[str, Any] = {"folder": Place, "ray": Place, "disk": Disk, "s3": Bucket}
        place = makers[self.plan.place](self.site, self.folder, start_of(self.plan.jobs))
        try:
            self._disturbed(place)
            place.mend()
            self._in_peace(place)
            self._check(place, end)
            if self.verdict.verdict != "ok" and self.plan.place not in ("folder", "ray"):
                shutil.copytree(place.content(), self.folder / "kept", dirs_exist_ok=True)
        finally:
            place.close()
        self.verdict.seconds = round(time.monotonic() - started, 1)
        if self.verdict.verdict == "ok":
            shutil.rmtree(self.folder)
        return self.verdict

    def _wrong(self, verdict: str, detail: object) -> None:
        """The first thing that is wrong counts."""
        if self.verdict.verdict == "ok":
            self.verdict.verdict, self.verdict.detail = verdict, str(detail)[:2000]

    def _disturbed(self, place: Place) -> None:
        with ExitStack() as stack:
            storage = place.storage
            for fault in self.plan.faults:
                if fault["kind"] == "s3":
                    assert self.site.s3 is not None
                    proxy = faulty(self.site.s3, rate=fault["rate"], seed=fault["seed"])
                    storage = stack.enter_context(proxy).uri(storage.removeprefix("s3://"))
            running: list[tuple[int, Path]] = []
            for number, name in enumerate(self.plan.jobs):
                if number:
                    time.sleep(self.plan.delays[number - 1])
                running.append(self._start(number, name, storage, place))
            self._signals(running[0][0])
            self._hit(running[0][0])
            for pid, log in running:
                self.verdict.statuses.append(self._ended(pid, log))

    def _start(self, number: int, name: str, storage: str, place: Place) -> tuple[int, Path]:
        log = self.folder / f"{number}-{name}.log"
        disk = str(getattr(place, "disk", ""))
        faults = [f | {"disk": disk} for f in self.plan.faults if "moment" in f and not number]
        ray = {"ray": True} if self.plan.place == "ray" else {}
        order = self.site.order(name, storage, log, faults=faults, **ray)
        if ray:  # what would be too small for it goes through Ray Data too
            order["argv"] += ["--set", "resources.scoring_actors=2"]
        return self.site.helper.start(order), log

    def _signals(self, pid: int) -> None:
        """Faults by the clock, in their order; and who was stopped goes on."""
        timed = [f for f in self.plan.faults if "after" in f and "victim" not in f]
        waits = sorted(((f["after"], f) for f in timed), key=lambda pair: pair[0])
        began = time.monotonic()
        for after, fault in waits:
            time.sleep(max(0.0, began + after - time.monotonic()))
            with suppress(ProcessLookupError):
                os.kill(pid, SIGNALS[fault["kind"]])
        stops = [f for f in self.plan.faults if f["kind"] == "stop" and "victim" not in f]
        deadline = time.monotonic() + self.limit
        for fault in stops:
            while _state(pid) not in ("T", "") and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(fault["seconds"])
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _hit(self, driver: int) -> None:
        """Faults of Ray's processes, as soon as there is one to hit."""
        for fault in (f for f in self.plan.faults if "victim" in f):
            while _state(driver) and not _victims(driver, fault["victim"]):
                time.sleep(0.05)
            time.sleep(fault["after"])
            found = _victims(driver, fault["victim"])
            if not found:
                continue
            victim = found[int(fault["pick"] * len(found))]
            with suppress(psutil.Error):
                self.verdict.messages.append(f"{fault['kind']} {victim.name()}")
                victim.send_signal(SIGNALS[fault["kind"]])
                if fault["kind"] == "stop":
                    time.sleep(fault["seconds"])
                    victim.resume()

    def _ended(self, pid: int, log: Path) -> int | None:
        status = self.site.helper.wait(pid, self.limit)
        if status is None:
            self._wrong("hang", f"{log.name} after {self.limit:g} s")
        grace = 120 if self.plan.place == "ray" else 5
        left, deadline = _session(pid), time.monotonic() + grace
        while (
            left and status is not None and time.monotonic() < deadline
        ):  # git, asked for a commit
            time.sleep(0.1)
            left = _session(pid)
        if left:
            if status is not None:
                self._wrong("orphan", [process.name() for process in left])
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            self.site.helper.wait(pid, 10)
        self._read_messages(status, log.read_text(errors="replace"), log.name)
        return status

    def _read_messages(self, status: int | None, text: str, name: str) -> None:
        errors = [line for line in text.splitlines() if line.startswith(("error:", "interrupted"))]
        self.verdict.messages += errors
        if _TRACEBACK.search(text):
            self._wrong("traceback", f"{name}: {text[-1500:]}")
        if status not in (0, 1, 2, 130, 143, None) and status > 0:
            self._wrong("silent", f"{name}: status {status}")
        if status is not None and status > 1 and not errors:
            self._wrong("silent", f"{name}: status {status} without a message: {text[-500:]}")

    def _in_peace(self, place: Place) -> None:
        """The same commands again, one after another, a week later for what writes left."""
        for pattern in ("*.part", "check-*"):
            for part in Path(place.storage).rglob(pattern):
                os.utime(part, (time.time() - 8 * 86400,) * 2)
        for number, name in enumerate(self.plan.jobs):
            log = self.folder / f"again-{number}-{name}.log"
            pid = self.site.helper.start(self.site.order(name, place.storage, log))
            status = self._ended(pid, log)
            if status != 0:
                self._wrong("stuck", f"{log.name}: {status}: {log.read_text()[-1000:]}")

    def _check(self, place: Place, end: dict[str, Any]) -> None:
        content = place.content()
        try:
            found = outcome(content)
        except Exception as error:  # noqa: BLE001  # whatever: it cannot be read as it should
            self._wrong("wrong", f"{type(error).__name__}: {error}")
            return
        expected = end["outcome"]
        differs = [n for n in {**expected, **found} if found.get(n) != expected.get(n)]
        if differs:
            self._wrong("wrong", differs)
        base = self.site.base(start_of(self.plan.jobs))
        allowed = set(end["files"]) | {str(p.relative_to(base)) for p in base.rglob("*")}
        left = leftovers(content, allowed)
        if left:
            self._wrong("orphan", left)


def _state(pid: int) -> str:
    """Letter of a process's state; empty if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    letter = text.rpartition(")")[2].split()[0]
    return "" if letter == "Z" else letter


def _victims(driver: int, name: str) -> list[psutil.Process]:
    """Processes of a job's Ray that go by that name, oldest first; the driver itself."""
    try:
        leader = psutil.Process(driver)
        if name == "driver":
            return [leader] if leader.children() else []
        found = leader.children(recursive=True)
    except psutil.Error:
        return []
    return sorted((p for p in found if _is(p, name)), key=lambda process: process.pid)


def _is(process: psutil.Process, name: str) -> bool:
    try:
        title = process.name()
    except psutil.Error:
        return False
    if name != "worker":
        return title == name
    return title.startswith("ray::") and not title.startswith(
        ("ray::IDLE", "ray::Dash", "ray::Runt")
    )


def _session(leader: int) -> list[psutil.Process]:
    """Living processes of a session."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
