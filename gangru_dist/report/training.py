"""What the finished models say about their training, read from `model.json` alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gangru_dist.report.language import ENGLISH, Language
from gangru_dist.storage import Storage

SEPARATED = 0.95
"""A discriminator right this often in the last GAN epoch tells real from generated at sight."""


def read_models(run: Storage) -> list[dict[str, Any]]:
    """Content of every `windows/*/seed-*/model.json`, by window and seed."""
    names = [name for name in run.list_files("windows") if name.endswith("/model.json")]
    models: list[dict[str, Any]] = [run.read_json(name) for name in names]
    return sorted(models, key=lambda model: (model["window"], model["seed"]))


def model_table(models: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a model; unknown = NaN.

    Columns: window, seed, model, variant, train_days, valid_days, epochs, best_epoch,
    best_valid_ic, discriminator_accuracy, distance, seconds.
    `discriminator_accuracy` and `distance` (mean |G - x|) are those of the last GAN epoch.
    """
    rows = []
    for model in models:
        history = model.get("history", [])
        gan = [entry for entry in history if entry["stage"] == "gan"]
        last = gan[-1] if gan else {}
        rows.append(
            {
                "window": model["window"],
                "seed": model["seed"],
                "model": model.get("model", ""),
                "variant": model.get("variant", ""),
                "train_days": len(model.get("train_days", [])),
                "valid_days": len(model.get("valid_days", [])),
                "epochs": len(history) - len(gan),
                "best_epoch": model.get("best_epoch", np.nan),
                "best_valid_ic": _number(model.get("best_valid_ic")),
                "discriminator_accuracy": _number(last.get("discriminator_accuracy")),
                "distance": _number(last.get("distance")),
                "seconds": _number(model.get("seconds")),
            }
        )
    return pd.DataFrame(rows)


def history_table(models: list[dict[str, Any]]) -> pd.DataFrame:
    """One row an epoch of every model: window, seed, stage, epoch and whatever was measured."""
    rows = [
        {"window": model["window"], "seed": model["seed"], **entry}
        for model in models
        for entry in model.get("history", [])
    ]
    return pd.DataFrame(rows)


def gan_warnings(table: pd.DataFrame, language: Language = ENGLISH) -> list[str]:
    """One sentence if discriminators won: the generator's output does not look real to them."""
    if table.empty:
        return []
    trained = table[table["discriminator_accuracy"].notna()]
    lost = trained[trained["discriminator_accuracy"] >= SEPARATED]
    if lost.empty:
        return []
    message = language.gettext(
        "GAN: in %(lost)s of %(trained)s models the discriminator still tells at least %(share)s "
        "of real and generated samples apart after the last epoch, so the generator may have "
        "collapsed (refit days %(windows)s)."
    )
    windows = ", ".join(sorted(lost["window"].unique()))
    share = f"{SEPARATED:.0%}"
    return [
        message % {"lost": len(lost), "trained": len(trained), "share": share, "windows": windows}
    ]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
