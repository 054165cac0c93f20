"""What scoring costs beside the bare forward pass: `make bench`, about ten minutes.

1. One actor's work on a window's half-year, all in (model and block read once, samples cut and
   standardized, forward pass, factor, a file a month written), against a bare forward pass with
   `nn.GRU` over the same cross-sections of a month, cut beforehand and kept in memory; one thread
   each. Asked: 1.2 times its speed.
2. A half-year of a whole market's size by two actors and by one, through Ray Data, start of the
   actors included (some 5 s, so a smaller market gains less). Asked: 1.7 times as fast, where two
   cores are free.

Run `python -m benchmarks.scoring_speed` in the project's folder; the first alone, in minutes,
with `--alone --assets 600`.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.training_speed import BareNetwork, alternate, compare, store_panel
from benchmarks.training_speed import Size as PanelSize
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_on_ray, unwrap
from gangru_dist.cluster.session import open_session
from gangru_dist.config.identity import model_identity
from gangru_dist.config.settings import (
    ChannelKind,
    GruConfig,
    PanelConfig,
    RunConfig,
    SampleConfig,
    TrainingConfig,
    WindowConfig,
)
from gangru_dist.maths.calendar import make_windows
from gangru_dist.panel.manifest import MANIFEST, Manifest, read_manifest
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.panel.store import read_block
from gangru_dist.panel.universe import select_universe
from gangru_dist.runs.run import Run
from gangru_dist.samples.standardize import Standardizer
from gangru_dist.scoring.plan import ScoringTask, make_plan
from gangru_dist.scoring.predictor import Scorer
from gangru_dist.training.checkpoint import TrainingState, read_model, write_model

TARGET, TARGET_TWO = 1.2, 1.7
"""Speed over the bare forward pass's; two actors over one."""

_RUN = "bench"
_PART = 1024
"""Samples of a bare pass: 4,000 at once need 250 MB for the gates and are no faster."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much work; the defaults are what `make bench` does."""

    assets: int = 1200
    """Of the month that one actor scores."""
    market: int = 3000
    """Assets of the half-year that actors share."""
    days: int = 390
    """Of the panel, from 2018-01-01 on; the first half-year is history."""
    months: int = 6
    """Scored by the actors, from 2019-01 on."""
    rounds: int = 5
    gru: GruConfig = field(default_factory=GruConfig)
    channels: tuple[ChannelKind, ...] = ("shape",)


def settings(size: Size) -> RunConfig:
    """A small history, so that the window of 2018-12-31 exists; all else as by default."""
    return RunConfig(
        variant="gru",
        panel=PanelConfig(buckets=16),
        windows=WindowConfig(history_days=120),
        training=TrainingConfig(seeds=(0,)),
        gru=size.gru,
        samples=SampleConfig(channels=size.channels),
    )


def build(root: Storage, size: Size, assets: int) -> tuple[RunConfig, Manifest]:
    """A panel of random rows and an untrained model for every window."""
    cfg = settings(size)
    stored = PanelSize(stored_assets=assets, stored_days=size.days, buckets=cfg.panel.buckets)
    manifest = store_panel(root, cfg, stored)
    root.child("panel").write_json(MANIFEST, manifest.to_json())
    windows, _ = make_windows(
        manifest.calendar, cfg.windows, cfg.label, lookback=cfg.samples.lookback
    )
    run = Run(root, _RUN, cfg)
    for window in windows:
        panel = manifest.fingerprint_to(manifest.calendar[window.refit].astype(dt.date))
        identity = model_identity(cfg, window.name, 0, panel)
        write_model(run, window.name, 0, TrainingState(cfg, 0), identity=identity)
    return cfg, manifest


def list_tasks(
    root: Storage, cfg: RunConfig, manifest: Manifest, months: int
) -> tuple[ScoringTask, ...]:
    """The first months that can be scored, a task each."""
    plan = make_plan(manifest, cfg, Run(root, _RUN, cfg).read_models(), {})
    return tuple(task for task in plan.tasks if task.month >= "2019-01")[:months]


def cross_sections(
    root: Storage, cfg: RunConfig, manifest: Manifest, task: ScoringTask
) -> list[Tensor]:
    """The task's samples, a tensor (M, T, F) a day."""
    first, last = (dt.date.fromisoformat(day) for day in (task.block_start, task.block_end))
    block = read_block(root, manifest, start=first, end=last, features=cfg.panel.features)
    members = select_universe(block, cfg.universe, cfg.samples.lookback)
    panel = torch.from_numpy(block.features)
    standardizer = Standardizer(cfg.samples, cfg.features)
    rows = [block.row(np.datetime64(day)) for day in task.days]
    return [
        standardizer.standardize_day(panel, row, torch.from_numpy(np.flatnonzero(members[row])))
        for row in rows
    ]


def bare_scores(network: BareNetwork, samples: Tensor) -> list[Tensor]:
    """A notebook's forward pass, in parts that `nn.GRU` has memory for."""
    with torch.inference_mode():
        return [network(part) for part in samples.split(_PART)]


def forward_line(root: Storage, cfg: RunConfig, manifest: Manifest, size: Size) -> str:
    """Samples a CPU second of ours and of the bare forward pass, and the ratio."""
    tasks = list_tasks(root, cfg, manifest, size.months)
    samples = cross_sections(root, cfg, manifest, tasks[0])
    run, panel = Run(root, _RUN, cfg), SharedPanel(root=root, manifest=manifest)
    network, _ = read_model(run, tasks[0].window, 0)
    stock = BareNetwork(len(cfg.panel.features), cfg.gru).eval()
    stock.load_state_dict(network.predictor.state_dict())

    def score() -> None:
        scorer = Scorer(run, panel)
        for task in tasks:
            scorer(task)

    ours, bare = alternate(score, lambda: [bare_scores(stock, day) for day in samples], size.rounds)
    days = sum(len(task.days) for task in tasks)
    share = days / len(samples)  # all days have all assets
    count = sum(len(day) for day in samples)
    speed = [
        statistics.median(count * part / c.cpu for c in side)
        for side, part in ((ours, share), (bare, 1.0))
    ]
    cpu, wall = ([c.cpu / share for c in ours], [c.wall / share for c in ours])
    return (
        f"scoring    ours {speed[0]:,.0f}  bare forward pass {speed[1]:,.0f} samples/CPU s  "
        f"ratio {compare(cpu, [c.cpu for c in bare])}, asked >= {TARGET}\n"
        f"           {size.rounds} rounds of {days} days, {count * share:,.0f} samples; "
        f"wall ratio {compare(wall, [c.wall for c in bare])}"
    )


def seconds_with(
    root: Storage, cfg: RunConfig, tasks: tuple[ScoringTask, ...], actors: int
) -> float:
    """Wall seconds until all files of the tasks are there."""
    resources = dataclasses.replace(cfg.resources, scoring_actors=actors)
    started = time.perf_counter()
    run = Run(root, _RUN, dataclasses.replace(cfg, resources=resources))
    panel = SharedPanel(root=root, manifest=read_manifest(root))
    done = map_on_ray(run.cfg, partial(Scorer, run, panel), tasks, actors=actors)
    files = [unwrap(result) for _, result in done]
    assert len(files) == len(tasks)
    return time.perf_counter() - started


def actors_line(root: Storage, cfg: RunConfig, manifest: Manifest, size: Size) -> str:
    """Wall seconds of two actors and of one, and the ratio of speeds."""
    tasks = list_tasks(root, cfg, manifest, size.months)
    with open_session(cfg, cpus=2):
        seconds_with(root, cfg, tasks[:1], 1)  # Ray's own first time
        pairs = [[seconds_with(root, cfg, tasks, n) for n in (2, 1)] for _ in range(size.rounds)]
    two, one = (list(side) for side in zip(*pairs, strict=True))
    days = sum(len(task.days) for task in tasks)
    return (
        f"actors     two {statistics.median(two):.1f} s  one {statistics.median(one):.1f} s  "
        f"ratio {compare(two, one)}, asked >= {TARGET_TWO} on two free cores\n"
        f"           {size.rounds} rounds of {days} days of {size.market} assets in "
        f"{len(tasks)} tasks; load {os.getloadavg()[0]:.1f} at the end"
    )


def main(size: Size | None = None, *, actors: bool = True) -> None:
    """Print the comparisons; without `actors` the first alone."""
    size = size or Size()
    torch.set_num_threads(1)
    lines = [(forward_line, size.assets), (actors_line, size.market)]
    for line, assets in lines if actors else lines[:1]:
        with tempfile.TemporaryDirectory() as folder:
            root = Storage(folder)
            print(line(root, *build(root, size, assets), size), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--assets", type=int, default=Size.assets, help="that one actor scores")
    parser.add_argument("--channels", nargs="+", default=["shape"], choices=["shape", "level"])
    parser.add_argument("--rounds", type=int, default=Size.rounds)
    parser.add_argument("--hidden", type=int, default=GruConfig().hidden)
    parser.add_argument("--layers", type=int, default=GruConfig().layers)
    parser.add_argument("--alone", action="store_true", help="one actor's work only, without Ray")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    gru = GruConfig(hidden=given.hidden, layers=given.layers)
    size = Size(assets=given.assets, rounds=given.rounds, gru=gru, channels=tuple(given.channels))
    main(size, actors=not given.alone)
