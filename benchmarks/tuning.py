"""What pruning saves: the same proposals with and without ASHA, on a made-up market.

    python -m benchmarks.tuning               # two minutes on one core
    python -m benchmarks.tuning --trials 8 --epochs 9

Every setting of one seeded random search is trained to the end once. From those curves ASHA's
decisions follow exactly: a trial's curve does not depend on which others run. Both searches thus
see the same trials, and the table says what the pruned one trained and what it still found.
Asked: at least 40 % of the epochs saved at an equal best objective.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
from types import SimpleNamespace
from typing import Any

import numpy as np

from gangru_dist.api import SYNTHETIC, build_panel
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.session import open_session
from gangru_dist.config.settings import (
    GruConfig,
    PanelConfig,
    RunConfig,
    SearchRange,
    SyntheticConfig,
    TrainingConfig,
    TuneConfig,
    WindowConfig,
)
from gangru_dist.panel.manifest import read_manifest
from gangru_dist.panel.shared import SharedPanel
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import TrialRecord
from gangru_dist.tuning.search import make_scheduler
from gangru_dist.tuning.space import apply, list_extremes, make_parameters, propose
from gangru_dist.tuning.trial import choose_windows, read_window, run_trial


def configuration(trials: int, epochs: int) -> RunConfig:
    """A small market with a planted signal; a learning rate range with useless ends."""
    return RunConfig(
        variant="gru",
        panel=PanelConfig(buckets=4),
        windows=WindowConfig(history_days=240, sample_every=10),
        gru=GruConfig(hidden=12, layers=1, head=(8,)),
        training=TrainingConfig(epochs=epochs, patience=epochs, learning_rate=1e-4),
        tune=TuneConfig(
            space={
                "training.learning_rate": SearchRange(low=1e-6, high=1e-1, log=True),
                "gru.hidden": SearchRange(low=4, high=20, step=4),
                "samples.lookback": SearchRange(choices=(30, 40)),
            },
            trials=trials,
            sampler="random",
            grace_epochs=2,
        ),
        synthetic=SyntheticConfig(
            assets=80, first=dt.date(2017, 1, 3), last=dt.date(2019, 7, 31), signal_ic=0.2
        ),
    )


def train_all(root: Storage, cfg: RunConfig) -> list[list[dict[str, Any]]]:
    """Every trial's reports, none of them stopped."""
    space = make_parameters(cfg)
    variants = list_extremes(cfg, space)
    manifest = read_manifest(root)
    windows = choose_windows(manifest.calendar, cfg, variants, None)
    panel = SharedPanel(root=root, manifest=manifest)
    blocks = {name: read_window(panel, name, variants) for name in windows}
    records: list[TrialRecord] = []
    curves: list[list[dict[str, Any]]] = []
    for number in range(cfg.tune.trials):
        values = propose(cfg, space, records)
        assert values is not None
        records.append(TrialRecord(number=number, settings=values, status="complete", objective=0))
        told: list[dict[str, Any]] = []
        run_trial(
            apply(cfg, values),
            base=cfg,
            windows=windows,
            calendar=manifest.calendar,
            read_block=blocks.__getitem__,
            steps_per_window=cfg.training.epochs,
            report=told.append,
        )
        curves.append(told)
        print(f"trial {number}: {told[-1]['objective']:+.4f} {values}")
    return curves


def with_pruning(curves: list[list[dict[str, Any]]], cfg: RunConfig) -> tuple[int, float]:
    """Epochs trained and best objective, had ASHA watched; trials one after another."""
    scheduler = make_scheduler(cfg.tune, curves[0][-1]["step"])
    epochs, best = 0, float("-inf")
    for number, told in enumerate(curves):
        trial = SimpleNamespace(trial_id=str(number), config={"number": number})
        scheduler.on_trial_add(None, trial)
        for report in told:
            if scheduler.on_trial_result(None, trial, report) == "STOP":
                break
        else:
            best = max(best, report["objective"])
        epochs += report["epochs"]
    return epochs, best


def main(trials: int = 24, epochs: int = 12) -> float:
    """Print the comparison; the share of epochs saved."""
    cfg = configuration(trials, epochs)
    with tempfile.TemporaryDirectory() as folder:
        root = Storage(folder)
        with open_session(cfg):
            build_panel(Run(root, "tuning", cfg), SYNTHETIC)
        curves = train_all(root, cfg)
    full = sum(told[-1]["epochs"] for told in curves)
    objectives = [told[-1]["objective"] for told in curves]
    epochs_pruned, best_pruned = with_pruning(curves, cfg)
    orders = [np.random.default_rng(seed).permutation(len(curves) - 1) + 1 for seed in range(20)]
    again = [with_pruning([curves[0], *(curves[i] for i in order)], cfg) for order in orders]
    saved = float(1 - epochs_pruned / full)
    others = [1 - trained / full for trained, _ in again]
    equal = sum(best >= max(objectives) - 1e-12 for _, best in again)
    print(f"without pruning: {full} epochs, best {max(objectives):+.4f}")
    print(f"with ASHA:       {epochs_pruned} epochs, best {best_pruned:+.4f}, saved {saved:.0%}")
    print(
        f"the same trials in 20 other orders: saved {min(others):.0%} to {max(others):.0%}, "
        f"the same best in {equal}"
    )
    return saved


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=12)
    asked = parser.parse_args()
    main(asked.trials, asked.epochs)
