"""The page that compares groups of runs: curves by group, tables with IQM and 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visrep.errors import UserError
from visrep.results import figures
from visrep.results.curves import Axis, Curve, aggregate, curve_from_rows, read_rows
from visrep.results.page import Section, drawing, folded, gallery, missing, paragraph, table, write_report
from visrep.results.report import axis_of, number, read_config
from visrep.results.statistics import Estimate, bootstrap, improvement_estimate, iqm

SEED = 0  # of the resampling: the same runs give the same page


@dataclass(frozen=True)
class Quantity:
    """One thing to compare: where runs record it, how it is named, and what its values are multiplied with."""

    kind: str
    key: str
    label: str
    scale: float = 1.0


QUANTITIES = (
    Quantity("eval", "episode_reward", "evaluation return"),
    Quantity("eval", "success", "success (%)", 100.0),
    Quantity("metrics", "state_coverage", "visited cells (%)", 100.0),
    Quantity("metrics", "state_cells_visited", "visited cells of the state"),
    Quantity("metrics", "feature_rank", "effective rank of features"),
)


@dataclass(frozen=True)
class _Run:
    path: Path
    label: str
    env: str
    seed: str
    rows: list[dict[str, Any]]


def report_runs(run_dirs: Sequence[Path], labels: Sequence[str], path: Path, title: str = "Comparison of runs") -> Path:
    """Build one page that compares runs; runs with the same label are seeds of one group.

    Environments are compared apart. Scores are the last recorded values; points are interquartile means over runs.

    Args:
        run_dirs: run directories.
        labels: group of each.
        path: HTML file to write.
        title: heading.

    Raises:
        UserError: no runs, counts of runs and labels differ, or a directory holds no records.
    """
    if not run_dirs or len(run_dirs) != len(labels):
        raise UserError(f"a comparison needs one label for each run; got {len(run_dirs)} runs and {len(labels)} labels")
    runs = [_load(Path(run_dir), label) for run_dir, label in zip(run_dirs, labels)]
    sections = []
    for env in dict.fromkeys(run.env for run in runs):
        sections += _environment(env, [run for run in runs if run.env == env])
    sections.append(Section("Runs", [_run_table(runs)]))
    groups = len(set(labels))
    return write_report(path, sections, title, f"{len(runs)} runs in {groups} group{'s' if groups != 1 else ''}")


def _load(run_dir: Path, label: str) -> _Run:
    config = read_config(run_dir)
    return _Run(run_dir, label, str(config.get("env", "")), str(config.get("seed", "–")), read_rows(run_dir))


def _curves(runs: Sequence[_Run], quantity: Quantity, axis: Axis) -> dict[str, list[Curve]]:
    """Group to the curves of those of its runs that recorded the quantity; groups without any are left out."""
    groups: dict[str, list[Curve]] = {}
    for run in runs:
        found = curve_from_rows([row for row in run.rows if row["kind"] == quantity.kind], quantity.key, axis)
        if len(found.x):
            groups.setdefault(run.label, []).append(Curve(found.x, quantity.scale * found.values))
    return groups


def _environment(env: str, runs: Sequence[_Run]) -> list[Section]:
    axes = {axis_of(run.rows) for run in runs}
    axis: Axis = axes.pop() if len(axes) == 1 else "env_frames"
    prefix = f"{env}: " if env else ""
    labels = list(dict.fromkeys(run.label for run in runs))
    sections = []
    for quantity in QUANTITIES:
        groups = _curves(runs, quantity, axis)
        if quantity.key == "state_cells_visited" and _curves(runs, QUANTITIES[2], axis):
            continue  # the share says the same
        if not groups:
            continue
        blocks = [_plots(groups, quantity, axis), _score_table(groups)]
        ends = {float(curve.x[-1]) for curves in groups.values() for curve in curves}
        if len(ends) > 1:
            blocks.append(
                paragraph(
                    f"Runs end at different times ({number(min(ends))} to {number(max(ends))}): final "
                    "values are each run's last, curves stop where a group's shortest run ends."
                )
            )
        blocks += [missing(f"{label}: {quantity.label}") for label in labels if label not in groups]
        blocks += _improvement(groups)
        sections.append(Section(prefix + quantity.label, blocks))
    return sections or [Section(prefix + "results", [missing("returns, success and coverage")])]


def _plots(groups: Mapping[str, Sequence[Curve]], quantity: Quantity, axis: Axis) -> str:
    generator = np.random.default_rng(SEED)
    lines = [aggregate(curves, label, generator, axis) for label, curves in groups.items()]
    estimates = {label: _estimate(curves) for label, curves in groups.items()}
    scores = {label: [float(c.values[-1]) for c in curves] for label, curves in groups.items()}
    counts = {label: len(curves) for label, curves in groups.items()}
    caption = f"{quantity.label}: interquartile mean over runs, shade = 95 % bootstrap interval"
    final = f"last {quantity.label}: interquartile mean, 95 % interval, one dot per run"
    return gallery(
        [
            drawing(figures.inline_svg(figures.aggregate_curves(lines, quantity.label), caption), caption),
            drawing(figures.inline_svg(figures.bars(estimates, quantity.label, None, counts, scores), final), final),
        ]
    )


def _estimate(curves: Sequence[Curve]) -> Estimate:
    return bootstrap(iqm, [float(c.values[-1]) for c in curves], np.random.default_rng(SEED))


def _interval(estimate: Estimate, runs: int) -> str:
    return f"{number(float(estimate.low))} to {number(float(estimate.high))}" if runs > 1 else "–"


def _score_table(groups: Mapping[str, Sequence[Curve]]) -> str:
    rows = []
    for label, curves in groups.items():
        last = np.array([c.values[-1] for c in curves])
        estimate = _estimate(curves)
        numbers = (float(estimate.point), float(last.mean()), float(last.min()), float(last.max()))
        point, mean, low, high = map(number, numbers)
        rows.append((label, str(len(curves)), point, _interval(estimate, len(curves)), mean, low, high))
    return table(("group", "runs", "IQM", "95 % interval", "mean", "lowest", "highest"), rows)


def _improvement(groups: Mapping[str, Sequence[Curve]]) -> list[str]:
    """How often a run of one group beats a run of another; needs two groups with two runs each."""
    last = {label: [float(c.values[-1]) for c in curves] for label, curves in groups.items() if len(curves) > 1}
    if len(last) < 2:
        return []
    rows = []
    for mine, x in last.items():
        row = [mine]
        for other, y in last.items():
            if mine == other:
                row.append("–")
                continue
            got = improvement_estimate(x, y, np.random.default_rng(SEED))
            row.append(f"{float(got.point):.2f} ({float(got.low):.2f}–{float(got.high):.2f})")
        rows.append(row)
    note = paragraph("Share of pairs in which the run of the row scores higher than the run of the column; ties half.")
    return [folded("Probability of improvement", note, table(("", *last), rows))]


def _run_table(runs: Sequence[_Run]) -> str:
    rows = []
    for run in runs:
        axis = axis_of(run.rows)
        cells = [run.label, run.env or "–", run.seed]
        for quantity in QUANTITIES[:3]:
            curves = _curves([run], quantity, axis)
            cells.append(number(float(curves[run.label][0].values[-1])) if curves else "–")
        rows.append([*cells, run.path.name])
    return table(("group", "environment", "seed", *(q.label for q in QUANTITIES[:3]), "directory"), rows)
