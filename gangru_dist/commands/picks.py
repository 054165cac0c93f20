"""Print the best stocks by a run's factor on a day, and keep the list with the run.

    gangru picks --storage s3://bucket/gangru --run monthly
    gangru picks --storage data --run monthly --date 2020-06-30 --top 20 --csv picks.csv

The day is the newest that is scored, or the one that is asked for. Every list stays in
`runs/<run>/picks/<day>.csv`; `at_limit` says whose close was at a price limit that day.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial

from gangru_dist.commands import Parser, report_errors, tell


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = Parser(
        prog="gangru picks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--storage", required=True, metavar="URI", help="folder or URI, as for every other command")
    add("--run", default="default", metavar="NAME", help="name of the run (default: default)")
    add("--date", metavar="DAY", help="a scored day (default: the newest)")
    add("--top", type=int, metavar="N", help="number of stocks (default: evaluation.picks)")
    add("--csv", metavar="FILE", help="write them to this file too; path or URI")
    add("--json", action="store_true", help="one JSON object per stock and nothing else")
    return report_errors(partial(_print_picks, parser.parse_args(argv)))


def _print_picks(args: argparse.Namespace) -> int:
    from gangru_dist.api import read_picks  # pandas: not for --help
    from gangru_dist.base.records import write_table
    from gangru_dist.base.storage import Storage, split_uri
    from gangru_dist.runs.run import open_run

    run = open_run(args.storage, args.run)
    found = read_picks(run, args.date, top=args.top)
    day = f"{found['date'].iloc[0]:%Y-%m-%d}"
    write_table(run.folder.child("picks"), f"{day}.csv", found)
    if args.csv:
        folder, name = split_uri(args.csv)
        write_table(Storage(folder), name, found)
    if args.json:
        tell(found.to_json(orient="records", lines=True, date_format="iso", force_ascii=False))
        return 0
    shown = found.drop(columns=["date", "model"]).to_string(index=False, na_rep="")
    model = json.dumps(found["model"].iloc[0])
    tell(f"{day} run={run.name} model={model}\n{shown}\n{run.folder.uri}/picks/{day}.csv\n")
    return 0
