"""Encoders pre-trained on demonstrations, probed, and tasks learned on them: ``visrep sweep`` with ``sweep.yaml``.

    python benchmarks/atc_demonstrations/run.py [--keep]

Leaves ``data/<stage>_<axes>.jsonl`` beside this file for every finished pre-training (with its probe) and frozen run;
``--keep`` runs nothing and writes these of what is finished. Started again it skips finished jobs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sweep_records
from records import Row
from visrep.sweeps.jobs import Job

READ_OUT = {"state": "mean", "state_mlp": "mean", "state_knn": "mean", "action": "r2", "reward": "r2"}
GEOMETRY = ("rankme", "uniformity", "alignment")


def probe_rows(job: Job, done: dict[str, Job]) -> list[Row]:
    """One row per code of the pre-training's probe: point, low and high of each readout, the features' geometry."""
    probe = done.get(job.name.replace("pretrain/", "probe/"))
    if job.stage != "pretrain" or probe is None:
        return []
    rows = []
    for code in json.loads((probe.run_dir / "probe.json").read_text())["codes"]:
        row: Row = {"kind": "probe", "code": code["name"], "role": code["role"], "features": code["features"]}
        for name, part in READ_OUT.items():
            found: dict[str, Any] = code["probes"].get(name) or {}
            row[name] = found.get(part)
        geometry = code["probes"].get("geometry") or {}
        rows.append(row | {name: geometry.get(name) for name in GEOMETRY})
    return rows


if __name__ == "__main__":
    sys.exit(sweep_records.main(__doc__, Path(__file__).parent, ("pretrain", "frozen"), "objective", probe_rows))
