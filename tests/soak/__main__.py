"""Trials by the hundred: jobs under random faults, and everything checked afterwards.

    make soak HOURS=8
    python -m tests.soak --hours 8
    python -m tests.soak --seeds 17,23     # these again
    python -m tests.soak --places ray      # jobs with a Ray of their own: minutes each

A trial follows from its seed. Run again with the same folder, it goes on with the next seed.
`trials.jsonl` has a line a trial; the storage and the messages of those that fail are kept below
`trials/`. Exit status 1 if any has failed. Faults of a disk need `unshare`; without, they are left
out and the summary says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.soak.site import Site, can_mount, opened
from tests.soak.trial import Trial, make_plan


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", type=Path, default=Path("build/soak"))
    add("--hours", type=float, default=1.0)
    add("--trials", type=int, default=10**9, help="at most so many")
    add("--first", type=int, default=0, help="seed of the first trial")
    add("--seeds", type=lambda text: [int(n) for n in text.split(",")], help="only these")
    add("--places", default="folder,disk,s3", help="of folder, disk, s3; or ray")
    args = parser.parse_args()
    places = [p for p in args.places.split(",") if p != "disk" or can_mount()]
    with opened(args.folder.resolve(), s3="s3" in places) as site:
        return soak(site, args, places)


def soak(site: Site, args: argparse.Namespace, places: list[str]) -> int:
    """Trial after trial until the time is over."""
    record = site.folder / "trials.jsonl"
    past = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    done = {line["plan"]["seed"] for line in past}
    deadline = time.monotonic() + 3600 * args.hours
    seeds = args.seeds or (s for s in range(args.first, 10**9) if s not in done)
    new = []
    for seed in seeds:
        if time.monotonic() > deadline or len(new) >= args.trials:
            break
        plan = make_plan(seed, places=places, moments=site.moments)
        verdict = Trial(site, plan).run()
        new.append(json.loads(json.dumps(verdict.line())))
        with record.open("a") as file:
            file.write(json.dumps(verdict.line()) + "\n")
        kinds = ",".join(fault["kind"] for fault in plan.faults)
        words = f"{seed} {plan.place} {'+'.join(plan.jobs)} [{kinds}] {verdict.statuses}"
        say(f"{words} {verdict.seconds:.0f} s: {verdict.verdict} {verdict.detail[:300]}")
    lines = new if args.seeds else [*past, *new]
    say(summary(lines, places))
    return int(any(line["verdict"] != "ok" for line in lines))


def summary(lines: list[dict[str, Any]], places: list[str]) -> str:
    """A table of jobs and faults, and the seeds of what failed."""
    jobs: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for line in lines:
        plan = line["plan"]
        jobs.update(["+".join(plan["jobs"])])
        faults.update({fault["kind"] for fault in plan["faults"]} or {"none but each other"})
    bad = [line for line in lines if line["verdict"] != "ok"]
    rows = [f"{len(lines)} trials, {len(bad)} failed; places: {', '.join(places)}"]
    for title, counts in (("jobs", jobs), ("faults", faults)):
        rows.append(f"{title}: " + ", ".join(f"{n} {name}" for name, n in counts.most_common()))
    rows += [f"  seed {line['plan']['seed']}: {line['verdict']} {line['detail']}" for line in bad]
    return "\n".join(rows)


def say(text: str) -> None:
    """To the terminal."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def in_own_namespace() -> None:
    """Run this program again where it may mount, if that is possible."""
    own = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-Urm"]
    if "SOAK_NAMESPACE" in os.environ or shutil.which("unshare") is None:
        return
    if subprocess.run([*own, "true"], capture_output=True).returncode == 0:
        os.environ["SOAK_NAMESPACE"] = "1"
        words = [sys.executable, "-m", "tests.soak", *sys.argv[1:]]
        raise SystemExit(subprocess.run([*own, *words]).returncode)


if __name__ == "__main__":
    in_own_namespace()
    raise SystemExit(main())
