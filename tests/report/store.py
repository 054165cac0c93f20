"""A storage with a panel, a factor table and finished models of a random market; no training."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from gangru_dist.base.records import write_record
from gangru_dist.base.storage import Storage
from gangru_dist.config.identity import model_identity
from gangru_dist.config.settings import RunConfig, WindowConfig
from gangru_dist.maths.calendar import make_windows
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import Manifest, assign_buckets, panel_schema, read_manifest
from gangru_dist.panel.writer import make_manifest, write_bucket
from gangru_dist.runs.model import FeatureFigures, GanEpoch, GanSamples, ModelRecord, PredictorEpoch
from gangru_dist.runs.run import MODEL, WEIGHTS, Run, run_folder
from gangru_dist.runs.summaries import DayCoverage
from gangru_dist.scoring.files import FILE_SCHEMA, write_file
from gangru_dist.scoring.plan import expect_table
from gangru_dist.scoring.table import FactorTable
from tests.evaluation.worlds import config, random_block, random_table

RUN = "r"
CFG = dataclasses.replace(config(top_fraction=0.2), windows=WindowConfig(history_days=60))
"""Refit days of the world's calendar: `WINDOWS`."""
WINDOWS = ("2018-12-31", "2019-06-28", "2019-12-31")


COMMIT = "c0" * 20
RESUMED = 7
"""A seed whose models were interrupted while they were trained."""


@dataclass
class World:
    """What the storage was written from."""

    root: Storage
    block: PanelBlock
    table: pd.DataFrame
    cfg: RunConfig


def make_block() -> PanelBlock:
    """Half a year before the first refit day, and one and a quarter after."""
    return random_block(days=450, assets=40, seed=5, first="2018-07-02")


def write_world(folder: Path, *, runs: tuple[str, ...] = (RUN,)) -> World:
    root = Storage(str(folder))
    block = make_block()
    write_panel(root, block)
    tables = []
    for number, run in enumerate(runs):
        write_models(root, run)
        tables.append(write_factor(root, run, random_table(block, seed=10 + number)))
    return World(root=root, block=block, table=tables[0], cfg=CFG)


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
    bucket = assign_buckets(table["asset"].to_pylist(), 2)
    parts = [table.filter(pa.array(bucket == number)) for number in range(2)]
    written = [write_bucket(panel, n, 2, part) for n, part in enumerate(parts) if len(part)]
    source = {"uri": "made up"}
    manifest = make_manifest(written, features=(), buckets=2, calendar=block.dates, source=source)
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


def write_factor(
    root: Storage, run: str, table: pd.DataFrame, cfg: RunConfig = CFG
) -> pd.DataFrame:
    """Commit and return the rows of days that the run's finished models score."""
    manifest, models = read_manifest(root), Run(root, run, cfg).read_models()
    expected = {str(day): one for day, one in expect_table(manifest, cfg, models)[0].items()}
    table = table.sort_values(["date", "asset"], ignore_index=True)
    dates = table["date"].dt.strftime("%Y-%m-%d")
    table = table[dates.isin(expected.keys())].reset_index(drop=True)
    expected = {day: expected[day] for day in table["date"].dt.strftime("%Y-%m-%d").unique()}
    table["window"] = [expected[f"{day:%Y-%m-%d}"].window for day in table["date"]]
    table["model"] = [expected[f"{day:%Y-%m-%d}"].model for day in table["date"]]
    sizes = table.groupby(table["date"].dt.strftime("%Y-%m-%d")).size()
    days = {
        day: dataclasses.replace(
            one,
            traded=int(sizes[day]) + 3,
            universe=int(sizes[day]),
            ranked=int(sizes[day]),
            neutralized="industry+size",
        )
        for day, one in expected.items()
    }
    write_days(root, run, table, list(days.values()))
    return table


def write_days(root: Storage, run: str, table: pd.DataFrame, days: list[DayCoverage]) -> None:
    factor = run_folder(root, run).child("factor")
    files = []
    for month, rows in table.groupby(table["date"].dt.strftime("%Y-%m")):
        data = pa.Table.from_pandas(
            rows[FILE_SCHEMA.names], schema=FILE_SCHEMA, preserve_index=False
        )
        covered = [day for day in days if day.date.startswith(str(month))]
        files.append(write_file(factor, data, covered))
    FactorTable(factor).commit(files)


def samples_of(features: tuple[str, ...], *, spread: float = 0.9, seed: int = 0) -> GanSamples:
    """`gan_samples` of a model whose generator varies `spread` times as much as the real thing."""
    rng = np.random.default_rng(seed)
    edges = np.linspace(-5.125, 5.125, 42)

    def figures(scale: float) -> FeatureFigures:
        values = rng.normal(0.1, scale, 4000)
        return FeatureFigures(
            mean=float(values.mean()),
            std=float(values.std()),
            cs_std=scale,
            histogram=tuple(np.histogram(values, edges)[0].tolist()),
        )

    return GanSamples(
        day="2018-11-02",
        assets=100,
        bin_centers=tuple(np.linspace(-5, 5, 41).tolist()),
        real={name: figures(1.0) for name in features},
        generated={name: figures(spread) for name in features},
    )


def write_models(
    root: Storage,
    run: str,
    *,
    accuracy: float = 0.6,
    samples: GanSamples | None = None,
    seeds: tuple[int, ...] = (0,),
    windows: tuple[str, ...] | None = None,
    cfg: RunConfig = CFG,
) -> None:
    """Finished models of a claimed run; without `samples` as versions wrote them that had none."""
    ours = Run(root, run, cfg)
    ours.claim(overwrite=True)
    manifest = read_manifest(root)
    if windows is None:
        found, _ = make_windows(
            manifest.calendar, cfg.windows, cfg.label, lookback=cfg.samples.lookback
        )
        windows = tuple(window.name for window in found)
    for window, seed in itertools.product(windows, seeds):
        gan = GanEpoch(
            epoch=1,
            discriminator_loss=1.3,
            generator_loss=0.7,
            discriminator_accuracy=accuracy,
            distance=0.8,
        )
        epochs = [PredictorEpoch(epoch=n, train_loss=-0.1, valid_ic=0.01 * n) for n in (1, 2, 3)]
        record = ModelRecord(
            window=window,
            seed=seed,
            model=model_hash(window, seed)[:12],
            sha256=model_hash(window, seed),
            identity=model_identity(cfg, window, seed, _panel_to(manifest, window)),
            variant="gan_gru",
            package_version="0.1.0",
            commit=COMMIT,
            resumed_epochs=2 * (seed == RESUMED),
            architecture={},
            best_epoch=3,
            best_valid_ic=0.03,
            history=(gan, *epochs),
            train_days=("2018-01-02",) * 4,
            valid_days=("2018-02-02",),
            seconds=90.0,
            gan_samples=samples,
        )
        place = ours.model_folder(window, seed)
        ours.folder.write_bytes(f"{place}/{WEIGHTS}", b"nobody reads them")
        write_record(ours.folder, f"{place}/{MODEL}", record)


def model_hash(window: str, seed: int) -> str:
    """Of weights that nobody has."""
    return hashlib.sha256(f"{window} {seed}".encode()).hexdigest()


def _panel_to(manifest: Manifest, window: str) -> str:
    return manifest.fingerprint_to(dt.date.fromisoformat(window))
