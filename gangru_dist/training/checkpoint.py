"""The state of a training between two epochs, its exact copy as bytes, and stored models.

Random numbers are functions of (seed, epoch, day, asset), so there is no generator to save.
Tensors go to safetensors, the rest to JSON: no pickle is ever read from storage. A finished model
is `model.safetensors` and, written last, `model.json`.
"""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from gangru_dist.base.errors import ConfigError, TrainingError, WindowError, shorten
from gangru_dist.base.records import find_record, parse_record, to_jsonable, write_record
from gangru_dist.config.settings import RunConfig
from gangru_dist.maths.calendar import Day, to_day
from gangru_dist.models.gan import Discriminator
from gangru_dist.models.precision import find_arithmetic
from gangru_dist.models.predictors import FactorNetwork, from_architecture
from gangru_dist.runs.model import Epoch, ModelRecord
from gangru_dist.runs.run import MODEL, WEIGHTS, Run, require_run
from gangru_dist.samples.standardize import Standardizer

_DAMAGE = (AttributeError, KeyError, TypeError, ValueError, RuntimeError)
Stage = Literal["gan", "predictor", "done"]


@dataclass
class Progress:
    """Progress of a window's training; plain JSON types."""

    stage: Stage
    epoch: int = 0
    """Epochs of this stage that are done."""
    best_ic: float | None = None
    """Best validation IC so far; None before the first predictor epoch."""
    best_epoch: int = 0
    history: list[Epoch] = field(default_factory=list)
    """Every epoch so far, of both stages."""


@dataclass(frozen=True)
class _Header:
    """Header of a checkpoint's safetensors file."""

    identity: str
    progress: Progress
    digest: str | None = None
    """See `_digest`; None of versions that wrote none."""


class TrainingState:
    """Networks, optimizers, best predictor and progress of one window and seed."""

    def __init__(self, cfg: RunConfig, seed: int, device: torch.device | str = "cpu") -> None:
        standardizer = Standardizer(cfg.samples, cfg.features)
        gan = cfg.gan if cfg.variant == "gan_gru" else None
        lookback, channels = cfg.samples.lookback, len(standardizer.channels)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = FactorNetwork(channels, cfg.gru, gan, cfg.predictor, lookback)
            self.discriminator = Discriminator(lookback, channels, gan) if gan else None
        self.device = torch.device(device)
        predictor, has_epochs = self.network.predictor, not self.network.is_fitted
        is_averaged = has_epochs and cfg.training.average_epochs
        self.averaged = deepcopy(predictor) if is_averaged else None
        """Mean of the predictor's newest weights, where that is what is validated and kept."""
        self.validated = predictor if self.averaged is None else self.averaged
        """The predictor that is validated, and kept if it is the best."""
        self.progress = Progress(stage="gan" if gan else "predictor")
        self.best: dict[str, Tensor] = {}
        """The validated predictor's weights after its best epoch."""
        parts = {
            "generator": self.network.generator,
            "discriminator": self.discriminator,
            "predictor": predictor,
            "averaged": self.averaged,
        }
        self.parts = nn.ModuleDict({name: part for name, part in parts.items() if part is not None})
        self.parts.to(device, find_arithmetic(cfg).dtype)
        if cfg.training.compile:
            for name, part in self.parts.items():
                if has_epochs or name != "predictor":
                    part.compile()  # in place: names of weights stay
        rates = {
            "generator": cfg.gan.learning_rate,
            "discriminator": cfg.gan.learning_rate,
            "predictor": cfg.training.learning_rate,
        }
        self.optimizers = {
            name: torch.optim.Adam(
                self.parts[name].parameters(),
                lr=rate,
                weight_decay=cfg.training.weight_decay if name == "predictor" else 0.0,
                decoupled_weight_decay=True,  # of 0: plain Adam
                fused=torch.device(device).type == "cuda",
            )
            for name, rate in rates.items()
            if name in self.parts and (has_epochs or name != "predictor")
        }

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by a dotted name, on the CPU."""
        found = {f"best.{name}": tensor for name, tensor in self.best.items()}
        found |= self.parts.state_dict()
        for part_name, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                found |= {f"adam.{part_name}.{index}.{key}": t for key, t in values.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}

    def to_bytes(self, identity: str) -> bytes:
        """The whole state; `identity` says of which window, seed and configuration."""
        tensors = self.tensors()
        about = json.dumps(to_jsonable(_Header(identity, self.progress, _digest(tensors))))
        return bytes(save(tensors, metadata={"about": about}))  # one key: a fixed order

    def restore(self, data: bytes, identity: str) -> None:
        """Inverse of `to_bytes`.

        Raises:
            TrainingError: The bytes are of another window, seed or configuration.
            ValueError: They are damaged; the state may then be half another's.
        """
        try:
            size = int.from_bytes(data[:8], "little")
            about = json.loads(data[8 : 8 + size])["__metadata__"]["about"]
            header = parse_record(_Header, about)
            if header.identity != identity:
                raise TrainingError(
                    f"checkpoint of {header.identity} cannot continue {identity}; remove it or "
                    "use another --run."
                )
            tensors = load(data)
            if header.digest not in (None, _digest(tensors)):
                raise ValueError("its tensors are not those that were written")
            self.progress = header.progress
            self.best = {n: t.to(self.device) for n, t in _below("best.", tensors).items()}
            for name, part in self.parts.items():
                part.load_state_dict(_below(f"{name}.", tensors))
            for name, optimizer in self.optimizers.items():
                state: dict[int, dict[str, Tensor]] = {}
                for key, tensor in _below(f"adam.{name}.", tensors).items():
                    index, _, what = key.partition(".")
                    state.setdefault(int(index), {})[what] = tensor
                groups = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": state, "param_groups": groups})
        except (*_DAMAGE, SafetensorError) as error:
            raise ValueError(f"no checkpoint of this network ({shorten(error)})") from error


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of all tensors under their names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def write_model(
    run: Run, window: str, seed: int, state: TrainingState, *, identity: str, **facts: Any
) -> ModelRecord:
    """Write a finished model; its hash identifies exactly these weights.

    `facts` are further fields of its record. `model.json` of other weights, or of none, goes
    first: killed between the two files, the window counts as not trained, never as another's.
    """
    tensors = {n: t.detach().cpu().contiguous() for n, t in state.network.state_dict().items()}
    data = bytes(save(tensors))
    digest = hashlib.sha256(data).hexdigest()
    record = ModelRecord(
        window=window,
        seed=seed,
        model=digest[:12],
        sha256=digest,
        identity=identity,
        variant=run.cfg.variant,
        features=run.cfg.features,
        architecture=state.network.architecture,
        best_epoch=state.progress.best_epoch,
        best_valid_ic=state.progress.best_ic,
        history=tuple(state.progress.history),
        **facts,
    )
    folder = run.model_folder(window, seed)
    before = find_record(ModelRecord, run.folder, f"{folder}/{MODEL}")
    if before is not None and before.sha256 != digest:
        run.folder.delete(f"{folder}/{MODEL}")
    run.folder.write_bytes(f"{folder}/{WEIGHTS}", data)
    write_record(run.folder, f"{folder}/{MODEL}", record)
    return record


def load_model(run: Run, window: Day, seed: int = 0) -> FactorNetwork:
    """A finished model as a torch module that scores samples (M, T, C), in evaluation mode.

    `window` is its refit day. Errors as `read_model`.
    """
    require_run(run)
    return read_model(run, str(to_day(window, "window")), seed)[0]


def read_model(run: Run, window: str, seed: int) -> tuple[FactorNetwork, ModelRecord]:
    """A finished model in evaluation mode, and its record.

    Raises:
        WindowError: There is none, or the weights are not those that `model.json` names, or not
            of the network that it describes.
        StorageError: `model.json` is damaged.
    """
    folder = run.model_folder(window, seed)
    file = f"{folder}/{WEIGHTS}"
    record = find_record(ModelRecord, run.folder, f"{folder}/{MODEL}")
    try:
        data = b"" if record is None else run.folder.read_bytes(file)
    except FileNotFoundError:
        record = None
    if record is None:
        raise WindowError(
            f"no finished model of window {window}, seed {seed} in {run.folder.uri}; run "
            "`gangru train`."
        )
    digest = hashlib.sha256(data).hexdigest()
    where = f"weights in {run.folder.uri}/{file}"
    way_out = (
        f"Delete windows/{window} there, then run `gangru train`: it trains that window again."
    )
    if digest != record.sha256:
        raise WindowError(
            f"{where} have hash {digest[:12]}, model.json names {record.model}. {way_out}"
        )
    predictor = record.architecture.get("predictor", "gru")  # older models do not say
    if predictor != run.cfg.predictor:
        raise WindowError(
            f"{where} are of predictor {predictor!r}, the configuration names "
            f"{run.cfg.predictor!r}. What storage names is not loaded: give the run's settings; "
            f"if these are, model.json was changed: {way_out}"
        )
    try:
        tensors, network = load(data), from_architecture(record.architecture)
        # what an estimator has learnt may be of any type
        kinds = {tensors[name].dtype for name in network.state_dict() if name in tensors}
        if len(kinds) > 1 or not all(kind.is_floating_point for kind in kinds) or not tensors:
            raise TypeError(f"weights of types {kinds or 'none'}")
        network.to(next(iter(kinds), None))
        network.load_state_dict(tensors)
    except ConfigError as error:
        raise WindowError(
            f"{where}: {error} If it is your own, import what registers it. Else: {way_out}"
        ) from error
    except (*_DAMAGE, SafetensorError) as error:
        raise WindowError(
            f"{where} are not of the network that model.json describes. {way_out}"
        ) from error
    return network.eval(), record
