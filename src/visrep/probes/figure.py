"""The scores of all codes as one figure: what can be read out, factor by factor, above the shape of the codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visrep.results.figures import INK, STYLE, style_of

Result = Mapping[str, Any]
MARKERS = {"encoder": "o", "random": "s", "pixels": "^", "state": "D", "constant": "x"}
LOWEST = -0.25  # R² below this are drawn at the edge
GEOMETRY: dict[str, Callable[[Result], float | None]] = {
    "RankMe": lambda g: g["rankme"],
    "centred rank": lambda g: g["entropy_rank"],
    "dormant (%)": lambda g: 100 * g["dormant"]["0.025"] if g["dormant"] else None,
    "alignment": lambda g: g["alignment"],
    "uniformity": lambda g: g["uniformity"],
}


def probe_figure(report: Result) -> Figure:
    """One figure of a report as ``run_probes`` makes it."""
    codes = report["codes"]
    scores = _scores(codes)
    with_geometry = [code for code in codes if code["probes"]["geometry"]]
    heights = [0.7 + 0.3 * len(with_geometry)]
    if scores:
        heights.insert(0, 0.9 + 0.16 * (len(codes) + 1) * len(scores))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, sum(heights) + 0.6))
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(len(heights), len(GEOMETRY), height_ratios=heights)
        if scores:
            _draw_scores(figure.add_subplot(grid[0, :]), codes, scores)
        for column, (name, value) in enumerate(GEOMETRY.items()):
            _draw_geometry(figure.add_subplot(grid[-1, column]), codes, name, value, labels=column == 0)
    return figure


def _scores(codes: Sequence[Result]) -> dict[str, list[Result | None]]:
    """Row label to one score per code."""
    probes = [code["probes"] for code in codes]
    found: dict[str, list[Result | None]] = {}
    if any(probe["state"] for probe in probes):
        found["state, mean"] = [(probe["state"] or {}).get("mean") for probe in probes]
        found["state, mean (network)"] = [(probe["state_mlp"] or {}).get("mean") for probe in probes]
        found["state, mean (neighbours)"] = [(probe["state_knn"] or {}).get("mean") for probe in probes]
        found["state, mean (one frame)"] = [(probe["state_single_frame"] or {}).get("mean") for probe in probes]
        for name in next(probe["state"] for probe in probes if probe["state"])["factors"]:
            found[name] = [probe["state"]["factors"][name] if probe["state"] else None for probe in probes]
    found["action"] = [(probe["action"] or {}).get("r2") for probe in probes]
    found["action (accuracy)"] = [(probe["action"] or {}).get("accuracy") for probe in probes]
    found["reward"] = [(probe["reward"] or {}).get("r2") for probe in probes]
    found["reward event (AUROC)"] = [(probe["reward_events"] or {}).get("auroc") for probe in probes]
    return {name: row for name, row in found.items() if any(score and score["point"] is not None for score in row)}


def _draw_scores(axes: Axes, codes: Sequence[Result], scores: Mapping[str, Sequence[Result | None]]) -> None:
    step = 1.0 / (len(codes) + 1)
    for index, code in enumerate(codes):
        color, marker = style_of(index)["color"], MARKERS[code["role"]]
        places = [(row + (index + 1) * step, score[index]) for row, score in enumerate(scores.values())]
        drawn = [(y, found) for y, found in places if found is not None and found["point"] is not None]
        axes.plot(
            [max(found["point"], LOWEST) for _, found in drawn], [y for y, _ in drawn],
            linestyle="", marker=marker, markersize=5, color=color, label=code["name"],
        )  # fmt: skip
        for y, found in drawn:
            if found["low"] is not None:
                axes.plot([max(found["low"], LOWEST), max(found["high"], LOWEST)], [y, y], color=color, linewidth=1.3)
    for row in range(1, len(scores)):
        axes.axhline(row, color=INK, linewidth=0.5, alpha=0.3)
    axes.set(xlim=(LOWEST - 0.02, 1.02), ylim=(len(scores), 0))
    axes.set_xlabel("R² on unseen episodes (ridge unless said otherwise), 95 % interval over episodes")
    axes.set_yticks([row + 0.5 for row in range(len(scores))], list(scores))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3)


def _draw_geometry(
    axes: Axes, codes: Sequence[Result], name: str, value: Callable[[Result], float | None], labels: bool
) -> None:
    shown = [(index, code) for index, code in enumerate(codes) if code["probes"]["geometry"]]
    for place, (index, code) in enumerate(shown):
        number = value(code["probes"]["geometry"])
        if number is None:
            axes.annotate("–", (0, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
            continue
        axes.barh(place, number, height=0.6, color=style_of(index)["color"], alpha=0.75)
    axes.set_yticks(range(len(shown)), [code["name"] for _, code in shown] if labels else [""] * len(shown))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_title(name, loc="left")
    axes.locator_params(axis="x", nbins=3)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
