"""The one command: `gangru COMMAND …`; `jobs/*.py` are the same from a checkout.

The jobs stand in `jobs.py`; every other command is a module here with a docstring for `--help` and
`run(argv)`. Both are imported when they are called, so that `gangru --help` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

SUMMARIES = {
    "pipeline": "run every stage in order: panel, train, score, report",
    "panel": "check bars and build the panel with features",
    "train": "train one model per refit day and seed",
    "tune": "search for better settings on early windows",
    "score": "compute the factor for every day not scored yet",
    "report": "evaluate the factor: metrics.json, tables, report.html",
    "runs": "list the runs in a storage",
    "settings": "list every setting with default, unit and meaning, as TOML",
    "check-plugin": "test your own features, labels and predictors",
}
"""Command -> what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        from gangru_dist.base.records import read_code_version

        sys.stdout.write(f"gangru_dist {read_code_version()['package_version']}\n")
        return 0
    if words[:1] in ([], ["-h"], ["--help"]):
        sys.stdout.write(_usage())
        return 0 if words else 2
    name, *rest = words
    if name not in SUMMARIES:
        sys.stderr.write(f"there is no command {name!r}.\n\n{_usage()}")
        return 2
    if "" not in sys.path:
        sys.path.insert(0, "")  # own features and predictors lie where one works, as for python -m
    if name in ("runs", "settings", "check-plugin"):
        module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
        status: int = module.run(rest)
        return status
    from gangru_dist.commands import jobs

    return jobs.run(name, rest)


def _usage() -> str:
    lines = [f"  {name:<14}{text}\n" for name, text in SUMMARIES.items()]
    more = "Run `gangru COMMAND --help` for the options of a command.\n"
    return f"usage: gangru COMMAND …\n\n{''.join(lines)}\n{more}"
