"""The jobs of a soak: a market of 24 assets in 16 months, and a command line for each.

| state | a storage after |
|---|---|
| `empty` | nothing |
| `panel` | panel |
| `trained` | panel, train |
| `scored` | panel, train, score |
| `reported` | panel, train, score, report |
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from gangru_dist.config.settings import SyntheticConfig
from gangru_dist.synthetic.market import make_bars

RUN = "soak"
GROWN_FROM = dt.date(2019, 4, 1)
"""First day that only the grown bars have."""
SETTINGS = """
variant = "gan_gru"
[panel]
buckets = 4
[universe]
min_listed_days = 20
min_traded_days = 6
min_assets = 10
[samples]
lookback = 10
[label]
horizon = 5
[windows]
first = "2018-09-01"
history_days = 100
sample_every = 5
refit_months = [9, 12]
[gan]
hidden = 4
layers = 1
channels = [2, 3]
epochs = 2
[gru]
hidden = 4
layers = 1
head = [4]
[training]
epochs = 3
learning_rate = 1e-2
seeds = [0, 1]
[factor]
quantiles = 4
[tune]
trials = 3
startup_trials = 1
prune = false
windows = ["2018-09-28", "2018-12-31"]
[tune.space]
"training.learning_rate" = {low = 1e-4, high = 1e-1, log = true}
"gru.hidden" = {low = 2, high = 6, step = 2}
"""


@dataclass(frozen=True)
class Job:
    """A command, and the state it starts from."""

    start: str
    command: tuple[str, ...]
    bars: str = ""
    """`bars`, `grown`, or none."""


JOBS = {
    "panel": Job("empty", ("panel",), "bars"),
    "append": Job("panel", ("panel",), "grown"),
    "train": Job("panel", ("train",)),
    "tune": Job("panel", ("tune",)),
    "score": Job("trained", ("score",)),
    "report": Job("scored", ("report",)),
    "pipeline": Job("empty", ("pipeline",), "bars"),
    "monthly": Job("reported", ("pipeline",), "grown"),
}
STATES = {"panel": "panel", "trained": "train", "scored": "score", "reported": "report"}
"""State -> the job that leads there."""


def write_market(folder: Path) -> None:
    """The settings' file, the bars, and the bars with a month more."""
    market = SyntheticConfig(assets=24, first=dt.date(2018, 1, 2), last=dt.date(2019, 4, 30))
    bars = make_bars(market)
    for name, rows in {
        "grown": bars,
        "bars": bars.filter(pc.less(bars["date"].cast("date32"), GROWN_FROM)),
    }.items():
        (folder / name).mkdir(parents=True)
        year = pc.year(rows["date"])
        for value in pc.unique(year).to_pylist():
            pq.write_table(rows.filter(pc.equal(year, value)), folder / name / f"{value}.parquet")
    (folder / "settings.toml").write_text(SETTINGS)


def argv(name: str, market: Path, storage: str) -> list[str]:
    """Words of a job's command line."""
    job = JOBS[name]
    words = [*job.command, "--storage", storage, "--run", RUN]
    words += ["--config", str(market / "settings.toml")]
    return [*words, "--bars", str(market / job.bars)] if job.bars else words
