"""What the finished models say about their training.

What the GAN makes beside what is real; see `figures` for how pictures look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gangru_dist.report.drawing import GREY, INK, PALE, WIDE, Shown, drawn, tips
from gangru_dist.report.text import ENGLISH, Language, percent, plain
from gangru_dist.runs.model import FeatureFigures, GanSamples, ModelRecord

SEPARATED = 0.95
"""A discriminator right this often in the last GAN epoch tells real from generated at sight."""
COLLAPSED = 0.05
"""Generated samples whose values vary across assets by less than this share of what real ones do
are one sample for all: mode collapse. A perfect generator stands at 1; measured after the demo's
two epochs 0.11 to 0.79, on real bars with preset `default` 0.78 to 0.95."""
_NAMED = 5
"""Features that a warning names at most."""


def model_table(models: Sequence[ModelRecord]) -> pd.DataFrame:
    """One row a model; unknown = NaN.

    Columns: window, seed, model, variant, train_days, valid_days, epochs, best_epoch,
    best_valid_ic, discriminator_accuracy, distance, lowest_spread, seconds, resumed_epochs.
    `discriminator_accuracy` and `distance` (mean |G - x|) are those of the last GAN epoch;
    `lowest_spread` is the smallest of `feature_table`'s; `seconds` are those of the last attempt,
    without the `resumed_epochs` before it.
    """
    lowest = feature_table(models).groupby(["window", "seed"])["spread"].min()
    rows = []
    for model in models:
        gan = model.gan_epochs
        rows.append(
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
        )
    return pd.DataFrame(rows)


def history_table(models: Sequence[ModelRecord]) -> pd.DataFrame:
    """One row an epoch of every model: window, seed, stage, epoch and whatever was measured."""
    rows = [
        {"window": model.window, "seed": model.seed, **asdict(epoch)}
        for model in models
        for epoch in model.history
    ]
    return pd.DataFrame(rows)


def gan_sentence(table: pd.DataFrame, language: Language = ENGLISH) -> str:
    """How the GANs of `model_table` ended, in words; empty without any."""
    if table.empty or table["discriminator_accuracy"].isna().all():
        return ""
    accuracy = table["discriminator_accuracy"]
    said = language.gettext(
        "GAN: after its last epoch the discriminator tells %(share)s of real and "
        "generated samples apart; 50 %% is chance, the aim."
    ) % {"share": _range(accuracy, lambda x: percent(x, 0), language)}
    spread = table["lowest_spread"].dropna()
    if spread.empty:
        return said
    more = language.gettext(
        "Across assets, the feature that varies least in generated samples has %(share)s "
        "of its real spread; 1 is the aim, 0 one sample for all."
    ) % {"share": _range(spread, plain, language)}
    return f"{said}{language.gettext(' ')}{more}"


def _range(values: pd.Series, show: Callable[[float], str], language: Language) -> str:
    """From the lowest to the highest value, or the one that all are."""
    low, high = show(values.min()), show(values.max())
    if low == high:
        return low
    return language.gettext("%(first)s to %(last)s") % {"first": low, "last": high}


def gan_warnings(table: pd.DataFrame, language: Language = ENGLISH) -> list[str]:
    """One sentence if discriminators won: the generator's output does not look real to them."""
    if table.empty:
        return []
    trained = table[table["discriminator_accuracy"].notna()]
    lost = trained[trained["discriminator_accuracy"] >= SEPARATED]
    if lost.empty:
        return []
    message = language.gettext(
        "GAN: in %(lost)s of %(trained)s models the discriminator still tells at least %(share)s "
        "of real and generated samples apart after the last epoch, so the generator may have "
        "collapsed (refit days %(windows)s)."
    )
    windows = ", ".join(sorted(lost["window"].unique()))
    share = f"{SEPARATED:.0%}"
    return [
        message % {"lost": len(lost), "trained": len(trained), "share": share, "windows": windows}
    ]


def feature_table(models: Sequence[ModelRecord]) -> pd.DataFrame:
    """One row a model and feature, of models that measured it: x beside G(x, z) on one day.

    Columns: window, seed, day, assets, feature, real_mean, real_std, generated_mean,
    generated_std, spread. In standard deviations of the standardized feature; `spread` is the
    ratio of generated to real standard deviation across assets, NaN of a flat feature.
    """
    columns = ["window", "seed", "day", "assets", "feature", "real_mean", "real_std"]
    columns += ["generated_mean", "generated_std", "spread"]
    rows = [
        (*key, name, real.mean, real.std, made.mean, made.std, spread(real, made))
        for key, name, real, made, _ in _measured(models)
    ]
    return pd.DataFrame(rows, columns=columns)


def histogram_table(models: Sequence[ModelRecord]) -> pd.DataFrame:
    """One row a model, feature and bin: shares of real and generated values.

    Columns: window, seed, day, assets, feature, center, real, generated.
    """
    columns = ["window", "seed", "day", "assets", "feature", "center", "real", "generated"]
    rows = [
        (*key, name, *values)
        for key, name, real, made, centers in _measured(models)
        for values in zip(centers, shares(real), shares(made), strict=True)
    ]
    return pd.DataFrame(rows, columns=columns)


def _measured(
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


def spread(real: FeatureFigures, made: FeatureFigures) -> float:
    """Generated over real standard deviation across assets; NaN of a flat feature."""
    return made.cs_std / real.cs_std if real.cs_std > 0 else float("nan")


def shares(figures: FeatureFigures) -> np.ndarray:
    """(bins,) share of the values in each bin."""
    counts = np.array(figures.histogram, dtype=np.float64)
    return np.asarray(counts / max(counts.sum(), 1.0))


def newest_measured(models: Sequence[ModelRecord]) -> ModelRecord | None:
    """The first seed's model of the newest window that measured its generator."""
    found = [model for model in models if model.gan_samples]
    return max(found, key=lambda model: (model.window, -model.seed), default=None)


def spread_warnings(table: pd.DataFrame, language: Language = ENGLISH) -> list[str]:
    """One sentence if generators make much the same of every asset; of `feature_table`."""
    lost = table[table["spread"] < COLLAPSED]
    if lost.empty:
        return []
    message = language.gettext(
        "GAN: in %(lost)s of %(measured)s models generated samples vary across assets by less than "
        "%(share)s of what real ones do, a mode collapse (features %(features)s; refit days "
        "%(windows)s)."
    )
    counts = lost["feature"].value_counts()
    named = ", ".join(counts.index[:_NAMED]) + (" …" if len(counts) > _NAMED else "")
    return [
        message
        % {
            "lost": len(lost.groupby(["window", "seed"])),
            "measured": len(table.groupby(["window", "seed"])),
            "share": f"{COLLAPSED:.0%}",
            "features": named,
            "windows": ", ".join(sorted(lost["window"].unique())),
        }
    ]


_COLUMNS = 6


def distributions(samples: GanSamples, language: Language = ENGLISH) -> str:
    """One small picture a feature: histograms of real (filled) and generated values (line).

    Beside a feature's name stands its spread: that of generated over that of real values across
    assets.
    """
    names = list(samples.real)
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for axes, name in zip(grid.flat, names, strict=False):
            _feature(axes, name, samples, language)
        for axes in grid.flat[len(names) :]:
            axes.set_visible(False)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))

    return drawn("distributions", (WIDE[0], 0.5 + 1.15 * rows), draw)


def _feature(axes: Axes, name: str, samples: GanSamples, language: Language) -> None:
    """Shares of the values by bin; heights of different features do not compare."""
    _ = language.gettext
    centers = np.array(samples.bin_centers)
    half = (centers[1] - centers[0]) / 2
    edges = np.append(centers - half, centers[-1] + half)
    real, made = samples.real[name], samples.generated[name]
    axes.stairs(shares(real), edges, fill=True, color=PALE, label=_("real"))
    axes.stairs(shares(real), edges, color=GREY, lw=0.6)
    axes.stairs(shares(made), edges, color=INK, lw=1.2, label=_("generated"))
    axes.set_title(f"{name} · {spread(real, made):.2f}", fontsize=8.5, pad=3)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", length=2, labelsize=7.5)
    axes.grid(visible=False)
    moments: Shown = {
        _("real"): ([f"{real.mean:.2f} ± {real.std:.2f}"], str),
        _("generated"): ([f"{made.mean:.2f} ± {made.std:.2f}"], str),
        _("spread"): ([spread(real, made)], plain),
    }
    tips(axes, [0.0], moments, [name])
