"""Figures, tables and README.md of the toy evidence, from ``data/`` alone.

    python benchmarks/toy_maze/figures.py [coverage|maps|downstream|search]   (all without a name)

``data/`` comes from ``run.py``. Curves are interquartile means over seeds, shades and ranges 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from records import Row, read_records
from visrep.envs.make import make_env
from visrep.results import figures
from visrep.results.curves import AggregateCurve, Curve, aggregate, curve_from_rows
from visrep.results.statistics import bootstrap, iqm
from visrep.runs.pictures import cell_side

HERE = Path(__file__).parent
ORDER = (
    "proto", "apt", "rnd", "icm", "disagreement", "random",
    "pretrained_frozen", "pretrained_nobonus", "pretrained_fresh_critic",
    "random_encoder_frozen", "drqv2_scratch",
)  # fmt: skip
NAMES = {
    "proto": "Proto-RL", "apt": "APT", "rnd": "RND", "icm": "ICM", "disagreement": "Disagreement",
    "random": "random actions",
    "pretrained_frozen": "pre-trained, frozen", "pretrained_nobonus": "pre-trained, bonus off",
    "pretrained_fresh_critic": "pre-trained, fresh critic",
    "random_encoder_frozen": "random encoder, frozen",
    "drqv2_scratch": "DrQ-v2 from scratch",
}  # fmt: skip
CHECKPOINTS = (15_000, 30_000, 60_000)
HIGH, LOW = 90.0, 30.0  # success in per cent that the aim speaks of
Records = list[list[Row]]


def groups(records: Records, group: str, kind: str, key: str) -> dict[str, list[Curve]]:
    """Curves in per cent by label, in the order of ORDER."""
    found: dict[str, list[Curve]] = {}
    for rows in records:
        if rows[0]["group"] == group:
            curve = curve_from_rows([row for row in rows if row["kind"] == kind], key)
            found.setdefault(rows[0]["label"], []).append(Curve(curve.x, 100.0 * curve.values))
    return dict(sorted(found.items(), key=lambda item: ORDER.index(item[0]) if item[0] in ORDER else 0))


def aggregated(curves: dict[str, list[Curve]]) -> dict[str, AggregateCurve]:
    """IQM and interval of each label."""
    named = {label: (several, NAMES.get(label, label)) for label, several in curves.items()}
    return {label: aggregate(*pair, np.random.default_rng(0)) for label, pair in named.items()}


def cell(values: Sequence[float]) -> str:
    """IQM with its interval, as text."""
    estimate = bootstrap(iqm, list(values), np.random.default_rng(0))
    return f"{float(estimate.point):.0f} ({float(estimate.low):.0f}–{float(estimate.high):.0f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def save(figure: Any, name: str, suffixes: Sequence[str] = (".svg", ".png")) -> None:
    """Curves as SVG and PNG; maps, which are pictures, as PNG alone."""
    for suffix in suffixes:
        figures.save(figure, HERE / "figures" / f"{name}{suffix}")


def coverage(records: Records) -> str:
    """Visited cells over agent steps, per exploration method."""
    curves = groups(records, "coverage", "metrics", "state_coverage")
    save(figures.aggregate_curves(list(aggregated(curves).values()), "visited cells (%)", size=(6.4, 4.0)), "coverage")
    at = [step for step in CHECKPOINTS if all(curve.x[-1] >= 0.99 * step for c in curves.values() for curve in c)]
    rows = [
        [NAMES[label], str(len(several)), *(cell([float(np.interp(s, c.x, c.values)) for c in several]) for s in at)]
        for label, several in curves.items()
    ]
    text = "Visited cells in per cent, IQM over seeds (95 % interval):\n\n"
    return text + table(["method", "seeds", *(f"{step:,} agent steps" for step in at)], rows)


def maps(records: Records) -> str:
    """Visits of every method and the places of the prototypes, of the first seed."""
    drawn = []
    for rows in records:
        if rows[0]["group"] != "coverage" or rows[0]["seed"] != 1:
            continue
        for arena in (row for row in rows if row["kind"] == "figure" and row["name"] == "arena"):
            env: Any = make_env(arena["env"]).unwrapped
            label, counts, centers = rows[0]["label"], np.array(arena["visits"]), env.cell_centers
            title = f"{NAMES[label]}: {100 * (counts > 0).mean():.0f} % of cells"
            figure = figures.coverage_map(centers, counts, env.draw_map(), cell_side(centers), title)
            save(figure, f"visits_{label}", [".png"])
            drawn.append((ORDER.index(label), f"![visits, {NAMES[label]}](figures/visits_{label}.png)"))
            if "prototypes" in arena:
                places, usage = np.array(arena["prototypes"]), np.array(arena["usage"])
                title = f"{len(usage)} prototypes at their nearest images"
                save(figures.prototype_map(places, env.draw_map(), usage, title), "prototypes", [".png"])
                drawn.append((-1, "![prototypes](figures/prototypes.png)"))
    return "Seed 1 of each method:\n\n" + "\n".join(link for _, link in sorted(drawn)) + "\n"


def downstream(records: Records) -> str:
    """Success over reward steps, per arm."""
    curves = groups(records, "downstream", "eval", "success")
    lines = aggregated(curves)
    references = {f"{HIGH:.0f} %": HIGH, f"{LOW:.0f} %": LOW}
    save(figures.aggregate_curves(list(lines.values()), "success (%)", None, references, (6.4, 4.0)), "downstream")
    reached = {label: _first(line.x, line.iqm) for label, line in lines.items()}
    fastest = min((step for step in reached.values() if step is not None), default=None)
    rows = []
    for label, several in curves.items():
        firsts = [_first(curve.x, curve.values) for curve in several]
        there = sorted(step for step in firsts if step is not None)
        final = cell([float(curve.values[-1]) for curve in several])
        when = f", {there[0]:,.0f}–{there[-1]:,.0f}" if there else ""
        row = [NAMES[label], str(len(several)), final, _steps(reached[label]), f"{len(there)} of {len(several)}{when}"]
        if fastest is not None:
            row.append(cell([float(np.interp(fastest, curve.x, curve.values)) for curve in several]))
        rows.append(row)
    head = ["arm", "seeds", "final success (%)", f"IQM reaches {HIGH:.0f} %", f"runs that reach {HIGH:.0f} %, and when"]
    head += [f"success at {fastest:,.0f} (%)"] if fastest is not None else []
    text = "Success over 10 evaluation episodes, IQM over seeds (95 % interval); steps are agent steps with reward:\n\n"
    return text + table(head, rows)


def _first(x: Any, values: Any) -> float | None:
    above = np.flatnonzero(values >= HIGH)
    return float(x[above[0]]) if len(above) else None


def _steps(step: float | None) -> str:
    return "never" if step is None else f"{step:,.0f}"


def search(records: Records) -> str:
    """Final coverage of one-change variants of the preset's pre-training."""
    found = groups(records, "search", "metrics", "state_coverage")
    changes = {rows[0]["label"]: rows[0]["changes"] for rows in records if rows[0]["group"] == "search"}
    final = {label: [float(curve.values[-1]) for curve in several] for label, several in found.items()}
    ordered = dict(sorted(final.items(), key=lambda item: -float(np.mean(item[1]))))
    estimates = {label: bootstrap(iqm, values, np.random.default_rng(0)) for label, values in ordered.items()}
    runs = {label: len(values) for label, values in ordered.items()}
    save(figures.bars(estimates, "visited cells (%)", runs=runs, scores=ordered), "search")
    rows = [
        [label, f"`{' '.join(changes[label])}`" if changes[label] else "–", f"{np.mean(values):.0f}",
         ", ".join(f"{value:.0f}" for value in values)]
        for label, values in ordered.items()
    ]  # fmt: skip
    steps = max(float(curve.x[-1]) for several in found.values() for curve in several)
    text = f"Visited cells in per cent after {steps:,.0f} agent steps, mean over seeds and every seed, best first:\n\n"
    return text + table(["variant", "change", "mean", "seeds"], rows)


SECTIONS = {
    "coverage": (coverage, "What exploration covers", "coverage", "![coverage](figures/coverage.png)"),
    "maps": (maps, "Where it went, and where the prototypes lie", "coverage", ""),
    "downstream": (downstream, "Learning to reach the centre", "downstream", "![success](figures/downstream.png)"),
    "search": (search, "The search for settings", "search", "![search](figures/search.png)"),
}


def readme(records: Records, names: Sequence[str]) -> None:
    """Write README.md; sections not named keep what they had."""
    path = HERE / "README.md"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    text = ["# Toy arena: coverage and the task on top\n\nGenerated by `figures.py` from `data/`; each run's command, "
            "configuration and versions are in the first line of its file there.\n"]  # fmt: skip
    for name, (make, title, group, picture) in SECTIONS.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->\n"
        present = any(rows[0]["group"] == group for rows in records)
        if name in names and present:
            commands = f"python benchmarks/toy_maze/run.py --only {group}\npython benchmarks/toy_maze/figures.py {name}"
            body = f"## {title}\n\n```\n{commands}\n```\n\n{make(records)}\n{picture}\n"
        else:
            body = old.partition(begin)[2].partition(end)[0] or f"## {title}\n\nNo data yet: `run.py --only {group}`.\n"
        text.append(f"{begin}{body}{end}")
    path.write_text("\n".join(text), encoding="utf-8")


def main() -> int:
    """Redraw the named figures, all without a name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=SECTIONS)
    name = parser.parse_args().name
    readme(read_records(HERE / "data"), [name] if name else list(SECTIONS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
