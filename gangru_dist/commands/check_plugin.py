"""Does a feature, predictor or label of your own keep the promises? Runs it on made-up data.

    gangru check-plugin my_package.factors:surprise my_package.networks:Mine

A feature must not look ahead, not mix assets, and read what it names. A predictor must score a
sample by that sample alone and draw nothing at random, so that shards and resumed runs are exact.
A label transform must not depend on the order of the assets. Exit status 2 if one does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from gangru_dist.config import LABEL_TRANSFORMS, PREDICTORS, GruConfig, LabelConfig
from gangru_dist.errors import ConfigError, GangruError
from gangru_dist.features.price_volume import FEATURES, AdjustedBars, Feature

DAYS, ASSETS, LOOKBACK = 60, 12, 10


def run(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="gangru check-plugin",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="MODULE:NAME", help="or an entry point's name")
    wrong = 0
    for name in parser.parse_args(argv).names:
        try:
            problems = check(name)
        except GangruError as error:
            problems = [str(error)]
        wrong += bool(problems)
        sys.stdout.writelines(f"{name}: {text}\n" for text in problems or ["keeps the promises"])
    return 2 if wrong else 0


def check(name: str) -> list[str]:
    """What is wrong with a feature, predictor or label transform; empty if nothing is.

    Raises:
        ConfigError: There is none of that name.
    """
    for table, kind in ((PREDICTORS, _predictor), (LABEL_TRANSFORMS, _label)):
        if name in table:
            return list(kind(table[name]))
    if name in FEATURES:
        return list(_feature(FEATURES[name]))
    try:
        return list(_feature(FEATURES[name]))
    except GangruError as error:
        not_a_feature = error
    for other, kind in ((PREDICTORS, _predictor), (LABEL_TRANSFORMS, _label)):
        try:
            item: Any = other[name]
        except GangruError:
            continue
        if isinstance(item, type) == (kind is _predictor):
            return list(kind(item))
        del other[name]
    raise ConfigError(str(not_a_feature))


def made_bars(seed: int) -> AdjustedBars:
    """Random bars; assets end after different days, as in a panel bucket."""
    rng = np.random.default_rng(seed)
    ends = np.arange(DAYS)[:, None] < rng.integers(DAYS // 2, DAYS + 1, ASSETS)
    close = np.exp(np.cumsum(rng.normal(0, 0.02, (DAYS, ASSETS)), axis=0)) * 10
    values = {
        "close": close,
        "open": close * rng.uniform(0.98, 1.02, close.shape),
        "high": close * 1.03,
        "low": close * 0.97,
        "vwap": close * rng.uniform(0.99, 1.01, close.shape),
        "volume": rng.uniform(1e3, 1e6, close.shape),
        "amount": rng.uniform(1e4, 1e7, close.shape),
        "turnover_rate": rng.uniform(0, 0.1, close.shape),
    }
    return AdjustedBars(**{name: np.where(ends, value, np.nan) for name, value in values.items()})


def _each(bars: AdjustedBars, change: Callable[[str, np.ndarray], np.ndarray]) -> AdjustedBars:
    names = [field.name for field in fields(bars)]
    return replace(bars, **{name: change(name, getattr(bars, name).copy()) for name in names})


def _feature(item: Feature) -> Iterator[str]:
    bars, other = made_bars(0), made_bars(1)

    def computed(given: AdjustedBars) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(item.compute(given), dtype=np.float64)

    def same(a: np.ndarray, b: np.ndarray) -> bool:
        return a.shape == b.shape and np.array_equal(a, b, equal_nan=True)

    untouched = _each(bars, lambda name, values: values)
    found = computed(bars)
    if found.shape != (DAYS, ASSETS):
        yield f"gives shape {found.shape} for bars of shape {(DAYS, ASSETS)}"
        return
    fields_kept = [same(getattr(bars, f.name), getattr(untouched, f.name)) for f in fields(bars)]
    if not all(fields_kept):
        yield "changes the bars that it is given; compute on a copy"
    if not same(found, computed(bars)):
        yield "gives another result when it is called again"
    for day in (5, DAYS // 2, DAYS - 2):
        end = day + 1
        later = _each(
            bars,
            lambda n, v, end=end: np.concatenate([v[:end], getattr(other, n)[end:]]),  # type: ignore[misc]
        )
        short = _each(bars, lambda n, v, end=end: v[:end])  # type: ignore[misc]
        if not same(computed(later)[:end], found[:end]) or not same(computed(short), found[:end]):
            yield f"looks ahead: bars after day {day} change its values up to that day"
            break
    alone = [computed(_each(bars, lambda n, v, i=i: v[:, [i]])) for i in range(ASSETS)]  # type: ignore[misc]
    if not same(np.concatenate(alone, axis=1), found):
        yield "mixes assets: an asset's values depend on which others are computed with it"
    hidden = _each(bars, lambda n, v: v if n in item.inputs else getattr(other, n))
    if not same(computed(hidden), found):
        yield f"reads more than it names: only {', '.join(item.inputs)} in its decorator"
    if np.isinf(found).any():
        yield "gives infinity; an undefined value is NaN"


def _predictor(item: Any) -> Iterator[str]:
    import torch  # seconds; features need none of it

    torch.manual_seed(0)
    cfg = GruConfig(hidden=8, layers=1, head=(4,))
    model = item(3, cfg).double()
    samples = torch.randn(16, LOOKBACK, 3, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    score = model(samples)
    if score.shape != (16,):
        yield f"gives shape {tuple(score.shape)} for 16 samples, not (16,)"
        return
    if not torch.isfinite(score).all():
        yield "gives what is not finite"
    if not torch.equal(score, model(samples)):
        yield "draws at random while it trains (dropout?): workers and resumed runs would differ"
    elif not torch.allclose(torch.cat([model(part) for part in samples.split(1)]), score):
        yield "mixes samples: a score depends on the others in the batch (batch statistics?)"
    if any(not torch.equal(before[name], value) for name, value in model.state_dict().items()):
        yield "changes its own state in a forward pass (running statistics?)"
    target = torch.randn(16, dtype=torch.float64)
    loss = -torch.corrcoef(torch.stack([model(samples), target]))[0, 1]
    loss.backward()
    sizes = {
        name: 0.0 if value.grad is None else float(value.grad.abs().max())
        for name, value in model.named_parameters()
    }
    idle = [name for name, value in sizes.items() if value <= 1e-10 * max(sizes.values())]
    if idle:
        yield (
            f"-IC gives {', '.join(idle)} no gradient: Adam would turn rounding noise into steps. "
            "Leave it out (bias=False)"
        )


def _label(item: Any) -> Iterator[str]:
    rng = np.random.default_rng(0)
    values, cfg = rng.standard_t(3, 50) / 10, LabelConfig()
    kept, found = values.copy(), np.asarray(item(values, cfg))
    if found.shape != values.shape:
        yield f"gives shape {found.shape} for {len(values)} returns"
        return
    if not np.array_equal(values, kept):
        yield "changes the returns that it is given; compute on a copy"
    if not np.isfinite(found).all():
        yield "gives what is not finite"
    if not np.array_equal(found, np.asarray(item(kept, cfg))):
        yield "gives another result when it is called again"
    order = rng.permutation(len(values))
    if not np.allclose(np.asarray(item(kept[order], cfg)), found[order]):
        yield "depends on the order of the assets"
