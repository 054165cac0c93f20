"""A finished model in storage: `model.safetensors` and, last, `model.json`."""

from __future__ import annotations

import hashlib
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gangru_dist.errors import ConfigError, WindowError
from gangru_dist.models.network import FactorNetwork, from_architecture
from gangru_dist.runs.model import ModelRecord
from gangru_dist.runs.records import write_record
from gangru_dist.runs.run import MODEL, WEIGHTS, Run
from gangru_dist.training.checkpoint import TrainingState

_DAMAGE = (AttributeError, KeyError, TypeError, ValueError, RuntimeError)


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
    before = run.model(window, seed)
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
    record = run.model(window, seed)
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
