"""What the pages of evidence share: curves out of records, numbers as text, figures, and README.md in named sections.

Tables list fewer than FEW runs one by one; from there on they show an interquartile mean with its 95 % interval.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from records import Row, read_records
from visrep.results import figures
from visrep.results.curves import AggregateCurve, Curve, aggregate, curve_from_rows
from visrep.results.statistics import bootstrap, iqm

FEW = 5
LAST = 3  # evaluations whose mean is a run's final value
HIDDEN = ("save_video=", "log_save_tb=")  # words of a command that change no result
Records = list[list[Row]]


@dataclass(frozen=True)
class Section:
    """A part of README.md: ``make`` draws its figures and returns its text, from the runs that ``chosen`` lets in."""

    title: str
    make: Callable[[Records], str]
    chosen: Callable[[Row], bool]
    run_words: str = ""


def groups(
    records: Records, group: str, kind: str, key: str, names: Mapping[str, str], scale: float = 1.0
) -> dict[str, list[Curve]]:
    """Curves by label, in the order of ``names``; runs that did not record the quantity are left out."""
    found: dict[str, list[Curve]] = {}
    for rows in records:
        if rows[0]["group"] == group:
            curve = curve_from_rows([row for row in rows if row["kind"] == kind], key)
            if len(curve.x):
                found.setdefault(rows[0]["label"], []).append(Curve(curve.x, scale * curve.values))
    order = list(names)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else 0))


def aggregated(curves: Mapping[str, Sequence[Curve]], names: Mapping[str, str]) -> dict[str, AggregateCurve]:
    """IQM and interval of each label."""
    generator = np.random.default_rng
    return {label: aggregate(several, names.get(label, label), generator(0)) for label, several in curves.items()}


def cell(values: Sequence[float], digits: int = 0) -> str:
    """IQM with its interval, as text; every value where there are fewer than FEW."""
    if len(values) < FEW:
        return ", ".join(f"{value:,.{digits}f}" for value in values)
    estimate = bootstrap(iqm, list(values), np.random.default_rng(0))
    point, low, high = (f"{float(value):,.{digits}f}" for value in estimate)
    return f"{point} ({low}–{high})"


def seeds(curves: Sequence[Curve]) -> str:
    """How many seeds stand behind a row; fewer than FEW are runs, not a result."""
    count = len(curves)
    return str(count) if count >= FEW else "1, a run" if count == 1 else f"{count}, runs"


def at(curves: Sequence[Curve], step: float) -> list[float]:
    """Each curve's value at an agent step."""
    return [float(np.interp(step, curve.x, curve.values)) for curve in curves]


def final(curves: Sequence[Curve]) -> list[float]:
    """Each curve's mean over its last LAST evaluations."""
    return [float(curve.values[-LAST:].mean()) for curve in curves]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def command(head: Row) -> str:
    """The command of a run without what is the same for every benchmark, its seed left open."""
    words = [word for word in head["command"].split() if not word.startswith(HIDDEN)]
    return " ".join(re.sub(r"^(seed=|encoder=.*_s)\d+$", r"\g<1>SEED", word) for word in words)


def panels(
    curves: Mapping[str, Sequence[Curve]], names: Mapping[str, str], ylabel: str, marks: Sequence[float]
) -> Figure:
    """One panel per label, side by side, where the intervals are too wide to lie over each other.

    Thin lines are runs, the thick one their IQM, the shade its 95 % interval from FEW runs on.
    """
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(2.3 * len(curves), 2.9))
        FigureCanvasAgg(figure)
        row = figure.subplots(1, len(curves), sharex=True, sharey=True, squeeze=False)[0]
        for index, (axes, (label, line)) in enumerate(zip(row, aggregated(curves, names).items())):
            color = figures.style_of(index)["color"]
            for curve in curves[label]:
                axes.plot(curve.x, curve.values, color=color, linewidth=0.8, alpha=0.45)
            axes.plot(line.x, line.iqm, color=color, linewidth=2.6)
            if line.runs >= FEW:
                axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.15, linewidth=0)
            for mark in marks:
                axes.axhline(mark, color=figures.INK, linewidth=1, linestyle=(0, (1, 3)))
            axes.set_title(f"{line.label}\n(n = {line.runs})", loc="left", fontsize=9)
            axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
        row[0].set_ylabel(ylabel)
        figure.supxlabel("agent steps with reward", fontsize=10)
    return figure


def save(figure: Any, folder: Path, name: str, suffixes: Sequence[str] = (".svg", ".png")) -> None:
    """Curves as SVG and PNG; maps, which are pictures, as PNG alone."""
    for suffix in suffixes:
        figures.save(figure, folder / "figures" / f"{name}{suffix}")


def write_readme(
    folder: Path, head: str, sections: Mapping[str, Section], records: Records, named: Sequence[str]
) -> None:
    """Write README.md; sections not named keep what they had."""
    path = folder / "README.md"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    text = [head]
    for name, section in sections.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->\n"
        run = f"python benchmarks/{folder.name}/run.py {section.run_words}".strip()
        mine = [rows for rows in records if section.chosen(rows[0])]
        if name in named and mine:
            commands = f"{run}\npython benchmarks/{folder.name}/figures.py {name}"
            body = f"## {section.title}\n\n```\n{commands}\n```\n\n{section.make(mine)}\n"
        else:
            body = old.partition(begin)[2].partition(end)[0] or f"## {section.title}\n\nNo data yet: `{run}`.\n"
        text.append(f"{begin}{body}{end}")
    path.write_text("\n".join(text), encoding="utf-8")


def main(
    description: str | None, folder: Path, head: Callable[[Records], str], sections: Mapping[str, Section],
    summary: Callable[[Records], str | None],
) -> int:  # fmt: skip
    """Redraw the named section, all without a name, and rewrite ``summary.md`` for the main README."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=sections)
    name = parser.parse_args().name
    records = read_records(folder / "data")
    if not records:
        parser.error(f"benchmarks/{folder.name}/data holds no records: run benchmarks/{folder.name}/run.py first")
    write_readme(folder, head(records), sections, records, [name] if name else list(sections))
    text = summary(records)
    if text is not None:
        (folder / "summary.md").write_text(text, encoding="utf-8")
    return 0
