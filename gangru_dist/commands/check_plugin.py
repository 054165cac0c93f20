"""Check that your own features, predictors and labels keep the promises, on made-up data.

    gangru check-plugin my_package.factors:surprise my_package.networks:Mine

A feature must not look ahead, not mix assets, and read what it names. A predictor must score a
sample by that sample alone and draw nothing at random, so that shards and resumed runs are exact.
A label transform must not depend on the order of the assets. Exit status 2 if one does not.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from gangru_dist.base.errors import ConfigError, GangruError
from gangru_dist.config.settings import LABEL_TRANSFORMS, PREDICTORS, GruConfig, LabelConfig
from gangru_dist.features.price_volume import COLUMN, FEATURES, AdjustedBars, Columns, Feature

DAYS, ASSETS, LOOKBACK = 60, 12, 10


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
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
    """List what is wrong with a feature, predictor or label transform; empty if nothing is.

    Raises:
        ConfigError: There is none of that name.
    """
    reasons = []
    for table, fits, kind in (
        (FEATURES, lambda item: True, _check_feature),
        (PREDICTORS, inspect.isclass, _check_predictor),
        (LABEL_TRANSFORMS, _takes_two, _check_label),
    ):
        try:
            item: Any = table[table.check_name(name)]
        except ValueError as error:
            reasons.append(str(error))
            continue
        if fits(item):
            return list(kind(item))
        del table[name]
    raise ConfigError(f"{reasons[0]}.")


def _takes_two(item: Any) -> bool:
    """A label transform takes returns and the section `label`."""
    return not inspect.isclass(item) and len(inspect.signature(item).parameters) == 2


def make_bars(seed: int, inputs: Iterable[str] = ()) -> AdjustedBars:
    """Make random bars with the inputs' further columns; assets end after different days."""
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
    further = (name for name in sorted(inputs) if name.startswith(COLUMN))
    values |= {name: rng.normal(0, 1, close.shape) for name in further}
    return _bars({name: np.where(ends, value, np.nan) for name, value in values.items()})


def _arrays(bars: AdjustedBars) -> dict[str, np.ndarray]:
    """Return every array of the bars by the name that an input has."""
    own = {field.name: getattr(bars, field.name) for field in fields(bars)}
    further = own.pop("columns")
    return own | {COLUMN + name: values for name, values in further.items()}


def _bars(arrays: Mapping[str, np.ndarray]) -> AdjustedBars:
    own = {name: values for name, values in arrays.items() if not name.startswith(COLUMN)}
    further = {name.removeprefix(COLUMN): arrays[name] for name in arrays.keys() - own.keys()}
    return AdjustedBars(**own, columns=Columns(further))


def _change_arrays(
    bars: AdjustedBars, change: Callable[[str, np.ndarray], np.ndarray]
) -> AdjustedBars:
    return _bars({name: change(name, values.copy()) for name, values in _arrays(bars).items()})


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def _compute(item: Feature, bars: AdjustedBars) -> np.ndarray:
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        return np.asarray(item.compute(bars), dtype=np.float64)


def _check_feature(item: Feature) -> Iterator[str]:
    bars = make_bars(0, item.inputs)
    untouched = _change_arrays(bars, lambda name, values: values)
    found = _compute(item, bars)
    if found.shape != (DAYS, ASSETS):
        yield f"gives shape {found.shape} for bars of shape {(DAYS, ASSETS)}"
        return
    before = _arrays(untouched)
    if not all(_same(values, before[name]) for name, values in _arrays(bars).items()):
        yield "changes the bars that it is given; compute on a copy"
    if not _same(found, _compute(item, bars)):
        yield "gives another result when it is called again"
    yield from _find_leaks(item, bars, found)
    if np.isinf(found).any():
        yield "gives infinity; an undefined value is NaN"


def _find_leaks(item: Feature, bars: AdjustedBars, found: np.ndarray) -> Iterator[str]:
    """Find values that change with later days, other assets, or fields that it does not name."""
    other = _arrays(make_bars(1, item.inputs))
    for end in (6, DAYS // 2 + 1, DAYS - 1):
        later = _change_arrays(bars, lambda name, v: np.concatenate([v[:end], other[name][end:]]))  # noqa: B023
        short = _change_arrays(bars, lambda name, v: v[:end])  # noqa: B023
        if any(not _same(_compute(item, given)[:end], found[:end]) for given in (later, short)):
            yield f"looks ahead: bars after day {end - 1} change its values up to that day"
            break
    alone = [_change_arrays(bars, lambda name, v: v[:, [i]]) for i in range(ASSETS)]  # noqa: B023
    if not _same(np.concatenate([_compute(item, one) for one in alone], axis=1), found):
        yield "mixes assets: an asset's values depend on which others are computed with it"
    hidden = _change_arrays(bars, lambda name, v: v if name in item.inputs else other[name])
    if not _same(_compute(item, hidden), found):
        yield f"reads more than it names: only {', '.join(item.inputs)} in its decorator"


def _check_predictor(item: Any) -> Iterator[str]:
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
    elif not torch.allclose(torch.cat([model(part) for part in samples.split(4)]), score):
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


def _check_label(item: Any) -> Iterator[str]:
    rng = np.random.default_rng(0)
    values, cfg = rng.standard_t(3, 50) / 10, LabelConfig()
    before, found = values.copy(), np.asarray(item(values, cfg))
    if found.shape != values.shape:
        yield f"gives shape {found.shape} for {len(values)} returns"
        return
    if not np.array_equal(values, before):
        yield "changes the returns that it is given; compute on a copy"
    if not np.isfinite(found).all():
        yield "gives what is not finite"
    if not np.array_equal(found, np.asarray(item(before, cfg))):
        yield "gives another result when it is called again"
    order = rng.permutation(len(values))
    if not np.allclose(np.asarray(item(before[order], cfg)), found[order]):
        yield "depends on the order of the assets"
