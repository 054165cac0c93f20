"""Train and score the trials of a study, one after another in this process.

    python -m studies.run --storage STORE --out OUT both shape level
    python -m studies.run --storage STORE --out OUT --protocol final --seeds 0 1 2 default

STORE has a panel of real bars (jobs/panel.py). Without names, every trial. What is done already is
skipped, so the same command goes on after an interruption. Prints a line of JSON a model.
"""

from __future__ import annotations

import argparse
import sys

from gangru_dist.base.storage import Storage
from studies.protocol import PROTOCOLS, Part, Study
from studies.trials import TRIALS


def main(argv: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trials", nargs="*", help="names out of trials.py; none = all")
    parser.add_argument("--storage", required=True, help="where the panel is")
    parser.add_argument("--out", required=True, help="where results go")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="development")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--of", type=int, default=4, help="train on one in so many assets; 1 = all")
    args = parser.parse_args(argv)
    unknown = [name for name in args.trials if name not in TRIALS]
    if unknown:
        parser.error(f"no trial {', '.join(unknown)}; there are {', '.join(TRIALS)}")
    protocol = PROTOCOLS[args.protocol]
    study = Study(Storage(args.storage), Storage(args.out), protocol, Part(of=args.of))
    for line in study.run({name: TRIALS[name] for name in args.trials or TRIALS}, args.seeds):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
