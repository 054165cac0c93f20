"""Train and score the trials of a study, one after another in this process.

    python -m studies.run --storage STORE --out OUT both shape level
    python -m studies.run --storage STORE --out OUT --protocol final --seeds 0 1 2 default

STORE has a panel of real bars (jobs/panel.py). Without names, every trial. What is done already is
skipped, so the same command goes on after an interruption. Prints a line of JSON a model.
"""

from __future__ import annotations

import sys

from studies.protocol import make_parser, open_study
from studies.trials import TRIALS


def main(argv: list[str] | None = None) -> int:
    """The exit status."""
    parser = make_parser(__doc__, trials="names out of trials.py; none = all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args(argv)
    unknown = [name for name in args.trials if name not in TRIALS]
    if unknown:
        parser.error(f"no trial {', '.join(unknown)}; there are {', '.join(TRIALS)}")
    for line in open_study(args).run(
        {name: TRIALS[name] for name in args.trials or TRIALS}, args.seeds
    ):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
