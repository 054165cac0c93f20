"""Figures by year of trials side by side, and of one under several rules for the portfolio.

    python -m studies.years --storage STORE --out OUT --protocol long both shape both+shape textbook
    python -m studies.years --storage STORE --out OUT --protocol long --rules both

IC and ICIR are of months. The excess is over the equally weighted universe, a year: compounded
before and after costs of 15 basis points a side, and as the difference of the arithmetic means,
the broker's ruler. The last rows are of all years.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pandas as pd

from gangru_dist.maths import metrics
from studies.compare import Result, load_results
from studies.protocol import Judged, Study, judge, make_parser, open_study

RULES: dict[str, tuple[str, ...]] = {
    "tenth": (),
    "tenth, sold below 2 tenths": ("evaluation.buffer=2",),
    "tenth, sold below 3 tenths": ("evaluation.buffer=3",),
    "twentieth": ("evaluation.top_fraction=0.05",),
    "twentieth, sold below 2": ("evaluation.top_fraction=0.05", "evaluation.buffer=2"),
    "twentieth, sold below 3": ("evaluation.top_fraction=0.05", "evaluation.buffer=3"),
    "twentieth, sold below 4": ("evaluation.top_fraction=0.05", "evaluation.buffer=4"),
    "fortieth, sold below 4": ("evaluation.top_fraction=0.025", "evaluation.buffer=4"),
    "fortieth, sold below 8": ("evaluation.top_fraction=0.025", "evaluation.buffer=8"),
    "tenth, turnover 40 %": ("evaluation.max_turnover=0.4",),
    "tenth, by score": ("evaluation.weights=score",),
    "twentieth, by score, below 3": (
        "evaluation.top_fraction=0.05",
        "evaluation.buffer=3",
        "evaluation.weights=score",
    ),
}
"""Name -> settings on top of the trial's: all that were tried."""


def describe(judged: Judged) -> dict[str, float]:
    """A row of the whole period."""
    found = judged.evaluation.metrics
    monthly = judged.monthly.to_numpy()
    return {
        "ic": metrics.mean(monthly),
        "icir": metrics.icir(monthly),
        "excess": found["excess"]["annualized_return"],
        "broker": found["excess"]["annualized_difference"],
        "net": found["excess_with_costs"]["annualized_return"],
        "broker_net": found["excess_with_costs"]["annualized_difference"],
        "net_ir": found["excess_with_costs"]["information_ratio"],
        "turnover": found["turnover"],
    }


def by_year(study: Study, result: Result) -> pd.DataFrame:
    """A row a year, and one of all."""
    years = study.block.dates[result.days].astype("datetime64[Y]").astype(int) + 1970
    rows: dict[str, dict[str, float]] = {}
    for year in sorted(set(years.tolist())):
        own = years == year
        if own.sum() > 1:
            rows[str(year)] = describe(judge(study, result.scores[own], result.days[own]))
    rows["all"] = describe(result.whole)
    return pd.DataFrame(rows).T


def compare_rules(study: Study, result: Result) -> pd.DataFrame:
    """A row a rule."""
    rows = {
        name: describe(judge(study, result.scores, result.days, rules=rules))
        for name, rules in RULES.items()
    }
    return pd.DataFrame(rows).T.sort_values("net", ascending=False)


def print_tables(tables: Iterable[tuple[str, pd.DataFrame]]) -> None:
    """Each under its name."""
    for name, table in tables:
        print(f"\n{name}")
        print(table.to_string(float_format="%.3f"), flush=True)


def main(argv: list[str] | None = None) -> int:
    """The exit status."""
    parser = make_parser(__doc__, trials="names")
    parser.add_argument("--rules", action="store_true", help="each rule in place of each year")
    args = parser.parse_args(argv)
    study = open_study(args)
    make = compare_rules if args.rules else by_year
    found = load_results(study, args.trials)
    print_tables((result.name, make(study, result)) for result in found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
