"""What every job shares: the flags, the configuration, one clear message when it fails.

A job is a description, a body and perhaps a few flags of its own:

    def body(job: Job) -> Outcome: ...
    raise SystemExit(run_job(__doc__, body))

Exit status: 0 done, 1 some windows failed, 2 the user can mend it, 130 interrupted.
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

from pydantic import ValidationError

from gangru_dist import log, presets, settings
from gangru_dist.config import RunConfig, from_dict, model_settings, to_dict
from gangru_dist.errors import ConfigError, GangruError, TrainingError
from gangru_dist.filesystems import clear_refusals
from gangru_dist.lineage import code_version
from gangru_dist.storage import Storage, checked_name

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a job's body works with."""

    root: Storage
    """`--storage`: panel, runs, everything."""
    run: str
    """`--run`, else the preset's name."""
    cfg: RunConfig
    """Preset, file and `--set`, resolved and checked."""
    args: argparse.Namespace
    """All flags, those of the job itself too."""

    def claim(self, *, exists: bool = False) -> None:
        """Take the run's name for this configuration, or, if it must exist, check it."""
        if exists:
            require_run(self.root, self.run)
        claim_run(self.root, self.run, self.cfg, overwrite=self.args.overwrite)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended."""

    outputs: tuple[str, ...]
    """Where its results are: paths or URIs, printed last."""
    ok: bool = True
    """False if some part failed and the rest was done: exit status 1."""


def run_job(
    description: str | None,
    body: Callable[[Job], Outcome],
    argv: Sequence[str] | None = None,
    flags: Callable[[argparse.ArgumentParser], Any] | None = None,
) -> int:
    """Parse, resolve, announce, run, and say where the outputs are.

    Args:
        description: The job's module docstring, shown by `--help`.
        body: The work itself.
        argv: Arguments; None = the command line's.
        flags: Adds the job's own flags to the parser.

    Returns:
        The exit status.
    """
    parser = _parser(description)
    if flags:
        flags(parser)
    args = parser.parse_args(argv)
    log.setup()
    started = time.monotonic()
    try:
        with clear_refusals():
            outcome = body(_job(args, parser.prog))
    except GangruError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1 if isinstance(error, TrainingError) else 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command continues where this one stopped.\n")
        return 130
    verdict = "done" if outcome.ok else "partly failed"
    sys.stdout.write(f"{verdict} in {time.monotonic() - started:.0f} s\n")
    sys.stdout.writelines(f"  {place}\n" for place in outcome.outputs)
    return 0 if outcome.ok else 1


def claim_run(root: Storage, run: str, cfg: RunConfig, *, overwrite: bool = False) -> None:
    """Write `runs/<run>/config.json`: the whole configuration, the package's version and commit.

    Which refit days a run covers and what resources it uses may change from call to call.

    Raises:
        ConfigError: The name is taken by another configuration, and not `overwrite`.
    """
    folder = root.child("runs", checked_name(run, what="--run"))
    changed = [] if overwrite else _changed(folder, cfg)
    if changed:
        raise ConfigError(
            f"run {run!r} in {root.uri} has another configuration: {'; '.join(changed)}. Give "
            "this command the run's own --preset, --config and --set; or a new run another --run; "
            "or replace the old one with --overwrite."
        )
    folder.write_json("config.json", {"run": run, **code_version(), "config": to_dict(cfg)})


def require_run(root: Storage, run: str) -> None:
    """Check that an earlier job made this run.

    Raises:
        ConfigError: It did not; the message names the runs there are.
    """
    if root.child("runs", run).exists("config.json"):
        return
    names = {name.split("/")[1] for name in root.list_files("runs") if "/config.json" in name}
    raise ConfigError(
        f"there is no run {run!r} in {root.uri}; there are: {', '.join(sorted(names)) or 'none'}. "
        "Train it first (for a report, score it too), or correct --run and --storage."
    )


def _changed(folder: Storage, cfg: RunConfig) -> list[str]:
    """What differs from the configuration a run's folder was claimed for; empty if it was not."""
    there = folder.find_json("config.json")
    if there is None:
        return []
    try:
        old = from_dict(there["config"])
    except (ValidationError, GangruError, KeyError, TypeError):
        version = there.get("package_version") if isinstance(there, dict) else None
        return [f"config.json of package version {version} is not ours"]
    return settings.difference(_identity(old), _identity(cfg))


def _identity(cfg: RunConfig) -> dict[str, Any]:
    """The settings that a run's results follow from, given the panel."""
    values = to_dict(cfg)
    chosen = model_settings(cfg)
    chosen["windows"]["refit_months"] = values["windows"]["refit_months"]
    chosen["training"]["seeds"] = values["training"]["seeds"]
    return chosen | {name: values[name] for name in ("factor", "evaluation")}


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--storage", required=True, metavar="URI", help="folder or URI that every node can reach")
    add("--run", metavar="NAME", help="name of the run (default: the preset's)")
    add("--preset", default="default", choices=list(presets.ALL), help="default: %(default)s")
    add("--config", metavar="FILE.toml", help="settings on top of the preset")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting on top of both, e.g. training.epochs=5; may be repeated",
    )
    add("--overwrite", action="store_true", help="replace what is there, even if it differs")
    return parser


def _job(args: argparse.Namespace, program: str) -> Job:
    """Resolve what the flags say, and announce it."""
    cfg = settings.load(args.preset, args.config, args.set)
    run = checked_name(args.run or args.preset, what="--run")
    root = Storage(args.storage)
    root.require_room()
    changed = settings.difference(to_dict(presets.ALL[args.preset]()), to_dict(cfg))
    _logger.info(
        "job_start job=%s storage=%s run=%s preset=%s changed=[%s]",
        Path(program).stem,
        root.uri,
        run,
        args.preset,
        "; ".join(changed),
    )
    return Job(root=root, run=run, cfg=cfg, args=args)
