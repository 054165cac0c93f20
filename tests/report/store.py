"""A storage with a panel, a factor table and finished models of a random market; no training."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from gangru_dist.config import RunConfig
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import Manifest, bucket_of
from gangru_dist.panel.schema import panel_schema
from gangru_dist.panel.writer import add_hashes, write_bucket
from gangru_dist.scoring.commit import commit, write_file
from gangru_dist.scoring.table import FILE_SCHEMA, DayCoverage, factor_storage
from gangru_dist.storage import Storage
from tests.evaluation.worlds import config, random_block, random_table

RUN = "r"


@dataclass
class World:
    """What the storage was written from."""

    root: Storage
    block: PanelBlock
    table: pd.DataFrame
    cfg: RunConfig


def write_world(folder: Path, *, runs: tuple[str, ...] = (RUN,)) -> World:
    root = Storage(str(folder))
    block = random_block(days=320, assets=40, seed=5)
    write_panel(root, block)
    tables = [random_table(block, seed=10 + number) for number in range(len(runs))]
    for run, table in zip(runs, tables, strict=True):
        write_factor(root, run, table)
        write_models(root, run)
    return World(root=root, block=block, table=tables[0], cfg=config(top_fraction=0.2))


def write_panel(root: Storage, block: PanelBlock) -> None:
    rows, columns = np.nonzero(block.traded)
    names = np.array(block.industries)
    frame = pd.DataFrame(
        {
            "date": block.dates[rows].astype("datetime64[s]"),
            "asset": block.assets[columns],
            "is_st": False,
            "list_date": pd.Timestamp("2018-01-05"),
            "adj_close": block.adj_close[rows, columns],
            "market_cap": block.market_cap[rows, columns],
            "industry": names[block.industry[rows, columns]],
            "limit_up": block.limit_up[rows, columns],
            "limit_down": block.limit_down[rows, columns],
        }
    ).sort_values(["asset", "date"])
    schema = panel_schema(())
    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    panel = root.child("panel")
    bucket = bucket_of(table["asset"].to_pylist(), 2)
    parts = [table.filter(pa.array(bucket == number)) for number in range(2)]
    written = [write_bucket(panel, n, 2, part) for n, part in enumerate(parts) if len(part)]
    manifest = Manifest(
        features=(),
        buckets=2,
        calendar=block.dates,
        files=tuple(file for one in written for file in one.files),
        rows=len(table),
        assets=len(block.assets),
        months={m: f"{v:064x}" for m, v in sorted(add_hashes(w.months for w in written).items())},
        source={"uri": "made up"},
    )
    panel.write_json("manifest.json", manifest.to_json())
    quality = {
        "rows_read": 12345,
        "rows_suspended": 40,
        "rows_quarantined": 2,
        "quarantined_share": 2 / 12345,
        "quarantined": {"price <= 0": {"rows": 2, "example": {"file": "a.csv", "close": -1}}},
        "notes": {"not sorted": {"count": 1, "example": {"file": "a.csv"}}},
    }
    panel.write_json("quality.json", quality)


def write_factor(root: Storage, run: str, table: pd.DataFrame) -> None:
    factor = factor_storage(root, run)
    files = []
    table = table.sort_values(["date", "asset"])
    for month, rows in table.groupby(table["date"].dt.strftime("%Y-%m")):
        sizes = rows.groupby("date").size()
        days = [
            DayCoverage(
                date=f"{day:%Y-%m-%d}",
                window="2018-12-28",
                model="m",
                basis="b",
                traded=size + 3,
                universe=size,
                ranked=size,
                neutralized="industry+size",
            )
            for day, size in sizes.items()
        ]
        data = pa.Table.from_pandas(
            rows[FILE_SCHEMA.names], schema=FILE_SCHEMA, preserve_index=False
        )
        files.append(write_file(factor, str(month), data, days))
    commit(factor, files)


def samples_of(features: tuple[str, ...], *, spread: float = 0.9, seed: int = 0) -> dict:
    """`gan_samples` of a model whose generator varies `spread` times as much as the real thing."""
    rng = np.random.default_rng(seed)
    edges = np.linspace(-5.125, 5.125, 42)

    def figures(scale: float) -> dict:
        values = rng.normal(0.1, scale, 4000)
        counts = np.histogram(values, edges)[0].tolist()
        moments = {"mean": float(values.mean()), "std": float(values.std())}
        return {**moments, "cs_std": scale, "histogram": counts}

    return {
        "day": "2018-11-02",
        "assets": 100,
        "bin_centers": np.linspace(-5, 5, 41).tolist(),
        "real": {name: figures(1.0) for name in features},
        "generated": {name: figures(spread) for name in features},
    }


def write_models(
    root: Storage,
    run: str,
    *,
    accuracy: float = 0.6,
    samples: dict | None = None,
    seeds: tuple[int, ...] = (0,),
    windows: tuple[str, ...] = ("2018-12-28", "2019-06-28"),
) -> None:
    """Finished models; without `samples` as versions wrote them that did not measure any."""
    for window, seed in itertools.product(windows, seeds):
        gan = {
            "stage": "gan",
            "epoch": 1,
            "discriminator_loss": 1.3,
            "generator_loss": 0.7,
            "discriminator_accuracy": accuracy,
            "distance": 0.8,
        }
        epochs = [
            {"stage": "predictor", "epoch": n, "train_loss": -0.1, "valid_ic": 0.01 * n}
            for n in (1, 2, 3)
        ]
        about = {
            "window": window,
            "seed": seed,
            "model": f"abc{window[:4]}",
            "variant": "gan_gru",
            "best_epoch": 3,
            "best_valid_ic": 0.03,
            "history": [gan, *epochs],
            "train_days": ["2018-01-02"] * 4,
            "valid_days": ["2018-02-02"],
            "seconds": 90.0,
        }
        if samples:
            about["gan_samples"] = samples
        root.child("runs", run).write_json(f"windows/{window}/seed-{seed}/model.json", about)
