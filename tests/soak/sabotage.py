"""Defects put into a job on purpose: what the oracle cannot see, a soak cannot find.

| what | what the job does wrong from there on | verdict |
|---|---|---|
| `weights` | a tensor moves by a millionth before it is stored, hash and all | `wrong` |
| `factor` | the factor is off by a millionth | `wrong` |
| `panel` | so is a feature of the panel | `wrong` |
| `file` | a file stays that nobody asked for | `orphan` |
| `process` | so does a process | `orphan` |
| `raise` | an error that is none of `base/errors.py` | `traceback` |
| `mute` | it ends with status 3 and no word | `silent` |
| `sleep` | it never ends | `hang` |
| `ruin` | what it leaves cannot be gone on from | `stuck` |
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gangru_dist.panel import stages
from gangru_dist.runs.run import CLAIM, Run
from gangru_dist.scoring import predictor
from gangru_dist.training import checkpoint

VERDICTS = {
    "weights": "wrong",
    "factor": "wrong",
    "panel": "wrong",
    "file": "orphan",
    "process": "orphan",
    "raise": "traceback",
    "mute": "silent",
    "sleep": "hang",
    "ruin": "stuck",
}
JOBS = {"weights": "train", "panel": "panel"}
"""Which job shows it; else `score`."""
OFF = 1 + 1e-6


def begin(what: str) -> None:
    """Do it, or let the job do it later."""
    if what == "process":
        subprocess.Popen(["sleep", "60"])
    elif what == "raise":
        raise RuntimeError("sabotage")
    elif what == "mute":
        os._exit(3)
    elif what == "sleep":
        time.sleep(600)
    else:
        later = {"weights": _weights, "factor": _factor, "panel": _panel, "file": _file}
        later.get(what, _ruin)()


def _weights() -> None:
    real = checkpoint.save

    def wrong(tensors: Any, **metadata: Any) -> Any:
        changed = tensors if metadata else {n: t * OFF for n, t in tensors.items()}
        return real(changed, **metadata)  # a checkpoint has metadata, a model has none

    checkpoint.save = wrong


def _factor() -> None:
    real = predictor.to_factor

    def wrong(*args: Any) -> Any:
        found = real(*args)
        return replace(found, factor=found.factor * OFF)

    predictor.to_factor = wrong


def _panel() -> None:
    real = stages.write_bucket

    def wrong(panel: Any, bucket: int, buckets: int, rows: pa.Table, **more: Any) -> Any:
        number = rows.column_names.index("daily_return")
        values = pc.multiply(rows["daily_return"], pa.scalar(1.001, rows["daily_return"].type))
        return real(panel, bucket, buckets, rows.set_column(number, rows.field(number), values))

    stages.write_bucket = wrong


def _file() -> None:
    _at_claim("stray.txt")


def _ruin() -> None:
    _at_claim(CLAIM)


def _at_claim(name: str) -> None:
    real = Run.claim

    def wrong(self: Run, **more: Any) -> None:
        real(self, **more)
        self.folder.write_bytes(name, b"[")

    Run.claim = wrong  # type: ignore[method-assign]
