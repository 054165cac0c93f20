"""Imports everything once and forks a process per job, so that a job costs no start.

    python -m tests.soak.helper

An order is a line of JSON on standard input; the answer is the process's id. The same helper waits
for them. A job is a command line of `gangru`, in its own session, its messages in a file; one that
needs a Ray of its own starts as any program.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import matplotlib.figure  # noqa: F401  # for the forks
import torch  # noqa: F401

import gangru_dist.report.document
import gangru_dist.report.tuning
import gangru_dist.scoring.score  # noqa: F401
from gangru_dist import commands
from tests.soak import moments, near

DEFECT = 70
"""Exit status of a job that raised: its traceback is in its messages."""


def job(order: dict[str, Any]) -> int:
    """In the fork: one command."""
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(source, number)
    os.environ.update(order["env"])
    if order.get("ray"):
        words = [sys.executable, "-m", "tests.soak.on_ray", *order["argv"]]
        os.execv(words[0], words)
    near.install()
    passed = moments.install(order["faults"])
    try:
        status = commands.main(order["argv"])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 2
    except BaseException:  # noqa: BLE001  # a defect, to be seen in the messages
        traceback.print_exc()
        status = DEFECT
    sys.stdout.flush()
    sys.stderr.flush()
    if "moments" in order:
        Path(order["moments"]).write_text(str(passed[0]))
    return status


def main() -> None:
    """Serve until standard input ends."""
    running: dict[int, int] = {}
    print("ready", flush=True)  # noqa: T201  # for the parent
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            print(json.dumps(ended(running, order["wait"], order["seconds"])), flush=True)  # noqa: T201
            continue
        pid = os.fork()
        if not pid:
            os._exit(job(order))
        running.pop(pid, None)  # of an earlier process of that number
        print(pid, flush=True)  # noqa: T201


def ended(done: dict[int, int], pid: int, seconds: float) -> int | None:
    """Exit status, minus a signal's number; None if it is still running after so long."""
    deadline = time.monotonic() + seconds
    while pid not in done:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            done[pid] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > deadline:
            return None
        else:
            time.sleep(0.01)
    return done[pid]


if __name__ == "__main__":
    main()
