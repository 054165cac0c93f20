"""What the GAN makes beside what is real; see `figures` for how pictures look."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gangru_dist.report import training
from gangru_dist.report.drawing import GREY, INK, PALE, WIDE, Shown, drawn, tips
from gangru_dist.report.language import ENGLISH, Language
from gangru_dist.report.text import plain
from gangru_dist.runs.model import GanSamples

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
    axes.stairs(training.shares(real), edges, fill=True, color=PALE, label=_("real"))
    axes.stairs(training.shares(real), edges, color=GREY, lw=0.6)
    axes.stairs(training.shares(made), edges, color=INK, lw=1.2, label=_("generated"))
    axes.set_title(f"{name} · {training.spread(real, made):.2f}", fontsize=8.5, pad=3)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", length=2, labelsize=7.5)
    axes.grid(visible=False)
    moments: Shown = {
        _("real"): ([f"{real.mean:.2f} ± {real.std:.2f}"], str),
        _("generated"): ([f"{made.mean:.2f} ± {made.std:.2f}"], str),
        _("spread"): ([training.spread(real, made)], plain),
    }
    tips(axes, [0.0], moments, [name])
