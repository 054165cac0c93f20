"""List all runs of a storage, and write runs/index.html to compare them in a browser.

    python jobs/runs.py --storage s3://bucket/prefix

Every job writes the page when it ends. Here only --storage is needed; `--set report.language=zh`
makes the page Chinese. Mark runs in its table to compare only these.
"""

from __future__ import annotations

import sys

from gangru_dist.cli import Job, Outcome, run_job


def body(job: Job) -> Outcome:
    """Print the runs and write the page."""
    from gangru_dist.report.runs_index import list_runs, write_index

    for run in list_runs(job.run.root):
        ic, excess = run.figure("ic", "mean"), run.figure("excess", "annualized_return")
        figures = "" if ic is None else f" ic={ic:+.4f}"
        figures += "" if excess is None else f" excess={excess:+.1%}"
        failed = f" failed={run.failed}" if run.failed else ""
        sys.stdout.write(f"{run.name}  {run.state} models={run.models}{failed}{figures}" + "\n")
    return Outcome(outputs=(write_index(job.run.root, job.run.cfg.report.language),))


if __name__ == "__main__":
    raise SystemExit(run_job(__doc__, body))
