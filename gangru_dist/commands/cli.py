"""What all jobs share: flags, configuration, one message on failure, exit status.

    def train(job: Job) -> Outcome: ...
    raise SystemExit(run_job("Train.", train))

Exit status: 0 done, 1 some windows failed, 2 user-fixable error, 130 interrupted, 143 terminated.
With `--json`, standard output is a single object in every case; the log goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gangru_dist.base import log
from gangru_dist.base.errors import GangruError, TrainingError, extract_reason, format_flag
from gangru_dist.base.redaction import sanitize
from gangru_dist.base.refusals import explain_refusals
from gangru_dist.base.storage import Storage, check_name
from gangru_dist.base.store_check import check_store
from gangru_dist.cluster.start import catch_signals
from gangru_dist.commands import Parser, tell, warn
from gangru_dist.config import presets, sources
from gangru_dist.config.identity import to_dict
from gangru_dist.runs.run import CLAIM, Run, load_settings

_logger = logging.getLogger(__name__)

Flag = tuple[str, Mapping[str, Any]]
"""Name of a flag and what `argparse` calls its keyword arguments."""
_REMOVED = {
    "notify": "Read the exit status, or what --json prints.",
    "export": "Every search writes its Optuna study to runs/<run>/tune/study.log as it goes; open "
    "that file with optuna-dashboard.",
}
"""Name of a flag that is gone -> what replaces it."""


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

    outputs: tuple[str, ...] = ()
    """Paths or URIs of the results, printed last."""
    ok: bool = True
    """False if some parts failed and the rest was done; the exit status is then 1."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Figures of what was done, or would be; JSON types."""


def run_job(
    description: str | None,
    body: Callable[[Job], Outcome],
    argv: Sequence[str] | None = None,
    flags: Sequence[Flag] = (),
    *,
    plan: Callable[[Job], Mapping[str, Any]] | None = None,
    program: str | None = None,
) -> int:
    """Parse the flags, resolve the configuration, run the body and print its outputs.

    Args:
        description: What the job does, shown by `--help`.
        body: The work itself.
        argv: Arguments; None = those of the command line.
        flags: The job's own flags.
        plan: What the body would do, in figures, for `--dry-run`; it writes nothing.
        program: How the command is called, for `--help`; None = the script's name.

    Returns:
        The exit status.
    """
    parser = build_parser(description, flags, program)
    if plan:
        text = "print what would be done and what it takes; do nothing"
        parser.add_argument("--dry-run", action="store_true", help=text)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(sanitize(_describe_unknown(unknown)))
    log.setup()
    command = Path(parser.prog).stem.split()[-1]
    finish = partial(_print_result, args, command, time.monotonic())
    with catch_signals() as interruption:
        try:
            with explain_refusals():
                job = _resolve(args, command)
                if plan and args.dry_run:
                    return finish("would", 0, Outcome(facts=plan(job)))
                outcome = _run_and_list(body, job)
        except BaseException as error:
            # Code in C may have made an error of its own of the interrupt: pydantic does.
            if interruption.number or isinstance(error, KeyboardInterrupt):
                anew = command == "tune" and args.overwrite
                how = "without --overwrite, which begins anew, " if anew else ""
                warn(f"interrupted: run the same command again {how}to continue.\n")
                return finish("interrupted", interruption.status)
            if isinstance(error, GangruError):
                warn(f"error: {sanitize(str(error))}\n")
                status = 1 if isinstance(error, TrainingError) else 2
                return finish("failed", status, error=str(error))
            finish("failed", 1, error=f"{type(error).__name__}: {error}")
            raise
    return finish(*(("done", 0) if outcome.ok else ("partly failed", 1)), outcome)


def build_parser(
    description: str | None, flags: Sequence[Flag] = (), program: str | None = None
) -> argparse.ArgumentParser:
    """Build the parser of a job: the flags of every job, then its own."""
    parser = Parser(prog=program, description=description)
    add = parser.add_argument
    add("--storage", required=True, metavar="URI", help="folder or URI that every node can reach")
    add("--run", metavar="NAME", help="name of the run (default: the preset's name)")
    text = "default: the stored settings of --run if it exists, else `default`"
    add("--preset", choices=list(presets.ALL), help=text)
    text = "settings on top of the preset; of several files the later wins"
    add("--config", action="append", metavar="FILE.toml", help=text)
    text = "one setting on top of preset and file, e.g. training.epochs=5; may be repeated"
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    add("--overwrite", action="store_true", help="replace existing results, even if they differ")
    add("--json", action="store_true", help="print the result as one JSON object and nothing else")
    for name, shape in flags:
        add(name, **shape)
    return parser


def _describe_unknown(words: Sequence[str]) -> str:
    """Explain unknown arguments: `--epochs 5` probably means a setting."""
    text = f"unrecognized arguments: {' '.join(words)}"
    name, equals, value = words[0].removeprefix("--").partition("=")
    if name in _REMOVED:
        return f"--{name} is no longer there. {_REMOVED[name]}"
    name = name.replace("-", "_")
    near = sources.find_nearest(name) if words[0].startswith("--") else []
    if not near:
        return text
    near = [key for key in near if key.endswith(f".{name}")] or near
    if not equals:
        value = words[1] if len(words) > 1 and not words[1].startswith("-") else "..."
    return f"{text}. Settings are given as {' or '.join(format_flag(key, value) for key in near)}"


def _resolve(args: argparse.Namespace, command: str) -> Job:
    """Resolve the flags and log the result."""
    root = Storage(args.storage)
    check_store(root, writes=not (getattr(args, "dry_run", False) or getattr(args, "check", False)))
    origin, base, cfg = load_settings(root, args.run, args.preset, args.config, args.set)
    args.run = check_name(args.run or args.preset or "default", what="--run")
    run = Run(root, args.run, cfg)
    _logger.info(
        "job_start job=%s storage=%s run=%s %s changed=[%s]",
        command,
        run.root.uri,
        run.name,
        origin,
        "; ".join(sources.difference(to_dict(base), to_dict(cfg))),
    )
    return Job(run=run, args=args)


def _run_and_list(body: Callable[[Job], Outcome], job: Job) -> Outcome:
    """Run the body; then, however it ended, write the page of all runs if this is one of them.

    The job's own results do not depend on that page: if it fails, that is only logged.
    """
    try:
        return body(job)
    finally:
        try:
            if job.run.folder.exists(CLAIM):
                from gangru_dist.report.runs import write_index  # pandas: not for --help

                write_index(job.run.root)
        except Exception as error:  # noqa: BLE001  # nothing of it may fail the job
            _logger.warning("runs_page_failed reason=%s", extract_reason(error))


def _print_result(
    args: argparse.Namespace,
    command: str,
    started: float,
    verdict: str,
    status: int,
    outcome: Outcome | None = None,
    error: str | None = None,
) -> int:
    """Print how a job ended, for people or as JSON; return the exit status."""
    outcome = outcome or Outcome()
    seconds = round(time.monotonic() - started, 1)
    if args.json:
        result = {
            "command": command,
            "verdict": verdict,
            "status": status,
            "storage": sanitize(args.storage),
            "run": args.run,
            "seconds": seconds,
            "outputs": list(outcome.outputs),
            **({"error": sanitize(error)} if error else {}),
            **outcome.facts,
        }
        is_utf = str(getattr(sys.stdout, "encoding", "")).lower() == "utf-8"
        tell(json.dumps(result, ensure_ascii=not is_utf) + "\n")
    elif verdict == "would":
        facts = outcome.facts.items()
        tell("".join(f"{name}: {_format_fact(value)}\n" for name, value in facts))
    elif error is None and verdict != "interrupted":
        places = "".join(f"  {sanitize(uri)}\n" for uri in outcome.outputs)
        tell(f"{verdict} in {seconds:.0f} s\n{places}")
    return status


def _format_fact(value: Any) -> str:
    """Write a figure as text; of counts, `3 finished before, 1 no history`."""
    if isinstance(value, Mapping):
        value = [f"{count} {kind}" for kind, count in value.items()]
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)
