"""What grows with the number of windows, scoring jobs and appends: nothing but their results.

A dozen of each in `make test`; in `make trials` 500 windows, 500 units of scoring, 200 appends.
"""

from __future__ import annotations

import datetime as dt
import gc
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from deltalake import DeltaTable

from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here
from gangru_dist.config.settings import PanelConfig, RunConfig, TrainingConfig
from gangru_dist.panel import build
from gangru_dist.panel.build import build_panel
from gangru_dist.scoring.table import FactorTable
from gangru_dist.training import launch
from gangru_dist.training.launch import train_windows
from gangru_dist.training.units import Report, TrainingJob, Unit
from gangru_dist.training.worker import train_unit
from tests.made_bars import write
from tests.scoring.market import CFG, DAYS, make_rows, make_world, run_of, score_here, write_panel
from tests.soak import near

FEW = [pytest.param(12, id="few", marks=[pytest.mark.slow, pytest.mark.trials])]
LONG = [pytest.mark.slow, pytest.mark.trials, pytest.mark.timeout(3600)]
MEGABYTE = 2**20
SLACK_BYTES = 12 * MEGABYTE
"""Of memory, which comes in pages and is given back late: as much after 500 as after 12."""
SLACK_HANDLES = 3
"""Of files, threads and children: Ray, if a test before has started it in this process, opens and
closes connections when it likes. A leak of one for each piece of work, six at least, is more."""


def counts(many: int) -> list[object]:
    return [*FEW, pytest.param(many, id="many", marks=LONG)]


@dataclass(frozen=True)
class Held:
    """What this process holds."""

    memory: int
    """Bytes."""
    files: int
    threads: int
    children: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        me = psutil.Process()
        return cls(
            memory=me.memory_info().rss,
            files=len(list(Path("/proc/self/fd").iterdir())),
            threads=threading.active_count(),
            children=len(me.children()),
        )


def check_same(before: Held, after: Held) -> None:
    """Nothing has grown."""
    assert after.memory - before.memory < SLACK_BYTES, (before, after)
    for kind in ("files", "threads", "children"):
        assert getattr(after, kind) <= getattr(before, kind) + SLACK_HANDLES, (kind, before, after)


def check_flat(times: int, work: Callable[[int], None]) -> None:
    """Do it so often: a quarter of the times for what is made once, then nothing may grow."""
    for number in range(times // 4):
        work(number)
    before = Held.now()
    for number in range(times // 4, times):
        work(number)
    check_same(before, Held.now())


@pytest.mark.parametrize("times", counts(500))
def test_windows_of_a_driver(tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of its worker, which is in this process; each has a checkpoint an epoch."""
    held: list[Held] = []

    def train_counted(job: TrainingJob, unit: Unit, report: Report) -> None:
        train_unit(job, unit, report)
        counted.update([unit])
        if counted.total() in (times // 4, times):
            held.append(Held.now())

    counted = Counter[Unit]()
    monkeypatch.setattr(near, "train_unit", train_counted)
    monkeypatch.setattr(launch, "count_concurrent", lambda *_: times)  # a unit a model
    for owner, name, value in near.replacements():
        monkeypatch.setattr(owner, name, value)
    root = Storage(str(tmp_path))
    write_panel(root, make_rows())
    training = TrainingConfig(epochs=2, seeds=tuple(range(times)))
    run = run_of(root, replace(CFG, training=training))
    assert train_windows(run, only=["2019-01-31"]).ok
    check_same(*held)
    files = {name for name in run.folder.list_files() if not name.startswith("windows/")}
    assert files == {"config.json", "summary.json"}
    assert len(run.read_models()) == times
    assert len(run.folder.list_files("windows")) == 2 * times


@pytest.mark.parametrize("times", counts(500))
def test_jobs_that_score(tmp_path: Path, times: int) -> None:
    """Each scores all days again; old versions are kept for a week, then there is one a month."""
    run = run_of(make_world(str(tmp_path)))

    def score(number: int) -> None:
        score_here(run, start=DAYS[0].date(), end=DAYS[-1].date())

    check_flat(max(8, times // 5), score)
    FactorTable(run.factor).vacuum(retention_hours=0)
    data = [name for name in run.factor.list_files() if name.startswith("month=")]
    assert len(data) == len(DeltaTable(run.factor.path).file_uris()) < 6


@pytest.mark.parametrize("times", counts(200))
def test_appends(tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day each; the panel keeps the files of two builds, and others for as long as it must."""
    monkeypatch.setattr(build, "LEFTOVER_AGE", dt.timedelta(0))
    root, bars = Storage(str(tmp_path / "storage")), tmp_path / "bars"
    cfg = RunConfig(panel=PanelConfig(features=("close", "daily_return"), buckets=2))
    days = pd.bdate_range("2018-02-01", periods=40 + times)
    codes = [f"60000{number}.SH" for number in range(3)]
    index = pd.MultiIndex.from_product([codes, days], names=["code", "date"])
    close = 10 + 0.01 * (np.arange(len(index)) % 7)
    rows = index.to_frame(index=False).assign(
        open=close, high=close + 0.05, low=close - 0.05, close=close,
        volume=100.0, amount=100 * close, adj_factor=1.0,
    )  # fmt: skip

    def append(number: int) -> None:
        write(bars, rows[rows["date"] <= days[39 + number]])
        manifest = build_panel(str(bars), root, cfg, runner=map_here)
        assert len(manifest.calendar) == 40 + number
        names = root.child("panel").list_files()
        assert len(names) <= 2 * len(manifest.files) + 2, names

    check_flat(times, append)
