"""Figures of one style: colours that colour-blind readers can tell apart, labelled axes, intervals as shades.

Every function returns a matplotlib Figure (no pyplot, no global state); ``save`` writes SVG or PNG, ``inline_svg``
gives markup that takes the colour of the page around it.
Shapes: P prototypes, M cells, K thresholds, T times, H W pixels.
"""

from __future__ import annotations

import html
import io
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from visrep.results.curves import AXIS_LABELS, AggregateCurve, Curve
from visrep.results.statistics import Estimate

# Okabe and Ito's palette without black and yellow, which vanish on dark and on light pages.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
LINES = ("-", "--", "-.", ":")  # change when the colours start again
INK = "#20262d"  # every line and letter that is not data; becomes currentColor in a page
STYLE: Any = {
    "font.family": "sans-serif", "font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "legend.fontsize": 9,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "lines.linewidth": 1.8, "legend.frameon": False, "svg.fonttype": "none",
    "svg.hashsalt": "visrep", "figure.constrained_layout.use": True,
}  # fmt: skip
SIZE = (5.4, 3.3)  # inches: readable on a phone, two beside each other on a desk
LEGEND_ENTRIES, LEGEND_LETTERS = 8, 40  # what still leaves room for the curves
LEGEND_LINE = 0.16  # inches
NAME_LETTERS = 36  # of a bar's name, in one line
_counter = itertools.count()


def style_of(index: int) -> dict[str, str]:
    """Colour and line style of the ``index``-th curve of a figure."""
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": LINES[index // len(PALETTE) % len(LINES)]}


def _new(size: tuple[float, float], xlabel: str, ylabel: str, title: str | None) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if title:
        axes.set_title(title, loc="left")
    return figure, axes


def _short_number(value: float, _: object = None) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def _finish(axes: Axes, legend: bool) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(_short_number))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    low, high = axes.get_ylim()
    if max(abs(low), abs(high)) >= 10_000:
        axes.yaxis.set_major_formatter(FuncFormatter(_short_number))
    if legend:
        _add_legend(axes)


def _add_legend(axes: Axes) -> None:
    """Inside, or below where many or long names would hide the curves; the figure grows by what it takes."""
    names = axes.get_legend_handles_labels()[1]
    if len(names) <= LEGEND_ENTRIES and max(map(len, names), default=0) <= LEGEND_LETTERS:
        axes.legend()
        return
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * len(names))
    figure.legend(loc="outside lower left", fontsize=7)


def aggregate_curves(
    curves: Sequence[AggregateCurve],
    ylabel: str,
    title: str | None = None,
    references: Mapping[str, float] | None = None,
    size: tuple[float, float] = SIZE,
) -> Figure:
    """Learning or coverage curves: IQM as line, 95 % interval as shade, number of runs in the legend.

    Args:
        curves: one per group, all on one axis.
        ylabel: quantity and unit, for example ``return`` or ``visited cells (%)``.
        title: heading, or None.
        references: horizontal lines, name to value.
        size: inches.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _new(size, AXIS_LABELS[curves[0].axis] if curves else "agent steps", ylabel, title)
        for index, curve in enumerate(curves):
            style = style_of(index)
            marker = "o" if len(curve.x) <= 15 else None
            label = f"{curve.label} (n = {curve.runs})"
            axes.plot(curve.x, curve.iqm, label=label, marker=marker, markersize=4, **style)  # type: ignore[arg-type]
            if curve.runs > 1:
                axes.fill_between(curve.x, curve.low, curve.high, color=style["color"], alpha=0.2, linewidth=0)
        for name, value in (references or {}).items():
            axes.axhline(value, color=INK, linewidth=1, linestyle=(0, (1, 3)))
            axes.annotate(name, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
        _finish(axes, legend=True)
    return figure


def run_curves(
    curves: Mapping[str, Curve],
    ylabel: str,
    title: str | None = None,
    marks: Mapping[str, float] | None = None,
    points: Mapping[str, Curve] | None = None,
    xlabel: str = "agent steps",
    size: tuple[float, float] = SIZE,
) -> Figure:
    """Quantities of one run as lines.

    Args:
        curves: legend entry to curve; a single one gets no legend.
        ylabel: quantity and unit.
        title: heading, or None.
        marks: vertical lines (phase changes), name to x.
        points: drawn as faint dots behind the lines, for example single episodes.
        xlabel: what x counts.
        size: inches.
    """
    points = points or {}
    with mpl.rc_context(STYLE):
        figure, axes = _new(size, xlabel, ylabel, title)
        for index, (label, curve) in enumerate(points.items()):
            color = PALETTE[-1 - index % len(PALETTE)]
            axes.plot(curve.x, curve.values, ".", color=color, alpha=0.45, markersize=4, label=label, mew=0)
        for index, (label, curve) in enumerate(curves.items()):
            marker = "o" if len(curve.x) <= 15 else None
            style = style_of(index)
            axes.plot(curve.x, curve.values, label=label, marker=marker, markersize=4, **style)  # type: ignore[arg-type]
        for name, x in (marks or {}).items():
            axes.axvline(x, color=INK, linewidth=1, linestyle=(0, (1, 3)))
            axes.annotate(name, (x, 1), xycoords=("data", "axes fraction"), fontsize=8, xytext=(3, -9),
                          textcoords="offset points")  # fmt: skip
        _finish(axes, legend=len(curves) + len(points) > 1)
    return figure


def bars(
    estimates: Mapping[str, Estimate],
    ylabel: str,
    title: str | None = None,
    runs: Mapping[str, int] | None = None,
    scores: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Final scores: one horizontal bar per group with its 95 % interval; ``scores`` adds every run as a dot."""
    with mpl.rc_context(STYLE):
        height = 1.0 + 0.42 * max(1, len(estimates))
        figure, axes = _new((SIZE[0], height), ylabel, "", title)
        for index, (label, estimate) in enumerate(estimates.items()):
            point, low, high = float(estimate.point), float(estimate.low), float(estimate.high)
            axes.barh(index, point, height=0.62, color=style_of(index)["color"], alpha=0.75)
            if runs is None or runs.get(label, 1) > 1:
                axes.plot([low, high], [index, index], color=INK, linewidth=1.4, solid_capstyle="butt")
                axes.plot([low, high], [index, index], "|", color=INK, markersize=7)
            if scores is not None and label in scores:
                values = list(scores[label])
                axes.plot(values, [index] * len(values), "o", color=INK, alpha=0.45, markersize=3.5, mew=0)
        names = [f"{label} (n = {runs[label]})" if runs and label in runs else label for label in estimates]
        wrapped = ["\n".join(textwrap.wrap(name, NAME_LETTERS)) for name in names]
        axes.set_yticks(range(len(names)), wrapped, fontsize=10 if wrapped == names else 7)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return figure


def profiles(thresholds: ArrayLike, estimates: Mapping[str, Estimate], xlabel: str = "score threshold") -> Figure:
    """Performance profiles [K]: share of runs above each threshold, 95 % interval as shade."""
    tau = np.asarray(thresholds, dtype=np.float64)
    with mpl.rc_context(STYLE):
        figure, axes = _new(SIZE, xlabel, "share of runs above", None)
        for index, (label, estimate) in enumerate(estimates.items()):
            style = style_of(index)
            axes.plot(tau, estimate.point, label=label, **style)  # type: ignore[arg-type]
            axes.fill_between(tau, estimate.low, estimate.high, color=style["color"], alpha=0.2, linewidth=0)
        axes.set_ylim(-0.02, 1.02)
        _finish(axes, legend=True)
    return figure


def _map_axes(background: NDArray[np.uint8], title: str | None, width: float = 4.2) -> tuple[Figure, Axes]:
    """Axes over the unit square: row 0 of ``background`` [H, W, 3] is y = 1."""
    figure, axes = _new((width, 4.1 if title is None else 4.4), "x", "y", title)
    axes.imshow(background, extent=(0, 1, 0, 1), interpolation="nearest", zorder=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.grid(False)
    return figure, axes


def prototype_map(
    positions: NDArray[np.floating[Any]],
    background: NDArray[np.uint8],
    usage: NDArray[np.floating[Any]] | None = None,
    title: str | None = None,
) -> Figure:
    """Where prototypes lie: a dot at the position of the frame nearest to each.

    Args:
        positions: [P, 2] in the unit square, y upwards.
        background: uint8 [H, W, 3], row 0 at y = 1 (an environment's ``draw_map``).
        usage: share of samples assigned to each prototype, [P]; larger dots are used more.
        title: heading, or None.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _map_axes(background, title)
        area: Any = 26.0 if usage is None else 8.0 + 90.0 * usage / max(float(usage.max()), 1e-12)
        axes.scatter(positions[:, 0], positions[:, 1], s=area, color=PALETTE[1], edgecolor="white", linewidth=0.6,
                     alpha=0.85, zorder=2)  # fmt: skip
    return figure


def coverage_map(
    centers: NDArray[np.floating[Any]],
    counts: NDArray[np.integer[Any]],
    background: NDArray[np.uint8],
    side: float,
    title: str | None = None,
) -> Figure:
    """Visits per cell over the arena; cells never visited show the background.

    Args:
        centers: [M, 2] in the unit square, y upwards.
        counts: visits [M].
        background: uint8 [H, W, 3], row 0 at y = 1.
        side: length of a cell's side in the unit square.
        title: heading, or None.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _map_axes(background, title, width=5.0)
        cells = round(1.0 / side)
        grid = np.full((cells, cells), np.nan)
        column, row = np.clip((centers / side).astype(int), 0, cells - 1).T
        visited = counts > 0
        grid[row[visited], column[visited]] = np.log10(counts[visited])
        image = axes.imshow(grid, extent=(0, 1, 0, 1), origin="lower", cmap="viridis", alpha=0.85, vmin=0,
                            interpolation="nearest", zorder=1)  # fmt: skip
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label="visits")
        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _short_number(10.0**v)))
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def frame_sheet(frames: NDArray[np.uint8], columns: int = 8, gap: int = 2) -> NDArray[np.uint8]:
    """Frames [N, H, W, 3] side by side in rows of ``columns``, with white gaps, as one picture [H', W', 3]."""
    count, height, width, _ = frames.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, frame in enumerate(frames):
        y, x = index // columns * (height + gap), index % columns * (width + gap)
        sheet[y : y + height, x : x + width] = frame
    return sheet


def save(figure: Figure | NDArray[np.uint8], path: Path, caption: str | None = None) -> Path:
    """Write a figure on white as .svg or .png, or a picture uint8 [H, W, 3] as .png; equal figures give equal bytes.

    ``caption`` goes into a text file of the same name, from where the run's report takes it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(figure, Figure):
        with mpl.rc_context(STYLE):
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, dpi=200, facecolor="white", metadata=metadata)
    else:
        imsave(path, figure)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
    return path


def inline_svg(figure: Figure, label: str) -> str:
    """SVG markup for an HTML page: transparent, in the page's text colour, with names that are unique in the page."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = f"f{next(_counter)}-"
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{prefix}", text)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)  # the viewBox stays; the page decides the size
    return f'{head} role="img" aria-label="{html.escape(label)}">{rest}'
