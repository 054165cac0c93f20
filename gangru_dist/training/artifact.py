"""A finished model in storage: `model.safetensors` and, last, `model.json` (DESIGN 2)."""

from __future__ import annotations

import hashlib
from typing import Any

from safetensors.torch import load, save

from gangru_dist.errors import WindowError
from gangru_dist.models.network import FactorNetwork, from_architecture
from gangru_dist.storage import Storage
from gangru_dist.training.state import TrainingState

WEIGHTS, ABOUT = "model.safetensors", "model.json"


def folder(window: str, seed: int) -> str:
    """Place of one model below the run."""
    return f"windows/{window}/seed-{seed}"


def write_model(
    run: Storage,
    window: str,
    seed: int,
    state: TrainingState,
    about: dict[str, Any],
) -> str:
    """Write a finished model; returns its hash, which identifies exactly these weights.

    `about` must hold "identity"; JSON types only. `model.json` of other weights goes first: killed
    between the two files, the window counts as not trained, never as another's.
    """
    tensors = {n: t.detach().cpu().contiguous() for n, t in state.network.state_dict().items()}
    data = bytes(save(tensors))
    digest = hashlib.sha256(data).hexdigest()
    place = folder(window, seed)
    before = read_about(run, window, seed)
    if before is not None and before["sha256"] != digest:
        run.delete(f"{place}/{ABOUT}")
    run.write_bytes(f"{place}/{WEIGHTS}", data)
    run.write_json(
        f"{place}/{ABOUT}",
        {
            "window": window,
            "seed": seed,
            "model": digest[:12],
            "sha256": digest,
            **about,
            "architecture": state.network.architecture,
            "best_epoch": state.progress.best_epoch,
            "best_valid_ic": state.progress.best_ic,
            "history": state.progress.history,
        },
    )
    return digest[:12]


def read_about(run: Storage, window: str, seed: int) -> dict[str, Any] | None:
    """`model.json` of a finished model, or None; StorageError if it is damaged."""
    about: dict[str, Any] | None = run.find_json(f"{folder(window, seed)}/{ABOUT}")
    return about


def read_model(run: Storage, window: str, seed: int) -> tuple[FactorNetwork, dict[str, Any]]:
    """A finished model in evaluation mode and its `model.json`.

    Raises:
        WindowError: There is none, or the weights are not those that `model.json` names.
    """
    about = read_about(run, window, seed)
    if about is None:
        raise WindowError(
            f"no finished model of window {window}, seed {seed} in {run.uri}; run jobs/train.py."
        )
    data = run.read_bytes(f"{folder(window, seed)}/{WEIGHTS}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != about["sha256"]:
        raise WindowError(
            f"weights of window {window}, seed {seed} in {run.uri} have hash {digest[:12]}, "
            f"model.json names {about['model']}. Delete windows/{window} there, then run "
            "jobs/train.py: it trains that window again."
        )
    network = from_architecture(about["architecture"])
    tensors = load(data)
    network.to(next(iter(tensors.values())).dtype)
    network.load_state_dict(tensors)
    return network.eval(), about


def finished_models(run: Storage) -> dict[str, dict[int, dict[str, Any]]]:
    """`model.json` of every finished model: window -> seed -> content, windows ascending."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for name in run.list_files("windows"):
        if name.endswith("/" + ABOUT):
            about = run.find_json(name)
            if about is not None:  # else it is being trained again
                found.setdefault(about["window"], {})[about["seed"]] = about
    return dict(sorted(found.items()))
