"""Check that two versions of the program give the same models, factors and figures.

    python -m benchmarks.same_results BEFORE AFTER [--tolerance 1e-3]
    python -m benchmarks.same_results --checkouts OLD NEW --work FOLDER [--bars URI --set KEY=VALUE]

BEFORE and AFTER are storages with the same runs. With `--checkouts` they are made first, from two
folders that each have the source and a `.venv`: the demo (run `demo`) and, with `--bars`, a run on
real bars (run `real`, preset `default` with the settings of `--set`; `--set-new` adds some for NEW
alone, where a default is another one now or OLD does not know the setting). Compares every model's
weights, every row of the factor tables, and metrics.json without versions, commits and times: bit
for bit, or within `--tolerance` (of the largest weight; of scores and factors, whose quantiles may
then differ; of each figure). Figures that AFTER alone has are only counted. Prints a table with the
largest differences; the exit status is 1 if anything differs by more. A demo takes two minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from gangru_dist import read_factor
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import RunConfig
from gangru_dist.runs.run import WEIGHTS, Run, list_runs

_MAY_DIFFER = frozenset({"package_version", "commit", "written", "seconds"})
_THREADS = {"OMP_NUM_THREADS": "1"}  # the number of threads decides the last bits


@dataclass(frozen=True)
class Line:
    """One comparison."""

    what: str
    before: str
    after: str
    is_same: bool


def make(checkout: Path, storage: Path, bars: str | None, overrides: list[str]) -> None:
    """Run the pipeline of a checkout on the demo and, if given, on real bars."""
    demo = ["--preset", "demo", "--bars", "synthetic", "--run", "demo"]
    real = ["--preset", "default", "--bars", bars or "", "--run", "real"]
    for name, words in {"demo": demo, **({"real": real} if bars else {})}.items():
        more = [word for text in overrides for word in ("--set", text)] if name == "real" else []
        command = [".venv/bin/python", "jobs/pipeline.py", "--storage", str(storage / name)]
        environment = os.environ | _THREADS | {"PYTHONPATH": str(checkout)}
        subprocess.run([*command, *words, *more], cwd=checkout, env=environment, check=True)


def compare(before: Storage, after: Storage, tolerance: float = 0.0) -> list[Line]:
    """Compare all runs of both storages; `tolerance` 0 asks for the same bits."""
    names = [list_runs(before), list_runs(after)]
    lines = [Line("runs", ", ".join(names[0]), ", ".join(names[1]), names[0] == names[1])]
    for name in sorted({*names[0]} & {*names[1]}):
        one, two = (Run(storage, name, RunConfig()) for storage in (before, after))
        lines += _models(one, two, tolerance)
        lines += [_factor(one, two, tolerance), *_metrics(one, two, tolerance)]
    return lines


def _models(before: Run, after: Run, tolerance: float) -> list[Line]:
    hashes = [
        {place: m.sha256 for place, m in run.read_models().items()} for run in (before, after)
    ]
    lines = []
    for place in sorted({*hashes[0]} | {*hashes[1]}):
        one, two = (found.get(place, "none") for found in hashes)
        what = f"{before.name}: model {place[0]} seed {place[1]}"
        apart = 0.0 if one == two else math.inf
        if tolerance and apart and "none" not in (one, two):
            apart = _weights_apart(*(_weights(run, *place) for run in (before, after)))
        lines.append(
            Line(what, one[:12], f"{two[:12]}{_format_difference(apart)}", apart <= tolerance)
        )
    return lines


def _weights(run: Run, window: str, seed: int) -> dict[str, np.ndarray]:
    return load(run.folder.read_bytes(f"{run.model_folder(window, seed)}/{WEIGHTS}"))


def _weights_apart(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> float:
    """Largest difference over the largest weight."""
    if {name: x.shape for name, x in one.items()} != {name: x.shape for name, x in two.items()}:
        return math.inf
    largest = max(float(np.abs(x).max()) for x in one.values())
    return max(float(np.abs(x - two[name]).max()) for name, x in one.items()) / largest


def _factor(before: Run, after: Run, tolerance: float) -> Line:
    one, two = (read_factor(run.root.uri, run.name) for run in (before, after))
    what = f"{before.name}: factor table"
    apart = 0.0 if one.equals(two) else math.inf
    keys = ["date", "asset", "window"]
    if tolerance and apart and one[keys].equals(two[keys]):
        values = [table[["score", "factor"]].to_numpy(float) for table in (one, two)]
        if (np.isnan(values[0]) == np.isnan(values[1])).all():
            apart = float(np.nanmax(np.abs(values[0] - values[1])))
    return Line(
        what, f"{len(one)} rows", f"{len(two)} rows{_format_difference(apart)}", apart <= tolerance
    )


def _metrics(before: Run, after: Run, tolerance: float) -> list[Line]:
    one, two = (_flat(json.loads(run.report.read_bytes("metrics.json"))) for run in (before, after))
    apart = {key: _apart(value, two.get(key, ...)) for key, value in one.items()}
    differ = [key for key in sorted(apart) if apart[key] > tolerance]
    what = f"{before.name}: metrics.json"
    most = _format_difference(max(apart.values(), default=0.0))
    found = f"{len({*one} & {*two})} of them, {len({*two} - {*one})} more{most}"
    whole = Line(what, f"{len(one)} figures", found, not differ)
    return [whole, *(Line(key, str(one.get(key)), str(two.get(key)), False) for key in differ)]


def _apart(one: Any, two: Any) -> float:
    """Difference of two numbers, relative where they are larger than 1; else equal or not."""
    if one == two:
        return 0.0
    if isinstance(one, float | int) and isinstance(two, float | int):
        return abs(one - two) / max(abs(one), 1.0)
    return math.inf


def _format_difference(apart: float) -> str:
    return f" ({apart:.1e} apart)" if 0 < apart < math.inf else ""


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key, without versions, commits and times."""
    if isinstance(values, list):
        values = {str(place): value for place, value in enumerate(values)}
    if not isinstance(values, dict):
        return {prefix: values}
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        if name not in _MAY_DIFFER:
            leaves |= _flat(value, f"{prefix}.{name}" if prefix else name)
    return leaves


def show(lines: list[Line]) -> bool:
    """Print the table; return whether everything is the same."""
    widths = [max(len(getattr(line, name)) for line in lines) for name in ("what", "before")]
    for line in lines:
        mark = "same" if line.is_same else "DIFFERS"
        print(f"{line.what:{widths[0]}s}  {line.before:{widths[1]}s}  {line.after}  {mark}")
    return all(line.is_same for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("places", nargs=2, help="two storages, or two checkouts")
    parser.add_argument("--checkouts", action="store_true", help="run both first")
    parser.add_argument("--work", type=Path, help="where their storages go")
    parser.add_argument("--bars", help="real bars, beside the demo")
    parser.add_argument("--set", action="append", default=[], help="settings for them")
    parser.add_argument("--set-new", action="append", default=[], help="more, for NEW alone")
    parser.add_argument("--tolerance", type=float, default=0.0, help="0: the same bits")
    args = parser.parse_args(argv)
    pairs = [args.places]
    if args.checkouts:
        if args.work is None:
            parser.error("--checkouts needs --work")
        made = [args.work.resolve() / name for name in ("before", "after")]
        settings = [args.set, [*args.set, *args.set_new]]
        for checkout, storage, given in zip(args.places, made, settings, strict=True):
            make(Path(checkout).resolve(), storage, args.bars, given)
        names = ("demo", "real") if args.bars else ("demo",)
        pairs = [[str(place / name) for place in made] for name in names]
    lines = [
        line for one, two in pairs for line in compare(Storage(one), Storage(two), args.tolerance)
    ]
    return 0 if show(lines) else 1


if __name__ == "__main__":
    sys.exit(main())
