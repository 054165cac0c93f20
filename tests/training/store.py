"""A small panel in storage, for tests that train from it; made without Ray."""

import dataclasses
import json
from pathlib import Path

from benchmarks.training_speed import Size, store_panel
from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import (
    GanConfig,
    GruConfig,
    PanelConfig,
    ResourcesConfig,
    RunConfig,
    TrainingConfig,
    WindowConfig,
)

TINY = RunConfig(
    panel=PanelConfig(buckets=4),
    windows=WindowConfig(history_days=120, sample_every=10),
    gan=GanConfig(hidden=4, layers=1, channels=(2, 3), epochs=2),
    gru=GruConfig(hidden=4, layers=1, head=(4,)),
    training=TrainingConfig(epochs=3, learning_rate=1e-3),
)
"""Refit days of `stored_panel`: 2018-12-31 and 2019-06-28; June 2018 has too little history."""
WINDOWS = ["2018-12-31", "2019-06-28"]


def stored_panel(folder: Path) -> Storage:
    """Random rows of 40 assets on every weekday from 2018-01-01 to 2019-07-26."""
    root = Storage(str(folder))
    manifest = store_panel(root, TINY, Size(stored_assets=40, stored_days=410, buckets=4))
    root.child("panel").write_json("manifest.json", manifest.to_json())
    return root


def with_resources(cfg: RunConfig, **resources: object) -> RunConfig:
    """The same run on other resources."""
    return dataclasses.replace(cfg, resources=ResourcesConfig(**resources))  # type: ignore[arg-type]


def epochs_saved(run: Storage) -> int:
    """Epochs that the newest checkpoint of a run holds, over both stages; 0 if there is none."""
    best = 0
    for name in run.list_files("checkpoints"):
        if not name.endswith("state.safetensors"):
            continue
        try:
            data = run.read_bytes(name)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        except (OSError, ValueError):
            continue  # being replaced by the next one
        about = json.loads(header["__metadata__"]["about"])
        best = max(best, len(about["progress"]["history"]))
    return best
