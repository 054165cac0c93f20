"""List the runs in a storage: their models, scored days and reports.

    gangru runs --storage s3://bucket/gangru
    gangru runs --storage s3://bucket/gangru --json

A run is listed as soon as a job has used its name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from gangru_dist.errors import GangruError
from gangru_dist.runs.run import Run, run_names
from gangru_dist.storage import Storage

COLUMNS = ("run", "variant", "version", "models", "days", "last_day", "report")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="gangru runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--storage", required=True, metavar="URI", help="folder or URI, as for every other command"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per run")
    args = parser.parse_args(argv)
    try:
        root = Storage(args.storage)
        found = [_row(root, name) for name in run_names(root)]
    except GangruError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    lines = map(json.dumps, found) if args.json else _table(found)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _row(root: Storage, name: str) -> dict[str, Any]:
    from gangru_dist.config import RunConfig
    from gangru_dist.scoring.table import covered_days  # Delta: not for --help

    one = Run(root, name, RunConfig())
    claim, days = one.claimed(), sorted(covered_days(one.factor))
    page = "report.html"
    return {
        "run": name,
        "variant": str(claim.config.get("variant", "")) if claim else "",
        "version": (claim.package_version or "") if claim else "",
        "models": len(one.models()),
        "days": len(days),
        "last_day": str(days[-1]) if days else "",
        "report": f"{one.report.uri}/{page}" if one.report.exists(page) else "",
    }


def _table(rows: list[dict[str, Any]]) -> list[str]:
    cells = [COLUMNS, *(tuple(str(row[name]) for name in COLUMNS) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
