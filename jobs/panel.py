"""Build the panel store from daily bars.

    python jobs/panel.py --bars s3://market/daily --storage s3://bucket/gangru \
        --set bars.format=tushare

Reads parquet or CSV in any partitioning, checks every row, computes the features and writes
`<storage>/panel`. Run again with the same bars and settings, it has nothing to do; with bars that
have grown, it adds the new days. Bars that change days the panel has are refused, unless
--overwrite says that the correction is meant. With --check it reads and checks only, prints what it
found, and writes nothing; exit status 2 if a build would stop. Expect half a minute for 3.4 million
rows on two cores. docs/data.md says which columns are needed.
"""

import argparse
import sys

from gangru_dist.cli import Job, Outcome, run_job
from gangru_dist.errors import BarsError


def flags(parser: argparse.ArgumentParser) -> None:
    """What only this job asks."""
    text = "folder or URI of the vendor's bars; `synthetic` for a made-up market"
    parser.add_argument("--bars", required=True, metavar="URI", help=text)
    text = "read and check the bars, print what was found, write nothing"
    parser.add_argument("--check", action="store_true", help=text)


def body(job: Job) -> Outcome:
    """Build the panel; say where it is and what was wrong with the bars."""
    if job.args.check:
        return check(job)
    from gangru_dist.pipeline import check_bars, panel_from  # Ray: only once the flags are right

    root, cfg = job.run.root, job.run.cfg
    check_bars(job.args.bars, cfg)
    panel_from(root, cfg, bars=job.args.bars, overwrite=job.args.overwrite)
    panel = root.child("panel").uri
    return Outcome(outputs=(panel, f"{panel}/quality.json"))


def check(job: Job) -> Outcome:
    """Print the quality table.

    Raises:
        BarsError: The build would stop.
    """
    from gangru_dist.panel.check import check_panel

    verdict = check_panel(job.args.bars, job.run.cfg)
    sys.stdout.writelines(f"{line}\n" for line in verdict.lines)
    if verdict.problems:
        raise BarsError("; ".join(verdict.problems))
    return Outcome(outputs=(job.args.bars,))


if __name__ == "__main__":
    raise SystemExit(run_job(__doc__, body, flags=flags))
