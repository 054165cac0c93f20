"""A finished model in storage: `model.safetensors` and, last, `model.json`."""

from __future__ import annotations

import hashlib
from typing import Any

from safetensors.torch import load, save

from gangru_dist.errors import WindowError
from gangru_dist.models.network import FactorNetwork, from_architecture
from gangru_dist.runs.model import ModelRecord
from gangru_dist.runs.records import write_record
from gangru_dist.runs.run import MODEL, Run
from gangru_dist.training.checkpoint import TrainingState

WEIGHTS = "model.safetensors"


def write_model(
    run: Run, window: str, seed: int, state: TrainingState, *, identity: str, **facts: Any
) -> ModelRecord:
    """Write a finished model; its hash identifies exactly these weights.

    `facts` are further fields of its record. `model.json` of other weights goes first: killed
    between the two files, the window counts as not trained, never as another's.
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
    if before is not None and before.sha256 != digest:
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
    data = run.folder.read_bytes(f"{run.model_folder(window, seed)}/{WEIGHTS}")
    digest = hashlib.sha256(data).hexdigest()
    where = f"weights of window {window}, seed {seed} in {run.folder.uri}"
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
            f"{run.cfg.predictor!r}. What storage names is not loaded: give the run's own settings."
        )
    try:
        network = from_architecture(record.architecture)
        tensors = load(data)
        network.to(next(iter(tensors.values())).dtype)
        network.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WindowError(
            f"{where} are not of the network that model.json describes. {way_out}"
        ) from error
    return network.eval(), record
