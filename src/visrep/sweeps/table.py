"""One number per run, and tables of them over seeds: CSV, Markdown, console."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visrep.errors import UserError
from visrep.files import write_atomic
from visrep.results.curves import read_curve
from visrep.results.report import number
from visrep.results.statistics import bootstrap, iqm
from visrep.sweeps.jobs import Job, State
from visrep.sweeps.spec import SweepFile, TableSpec

SEED = 0  # of the resampling: the same runs give the same table
MISSING = "missing"
ALL = "value"  # the column of a table that has no axis of columns
States = Mapping[str, State]
Scores = dict[tuple[str, str], float]  # by table and job


@dataclass(frozen=True)
class Cell:
    """Scores of the runs behind one cell, and how many runs there will be."""

    scores: tuple[float, ...]
    wanted: int

    def estimate(self) -> tuple[float, float, float] | None:
        """IQM over runs with its 95 % interval; None without runs, no interval (NaN) from a single one."""
        if not self.scores:
            return None
        point, low, high = (float(x) for x in bootstrap(iqm, self.scores, np.random.default_rng(SEED)))
        return (point, low, high) if len(self.scores) > 1 else (point, math.nan, math.nan)

    def text(self) -> str:
        """Point, interval and number of runs, or that nothing is there yet."""
        estimate = self.estimate()
        if estimate is None:
            return MISSING
        point, low, high = estimate
        interval = f" ({number(low)} to {number(high)})" if math.isfinite(low) else ""
        short = f" of {self.wanted}" if len(self.scores) < self.wanted else ""
        return f"{number(point)}{interval}, n={len(self.scores)}{short}"


@dataclass(frozen=True)
class Table:
    """Cells by row (entries of the row axes) and column (entries of the column axis)."""

    name: str
    title: str
    row_axes: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[tuple[str, ...], str], Cell]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The combinations of the row axes, in the order of the jobs."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    def _texts(self) -> list[list[str]]:
        head = [*self.row_axes, *self.columns]
        body = [[*row, *(self.cells[row, c].text() if (row, c) in self.cells else "" for c in self.columns)]
                for row in self.rows]  # fmt: skip
        return [head, *body]

    def markdown(self) -> str:
        """The table under its title."""
        head, *body = self._texts()
        lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body)]
        return f"## {self.name}\n\n{self.title}\n\n" + "\n".join(lines) + "\n"

    def plain(self) -> str:
        """The table for a terminal."""
        texts = self._texts()
        widths = [max(len(line[i]) for line in texts) for i in range(len(texts[0]))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in texts]
        return "\n".join([f"{self.name}: {self.title}", *lines])

    def csv(self) -> str:
        """One line per row; every column as point, ends of the interval and number of runs, empty where missing."""
        head = [*self.row_axes, *(f"{c}{part}" for c in self.columns for part in ("", "_low", "_high", "_n"))]
        lines: list[list[Any]] = [head]
        for row in self.rows:
            line: list[Any] = [*row]
            for column in self.columns:
                cell = self.cells.get((row, column))
                estimate = cell.estimate() if cell else None
                line += [_blank(x) for x in estimate or (math.nan,) * 3] + [len(cell.scores) if cell else ""]
            lines.append(line)
        return _csv(lines)


@dataclass(frozen=True)
class Results:
    """What a sweep has found so far.

    Attributes:
        name: of the sweep.
        tables: those that its file asks for.
        runs: every job on a line of CSV: stage, axes, state, the tables' numbers, directory.
        problems: why a finished run has no number, one text per run and table.
    """

    name: str
    tables: tuple[Table, ...]
    runs: str
    problems: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write ``table_<name>.csv``, ``tables.md`` and ``runs.csv`` into the sweep's folder."""
        for table in self.tables:
            write_atomic(folder / f"table_{table.name}.csv", table.csv().encode())
        text = f"# {self.name}\n\n" + "\n".join(table.markdown() for table in self.tables)
        write_atomic(folder / "tables.md", text.encode())
        write_atomic(folder / "runs.csv", self.runs.encode())


def results(file: SweepFile, jobs: Sequence[Job], states: States) -> Results:
    """Read the jobs that are done and put their numbers together.

    Raises:
        UserError: a table's axis is none of its stage's.
    """
    scores: Scores = {}
    problems = []
    for name, spec in file.spec.tables.items():
        for job in jobs:
            if job.stage == spec.stage and states[job.name] == "done":
                try:
                    scores[name, job.name] = score(spec, job)
                except UserError as error:
                    problems.append(f"table {name} lacks {job.name}: {error}")
    tables = tuple(_table(file, name, spec, jobs, scores) for name, spec in file.spec.tables.items())
    return Results(file.spec.name, tables, _runs(file, jobs, states, scores), tuple(problems))


def score(spec: TableSpec, job: Job) -> float:
    """The number that one finished run recorded."""
    if spec.metric.startswith(("train.", "eval.", "metrics.")) and ".json:" not in spec.metric:
        kind, _, key = spec.metric.partition(".")
        values = read_curve(job.run_dir, kind, key).values
        last = 1 if spec.take == "last" else int(spec.take.removeprefix("mean_last_"))
        return float(values[-last:].mean())
    name, _, path = spec.metric.partition(":")
    return _number_in(job.run_dir / name, path)


def _number_in(file: Path, path: str) -> float:
    """The number at a path such as ``r2.ridge.position`` or ``rows[0].score`` of a JSON file; of a list its mean."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(value, list):
            value = {str(index): item for index, item in enumerate(value)}
        known = list(value) if isinstance(value, dict) else []
        if part not in known:
            raise UserError(
                f"{file} has nothing at {path!r}: at {part!r} there is {', '.join(known[:12]) or 'no more'}"
            )
        value = value[part]
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(_finite(number) for number in numbers):
        raise UserError(f"{file} holds no finite number at {path!r} but {str(value)[:60]}")
    return math.fsum(numbers) / len(numbers)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _table(file: SweepFile, name: str, spec: TableSpec, jobs: Sequence[Job], scores: Scores) -> Table:
    mine = [job for job in jobs if job.stage == spec.stage]
    axes = list(mine[0].values)
    columns_axis = spec.columns or ("task" if "task" in axes else None)
    for key, axis in (("columns", spec.columns), ("over", spec.over if "over" in spec.model_fields_set else None)):
        if axis is not None:
            file.known(f"tables.{name}.{key}", axis, axes, f"axis of stage {spec.stage}")
    row_axes = tuple(axis for axis in axes if axis not in (columns_axis, spec.over))
    behind: dict[tuple[tuple[str, ...], str], list[Job]] = {}
    for job in mine:
        column = job.values[columns_axis] if columns_axis else ALL
        behind.setdefault((tuple(job.values[axis] for axis in row_axes), column), []).append(job)
    cells = {
        place: Cell(tuple(scores[name, job.name] for job in there if (name, job.name) in scores), len(there))
        for place, there in behind.items()
    }
    order = [entry.name for entry in file.spec.axes[columns_axis]] if columns_axis else [ALL]
    columns = tuple(column for column in order if any(column == c for _, c in cells))
    title = f"{spec.metric} ({spec.take}) of {spec.stage}: " if ".json:" not in spec.metric else f"{spec.metric}: "
    return Table(name, f"{title}IQM over {spec.over}, 95 % bootstrap interval, n runs", row_axes, columns, cells)


def _runs(file: SweepFile, jobs: Sequence[Job], states: States, scores: Scores) -> str:
    tables, axes = list(file.spec.tables), list(file.spec.axes)
    lines: list[list[Any]] = [["stage", *axes, "state", *tables, "run_dir"]]
    for job in jobs:
        entries = [job.values.get(axis, "") for axis in axes]
        numbers = [scores.get((name, job.name), "") for name in tables]
        lines.append([job.stage, *entries, states[job.name], *numbers, job.run_dir])
    return _csv(lines)


def _blank(value: float) -> float | str:
    return value if math.isfinite(value) else ""


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
