"""Figures of a study's trials, and of one against another.

    python -m studies.compare --storage STORE --out OUT            # the table of all trials
    python -m studies.compare --storage STORE --out OUT both shape # two of them, paired
    ... both both+shape                                            # A+B: mean of both's z-scores
    ... both textbook                                  # against five factors that nobody trains
    ... both                                   # one alone: its excess taken apart, by refit

A trial's factor is the mean of its seeds' z-scored scores. ICs are rank ICs of the neutralized
factor with the next 20 days, every fifth day; standard errors are Newey-West's with four lags,
for five labels overlap. Months are those of the report.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gangru_dist.base.errors import ConfigError
from gangru_dist.maths import metrics
from gangru_dist.maths.cross_section import FLAT_SCORE, cs_zscore
from studies import significance, textbook
from studies.protocol import Judged, Study, judge, make_parser, open_study, trial_config

LAGS = 4
"""Of every fifth day's IC with a label of 20 days."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A trial, or the mean of several, judged."""

    name: str
    lines: list[dict[str, Any]]
    """Of its models."""
    scores: np.ndarray
    """Of its days, (K, N)."""
    days: np.ndarray
    """Rows of the study's block."""
    whole: Judged
    other: Judged
    """On the assets that it was not trained on alone."""

    def figures(self) -> dict[str, Any]:
        """A row of the table."""
        monthly = self.whole.monthly.to_numpy()
        judged = self.whole.evaluation.metrics
        models = pd.DataFrame(self.lines, columns=_OF_MODELS)
        by_seed = models.groupby("seed")["ic"].mean()
        return {
            "trial": self.name,
            "seeds": len(by_seed),
            "valid": float(models["valid_ic"].mean()),
            "ic": metrics.mean(self.whole.daily),
            "se": significance.compute_newey_west_error(self.whole.daily, lags=LAGS),
            "raw": metrics.mean(self.whole.daily_raw),
            "other": metrics.mean(self.other.daily),
            "one_seed": float(by_seed.mean()),
            "seed_sd": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else float("nan"),
            "month_ic": metrics.mean(monthly),
            "icir": metrics.icir(monthly),
            "excess": judged["excess"]["annualized_return"],
            "net": judged["excess_with_costs"]["annualized_return"],
            "turnover": judged["turnover"],
            "cpu_min": float(models["cpu_seconds"].mean()) / 60,
        }


_OF_MODELS = ["window", "seed", "ic", "valid_ic", "cpu_seconds"]
"""Columns of `Result.lines`, of which the textbook's mix has none."""


def load_results(study: Study, names: Sequence[str]) -> list[Result]:
    """The finished ones of some trials; `a+b`: mean of both's z-scores, `a*2`: of two refits'."""
    lines = study.lines()
    found = []
    for name in names:
        text, _, refits = name.partition("*")
        parts = text.split("+")
        own = [line for line in lines if line["trial"] in parts]
        models = [part for part in parts if part != textbook.NAME]
        seeds = {part: _complete(study, own, part) for part in models}
        if not all(seeds.values()):
            continue
        tables = [study.mean_scores(part, seeds[part], int(refits or 1)) for part in models]
        days = tables[0][1] if tables else study.all_days()
        each = [table[0] for table in tables]
        if textbook.NAME in parts:
            each.append(textbook.compute_mix(study.block, trial_config(()))[days])
        scores = np.mean([cs_zscore(one, flat=FLAT_SCORE) for one in each], axis=0)
        other = ~study.part.mask(study.block.assets)
        kept = [line for line in own if line["seed"] in seeds[line["trial"]]]
        found.append(
            Result(
                name=name,
                lines=kept,
                scores=scores,
                days=days,
                whole=judge(study, scores, days),
                other=judge(study, scores, days, other),
            )
        )
    return found


def _complete(study: Study, lines: list[dict[str, Any]], trial: str) -> list[int]:
    """Seeds that every refit has."""
    by_refit = [
        {line["seed"] for line in lines if (line["trial"], line["window"]) == (trial, refit)}
        for refit in study.protocol.refits
    ]
    return sorted(set.intersection(*by_refit))


def make_table(found: list[Result]) -> pd.DataFrame:
    """All trials, best first, with what is left of the best ICIR after so many trials."""
    return pd.DataFrame([result.figures() for result in found]).sort_values("ic", ascending=False)


def compare_pairs(a: Result, b: Result) -> pd.DataFrame:
    """Both and their difference: IC every fifth day, by month, by seed.

    Raises:
        ConfigError: They have no scored day in common.
    """
    days = _align(pd.Series(a.whole.daily, a.whole.dates), pd.Series(b.whole.daily, b.whole.dates))
    if days.empty:
        raise ConfigError(
            f"{a.name} and {b.name} have no scored day in common: one is of another protocol. Run "
            "both with the same --protocol."
        )
    months = _align(a.whole.monthly, b.whole.monthly)
    per_model = [
        pd.DataFrame(result.lines, columns=_OF_MODELS).groupby(["window", "seed"])["ic"].mean()
        for result in (a, b)
    ]
    rows = []
    for name, pairs, lags in (
        ("every fifth day", days, LAGS),
        ("month", months, 0),
        ("model", _align(*per_model), 0),
    ):
        if len(pairs) < 2:
            continue
        gap = (pairs["a"] - pairs["b"]).to_numpy()
        error = (
            significance.compute_newey_west_error(gap, lags=lags)
            if lags
            else float(np.std(gap, ddof=1) / np.sqrt(len(gap)))
        )
        rows.append((name, len(gap), pairs["a"].mean(), pairs["b"].mean(), gap.mean(), error))
    return pd.DataFrame(rows, columns=["paired by", "count", a.name, b.name, "gap", "error"])


def decompose(study: Study, found: Result) -> pd.DataFrame:
    """Its excess taken apart, a column a refit: (group, part) x refits."""
    starts = np.array(study.protocol.refits, dtype="datetime64[D]")
    owner = np.searchsorted(starts, study.block.dates[found.days], "left") - 1
    columns = {
        name: judge(
            study, found.scores[owner == row], found.days[owner == row]
        ).evaluation.decomposition.set_index(["group", "part"])["value"]
        for row, name in enumerate(study.protocol.refits)
    }
    return pd.DataFrame(columns)


def _align(a: pd.Series, b: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"a": a, "b": b}).dropna()


def main(argv: list[str] | None = None) -> int:
    """The exit status."""
    parser = make_parser(__doc__, trials="names; two of them are compared")
    args = parser.parse_args(argv)
    study = open_study(args)
    tried = list(dict.fromkeys(line["trial"] for line in study.lines()))
    found = load_results(study, args.trials or tried)
    if not found:
        names = ", ".join(args.trials) or "none was begun"
        parser.error(
            f"nothing to show of {names}: no trial of it has all refits of one seed. Begun in "
            f"{args.out}: {', '.join(tried) or 'none'}. Run it with studies.run."
        )
    print(make_table(found).to_string(index=False, float_format="%.4f"))
    if len(args.trials) == 2 and len(found) == 2:
        a, b = found
        print(_align(a.whole.monthly, b.whole.monthly).to_string(float_format="%.4f"))
        try:
            print(compare_pairs(a, b).to_string(index=False, float_format="%.4f"))
        except ConfigError as error:
            parser.error(str(error))
    elif len(found) == 1:
        print(decompose(study, found[0]).to_string(float_format="%.4f"))
    elif not args.trials:
        _print_deflated(found)
    return 0


def _print_deflated(found: list[Result]) -> None:
    icirs = np.array([metrics.icir(result.whole.monthly.to_numpy()) for result in found])
    best = found[int(np.argmax(icirs))]
    chance = significance.deflate_icir(best.whole.monthly.to_numpy(), icirs)
    print(
        f"{len(found)} settings tried; best monthly ICIR {icirs.max():.2f} ({best.name}); "
        f"by chance alone {significance.expect_best_icir(icirs):.2f}; deflated: {chance:.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
