"""What a study may look at, and the two steps of it: train a model and score with it, then judge.

A trial is a name and settings on top of `BASE`. For each refit and seed it is trained on a part of
the assets (crc32 of the name) and scores these and as many others: every fifth day and the
month-ends, up to the end of the window after its own. Only scores are kept; all figures follow
from them, for one model as for the mean of several.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import io
import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gangru_dist.base.errors import ConfigError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import map_here, unwrap
from gangru_dist.config import sources
from gangru_dist.config.identity import model_identity, model_settings
from gangru_dist.config.settings import RunConfig
from gangru_dist.evaluation.market import Market, find_month_ends, to_market
from gangru_dist.evaluation.summary import Evaluation, evaluate
from gangru_dist.maths import metrics
from gangru_dist.maths.calendar import Window, first_day
from gangru_dist.maths.cross_section import FLAT_SCORE, cs_zscore
from gangru_dist.models.precision import prepare_torch
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.panel.store import read_block
from gangru_dist.panel.universe import select_universe
from gangru_dist.samples.labels import compute_forward_return
from gangru_dist.samples.standardize import Standardizer
from gangru_dist.scoring.factor import to_factor
from gangru_dist.scoring.predictor import predict
from gangru_dist.training.checkpoint import TrainingState
from gangru_dist.training.data import Scratch, TensorCache, WindowData, prepare
from gangru_dist.training.plan import choose_windows
from gangru_dist.training.window import train_window

PRESET = "default"
BASE = (
    "variant=gru",
    "training.precision=bf16",
    "training.average_epochs=0",
    "training.seeds=[0]",
    'samples.channels=["shape"]',
    "label.transform=zscore",
    "label.neutralize=[]",
    "gru.hidden=128",
    "gru.layers=2",
    "gru.head=[256,64,64]",
    "evaluation.top_fraction=0.1",
    "evaluation.buffer=1.0",
)
"""What every trial starts from: `default` as it was before these trials."""
EVERY = 5
"""Trading days between scored days, beside the month-ends."""
_SCRATCH = 16e9


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which refits are trained, and the last day of the bars that may be looked at."""

    name: str
    refits: tuple[str, ...]
    last: dt.date
    settings: tuple[str, ...] = ()
    """Of every trial, on top of its own."""


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="development", refits=("2018-12-28", "2019-06-28"), last=dt.date(2019, 12, 31)
        ),
        Protocol(
            name="earlier",
            refits=("2018-06-29", "2018-12-28", "2019-06-28"),
            last=dt.date(2019, 12, 31),
            settings=("windows.min_history_days=300",),
        ),
        Protocol(
            name="long",
            refits=(
                "2012-06-29",
                "2012-12-31",
                "2013-06-28",
                "2013-12-31",
                "2014-06-30",
                "2014-12-31",
                "2015-06-30",
                "2015-12-31",
                "2016-06-30",
                "2016-12-30",
                "2017-06-30",
                "2017-12-29",
                "2018-06-29",
                "2018-12-28",
                "2019-06-28",
            ),
            last=dt.date(2019, 12, 31),
        ),
        Protocol(name="latest", refits=("2019-06-28",), last=dt.date(2019, 12, 31)),
        Protocol(
            name="final",
            refits=("2018-12-28", "2019-06-28", "2019-12-31", "2020-06-30"),
            last=dt.date(2020, 12, 31),
        ),
    )
}
"""New choices are made by `long`, 15 refits and 90 months. Those of `default` were made by
`development` and `earlier`, which adds a falling market to it, with a first refit that has
360 days of history; `latest`, their last, is for what needs more history than the others have;
`final` is for the end, once."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The assets that models are trained on: crc32(name) mod `of` == `number`."""

    number: int = 0
    of: int = 4

    def mask(self, assets: np.ndarray) -> np.ndarray:
        """Which of the assets belong to it."""
        hashes = (zlib.crc32(str(name).encode()) for name in assets)
        return np.array([value % self.of == self.number for value in hashes], dtype=bool)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One model: what is done, or found done, at a time."""

    trial: str
    window: str
    seed: int


def trial_config(changes: Iterable[str]) -> RunConfig:
    """A trial's configuration."""
    return sources.load(PRESET, overrides=[*BASE, *changes])


class Study:
    """Panel, protocol and the folder of what is done."""

    def __init__(self, root: Storage, out: Storage, protocol: Protocol, part: Part) -> None:
        self.protocol, self.part = protocol, part
        self._scored = Part(of=max(part.of // 2, 1))
        self.manifest: Manifest = read_manifest(root)
        self.out = out.child(protocol.name)
        self._root = root
        self._training: tuple[str, WindowData] | None = None
        self._samples: tuple[str, TensorCache] | None = None
        refit = dt.date.fromisoformat(protocol.refits[0])
        start = self._calendar[max(int(self._index(refit)) - 60, 0)].astype(dt.date)
        self.block = self._read(start, protocol.last)
        """Scored assets, from before the first scored day to the protocol's last."""
        self.market: Market = to_market(self.block)

    @property
    def _calendar(self) -> np.ndarray:
        return self.manifest.calendar

    def _index(self, day: dt.date) -> int:
        return int(np.searchsorted(self._calendar, np.datetime64(day)))

    def _read(self, start: dt.date, end: dt.date) -> PanelBlock:
        block = read_block(self._root, self.manifest, start=start, end=end, trading=True)
        return some_assets(block, self._scored.mask(block.assets))

    def window(self, cfg: RunConfig, name: str) -> Window:
        """A refit day of the panel under these settings; ConfigError if it lacks history."""
        found, skipped = choose_windows(self.manifest, cfg, [name])
        if skipped:
            raise ConfigError(f"window {name} cannot be trained: {skipped[0].reason}.")
        return found[0]

    def run(self, trials: Mapping[str, tuple[str, ...]], seeds: Iterable[int]) -> Iterable[str]:
        """Train and score what is not done yet; yields a line of JSON a model."""
        common = self.protocol.settings
        cfgs = {name: trial_config((*changes, *common)) for name, changes in trials.items()}
        units = [
            Unit(trial=trial, window=window, seed=seed)
            for trial in trials  # neighbors share samples, so that each is cut once
            for window in self.protocol.refits
            for seed in seeds
        ]
        todo = [unit for unit in units if not self._is_done(unit, cfgs[unit.trial])]
        for _, line in map_here(RunConfig(), lambda: partial(self._one, cfgs), todo):
            yield str(unwrap(line))

    def _place(self, unit: Unit) -> str:
        return f"{unit.trial}/{unit.window}-{unit.seed}"

    def _identity(self, unit: Unit, cfg: RunConfig) -> str:
        last = dt.date.fromisoformat(unit.window)
        panel = self.manifest.fingerprint_to(last)
        return model_identity(cfg, unit.window, unit.seed, f"{panel} {self.part}")

    def _is_done(self, unit: Unit, cfg: RunConfig) -> bool:
        name = f"{self._place(unit)}.json"
        if not self.out.exists(name):
            return False
        identity = json.loads(self.out.read_bytes(name))["identity"]
        if identity != self._identity(unit, cfg):
            raise ConfigError(
                f"{self.out.uri}/{name} is of other settings or another panel. Name the trial "
                "anew, or remove its folder."
            )
        return True

    def _one(self, cfgs: Mapping[str, RunConfig], unit: Unit) -> str:
        cfg = cfgs[unit.trial]
        prepare_torch(cfg)
        window = self.window(cfg, unit.window)
        data = self.read_data(cfg, window)
        began = time.process_time()
        state = train_window(data, TrainingState(cfg, unit.seed), cfg, seed=unit.seed)
        seconds = time.process_time() - began
        days = self.scored_days(window)
        scores = self._scores(cfg, state, days)
        self._save(unit, days, scores)
        judged = judge(self, scores[self._own(window, days)], days[self._own(window, days)])
        line = {
            "trial": unit.trial,
            "window": unit.window,
            "seed": unit.seed,
            "identity": self._identity(unit, cfg),
            "cpu_seconds": round(seconds, 1),
            "train_days": len(data.train),
            "best_epoch": state.progress.best_epoch,
            "epochs": len(state.progress.history),
            "valid_ic": state.progress.best_ic,
            **judged.line(),
            "settings": model_settings(cfg),
        }
        self.out.write_json(f"{self._place(unit)}.json", line)
        return json.dumps({name: value for name, value in line.items() if name != "settings"})

    def read_data(self, cfg: RunConfig, window: Window) -> WindowData:
        """A window's training data, the newest kept: neighbors among the trials often share it."""
        whole = model_settings(cfg)
        parts = ("samples", "label", "universe", "windows", "features")
        key = json.dumps([window.name, *(whole[part] for part in parts)], default=str)
        if self._training is None or self._training[0] != key:
            if self._training is not None:
                self._training[1].cache.close()
            start = self._calendar[first_day(window, cfg.samples.lookback)].astype(dt.date)
            block = self._read(start, self._calendar[window.refit].astype(dt.date))
            own = some_assets(block, self.part.mask(block.assets))
            self._training = (key, prepare(own, window, self._calendar, cfg))
        return self._training[1]

    def all_days(self) -> np.ndarray:
        """Rows of `block` after the first refit: every fifth day and the month-ends."""
        dates = self.block.dates
        start = int(np.searchsorted(dates, np.datetime64(self.protocol.refits[0]), "right"))
        chosen = {*range(start, len(dates), EVERY), *find_month_ends(dates).tolist()}
        return np.array([day for day in sorted(chosen) if day >= start])

    def scored_days(self, window: Window) -> np.ndarray:
        """Those of this window and the next."""
        dates, days = self.block.dates, self.all_days()
        first = int(np.searchsorted(dates, self._calendar[window.score_first]))
        refits = [np.datetime64(name) for name in self.protocol.refits]
        later = [day for day in refits if day > np.datetime64(window.name)]
        end = int(np.searchsorted(dates, later[1], "right")) if len(later) > 1 else len(dates)
        return days[(first <= days) & (days < end)]

    def _own(self, window: Window, days: np.ndarray) -> np.ndarray:
        """Which of the scored days no later window scores."""
        last = self._calendar[min(window.score_last, len(self._calendar) - 1)]
        return np.asarray(self.block.dates[days] <= last)

    def _scores(self, cfg: RunConfig, state: TrainingState, days: np.ndarray) -> np.ndarray:
        """Scores of every asset in the universe, (K, N) float32; NaN elsewhere."""
        samples = self._scoring_samples(cfg)
        members = select_universe(self.block, cfg.universe, cfg.samples.lookback)
        network = state.network.eval()
        found = np.full((len(days), len(self.block.assets)), np.nan, dtype=np.float32)
        for row, day in enumerate(days.tolist()):
            found[row, members[day]] = predict(network, samples(day))
        network.train()
        return found

    def _scoring_samples(self, cfg: RunConfig) -> Callable[[int], Tensor]:
        """Standardized samples of a day's whole universe, the newest settings' kept."""
        whole = model_settings(cfg)
        key = json.dumps([whole[part] for part in ("samples", "universe", "features")])
        if self._samples is None or self._samples[0] != key:
            if self._samples is not None:
                self._samples[1].close()
            members = select_universe(self.block, cfg.universe, cfg.samples.lookback)
            panel = torch.from_numpy(self.block.features)
            standardizer = Standardizer(cfg.samples, cfg.features)

            def make(day: int) -> Tensor:
                chosen = torch.from_numpy(np.flatnonzero(members[day]))
                return standardizer.standardize_day(panel, day, chosen)

            self._samples = (key, TensorCache(make, Scratch(_SCRATCH)))
        return self._samples[1]

    def _save(self, unit: Unit, days: np.ndarray, scores: np.ndarray) -> None:
        file = io.BytesIO()
        dates = self.block.dates[days].astype("datetime64[D]").astype(np.int64)
        np.savez_compressed(file, dates=dates, scores=scores, assets=self.block.assets.astype("U"))
        self.out.write_bytes(f"{self._place(unit)}.npz", file.getvalue())

    def lines(self) -> list[dict[str, Any]]:
        """What is known of every finished model."""
        names = sorted(name for name in self.out.list_files() if name.endswith(".json"))
        return [json.loads(self.out.read_bytes(name)) for name in names]

    def scores(self, unit: Unit) -> pd.DataFrame:
        """A finished model's scores, dates x assets."""
        with np.load(io.BytesIO(self.out.read_bytes(f"{self._place(unit)}.npz"))) as file:
            dates = file["dates"].astype("datetime64[D]")
            return pd.DataFrame(file["scores"].astype(np.float64), dates, file["assets"])

    def mean_scores(
        self, trial: str, seeds: Iterable[int], refits: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores of a trial over its windows, and their days: rows of `block`.

        Per day the mean of the z-scored scores of all seeds, of the newest `refits` models of each.
        """
        names = self.protocol.refits
        found: list[pd.DataFrame] = []
        for position, name in enumerate(names):
            models = [
                self.scores(Unit(trial=trial, window=window, seed=seed))
                for window in names[max(position - refits + 1, 0) : position + 1]
                for seed in seeds
            ]
            end = names[position + 1] if position + 1 < len(names) else str(self.protocol.last)
            days = models[-1].index
            days = days[(days > np.datetime64(name)) & (days <= np.datetime64(end))]
            z = [cs_zscore(model.loc[days].to_numpy(), flat=FLAT_SCORE) for model in models]
            found.append(pd.DataFrame(np.mean(z, axis=0), days, models[-1].columns))
        table = pd.concat(found).reindex(columns=self.block.assets)
        return table.to_numpy(), np.searchsorted(self.block.dates, table.index.to_numpy())


def make_parser(doc: str | None, *, trials: str) -> argparse.ArgumentParser:
    """The command line of both scripts; `trials` says what the names are for."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trials", nargs="*", help=trials)
    parser.add_argument("--storage", required=True, help="where the panel is")
    parser.add_argument("--out", required=True, help="where the results are")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="development")
    parser.add_argument("--of", type=int, default=4, help="train on one in so many assets; 1 = all")
    return parser


def open_study(args: argparse.Namespace) -> Study:
    """The study of a command line."""
    protocol, part = PROTOCOLS[args.protocol], Part(of=args.of)
    return Study(Storage(args.storage), Storage(args.out), protocol, part)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Figures of one factor."""

    dates: np.ndarray
    """Of `daily`."""
    daily: np.ndarray
    """Rank IC of the factor with the 20-day label, every fifth day; NaN where the label would
    reach past the protocol's last day."""
    daily_raw: np.ndarray
    """The same of pRet."""
    evaluation: Evaluation

    @property
    def monthly(self) -> pd.Series:
        """Rank IC of each whole month."""
        return self.evaluation.monthly.set_index("month")["ic"]

    def line(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ic": metrics.mean(self.daily),
            "ic_raw": metrics.mean(self.daily_raw),
            "monthly_ic": {month: round(value, 5) for month, value in self.monthly.items()},
            "excess": self.evaluation.metrics["excess"]["annualized_return"],
            "turnover": self.evaluation.metrics["turnover"],
        }


def judge(
    study: Study,
    scores: np.ndarray,
    days: np.ndarray,
    assets: Any = None,
    *,
    rules: Iterable[str] = (),
) -> Judged:
    """Figures of scores (K, N) on rows `days` of the study's block.

    `assets`: which of them count, as a mask; None = all. The factor is made of those alone.
    `rules`: settings of the portfolio, `evaluation.…=…`.
    """
    cfg, block = trial_config(rules), study.block
    if assets is not None:
        scores = np.where(assets, scores, np.nan)
    factor = to_factor(scores, block.industry[days], block.market_cap[days], cfg.factor)
    returns = compute_forward_return(
        block.adj_close,
        block.traded,
        horizon=cfg.label.horizon,
        entry_lag=cfg.label.entry_lag,
    )
    fifth = (days - days[0]) % EVERY == 0
    row, column = np.nonzero(np.isfinite(factor.factor))
    table = pd.DataFrame(
        {
            "date": block.dates[days][row],
            "asset": block.assets[column],
            "factor": factor.factor[row, column],
            "score": scores[row, column],
        }
    )
    evaluation = evaluate(
        table,
        study.market,
        cfg.evaluation,
        entry_lag=cfg.label.entry_lag,
        quantiles=cfg.factor.quantiles,
    )
    return Judged(
        dates=block.dates[days][fifth],
        daily=metrics.rank_ic(factor.factor[fifth], returns[days][fifth]),
        daily_raw=metrics.rank_ic(scores[fifth].astype(np.float64), returns[days][fifth]),
        evaluation=evaluation,
    )


def some_assets(block: PanelBlock, keep: np.ndarray) -> PanelBlock:
    """The panel of some of its assets (a mask)."""
    arrays: dict[str, Any] = {
        field.name: np.compress(keep, values, axis=min(values.ndim - 1, 1))
        if values.size
        else values
        for field in dataclasses.fields(block)
        if field.name not in ("dates", "assets", "feature_names", "industries")
        for values in (getattr(block, field.name),)
    }
    return dataclasses.replace(block, assets=block.assets[keep], **arrays)
