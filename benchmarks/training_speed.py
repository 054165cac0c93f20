"""What our own machinery costs: `make bench`, under two minutes on one core.

1. One worker's predictor training, all overheads in (cutting and standardizing samples, sums
   over workers, validation, history, best epoch), against a bare loop with `nn.GRU` over the same
   samples, prepared beforehand and kept in memory. Asked: 1.5 times its speed:
   `python -m benchmarks.training_speed --assets 3000 --days 2 --valid 1 --only training`.
2. Reading a window's dense panel, against plain pyarrow reading the same columns of the same
   files without doing anything with them.

Both sides of a comparison alternate in one process. Speeds are per CPU second, one thread: a
quiet machine's seconds, and on a busy one what is left of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from gangru_dist.base.storage import Storage
from gangru_dist.config.settings import GruConfig, PanelConfig, RunConfig, TrainingConfig
from gangru_dist.maths.calendar import Window
from gangru_dist.panel.block import PanelBlock, block_columns
from gangru_dist.panel.manifest import Manifest, assign_buckets, panel_schema
from gangru_dist.panel.store import read_block, select_files
from gangru_dist.panel.writer import write_bucket
from gangru_dist.runs.model import PredictorEpoch
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import DayShare, WindowData, prepare
from gangru_dist.training.window import train_window

TARGET = 1.5
"""Our speed over the bare loop's, at least."""

_HISTORY = 130
"""Days before the first sample: every asset is listed long enough."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much work; the defaults are what `make bench` does."""

    assets: int = 400
    train_days: int = 16
    valid_days: int = 4
    rounds: int = 5
    gru: GruConfig = field(default_factory=GruConfig)
    stored_assets: int = 1200
    stored_days: int = 480
    buckets: int = 16


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    cpu: float
    """Seconds of all threads of this process."""
    wall: float
    """Seconds."""


def cost_of(work: Callable[[], Any]) -> Cost:
    """Run it once."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def alternate(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int
) -> tuple[list[Cost], list[Cost]]:
    """A B A B ...: what slows the machine down for a while slows both down."""
    pairs = [(cost_of(ours), cost_of(theirs)) for _ in range(rounds)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def compare(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median of the rounds' ratios, and their range."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"


def random_block(cfg: RunConfig, days: int, assets: int) -> PanelBlock:
    """Random walks of prices and noise for features; one row in fifty is suspended."""
    rng = np.random.default_rng(0)
    names = cfg.panel.features
    traded = rng.random((days, assets)) > 0.02
    features = rng.lognormal(size=(days, assets, len(names))).astype(np.float32)
    features[~traded] = np.nan
    close = np.exp(np.cumsum(rng.normal(0, 0.02, (days, assets)), axis=0))
    listed = np.repeat(np.arange(days, dtype=np.int32)[:, None] + _HISTORY, assets, axis=1)
    return PanelBlock(
        dates=np.datetime64("2020-01-01") + np.arange(days),
        assets=np.array([f"{number:06d}.SZ" for number in range(assets)]),
        feature_names=names,
        features=features,
        traded=traded,
        is_st=np.zeros_like(traded),
        listed_days=listed,
        adj_close=np.where(traded, close, np.nan),
    )


def prepared_window(cfg: RunConfig, size: Size, device: str = "cpu") -> WindowData:
    """Every day from the first whole lookback on: first training days, then validation days."""
    first = cfg.samples.lookback - 1
    valid = first + size.train_days
    end = valid + size.valid_days
    block = random_block(cfg, end + cfg.label.reach, size.assets)
    window = Window(
        name="bench",
        refit=len(block.dates) - 1,
        train_days=tuple(range(first, valid)),
        valid_days=tuple(range(valid, end)),
        score_first=len(block.dates),
        score_last=len(block.dates) - 1,
    )
    return prepare(block, window, block.dates, cfg, device=device)


class BareNetwork(nn.Module):
    """The predictor as one would write it in a notebook."""

    def __init__(self, features: int, cfg: GruConfig) -> None:
        super().__init__()
        self.gru = nn.GRU(features, cfg.hidden, cfg.layers, batch_first=True)
        sizes = [cfg.hidden, *cfg.head]
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.head = nn.Sequential(*layers, nn.Linear(sizes[-1], 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = self.head(self.gru(x)[0][:, -1])
        return score[:, 0]


def bare_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Sequence[tuple[Tensor, Tensor]],
    valid: Sequence[tuple[Tensor, Tensor]],
) -> tuple[float, float]:
    """Mean loss of an epoch and mean validation IC, with nothing but torch."""
    losses = []
    for x, label in train:
        loss = -torch.corrcoef(torch.stack([network(x), label]))[0, 1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        found = [torch.corrcoef(torch.stack([network(x), y]))[0, 1].item() for x, y in valid]
    return statistics.fmean(losses), statistics.fmean(found)


class Training:
    """Our epoch and the bare one, from the same weights over the same days in the same order."""

    def __init__(self, size: Size) -> None:
        self.cfg = RunConfig(variant="gru", gru=size.gru, training=TrainingConfig(epochs=1))
        self.preparing = cost_of(lambda: setattr(self, "data", prepared_window(self.cfg, size)))
        self.data: WindowData
        order = np.random.default_rng([0, 1, 0]).permutation(size.train_days)  # as train_window's
        self.train = [self._cut_samples(self.data.train[index]) for index in order]
        self.valid = [self._cut_samples(day) for day in self.data.valid]
        self.samples = sum(len(label) for _, label in self.train)

    def _cut_samples(self, day: DayShare) -> tuple[Tensor, Tensor]:
        return self.data.samples(day).contiguous(), day.label

    def ours(self) -> tuple[float, float]:
        """Mean loss and validation IC of one epoch of `train_window`."""
        state = train_window(self.data, TrainingState(self.cfg, 0), self.cfg, seed=0)
        (epoch,) = state.progress.history
        assert isinstance(epoch, PredictorEpoch)
        return epoch.train_loss, epoch.valid_ic

    def bare(self) -> tuple[float, float]:
        """The same of the bare loop."""
        network = BareNetwork(len(self.cfg.panel.features), self.cfg.gru)
        start = TrainingState(self.cfg, 0).network.predictor.state_dict()
        network.load_state_dict(start)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.cfg.training.learning_rate)
        return bare_epoch(network, optimizer, self.train, self.valid)


def training_line(size: Size) -> str:
    """Samples a CPU second of ours and of the bare loop, and the ratio."""
    job = Training(size)
    ours, bare = alternate(job.ours, job.bare, size.rounds)
    speed = [statistics.median(job.samples / c.cpu for c in side) for side in (ours, bare)]
    ratio = compare([c.cpu for c in ours], [c.cpu for c in bare])
    return (
        f"training   ours {speed[0]:,.0f}  bare PyTorch {speed[1]:,.0f} samples/CPU s  "
        f"ratio {ratio}, asked >= {TARGET}\n"
        f"           {size.rounds} rounds of an epoch: {job.samples:,} samples, "
        f"{len(job.valid)} validation days; the window's data took {job.preparing.cpu:.1f} CPU s"
    )


def store_panel(root: Storage, cfg: RunConfig, size: Size) -> Manifest:
    """A panel store of random rows, as `jobs/panel.py` would write it."""
    rng = np.random.default_rng(0)
    days = pd.bdate_range("2018-01-01", periods=size.stored_days)
    names = np.array([f"{number:06d}.SZ" for number in range(size.stored_assets)])
    bucket = assign_buckets(names.tolist(), size.buckets)
    schema = panel_schema(cfg.panel.features)
    written = []
    for number in np.unique(bucket):
        grid = pd.MultiIndex.from_product([names[bucket == number], days], names=["asset", "date"])
        rows = grid.to_frame(index=False).assign(
            **{name: rng.lognormal(size=len(grid)) for name in cfg.panel.features},
            is_st=False,
            list_date=days[0],
            adj_close=rng.lognormal(size=len(grid)),
            market_cap=rng.lognormal(23, 1, len(grid)),
            industry="bank",
            limit_up=False,
            limit_down=False,
        )
        table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
        written.append(write_bucket(root.child("panel"), int(number), size.buckets, table))
    files = tuple(file for part in written for file in part.files)
    return Manifest(
        features=cfg.panel.features,
        buckets=size.buckets,
        calendar=days.to_numpy().astype("datetime64[D]"),
        files=files,
        rows=sum(file.rows for file in files),
        assets=size.stored_assets,
        months={},
        source={},
    )


def reading_line(size: Size) -> str:
    """CPU and wall seconds of `read_block` and of plain pyarrow."""
    cfg = RunConfig(panel=PanelConfig(buckets=size.buckets))
    with tempfile.TemporaryDirectory() as folder:
        root = Storage(folder)
        manifest = store_panel(root, cfg, size)
        start, end = (day.item() for day in manifest.calendar[[0, -1]])
        files = [Path(folder, "panel", f.name) for f in select_files(manifest, start, end)]
        columns = list(block_columns(cfg.panel.features, trading=False))
        ours, plain = alternate(
            lambda: read_block(root, manifest, start=start, end=end),
            lambda: [pq.ParquetFile(path).read(columns=columns) for path in files],
            size.rounds,
        )
    cpu, wall = (
        [[getattr(c, name) for c in side] for side in (ours, plain)] for name in ("cpu", "wall")
    )
    times = [statistics.median(side) for side in (*cpu, *wall)]
    return (
        f"reading    ours {times[0]:.2f}  plain pyarrow {times[1]:.2f} CPU s  "
        f"ratio of speeds {compare(*cpu)}\n"
        f"           wall {times[2]:.2f} and {times[3]:.2f} s; {manifest.rows:,} rows in "
        f"{len(files)} files, {len(columns)} columns; ours ends as dense arrays"
    )


LINES = {"training": training_line, "reading": reading_line}


def main(size: Size | None = None, lines: Iterable[str] = LINES) -> None:
    """Print the comparisons."""
    torch.set_num_threads(1)
    for line in lines:
        print(LINES[line](size or Size()), flush=True)


def _arguments() -> tuple[Size, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--assets", type=int, default=Size.assets)
    parser.add_argument("--days", type=int, default=Size.train_days, help="of training")
    parser.add_argument("--valid", type=int, default=Size.valid_days, help="days of validation")
    parser.add_argument("--rounds", type=int, default=Size.rounds)
    parser.add_argument("--hidden", type=int, default=GruConfig().hidden)
    parser.add_argument("--layers", type=int, default=GruConfig().layers)
    parser.add_argument("--only", choices=LINES, nargs="+", default=list(LINES))
    given = parser.parse_args()
    size = Size(
        assets=given.assets,
        train_days=given.days,
        valid_days=given.valid,
        rounds=given.rounds,
        gru=GruConfig(hidden=given.hidden, layers=given.layers),
    )
    return size, given.only


if __name__ == "__main__":
    main(*_arguments())
