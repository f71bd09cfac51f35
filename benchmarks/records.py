"""The small record of one run that is committed beside a benchmark, and reading it back for figures.

A record is JSON lines: one of kind ``run`` (job, command, configuration, versions), then thinned rows of the kinds that
``metrics.jsonl`` has, then one of kind ``figure`` per ``figures/*.json`` of the run. It names no place of the machine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visrep.config_overrides import read_yaml
from visrep.results.curves import quantities, read_rows

ROWS_PER_KIND = 80
LEFT_OUT = ("env_frames", "ram_bytes", "return_std")  # follows from agent_step, or is no result
PLACES = ("run_dir", "encoder", "pretrained_dir", "data")  # configuration keys that name places; the command says them
Row = dict[str, Any]


def write_record(head: Row, run_dir: Path, path: Path, more: Sequence[Row] = ()) -> None:
    """Write a finished run's record; ``head`` holds job, command and the tags to group by, ``more`` rows go last."""
    config = {key: value for key, value in read_yaml(run_dir / "config.yaml").items() if key not in PLACES}
    provenance = json.loads((run_dir / "provenance.json").read_text())
    made_on = {key: provenance[key] for key in ("versions", "device", "environment")}
    rows = [{"kind": "run", **head, "config": config, **made_on}]
    for kind in ("train", "eval", "metrics"):
        rows += thin_rows(read_rows(run_dir, kind), mean=kind == "train")
    for drawn in sorted((run_dir / "figures").glob("*.json")):
        rows.append({"kind": "figure", "name": drawn.stem, **json.loads(drawn.read_text())})
    rows += more
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(short(row)) + "\n" for row in rows))


def read_records(data_dir: Path) -> list[list[Row]]:
    """Every record of a benchmark, its ``run`` row first, in the order of file names."""
    files = sorted(data_dir.glob("*.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def thin_rows(rows: list[Row], mean: bool) -> list[Row]:
    """At most ROWS_PER_KIND rows: of equal stretches the last row, with means of its numbers where ``mean``."""
    count = min(ROWS_PER_KIND, len(rows))
    ends = [len(rows) * (i + 1) // count for i in range(count)]
    stretches = [rows[begin:end] for begin, end in zip([0, *ends], ends)]
    thinned = [stretch[-1] | (_means(stretch) if mean else {}) for stretch in stretches]
    return [{key: value for key, value in row.items() if key not in LEFT_OUT} for row in thinned]


def _means(rows: list[Row]) -> Row:
    values = {key: [row[key] for row in rows if isinstance(row.get(key), int | float)] for key in quantities(rows)}
    return {key: sum(numbers) / len(numbers) for key, numbers in values.items()}


def short(value: Any) -> Any:
    """Numbers with six digits, which is more than a figure shows; NaN and infinity as null."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    return [short(item) for item in value] if isinstance(value, list) else value
