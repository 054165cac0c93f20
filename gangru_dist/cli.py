"""What every job shares: flags, configuration, and one clear message when it fails.

A job is a description, a body and, where needed, a few flags of its own:

    def body(job: Job) -> Outcome: ...
    raise SystemExit(run_job(__doc__, body))

Exit status: 0 done, 1 some windows failed, 2 user-fixable error, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gangru_dist import log, presets, settings
from gangru_dist.config import to_dict
from gangru_dist.errors import GangruError, TrainingError, flag
from gangru_dist.filesystems import clear_refusals
from gangru_dist.runs.run import Run
from gangru_dist.storage import Storage, checked_name

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Input of a job's body."""

    run: Run
    """From `--storage`, `--run` (default: the preset's name), preset, file and `--set`."""
    args: argparse.Namespace
    """All flags, including the job's own."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended."""

    outputs: tuple[str, ...]
    """Paths or URIs of the results, printed last."""
    ok: bool = True
    """False if some parts failed and the rest was done; the exit status is then 1."""


def run_job(
    description: str | None,
    body: Callable[[Job], Outcome],
    argv: Sequence[str] | None = None,
    flags: Callable[[argparse.ArgumentParser], Any] | None = None,
) -> int:
    """Parse the flags, resolve the configuration, run the body and print its outputs.

    Args:
        description: The job's module docstring, shown by `--help`.
        body: The work itself.
        argv: Arguments; None = those of the command line.
        flags: Adds the job's own flags to the parser.

    Returns:
        The exit status.
    """
    parser = _parser(description)
    if flags:
        flags(parser)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_unknown(unknown))
    log.setup()
    started = time.monotonic()
    try:
        with clear_refusals():
            outcome = _done(body, _job(args, parser.prog))
    except GangruError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1 if isinstance(error, TrainingError) else 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: run the same command again to continue.\n")
        return 130
    verdict = "done" if outcome.ok else "partly failed"
    sys.stdout.write(f"{verdict} in {time.monotonic() - started:.0f} s\n")
    sys.stdout.writelines(f"  {place}\n" for place in outcome.outputs)
    return 0 if outcome.ok else 1


def _done(body: Callable[[Job], Outcome], job: Job) -> Outcome:
    """Run the body, then write the page of all runs, after a failure too.

    A page that cannot be written is a warning: the job's own results are there.
    """
    from gangru_dist.report.runs_index import write_index  # pandas: not needed for --help

    try:
        return body(job)
    finally:
        try:
            write_index(job.run.root, job.run.cfg.report.language)
        except (GangruError, OSError) as error:
            _logger.warning("runs_page_failed reason=%s", error)


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--storage", required=True, metavar="URI", help="folder or URI that every node can reach")
    add("--run", metavar="NAME", help="name of the run (default: the preset's name)")
    add("--preset", default="default", choices=list(presets.ALL), help="default: %(default)s")
    add("--config", metavar="FILE.toml", help="settings on top of the preset")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting on top of both, e.g. training.epochs=5; may be repeated",
    )
    add("--overwrite", action="store_true", help="replace existing results, even if they differ")
    return parser


def _unknown(words: Sequence[str]) -> str:
    """Message for unknown arguments: `--epochs 5` probably means a setting."""
    text = f"unrecognized arguments: {' '.join(words)}"
    name, equals, value = words[0].removeprefix("--").partition("=")
    name = name.replace("-", "_")
    near = settings.nearest(name) if words[0].startswith("--") else []
    if not near:
        return text
    near = [key for key in near if key.endswith(f".{name}")] or near
    if not equals:
        value = words[1] if len(words) > 1 and not words[1].startswith("-") else "..."
    return f"{text}. Settings are given as {' or '.join(flag(key, value) for key in near)}"


def _job(args: argparse.Namespace, program: str) -> Job:
    """Resolve the flags and log the result."""
    cfg = settings.load(args.preset, args.config, args.set)
    name = checked_name(args.run or args.preset, what="--run")
    run = Run(Storage(args.storage), name, cfg)
    run.root.require_room()
    changed = settings.difference(to_dict(presets.ALL[args.preset]()), to_dict(cfg))
    _logger.info(
        "job_start job=%s storage=%s run=%s preset=%s changed=[%s]",
        Path(program).stem,
        run.root.uri,
        run.name,
        args.preset,
        "; ".join(changed),
    )
    return Job(run=run, args=args)
