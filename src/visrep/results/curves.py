"""From run directories to curves: read what runs recorded, put several runs on common times, aggregate over seeds.

Shapes: T times, N runs.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from numpy.typing import NDArray

from visrep.errors import UserError, nearest
from visrep.results.statistics import iqm, percentile_ends

Axis = Literal["agent_step", "env_frames", "update", "seconds"]
AXIS_LABELS: dict[str, str] = {
    "agent_step": "agent steps",
    "env_frames": "environment frames",
    "update": "objective updates",
    "seconds": "seconds",
}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One recorded quantity of one run: ``x`` [T] strictly increasing, ``values`` [T]."""

    x: Array
    values: Array


@dataclass(frozen=True)
class AggregateCurve:
    """IQM over runs at common times with the ends of its interval, all [T].

    Attributes:
        runs: how many runs went in; with a single run the interval is the curve itself and says nothing.
        axis: what ``x`` counts.
    """

    label: str
    x: Array
    iqm: Array
    low: Array
    high: Array
    runs: int
    axis: Axis = "agent_step"


def read_rows(run_dir: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The records of ``metrics.jsonl``, or the CSV files where a run has none (the public Proto-RL code's runs).

    A last line that is still being written is left out. Values that were not finite are NaN again.

    Raises:
        UserError: the directory holds no records, or a line in the middle cannot be read.
    """
    path = Path(run_dir) / "metrics.jsonl"
    if path.exists():
        rows = list(_jsonl_rows(path))
    elif any((Path(run_dir) / f"{name}.csv").exists() for name in ("train", "eval")):
        rows = _csv_rows(Path(run_dir))
    else:
        raise UserError(f"{run_dir} has neither metrics.jsonl nor train.csv or eval.csv: it is not a run directory")
    return [row for row in rows if kind is None or row["kind"] == kind]


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is incomplete
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not JSON ({error}): the file was damaged") from error
        for key in row.pop("nonfinite", ()):
            row[key] = math.nan
        yield row


def _csv_rows(run_dir: Path) -> list[dict[str, Any]]:
    repeat = _action_repeat(run_dir)
    rows = []
    for kind in ("train", "eval"):
        path = run_dir / f"{kind}.csv"
        if not path.exists():
            continue
        with open(path, newline="", encoding="utf-8") as file:
            for raw in csv.DictReader(file):
                row: dict[str, Any] = {"kind": kind}
                for key, cell in raw.items():
                    number = _number(cell)
                    if key is not None and number is not None:
                        row[key] = number
                row["env_frames"] = row.pop("step", math.nan)
                if repeat is not None:
                    row["agent_step"] = row["env_frames"] / repeat
                rows.append(row)
    return rows


def _action_repeat(run_dir: Path) -> int | None:
    path = run_dir / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    repeat = config.get("action_repeat") if isinstance(config, dict) else None
    return int(repeat) if repeat else None


def _number(cell: str | None) -> float | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return {"True": 1.0, "False": 0.0}.get(cell or "")


def curve_from_rows(rows: Sequence[dict[str, Any]], key: str, axis: Axis = "agent_step") -> Curve:
    """One quantity over one axis; rows without it, or with a value that is not finite, are left out.

    Several values at one time (environments that end together) become their mean.
    """
    pairs = [(row[axis], row[key]) for row in rows if isinstance(row.get(key), int | float) and axis in row]
    pairs = [(float(x), float(y)) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]
    if not pairs:
        return Curve(np.empty(0), np.empty(0))
    x, inverse = np.unique([p[0] for p in pairs], return_inverse=True)
    values = np.bincount(inverse, weights=[p[1] for p in pairs]) / np.bincount(inverse)
    return Curve(x, values)


def read_curve(run_dir: Path, kind: str, key: str, axis: Axis = "agent_step") -> Curve:
    """One recorded quantity of one run.

    Args:
        run_dir: run directory.
        kind: ``train``, ``eval`` or ``metrics``.
        key: name of the quantity, for example ``episode_reward``.
        axis: ``agent_step``, ``env_frames`` or ``seconds``.

    Raises:
        UserError: nothing of that name was recorded; the message names the nearest.
    """
    if axis not in get_args(Axis):
        raise UserError(f"unknown axis {axis!r}: choose from {', '.join(get_args(Axis))}")
    rows = read_rows(run_dir, kind)
    curve = curve_from_rows(rows, key, axis)
    if len(curve.x) == 0:
        names = quantities(rows)
        near = nearest(key, names) or sorted(names)[:8]
        missing_axis = any(key in row and axis not in row for row in rows)
        hint = f"there is {', '.join(near) or 'nothing'}"
        if missing_axis:
            hint = f"no {axis} beside it; try axis=env_frames"
        raise UserError(f"{run_dir} recorded no {key!r} of kind {kind!r}: {hint}")
    return curve


def quantities(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the numbers in some rows, without the axes."""
    skip = {"kind", "env_frames", "agent_step", "update", "seconds"}
    names = {k for row in rows for k, v in row.items() if k not in skip and isinstance(v, int | float)}
    return sorted(names)


def thin(curve: Curve, points: int = 300) -> Curve:
    """At most ``points`` points: means over equal stretches of x, so that noisy curves stay readable and small."""
    if len(curve.x) <= points:
        return curve
    edges = np.linspace(curve.x[0], curve.x[-1], points + 1)
    index = np.clip(np.searchsorted(edges, curve.x, side="right") - 1, 0, points - 1)
    count = np.bincount(index, minlength=points)
    full = count > 0
    x = np.bincount(index, weights=curve.x, minlength=points)[full] / count[full]
    return Curve(x, np.bincount(index, weights=curve.values, minlength=points)[full] / count[full])


def align(curves: Sequence[Curve], points: int = 200) -> tuple[Array, Array]:
    """Put curves on common times: x [T] and values [N, T].

    Curves recorded at the same times keep them. Otherwise values are interpolated linearly at ``points`` even times
    within the range that every curve covers; nothing is extrapolated.
    """
    if not curves or any(len(curve.x) == 0 for curve in curves):
        raise UserError("cannot align curves: at least one of them has no points")
    first = curves[0].x
    shared = first
    for curve in curves[1:]:
        shared = np.intersect1d(shared, curve.x, assume_unique=True)
    start, stop = max(c.x[0] for c in curves), min(c.x[-1] for c in curves)
    if start > stop:
        raise UserError(f"cannot align curves: one starts at {start:g}, after another ends at {stop:g}")
    within = [int(((c.x >= start) & (c.x <= stop)).sum()) for c in curves]
    if len(shared) and len(shared) == max(within):
        grid = shared
    else:
        grid = np.linspace(start, stop, points)
    return grid, np.stack([np.interp(grid, curve.x, curve.values) for curve in curves])


def aggregate(
    curves: Sequence[Curve],
    label: str,
    generator: np.random.Generator,
    axis: Axis = "agent_step",
    resamples: int = 2_000,
) -> AggregateCurve:
    """IQM over runs with 95 % bootstrap intervals; a resample redraws whole runs, the same ones at all times."""
    x, values = align(curves)
    runs = len(curves)
    drawn = generator.integers(runs, size=(resamples, runs))
    low, high = np.empty_like(x), np.empty_like(x)
    times = max(1, 4_000_000 // drawn.size)  # per block, so that the resampled curves stay within 32 MB
    for begin in range(0, len(x), times):
        block = slice(begin, begin + times)
        resampled = values[:, block][drawn]  # [resamples, N, t]
        low[block], high[block] = percentile_ends(iqm(np.moveaxis(resampled, -1, 1)[..., None]))
    return AggregateCurve(label, x, iqm(values.T[..., None]), low, high, runs, axis)


def write_aggregates(path: Path, curves: Sequence[AggregateCurve]) -> Path:
    """Save aggregated curves as ``.csv`` or ``.jsonl``, one row per label and time, so that figures can be redrawn."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"label": c.label, "axis": c.axis, "runs": c.runs, "x": x, "iqm": m, "low": lo, "high": hi}
        for c in curves
        for x, m, lo, hi in zip(c.x.tolist(), c.iqm.tolist(), c.low.tolist(), c.high.tolist())
    ]
    with open(path, "w", newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, ["label", "axis", "runs", "x", "iqm", "low", "high"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        elif path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            raise UserError(f"{path}: aggregated curves are written as .csv or .jsonl")
    return path


def read_aggregates(path: Path) -> list[AggregateCurve]:
    """Read what ``write_aggregates`` saved."""
    path = Path(path)
    with open(path, newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]]
        rows = [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(csv.DictReader(file))
    curves = []
    for label in dict.fromkeys(row["label"] for row in rows):
        mine = [row for row in rows if row["label"] == label]
        x, point, low, high = (np.array([float(row[k]) for row in mine]) for k in ("x", "iqm", "low", "high"))
        curves.append(AggregateCurve(label, x, point, low, high, int(mine[0]["runs"]), mine[0]["axis"]))
    return curves
