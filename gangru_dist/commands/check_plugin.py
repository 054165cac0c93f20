"""Check on made-up data that your own features, predictors, labels and callbacks keep the rules.

    gangru check-plugin my_package.factors:surprise my_package.networks:Mine
    gangru check-plugin my_package.networks:Mine --set samples.lookback=60 --set gru.options.p=0.1

A feature must not look ahead or mix assets, and must read only the fields that it names. A
predictor must score a sample by that sample alone and without random numbers, so that shards and
resumed runs are exact; it is built with the lookback, the channels and the sizes of the settings. A
label transform must not depend on the order of the assets. A callback must accept what it is called
with. The exit status is 2 if one breaks its rule.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from gangru_dist.base.errors import ConfigError, GangruError, extract_reason
from gangru_dist.base.storage import Storage
from gangru_dist.commands import Parser
from gangru_dist.config import presets
from gangru_dist.config.settings import (
    CALLBACKS,
    LABEL_TRANSFORMS,
    PREDICTORS,
    LabelConfig,
    RunConfig,
)
from gangru_dist.config.sources import load
from gangru_dist.events.callbacks import Series
from gangru_dist.features.price_volume import COLUMN, FEATURES, AdjustedBars, Columns, Feature
from gangru_dist.runs.run import Run

DAYS, ASSETS, SAMPLES = 60, 12, 16


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = Parser(prog="gangru check-plugin", description=__doc__)
    add = parser.add_argument
    add("names", nargs="+", metavar="MODULE:NAME", help="or an entry point's name")
    add("--preset", choices=list(presets.ALL), default="default")
    add("--config", action="append", metavar="FILE.toml", help="settings on top of the preset")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting on top")
    args = parser.parse_args(argv)
    cfg = load(args.preset, args.config, args.set)
    wrong = 0
    for name in args.names:
        try:
            problems = check(name, cfg)
        except GangruError as error:
            problems = [str(error)]
        except Exception as error:  # noqa: BLE001  # a user's own code; the next name follows
            problems = [f"fails: {type(error).__name__}: {extract_reason(error)}{_place(error)}"]
        wrong += bool(problems)
        sys.stdout.writelines(f"{name}: {text}\n" for text in problems or ["keeps the promises"])
    return 2 if wrong else 0


def _place(error: BaseException) -> str:
    """Where the user's code failed: the innermost line of what is not a library's."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and frame.filename != __file__
    ]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def check(name: str, cfg: RunConfig | None = None) -> list[str]:
    """List what is wrong with a feature, predictor, label transform or callback; empty if nothing.

    Args:
        name: As the configuration names it.
        cfg: Settings that predictors and labels are given; None = preset `default`.

    Raises:
        ConfigError: There is none of that name.
    """
    cfg = cfg or load("default")
    reasons = []
    for table, fits, kind in (
        (FEATURES, lambda item: True, lambda item: _check_feature(item)),
        (PREDICTORS, _takes_sizes, lambda item: _check_predictor(name, cfg)),
        (LABEL_TRANSFORMS, _takes_two, lambda item: _check_label(item, cfg.label)),
        (CALLBACKS, _takes_run, lambda item: _check_callback(item, cfg)),
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


def _takes_sizes(item: Any) -> bool:
    """A predictor's class takes the number of channels, the section `gru` and perhaps more."""
    return inspect.isclass(item) and len(inspect.signature(item).parameters) > 1


def _takes_run(item: Any) -> bool:
    """A callback's class takes a run."""
    return inspect.isclass(item) and len(inspect.signature(item).parameters) == 1


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


def _check_predictor(name: str, cfg: RunConfig) -> Iterator[str]:
    import torch  # seconds; features need none of it

    from gangru_dist.models.predictors import is_random, make_predictor
    from gangru_dist.samples.standardize import Standardizer
    from gangru_dist.training.plan import require_model

    require_model(replace(cfg, predictor=name))
    torch.manual_seed(0)
    channels, lookback = Standardizer(cfg.samples, cfg.features).channels, cfg.samples.lookback
    model = make_predictor(name, len(channels), lookback, cfg.gru).double()
    samples = torch.randn(SAMPLES, lookback, len(channels), dtype=torch.float64)
    if hasattr(model, "fit"):
        yield from _check_fit(model, samples)
        return
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    score = model(samples)
    if score.shape != (SAMPLES,):
        yield f"gives shape {tuple(score.shape)} for {SAMPLES} samples, not ({SAMPLES},)"
        return
    if not torch.isfinite(score).all():
        yield "gives what is not finite"
    if is_random(model, samples):
        yield "draws at random while it trains (dropout?): workers and resumed runs would differ"
    elif not torch.allclose(torch.cat([model(part) for part in samples.split(4)]), score):
        yield "mixes samples: a score depends on the others in the batch (batch statistics?)"
    if any(not torch.equal(before[name], value) for name, value in model.state_dict().items()):
        yield "changes its own state in a forward pass (running statistics?)"
    target = torch.randn(SAMPLES, dtype=torch.float64)
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


def _check_fit(model: Any, samples: Any) -> Iterator[str]:
    """Fit an estimator twice; what it cannot store is an error of its own."""
    import torch

    from gangru_dist.models.estimators import FitData, FitDay

    labels, keys = torch.randn(SAMPLES, dtype=samples.dtype), torch.arange(SAMPLES)
    found = []
    for _ in range(2):
        days = iter([FitDay(samples, labels, keys, weight=1.0)])
        model.fit(FitData(days, SAMPLES, 0, 0, lambda x: x, lambda value: [value]))
        found.append(model(samples))
    if not torch.isfinite(found[0]).all():
        yield "gives what is not finite"
    if not torch.equal(*found):
        yield "is fitted otherwise by the same data: give it an attribute random_state"
    if not torch.allclose(torch.cat([model(part) for part in samples.split(4)]), found[-1]):
        yield "mixes samples: a score depends on the others that are scored with it"


def _check_callback(item: Any, cfg: RunConfig) -> Iterator[str]:
    """Call it as a job does, with a run that is nowhere else."""
    with tempfile.TemporaryDirectory(prefix="gangru-check-") as folder:
        callback = item(Run(Storage(folder), "check", cfg))
        methods = {name: getattr(callback, name, None) for name in ("on_figures", "on_done")}
        if not any(methods.values()):
            yield "has none of the methods on_figures, on_done"
        figures = {"predictor/valid_ic": 0.05}
        calls = (
            ("on_figures", {"step": 1, "figures": figures}),
            ("on_done", {"status": "trained", "figures": figures, "facts": {"seed": 0}}),
        )
        for name, arguments in calls:
            method = methods[name]
            if method is not None:
                method(series=Series("train", "2019-06-28/seed-0", "check"), **arguments)
        getattr(callback, "close", lambda: None)()


def _check_label(item: Any, cfg: LabelConfig) -> Iterator[str]:
    rng = np.random.default_rng(0)
    values = rng.standard_t(3, 50) / 10
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
