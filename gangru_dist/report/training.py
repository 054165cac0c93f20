"""The report's section on training: tables, sentences and figures of the finished models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gangru_dist.report import drawing, text
from gangru_dist.report.drawing import GREY, HALF, INK, PALE, PERCENT, WIDE
from gangru_dist.report.text import gettext as _
from gangru_dist.runs.model import FeatureFigures, GanSamples, ModelRecord

SEPARATED = 0.95
"""A discriminator right this often in the last GAN epoch tells real from generated at sight."""
COLLAPSED = 0.05
"""Generated samples whose values vary across assets by less than this share of what real ones do
are one sample for all: mode collapse. A perfect generator stands at 1; measured after the demo's
two epochs 0.11 to 0.79, on real bars with preset `default` 0.78 to 0.95."""


def tabulate_models(models: Sequence[ModelRecord]) -> pd.DataFrame:
    """One row a model; unknown = NaN.

    Columns: window, seed, model, variant, train_days, valid_days, epochs, best_epoch,
    best_valid_ic, discriminator_accuracy, distance, lowest_spread, seconds, resumed_epochs.
    `discriminator_accuracy` and `distance` (mean |G - x|) are those of the last GAN epoch;
    `lowest_spread` is the smallest of `tabulate_features`; `seconds` are those of the last
    attempt, without the `resumed_epochs` before it.
    """
    lowest = tabulate_features(models).groupby(["window", "seed"])["spread"].min()
    rows = [
        {
            "window": model.window,
            "seed": model.seed,
            "model": model.model,
            "variant": model.variant,
            "train_days": len(model.train_days),
            "valid_days": len(model.valid_days),
            "epochs": len(model.predictor_epochs),
            "best_epoch": model.best_epoch,
            "best_valid_ic": np.nan if model.best_valid_ic is None else model.best_valid_ic,
            "discriminator_accuracy": gan[-1].discriminator_accuracy if gan else np.nan,
            "distance": gan[-1].distance if gan else np.nan,
            "lowest_spread": lowest.get((model.window, model.seed), np.nan),
            "seconds": model.seconds,
            "resumed_epochs": model.resumed_epochs,
        }
        for model, gan in ((one, one.gan_epochs) for one in models)
    ]
    return pd.DataFrame(rows)


def tabulate_epochs(models: Sequence[ModelRecord]) -> pd.DataFrame:
    """One row an epoch of every model: window, seed, stage, epoch and whatever was measured."""
    rows = [
        {"window": model.window, "seed": model.seed, **asdict(epoch)}
        for model in models
        for epoch in model.history
    ]
    return pd.DataFrame(rows)


def judge_gan(models: Sequence[ModelRecord]) -> dict[str, Any]:
    """Tell how the GANs ended: what the page says of them, and the models that were lost.

    Returns:
        accuracy, lowest_spread: of `tabulate_models`, where measured. features: of all that
        measured them. separated: models with an accuracy from `separated_at` on. collapsed:
        features with a spread below `collapsed_at`.
    """
    names = ["window", "discriminator_accuracy", "lowest_spread"]
    table, features = tabulate_models(models).reindex(columns=names), tabulate_features(models)
    return {
        "accuracy": table["discriminator_accuracy"].dropna(),
        "lowest_spread": table["lowest_spread"].dropna(),
        "features": features,
        "separated": table[table["discriminator_accuracy"] >= SEPARATED],
        "separated_at": SEPARATED,
        "collapsed": features[features["spread"] < COLLAPSED],
        "collapsed_at": COLLAPSED,
    }


def tabulate_features(models: Sequence[ModelRecord]) -> pd.DataFrame:
    """One row a model and feature, of models that measured it: x beside G(x, z) on one day.

    Columns: window, seed, day, assets, feature, real_mean, real_std, generated_mean,
    generated_std, spread. In standard deviations of the standardized feature; `spread` is the
    ratio of generated to real standard deviation across assets, NaN of a flat feature.
    """
    columns = ["window", "seed", "day", "assets", "feature", "real_mean", "real_std"]
    columns += ["generated_mean", "generated_std", "spread"]
    rows = [
        (*key, name, real.mean, real.std, made.mean, made.std, compute_spread(real, made))
        for key, name, real, made, _ in _iterate_features(models)
    ]
    return pd.DataFrame(rows, columns=columns)


def tabulate_histograms(models: Sequence[ModelRecord]) -> pd.DataFrame:
    """One row a model, feature and bin: shares of real and generated values.

    Columns: window, seed, day, assets, feature, center, real, generated.
    """
    columns = ["window", "seed", "day", "assets", "feature", "center", "real", "generated"]
    rows = [
        (*key, name, *values)
        for key, name, real, made, centers in _iterate_features(models)
        for values in zip(centers, compute_shares(real), compute_shares(made), strict=True)
    ]
    return pd.DataFrame(rows, columns=columns)


def _iterate_features(
    models: Sequence[ModelRecord],
) -> Iterator[
    tuple[tuple[str, int, str, int], str, FeatureFigures, FeatureFigures, tuple[float, ...]]
]:
    """(window, seed, day, assets), feature, real, generated, bin centers."""
    for model in models:
        samples = model.gan_samples
        if samples:
            key = (model.window, model.seed, samples.day, samples.assets)
            for name, real in samples.real.items():
                yield key, name, real, samples.generated[name], samples.bin_centers


def compute_spread(real: FeatureFigures, made: FeatureFigures) -> float:
    """Generated over real standard deviation across assets; NaN of a flat feature."""
    return made.cs_std / real.cs_std if real.cs_std > 0 else float("nan")


def compute_shares(figures: FeatureFigures) -> np.ndarray:
    """(bins,) share of the values in each bin."""
    counts = np.array(figures.histogram, dtype=np.float64)
    return np.asarray(counts / max(counts.sum(), 1.0))


def find_newest_measured(models: Sequence[ModelRecord]) -> ModelRecord | None:
    """The first seed's model of the newest window that measured its generator."""
    found = [model for model in models if model.gan_samples]
    return max(found, key=lambda model: (model.window, -model.seed), default=None)


@drawing.picture("validation", HALF)
def draw_validation(figure: Figure, history: pd.DataFrame) -> None:
    """Draw the validation IC by epoch of every window; several seeds thin, their mean thick."""
    axes = figure.subplots()
    predictor = history[history["stage"] != "gan"]
    _draw_windows(axes, predictor, "valid_ic")
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xlabel(_("epoch"))
    axes.set_ylabel(_("validation IC"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if predictor["window"].nunique() <= _LEGEND_HOLDS:
        drawing.add_legend(axes, 3)


@drawing.picture("gan", HALF)
def draw_gan_accuracy(figure: Figure, history: pd.DataFrame) -> None:
    """Draw the discriminator accuracy by GAN epoch; at one half it cannot tell real from made."""
    axes = figure.subplots()
    _draw_windows(axes, history[history["stage"] == "gan"], "discriminator_accuracy")
    axes.axhline(0.5, color=INK, lw=0.8, ls="--")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(_("GAN epoch"))
    axes.set_ylabel(_("discriminator accuracy"))
    axes.yaxis.set_major_formatter(PERCENT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


_LEGEND_HOLDS = 9


def _draw_windows(axes: Axes, history: pd.DataFrame, column: str) -> None:
    """Draw a line a window, dark for early ones: of its seed, or the mean while all go on."""
    windows = sorted(history["window"].unique())
    steps = np.linspace(0, 0.6, max(len(windows), 2))  # further up is a yellow, lost on paper
    shades = mpl.colormaps["cividis"](steps)
    means: dict[str, pd.Series] = {}
    for number, window in enumerate(windows):
        seeds = history[history["window"] == window].pivot_table(
            index="epoch", columns="seed", values=column
        )
        if len(seeds.columns) > 1:
            axes.plot(seeds.index, seeds, color=shades[number], lw=0.5, alpha=0.45)
        mean = seeds.dropna().mean(axis=1)
        means[window] = mean
        dashes = ("-", "--", "-.", ":")[number % 4]
        axes.plot(mean.index, mean, color=shades[number], ls=dashes, label=window)
    epochs = sorted({epoch for mean in means.values() for epoch in mean.index})
    values = {name: mean.reindex(epochs) for name, mean in means.items()}
    heads = [_("epoch %(number)s") % {"number": epoch} for epoch in epochs]
    drawing.add_tips(axes, epochs, heads, values, text.format_signed)


_COLUMNS = 6


@drawing.picture("distributions", WIDE)
def draw_distributions(figure: Figure, samples: GanSamples) -> None:
    """Draw a small picture a feature: histograms of real (filled) and generated values (line).

    Beside a feature's name stands its spread: that of generated over that of real values across
    assets.
    """
    names = list(samples.real)
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure.set_size_inches(WIDE[0], 0.5 + 1.15 * rows)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        _draw_feature(axes, name, samples)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))


def _draw_feature(axes: Axes, name: str, samples: GanSamples) -> None:
    """Draw shares of the values by bin; heights of different features do not compare."""
    centers = np.array(samples.bin_centers)
    half = (centers[1] - centers[0]) / 2
    edges = np.append(centers - half, centers[-1] + half)
    real, made = samples.real[name], samples.generated[name]
    axes.stairs(compute_shares(real), edges, fill=True, color=PALE, label=_("real"))
    axes.stairs(compute_shares(real), edges, color=GREY, lw=0.6)
    axes.stairs(compute_shares(made), edges, color=INK, lw=1.2, label=_("generated"))
    axes.set_title(f"{name} · {compute_spread(real, made):.2f}", fontsize=8.5, pad=3)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", length=2, labelsize=7.5)
    axes.grid(visible=False)
    moments = {
        _("real"): [f"{real.mean:.2f} ± {real.std:.2f}"],
        _("generated"): [f"{made.mean:.2f} ± {made.std:.2f}"],
        _("spread"): [text.format_number(compute_spread(real, made))],
    }
    drawing.add_tips(axes, [0.0], [name], moments, str)
