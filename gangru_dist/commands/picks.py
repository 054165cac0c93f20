"""Print the best stocks by a run's factor on a day, and keep the list with the run.

    gangru picks --storage s3://bucket/gangru --run monthly
    gangru picks --storage data --run monthly --date 2020-06-30 --top 20 --csv picks.csv

The day is the newest scored day, or the given one. The list of `evaluation.picks` stocks stays in
`runs/<run>/picks/<day>.csv`, whatever --top shows. It is never replaced: another list of the same
day, after other models or settings, gets `<day>-<hash of its content>.csv`. `at_limit` says which
stocks closed at a price limit that day.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gangru_dist.commands import Parser, tell

if TYPE_CHECKING:
    import pandas as pd

    from gangru_dist.base.storage import Storage


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = Parser(prog="gangru picks", description=__doc__)
    add = parser.add_argument
    parser.add_storage()
    parser.add_run()
    add("--date", metavar="DAY", help="a scored day (default: the newest)")
    add("--top", type=int, metavar="N", help="number of stocks to show (default: evaluation.picks)")
    add("--csv", metavar="FILE", help="write them to this file too; path or URI")
    add("--json", action="store_true", help="one JSON object per stock and nothing else")
    return _print_picks(parser.parse_args(argv))


def _print_picks(args: argparse.Namespace) -> int:
    from gangru_dist.api import read_picks  # pandas: not for --help
    from gangru_dist.base.records import write_table
    from gangru_dist.base.storage import Storage, split_uri
    from gangru_dist.base.store_check import check_store
    from gangru_dist.maths.calendar import to_day
    from gangru_dist.runs.run import open_run

    asked = to_day(args.date, "--date")
    folder, name = split_uri(args.csv) if args.csv else ("", "")
    check_store(Storage(args.storage), writes=True)
    run = open_run(args.storage, args.run)
    picks = run.cfg.evaluation.picks
    top = picks if args.top is None else args.top
    whole = read_picks(run, asked, top=max(top, picks) if top > 0 else top)
    found, day = whole.head(top), f"{whole['date'].iloc[0]:%Y-%m-%d}"
    kept = _keep(run.folder.child("picks"), day, whole.head(picks))
    if name:
        write_table(Storage(folder), name, found)
    if args.json:
        tell(found.to_json(orient="records", lines=True, date_format="iso", force_ascii=False))
        return 0
    shown = found.drop(columns=["date", "model"]).to_string(index=False, na_rep="")
    model = json.dumps(found["model"].iloc[0])
    tell(f"{day} run={run.name} model={model}\n{shown}\n{kept}\n")
    return 0


def _keep(folder: Storage, day: str, table: pd.DataFrame) -> str:
    """Keep a day's list, beside another one of that day; return what the reader is told."""
    from gangru_dist.base.records import format_table, hash_bytes

    data, name = format_table(table), f"{day}.csv"
    if not folder.exists(name):
        folder.write_bytes(name, data)
    elif folder.read_bytes(name) != data:
        other = f"{day}-{hash_bytes(data)[:8]}.csv"
        folder.write_bytes(other, data)
        return f"{folder.uri}/{other}\n  {name} is another list of that day, and is kept."
    return f"{folder.uri}/{name}"
