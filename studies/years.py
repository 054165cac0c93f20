"""Figures by year of trials side by side, and of one under several rules for the portfolio.

    python -m studies.years --storage STORE --out OUT --protocol long both shape both+shape textbook
    python -m studies.years --storage STORE --out OUT --protocol long --rules both

IC and ICIR are of months, the portfolio is that of `--rule`. The excess is over the equally
weighted universe, a year: compounded before and after costs of 15 basis points a side, and as the
difference of the two annualized returns, the broker's ruler. Each year begins with a purchase,
whose costs count; the last rows are of all years as one.
"""

from __future__ import annotations

import sys
from functools import partial

import pandas as pd

from gangru_dist.maths import metrics
from studies.compare import Result, load_results
from studies.protocol import Judged, Study, judge, make_parser, open_study

DEFAULT = "twentieth-3"
"""The rule of preset `default`."""
_TWENTIETH, _FORTIETH = (f"evaluation.top_fraction={share}" for share in (0.05, 0.025))
_BY_SCORE = "evaluation.weights=score"


def _sold_below(times: int) -> str:
    return f"evaluation.buffer={times}"


RULES: dict[str, tuple[str, ...]] = {
    "tenth": (),
    "tenth-2": (_sold_below(2),),
    "tenth-3": (_sold_below(3),),
    "tenth-turnover": ("evaluation.max_turnover=0.4",),
    "tenth-score": (_BY_SCORE,),
    "twentieth": (_TWENTIETH,),
    "twentieth-2": (_TWENTIETH, _sold_below(2)),
    "twentieth-3": (_TWENTIETH, _sold_below(3)),
    "twentieth-4": (_TWENTIETH, _sold_below(4)),
    "twentieth-3-score": (_TWENTIETH, _sold_below(3), _BY_SCORE),
    "fortieth-4": (_FORTIETH, _sold_below(4)),
    "fortieth-8": (_FORTIETH, _sold_below(8)),
}
"""All rules that were tried, settings on top of a trial's: the share that is bought, and of how
many such shares a holding must fall out to be sold."""


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


def by_year(study: Study, result: Result, rule: str) -> pd.DataFrame:
    """A row a year, and one of all."""
    years = study.block.dates[result.days].astype("datetime64[Y]").astype(int) + 1970
    rows: dict[str, dict[str, float]] = {}
    for year in sorted(set(years.tolist())):
        own = years == year
        if own.sum() > 1:
            found = judge(study, result.scores[own], result.days[own], rules=RULES[rule])
            rows[str(year)] = describe(found)
    rows["all"] = describe(judge(study, result.scores, result.days, rules=RULES[rule]))
    return pd.DataFrame(rows).T


def compare_rules(study: Study, result: Result) -> pd.DataFrame:
    """A row a rule."""
    rows = {
        name: describe(judge(study, result.scores, result.days, rules=rules))
        for name, rules in RULES.items()
    }
    return pd.DataFrame(rows).T.sort_values("net", ascending=False)


def main(argv: list[str] | None = None) -> int:
    """The exit status."""
    parser = make_parser(__doc__, trials="names")
    parser.add_argument("--rules", action="store_true", help="each rule in place of each year")
    parser.add_argument("--rule", choices=RULES, default=DEFAULT, help="of the years")
    args = parser.parse_args(argv)
    study = open_study(args)
    make = compare_rules if args.rules else partial(by_year, rule=args.rule)
    for result in load_results(study, args.trials):
        print(f"\n{result.name}")
        print(make(study, result).to_string(float_format="%.3f"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
