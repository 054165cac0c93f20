"""State of a training between two epochs, its exact copy as bytes, and finished models in storage.

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
from gangru_dist.base.records import parse_record, to_jsonable, write_record
from gangru_dist.config.settings import RunConfig
from gangru_dist.models.gan import Discriminator
from gangru_dist.models.precision import arithmetic
from gangru_dist.models.predictors import FactorNetwork, from_architecture
from gangru_dist.runs.model import Epoch, ModelRecord
from gangru_dist.runs.run import MODEL, WEIGHTS, Run
from gangru_dist.samples.channels import Standardizer

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
        features, place = (
            len(standardizer.channels),
            standardizer.channel_range(gan.sees if gan else None),
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = FactorNetwork(features, cfg.gru, gan, cfg.predictor, place)
            lookback, seen = cfg.samples.lookback, len(place)
            self.discriminator = Discriminator(lookback, seen, gan) if gan else None
        self.averaged = deepcopy(self.network.predictor) if cfg.training.average_epochs else None
        """Mean of the predictor's newest weights, where that is what is validated and kept."""
        self.progress = Progress(stage="gan" if gan else "predictor")
        self.best: dict[str, Tensor] = {}
        self._place(cfg, device)
        self.optimizers = {
            name: torch.optim.Adam(
                part.parameters(),
                lr=_rate(cfg, name),
                weight_decay=cfg.training.weight_decay if name == "predictor" else 0.0,
                decoupled_weight_decay=True,  # of 0: plain Adam
                fused=torch.device(device).type == "cuda",
            )
            for name, part in self._trained().items()
        }

    def _place(self, cfg: RunConfig, device: torch.device | str) -> None:
        for part in self._parts().values():
            part.to(device, arithmetic(cfg).dtype)
            if cfg.training.compile:
                part.compile()  # in place: names of weights stay

    def _trained(self) -> dict[str, nn.Module]:
        parts: dict[str, nn.Module | None] = {
            "generator": self.network.generator,
            "discriminator": self.discriminator,
            "predictor": self.network.predictor,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def _parts(self) -> dict[str, nn.Module]:
        return self._trained() | ({} if self.averaged is None else {"averaged": self.averaged})

    @property
    def judged(self) -> nn.Module:
        """The predictor that is validated, and kept if it is the best."""
        return self.network.predictor if self.averaged is None else self.averaged

    def keep_best(self) -> None:
        """Copy what was validated: this epoch is the best so far."""
        weights = self.judged.state_dict()
        self.best = {name: tensor.detach().clone() for name, tensor in weights.items()}

    def use_best(self) -> None:
        """Put the best epoch's predictor in place."""
        self.network.predictor.load_state_dict(self.best)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by a dotted name, on the CPU."""
        found = {f"best.{name}": tensor for name, tensor in self.best.items()}
        for part_name, part in self._parts().items():
            found |= {f"{part_name}.{name}": t for name, t in part.state_dict().items()}
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
            self._restore(data, identity)
        except (*_DAMAGE, SafetensorError) as error:
            raise ValueError(f"no checkpoint of this network ({shorten(error)})") from error

    def _restore(self, data: bytes, identity: str) -> None:
        header = _header(data)
        if header.identity != identity:
            raise TrainingError(
                f"checkpoint of {header.identity} cannot continue {identity}; remove it or "
                "use another --run."
            )
        tensors = load(data)
        if header.digest not in (None, _digest(tensors)):
            raise ValueError("its tensors are not those that were written")
        self.progress = header.progress
        device = next(self.network.parameters()).device
        self.best = {n: t.to(device) for n, t in _below("best.", tensors).items()}
        for name, part in self._parts().items():
            part.load_state_dict(_below(f"{name}.", tensors))
        for name in self.optimizers:
            self._restore_adam(name, _below(f"adam.{name}.", tensors))

    def _restore_adam(self, name: str, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            index, _, what = key.partition(".")
            state.setdefault(int(index), {})[what] = tensor
        optimizer = self.optimizers[name]
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of all tensors under their names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _rate(cfg: RunConfig, part: str) -> float:
    """Learning rate of a part."""
    if part == "predictor":
        return cfg.training.learning_rate
    own = cfg.gan.discriminator_learning_rate if part == "discriminator" else None
    return own or cfg.gan.learning_rate


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _header(data: bytes) -> _Header:
    """Header that `to_bytes` wrote."""
    size = int.from_bytes(data[:8], "little")
    return parse_record(_Header, json.loads(data[8 : 8 + size])["__metadata__"]["about"])


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
        architecture=state.network.architecture,
        best_epoch=state.progress.best_epoch,
        best_valid_ic=state.progress.best_ic,
        history=tuple(state.progress.history),
        **facts,
    )
    before = run.read_model(window, seed)
    place = run.model_folder(window, seed)
    if before is None or before.sha256 != digest:
        run.folder.delete(f"{place}/{MODEL}")
    run.folder.write_bytes(f"{place}/{WEIGHTS}", data)
    write_record(run.folder, f"{place}/{MODEL}", record)
    return record


def read_model(run: Run, window: str, seed: int) -> tuple[FactorNetwork, ModelRecord]:
    """A finished model in evaluation mode, and its record.

    Raises:
        WindowError: There is none, or the weights are not those that `model.json` names, or not
            of the network that it describes.
        StorageError: `model.json` is damaged.
    """
    record = run.read_model(window, seed)
    if record is None:
        raise WindowError(
            f"no finished model of window {window}, seed {seed} in {run.folder.uri}; run "
            "`gangru train`."
        )
    file = f"{run.model_folder(window, seed)}/{WEIGHTS}"
    data = run.folder.read_bytes(file)
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
        network = _network(record.architecture, load(data))
    except ConfigError as error:
        raise WindowError(
            f"{where}: {error} If it is your own, import what registers it. Else: {way_out}"
        ) from error
    except (*_DAMAGE, SafetensorError) as error:
        raise WindowError(
            f"{where} are not of the network that model.json describes. {way_out}"
        ) from error
    return network.eval(), record


def _network(architecture: dict[str, Any], tensors: dict[str, Tensor]) -> FactorNetwork:
    """One of `_DAMAGE` if the two do not belong together."""
    kinds = {tensor.dtype for tensor in tensors.values()}
    if len(kinds) != 1 or not all(kind.is_floating_point for kind in kinds):
        raise TypeError(f"weights of types {kinds or 'none'}")
    network = from_architecture(architecture).to(kinds.pop())
    network.load_state_dict(tensors)
    return network
