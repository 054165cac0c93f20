"""The one command: `gangru COMMAND …`; `jobs/*.py` are the same from a checkout.

The jobs are in `jobs.py`; every other command is a module here with a docstring for `--help` and a
function `run(argv)`. Both are imported only when they are called, so `gangru --help` is fast.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

SUMMARIES = {
    "pipeline": "run every stage in order: panel, train, score, report",
    "panel": "check bars and build the panel with features",
    "train": "train one model per refit day and seed",
    "tune": "search for better settings on early windows",
    "score": "compute the factor for every day not scored yet",
    "report": "evaluate the factor: metrics.json, tables, report.html",
    "picks": "print the best stocks of a day, and keep the list",
    "export": "write factor and scores to CSV, parquet or a database",
    "runs": "list the runs in a storage",
    "delete": "delete a run",
    "settings": "list every setting with default, unit and meaning, as TOML",
    "check-plugin": "test your own features, labels and predictors",
}
"""Command -> what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    with keep_streams():
        try:
            return _run(argv)
        except KeyboardInterrupt:  # while modules are imported; later a job sees to it itself
            warn("interrupted\n")
            return 130


def _run(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        from gangru_dist.base.records import read_code_version

        tell(f"gangru_dist {read_code_version()['package_version']}\n")
        return 0
    if words[:1] in ([], ["-h"], ["--help"]):
        tell(_usage())
        return 0 if words else 2
    name, *rest = words
    if name not in SUMMARIES:
        warn(f"there is no command {name!r}.\n\n{_usage()}")
        return 2
    if name not in ("pipeline", "panel", "train", "tune", "score", "report"):
        add_working_folder()
        module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
        return report_errors(partial(module.run, rest))
    from gangru_dist.commands import jobs

    return jobs.run(name, rest)


def add_working_folder() -> None:
    """Find own features and predictors where one works, as `python -m` does."""
    if "" not in sys.path:
        sys.path.insert(0, "")


@contextmanager
def keep_streams() -> Iterator[None]:
    r"""While the block runs, write what a stream's encoding lacks as `\uXXXX`.

    A stream that is closed leads nowhere, so that no file of ours takes its number; what waits to
    be written goes out at the end, where an error has one line.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        Path.cwd()
    except FileNotFoundError:
        warn("error: the working folder is gone. Change to one that exists.\n")
        raise SystemExit(2) from None
    try:
        yield
    finally:
        tell("")


def tell(text: str) -> None:
    """Write to standard output; end with status 2 if that takes nothing.

    A reader that has read enough, such as `head`, closes it: that is no error, nor is it if nobody
    has ever opened it.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        if not isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout = io.StringIO()
        elif not sys.stdout.closed:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
        if isinstance(error, BrokenPipeError):
            return
        warn(f"error: the result cannot be written to standard output: {error}.\n")
        raise SystemExit(2) from None


def warn(text: str) -> None:
    """Write to standard error, if it takes anything."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def report_errors(command: Callable[[], int]) -> int:
    """Run a command; return its exit status, 2 after an error of ours, which is one line."""
    from gangru_dist.base.errors import GangruError
    from gangru_dist.base.redaction import sanitize
    from gangru_dist.base.refusals import explain_refusals

    try:
        with explain_refusals():
            return command()
    except GangruError as error:
        warn(f"error: {sanitize(str(error))}\n")
        return 2


class Parser(argparse.ArgumentParser):
    """Argparse's, which prints a mistake as one JSON object as well where --json asks for it.

    A description keeps its lines.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **given)

    def add_storage(self) -> None:
        """Let the user say where everything is."""
        self.add_argument("--storage", required=True, metavar="URI", help="folder or URI")

    def add_run(self) -> None:
        """Let the user name a run of it."""
        text = "name of the run (default: default)"
        self.add_argument("--run", default="default", metavar="NAME", help=text)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        self._words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if "--json" in self._words:
            command = self.prog.removesuffix(".py").split("/")[-1].split()[-1]
            found = {"command": command, "verdict": "failed", "status": 2, "error": message}
            tell(json.dumps(found) + "\n")
        super().error(message)


def _usage() -> str:
    lines = [f"  {name:<14}{text}\n" for name, text in SUMMARIES.items()]
    more = "Run `gangru COMMAND --help` for the options of a command.\n"
    return f"usage: gangru COMMAND …\n\n{''.join(lines)}\n{more}"
