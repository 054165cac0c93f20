"""Tables -> crisp SVG, readable in grey and by colour-blind readers.

Colours are Okabe and Ito's; lines also differ in their dashes, and bars of a pair in lightness.
Text stays text, so it is sharp at any size and can be searched. Backgrounds are transparent: a
dark page inverts the picture's colours. Areas without ink hold the values in a
`<title>`, which every browser shows under the pointer.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gangru_dist.report import text

INK, GREY, PALE = "#222222", "#8c8c8c", "#c9d6df"
BLUE, ORANGE, RED, GREEN = "#0072b2", "#e69f00", "#d55e00", "#009e73"
"""The run's own; what is negative; the broker's; other runs'."""
WIDE, HALF = (10.4, 3.6), (5.1, 3.1)
"""Inches: the whole width of the page, half of it."""

_STYLE = mpl.rc_params_from_file(
    Path(__file__).parent / "templates" / "figures.mplstyle", use_default_template=False
)
_FULL_WIDTH = re.compile(
    "[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
"""CJK letters and punctuation: one em each in every font that has them."""
_EM = "\N{EM DASH}"
_FAMILIES = (
    "'DejaVu Sans', 'Noto Sans CJK SC', 'Source Han Sans SC', 'PingFang SC', 'Microsoft YaHei', "
    "'WenQuanYi Micro Hei', 'WenQuanYi Zen Hei', sans-serif"
)
"""In place of the one font that matplotlib knows: it warns of each that it cannot find."""
PERCENT = FuncFormatter(lambda value, _: text.format_percent(value, 0))
TENTHS = FuncFormatter(lambda value, _: text.format_percent(value))
_FONT_SIZE = {WIDE[0]: 9.5, HALF[0]: 9.2}
"""Points; on A4 paper 6.4 and more."""
MOST_TIPS = 120
"""Areas a picture: what a pointer can tell apart."""
P = ParamSpec("P")


class _Renderer(RendererSVG):
    """Measures Chinese text by a glyph as wide as it will be, for matplotlib's font has none.

    The reader's browser draws it in a font of its own, where each such glyph is one em wide.
    """

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> Any:
        return super().get_text_width_height_descent(_FULL_WIDTH.sub(_EM, s), prop, ismath)


class _Canvas(FigureCanvasSVG):
    """Hands the same renderer to the layout."""

    def get_renderer(self) -> _Renderer:
        return _Renderer(*self.figure.bbox.size, io.StringIO())


class _Picture(Figure):
    """A figure with the clear areas that lie over it."""

    def __init__(self, size: tuple[float, float]) -> None:
        super().__init__(figsize=size, dpi=_Canvas.fixed_dpi)
        _Canvas(self)
        self.tips: list[tuple[Axes, np.ndarray, list[str], bool]] = []
        """Axes, positions, texts, and whether positions lie one above the other."""


def picture(
    name: str, size: tuple[float, float]
) -> Callable[[Callable[Concatenate[Figure, P], None]], Callable[P, str]]:
    """Let a function that draws on a figure return the figure's SVG element.

    Args:
        name: Keeps the figure's ids apart from those of others in the page.
        size: Width and height in inches; what is drawn may set another height.
    """

    def decorate(draw: Callable[Concatenate[Figure, P], None]) -> Callable[P, str]:
        @functools.wraps(draw)
        def draw_svg(*args: P.args, **kwargs: P.kwargs) -> str:
            with mpl.rc_context({**_STYLE, "svg.hashsalt": name, "font.size": _FONT_SIZE[size[0]]}):
                figure = _Picture(size)
                draw(figure, *args, **kwargs)
                return _to_svg(figure, name)

        return draw_svg

    return decorate


def _to_svg(figure: _Picture, name: str) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    renderer = _Renderer(*figure.bbox.size, buffer, metadata=nothing)
    figure.draw(renderer)
    renderer.finalize()
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") : svg.rindex("</svg>")] + _draw_tips(figure) + "</svg>"
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("'DejaVu Sans'", _FAMILIES)
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)


def add_tips(
    axes: Axes,
    positions: Sequence[Any] | np.ndarray | pd.Series,
    heads: Sequence[str] | pd.Series,
    values: Mapping[str, Any],
    show: Callable[[Any], str],
    *,
    vertical: bool = False,
) -> None:
    """Say the values under the pointer, at `MOST_TIPS` positions at most.

    Args:
        axes: Part of a `picture`.
        positions: (n,) ascending, on the x axis (`vertical`: on the y axis), or dates.
        heads: (n,) first line of each text.
        values: Name, which may be empty -> its (n,) values.
        show: Formats one of them.
        vertical: Whether positions lie one above the other.
    """
    numbers = np.asarray(positions if vertical else axes.convert_xunits(positions), dtype=float)
    step = -(-len(numbers) // MOST_TIPS)
    chosen = range(len(numbers) - 1, -1, -step)[::-1] if len(numbers) else range(0)
    firsts, columns = list(heads), {name: np.asarray(column) for name, column in values.items()}
    texts = [
        "\n".join([firsts[n], *(f"{name} {show(x[n])}".strip() for name, x in columns.items())])
        for n in chosen
    ]
    cast(_Picture, axes.figure).tips.append((axes, numbers[list(chosen)], texts, vertical))


def _draw_tips(figure: _Picture) -> str:
    """A clear rectangle with its text around every position."""
    height, parts = figure.bbox.height, []
    for axes, positions, texts, vertical in figure.tips:
        box = axes.bbox
        low, high = (box.y0, box.y1) if vertical else (box.x0, box.x1)
        points = np.column_stack([positions, positions])
        middle = axes.transData.transform(points)[:, int(vertical)]
        between = (middle[1:] + middle[:-1]) / 2
        edges = np.clip([low, *between, high], low, high)
        for start, stop, said in zip(edges[:-1], edges[1:], texts, strict=True):
            x, y, w, h = box.x0, height - stop, box.width, stop - start
            if not vertical:
                x, y, w, h = start, height - box.y1, stop - start, box.height
            area = f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"'
            parts.append(f'<rect class="tip" {area}><title>{escape(said)}</title></rect>')
    return "".join(parts)


def add_legend(axes: Axes, columns: int = 4) -> None:
    """Put the legend over the picture, where no line runs through it."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2)


def set_month_ticks(axes: Axes, months: pd.Series) -> None:
    """Write at most six month names below bars at 0, 1, 2 and so on."""
    step = max(1, -(-len(months) // 6))
    ticks = np.arange(0, len(months), step)
    axes.set_xticks(ticks, [months.iloc[tick] for tick in ticks])
    axes.tick_params(axis="x", length=2)
