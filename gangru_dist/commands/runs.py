"""List the runs in a storage: their models, scored days and figures; write the page of all of them.

    gangru runs --storage s3://bucket/gangru
    gangru runs --storage s3://bucket/gangru --compare monthly monthly-gru trial-7

A run is listed as soon as a job has used its name. Every job ends by writing `runs/index.html`, as
this command does: one table to sort and filter, with links to the reports. `--compare` writes
`runs/compare.html`, two or more runs side by side, with its figures in `compare.json`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
from collections.abc import Sequence
from typing import Any

from gangru_dist.base.errors import GangruError
from gangru_dist.base.storage import Storage
from gangru_dist.base.store_check import check_store
from gangru_dist.commands import Parser, tell

COLUMNS = ("run", "variant", "version", "models", "days", "last_day", "state", "ic", "excess")
_logger = logging.getLogger(__name__)


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = Parser(prog="gangru runs", description=__doc__)
    add = parser.add_argument
    parser.add_storage()
    add("--compare", nargs="+", metavar="RUN", help="two or more runs with a report")
    add("--json", action="store_true", help="one JSON object per run and nothing else")
    return _list_runs(parser.parse_args(argv))


def _list_runs(args: argparse.Namespace) -> int:
    root = Storage(args.storage)
    check_store(root, writes=False)
    from gangru_dist.report.runs import (  # pandas: not for --help
        find_files,
        read_runs,
        write_comparison,
        write_index,
    )

    found = [_describe_run(root, one) for one in read_runs(root, find_files(root))]
    found.sort(key=lambda row: str(row["run"]))
    if args.compare:
        page = write_comparison(root, args.compare)
        found = [row for row in found if row["run"] in args.compare]
    else:
        page = write_index(root) if found else ""
    if args.json:
        tell("".join(f"{json.dumps(row)}\n" for row in found))
    elif found:
        tell("".join(f"{line}\n" for line in (*_format_table(found), page)))
    else:
        tell(f"there are no runs in {root.uri} yet\n")
    return 0


def _describe_run(root: Storage, listed: Any) -> dict[str, Any]:
    from gangru_dist.runs.run import run_folder

    folder, claim = run_folder(root, listed.name), listed.claim
    days, page = _list_days(folder, listed.name), "report/report.html"
    return {
        "run": listed.name,
        "variant": str(claim.config.get("variant", "")),
        "version": claim.package_version or "",
        "commit": claim.commit,
        "preset": listed.preset,
        "changed": list(listed.changed),
        "when": listed.when.isoformat(timespec="seconds") if listed.when else None,
        "state": listed.state,
        "models": listed.files.models,
        "failed": listed.failures,
        "hours": listed.hours,
        "days": len(days),
        "last_day": str(days[-1]) if days else "",
        "ic": listed.figure("ic.mean"),
        "icir": listed.figure("ic.icir"),
        "excess": listed.figure("excess.annualized_return"),
        "excess_with_costs": listed.figure("excess_with_costs.annualized_return"),
        "turnover": listed.figure("turnover"),
        "report": f"{folder.uri}/{page}" if page in listed.files.infos else "",
    }


def _list_days(folder: Storage, run: str) -> list[dt.date]:
    """List the scored days, ascending; none, and a warning, if the factor table is damaged."""
    from gangru_dist.runs.run import FACTOR
    from gangru_dist.scoring.table import FactorTable  # Delta

    try:
        return sorted(FactorTable(folder.child(FACTOR)).read_coverage())
    except GangruError as error:
        _logger.warning("factor_unreadable run=%s reason=%s", run, error)
        return []


def _format_table(rows: list[dict[str, Any]]) -> list[str]:
    """Write the runs as lines of text, in columns; no figure = empty."""
    from pandas import DataFrame

    table = DataFrame(rows, columns=COLUMNS).astype({"ic": float, "excess": float})
    text = table.to_string(index=False, na_rep="", float_format="{:+.4f}".format)
    return text.splitlines()
