"""Delete a run: its models, scores and reports. The panel and the other runs stay.

    gangru delete --storage data trial-7          # says what would go
    gangru delete --storage data trial-7 --yes    # deletes it

This cannot be undone. Stop the run's jobs first: one that still runs would write parts of it again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gangru_dist.commands import Parser, tell


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = Parser(prog="gangru delete", description=__doc__)
    add = parser.add_argument
    add("run", metavar="RUN", help="name of the run")
    parser.add_storage()
    add("--yes", action="store_true", help="delete it, do not only say what would go")
    return _delete(parser.parse_args(argv))


def _delete(args: argparse.Namespace) -> int:
    from gangru_dist.base.errors import ConfigError  # heavy: not for --help
    from gangru_dist.base.storage import Storage
    from gangru_dist.base.store_check import check_store
    from gangru_dist.runs.run import list_runs, run_folder

    root = Storage(args.storage)
    check_store(root, writes=False)  # a full disk is no reason not to delete
    folder = run_folder(root, args.run)
    infos = folder.list_infos()
    if not infos:
        names = ", ".join(list_runs(root)) or "none"
        raise ConfigError(f"there is no run {args.run!r} in {root.uri}; there are: {names}.")
    megabytes = sum(info.size or 0 for info in infos.values()) / 1e6
    what = f"{len(infos)} files, {megabytes:.1f} MB\n  {folder.uri}\n"
    if not args.yes:
        tell(f"would delete {what}To do it, give --yes\n")
        return 0
    from gangru_dist.report.runs import write_index

    root.child("runs").delete_folder(args.run)
    write_index(root)
    tell(f"deleted {what}")
    return 0
