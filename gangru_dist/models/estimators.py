"""Predictors that are fitted by one call instead of epochs: ridge, LightGBM, your own estimator.

A predictor with a method `fit` gets the same samples and labels as the networks, and is scored and
reported in the same way. `Ridge` sums over the days and the workers. Any other estimator, an object
with `fit(x, y)` and `predict(x)` such as scikit-learn's, gets all samples in one matrix on the
first worker (`Estimator`). What it learns is in attributes whose names end in `_`, as
scikit-learn's do; they are stored as tensors, so that nothing from storage is unpickled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gangru_dist.base.errors import ConfigError, TrainingError
from gangru_dist.config.settings import GruConfig
from gangru_dist.models.losses import AllSum

_TEXT = ":text"
"""Ends the name of a tensor that holds the UTF-8 of a text."""
_BYTES_PER_VALUE = 12
"""Of an estimator that does not say: our matrix in float32, and a copy in float64."""


@dataclass(frozen=True)
class FitDay:
    """This worker's share of a training day."""

    x: Float[Tensor, "M T C"]
    label: Float[Tensor, " M"]
    keys: Int[Tensor, " M"]
    """Of the assets; in their order the rows are the same, whoever owns which."""
    weight: float
    """Of each of its samples."""


@dataclass(frozen=True)
class FitData:
    """What `fit` gets: a window's training days, one at a time, and the other workers."""

    days: Iterator[FitDay]
    samples: int
    """Over all days and workers."""
    seed: int
    rank: int
    all_sum: AllSum
    gather: Callable[[Any], list[Any]]
    """Gives every worker's value to all of them, in rank order."""


class Ridge(nn.Module):
    """Least squares on all T x C values of a sample, with shrunken coefficients.

    Minimizes the weighted mean of (y - xw)² + `gru.options.alpha` (1) |w|². There is no intercept:
    labels and samples have mean 0 on each day. Sums of x'x are exact for any number of workers and
    take (T x C)² x 8 bytes; samples are never gathered.
    """

    def __init__(self, features: int, cfg: GruConfig, *, lookback: int) -> None:
        super().__init__()
        (self.alpha,) = read_options("ridge", cfg, {"alpha": 1.0}).values()
        if self.alpha <= 0:
            raise ConfigError(f"gru.options.alpha={self.alpha} must be > 0 for predictor=ridge.")
        self.weight = nn.Parameter(torch.zeros(lookback * features), requires_grad=False)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, " B"]:
        return x.flatten(1) @ self.weight

    def fit(self, data: FitData) -> None:
        size = len(self.weight)
        sums = torch.zeros(size + 2, size, dtype=torch.float64, device=self.weight.device)
        for day in data.days:
            x = day.x.flatten(1).double()
            sums[:size].addmm_(x.T, x, alpha=day.weight)
            sums[size] += day.weight * (day.label.double() @ x)
            sums[size + 1, 0] += day.weight * len(x)
        sums = data.all_sum(sums)
        means = sums / sums[size + 1, 0]
        square, moment = means[:size], means[size]
        square.diagonal().add_(self.alpha)
        self.weight.copy_(torch.linalg.solve(square, moment))


LIGHTGBM_OPTIONS = {
    "num_iterations": 200, "learning_rate": 0.05, "num_leaves": 31, "max_depth": -1,
    "min_data_in_leaf": 200, "lambda_l2": 0.0, "feature_fraction": 0.5,
    "bagging_fraction": 1.0, "bagging_freq": 0, "max_bin": 63,
}  # fmt: skip
"""Parameters of LightGBM that `gru.options` may have, and our defaults."""


class LightGbm:
    """Gradient-boosted trees of the package lightgbm: least squares on the T x C values."""

    bytes_per_value = 13
    """Measured on 40,000 samples: our matrix in float32, bins of one byte, what finds the bins."""

    def __init__(self, features: int, cfg: GruConfig) -> None:
        try:
            import lightgbm
        except ImportError as error:
            raise ConfigError(
                f"predictor=lightgbm: {error}. Install it here and on all workers: "
                "pip install 'gangru_dist[lightgbm]'"
            ) from error
        self.options = read_options("lightgbm", cfg, LIGHTGBM_OPTIONS)
        self.random_state = 0
        self._lightgbm: Any = lightgbm
        self._booster: Any = None

    def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> None:
        fixed = {
            "objective": "regression", "seed": self.random_state, "verbosity": -1,
            "deterministic": True, "force_row_wise": True, "num_threads": torch.get_num_threads(),
            "bin_construct_sample_cnt": 20_000,
        }  # fmt: skip
        given = self.options | fixed
        data = self._lightgbm.Dataset(x, y, weight=sample_weight, params=given)
        self.model_ = self._lightgbm.train(given, data).model_to_string()
        self._booster = None

    def predict(self, x: np.ndarray) -> np.ndarray:
        if self._booster is None:
            self._booster = self._lightgbm.Booster(model_str=self.model_)
        return np.asarray(self._booster.predict(x, num_threads=torch.get_num_threads()))

    def __deepcopy__(self, memo: dict[int, Any]) -> LightGbm:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, _booster=None)
        return copy


class Estimator(nn.Module):
    """An estimator as a predictor: samples of T x C values in rows, on the first worker."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def takes_weights(self) -> bool:
        """Whether its `fit` takes `sample_weight`."""
        taken = inspect.signature(self.model.fit).parameters.values()
        return any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in taken)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, " B"]:
        if not len(x):  # a worker's share of a day may be empty; scikit-learn refuses that
            return x.new_empty(0)
        found = np.asarray(self.model.predict(x.detach().flatten(1).cpu().numpy()))
        if found.shape != (len(x),):
            raise TrainingError(
                f"{type(self.model).__name__}.predict gives shape {found.shape} for {len(x)} "
                f"samples; give ({len(x)},)"
            )
        return torch.as_tensor(found).to(x)

    def fit(self, data: FitData) -> None:
        """Fit on the first worker; all others get what it has learnt.

        Raises:
            TrainingError: The samples do not fit into its memory, or what `fit` leaves cannot be
                stored.
        """
        problem, fitted = None, {}
        rows = self._gather(data)
        if data.rank == 0:
            assert rows is not None
            x, y, weight = rows
            blank = deepcopy(self.model)
            if hasattr(self.model, "random_state"):
                self.model.random_state = data.seed
            given = {} if (weight == 1).all() else {"sample_weight": weight}
            self.model.fit(x, y, **given)
            try:
                fitted = to_tensors(self.model)
                set_tensors(blank, fitted)
                some = x[:256]
                if not np.array_equal(blank.predict(some), self.model.predict(some)):
                    problem = "what it has learnt is not all in attributes that end in _"
            except (AttributeError, TypeError) as error:
                problem = str(error)
        problem, fitted = data.gather((problem, fitted))[0]
        if problem:
            raise TrainingError(
                f"{type(self.model).__name__} cannot be stored: {problem}. Keep there what fit "
                "learns, as arrays, numbers or text."
            )
        set_tensors(self.model, fitted)

    def _gather(self, data: FitData) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """All samples in rows, labels and weights, on the first worker; None on the others."""
        rows, filled = None, 0
        for day in data.days:
            if rows is None:
                rows = self._make_rows(data, day)
            share = (day.keys, day.x.flatten(1), day.label)
            parts = zip(*data.gather([part.cpu().numpy() for part in share]), strict=True)
            if data.rank == 0:
                keys, x, y = (np.concatenate(part) for part in parts)
                order = np.argsort(keys)
                end = filled + len(order)
                rows[0][filled:end], rows[1][filled:end] = x[order], y[order]
                rows[2][filled:end] = day.weight
                filled = end
        return rows

    def _make_rows(self, data: FitData, day: FitDay) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Room for all rows on the first worker, if it has it; says what that takes."""
        columns, kind = day.x.shape[1] * day.x.shape[2], day.label.cpu().numpy().dtype
        need = estimate_bytes(self.model, data.samples, columns)
        free, problem = count_free_bytes(), None
        if data.rank == 0 and need > free:
            problem = (
                f"{type(self.model).__name__} needs {need / 1e9:.1f} GB on one worker, for "
                f"{data.samples} samples of {columns} values; {free / 1e9:.1f} GB are free there. "
                "Give fewer samples (windows.history_days, windows.sample_every) or values "
                "(samples.features, samples.lookback), or predictor=ridge, which gathers none"
            )
        problem = data.gather(problem)[0]
        if problem:
            raise TrainingError(problem)
        count = data.samples if data.rank == 0 else 0
        return np.empty((count, columns), kind), np.empty(count, kind), np.empty(count)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        found = to_tensors(self.model)
        destination.update({prefix + name: tensor for name, tensor in found.items()})

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        own = {n.removeprefix(prefix): t for n, t in state_dict.items() if n.startswith(prefix)}
        set_tensors(self.model, own)


def estimate_bytes(model: Any, samples: int, columns: int) -> int:
    """Memory that an estimator needs for so many samples: `bytes_per_value`, if it has that."""
    return int(samples * columns * getattr(model, "bytes_per_value", _BYTES_PER_VALUE))


def count_free_bytes() -> int:
    """Memory that this process may still take: of the machine, and of its container."""
    import psutil  # benchmarks.gpu runs without it

    found = [int(psutil.virtual_memory().available)]
    try:
        most, now = (
            Path("/sys/fs/cgroup", name).read_text() for name in ("memory.max", "memory.current")
        )
        found += [int(most) - int(now)] if most.strip() != "max" else []
    except (OSError, ValueError):  # no container
        pass
    return min(found)


def to_tensors(model: Any) -> dict[str, Tensor]:
    """What an estimator has learnt, by attribute: those that end in `_`, not None.

    Raises:
        TypeError: One is neither array, number nor text.
    """
    found = {}
    for name, value in vars(model).items():
        if not _is_learnt(name) or value is None:
            continue
        if isinstance(value, str):
            found[name + _TEXT] = torch.tensor(list(value.encode()), dtype=torch.uint8)
            continue
        array = np.array(value)
        if array.dtype.kind not in "biuf" or not isinstance(
            value, np.ndarray | np.generic | int | float
        ):
            raise TypeError(f"its {name} is a {type(value).__name__}")
        found[name] = torch.from_numpy(array)
    return found


def set_tensors(model: Any, tensors: dict[str, Tensor]) -> None:
    """Inverse of `to_tensors`."""
    for key, tensor in tensors.items():
        name, value = key.removesuffix(_TEXT), tensor.detach().cpu().numpy()
        if not _is_learnt(name):
            raise RuntimeError(f"{name!r} names nothing that an estimator learns")
        if key.endswith(_TEXT):
            setattr(model, name, value.tobytes().decode())
        else:
            setattr(model, name, value if value.ndim else value.item())


def _is_learnt(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_")


def read_options(predictor: str, cfg: GruConfig, known: dict[str, Any]) -> dict[str, Any]:
    """`gru.options` over the defaults.

    Raises:
        ConfigError: A name is unknown, or a value is no number.
    """
    for name, value in cfg.options.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name not in known or not is_number:
            has = ", ".join(f"{key} ({default})" for key, default in known.items())
            has = f"the options {has}, all numbers" if known else "no options"
            raise ConfigError(f"gru.options.{name}={value!r}: predictor={predictor} has {has}.")
    return known | cfg.options
