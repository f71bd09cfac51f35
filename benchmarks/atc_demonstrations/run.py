"""Encoders pre-trained on demonstrations, probed, and tasks learned on them: ``visrep sweep`` with ``sweep.yaml``.

    python benchmarks/atc_demonstrations/run.py [--keep]

Leaves ``data/<stage>_<axes>.jsonl`` beside this file for every finished pre-training (with its probe) and frozen run;
``--keep`` runs nothing and writes these of what is finished. Started again it skips finished jobs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from records import Row, short, write_record
from visrep.cli import OWN_KEYS
from visrep.sweeps.command import sweep
from visrep.sweeps.jobs import Job, Records
from visrep.sweeps.plan import plan
from visrep.sweeps.spec import read_sweep

HERE = Path(__file__).parent
READ_OUT = {"state": "mean", "state_mlp": "mean", "state_knn": "mean", "action": "r2", "reward": "r2"}
GEOMETRY = ("rankme", "uniformity", "alignment")


def probe_rows(file: Path) -> list[Row]:
    """One row per code of a probe's JSON: point, low and high of each readout, and the features' geometry."""
    rows = []
    for code in json.loads(file.read_text())["codes"]:
        row: Row = {"kind": "probe", "code": code["name"], "role": code["role"], "features": code["features"]}
        for name, part in READ_OUT.items():
            found: dict[str, Any] = code["probes"].get(name) or {}
            row[name] = found.get(part)
        geometry = code["probes"].get("geometry") or {}
        rows.append(row | {name: geometry.get(name) for name in GEOMETRY})
    return rows


def keep(job: Job, probe: Job | None) -> None:
    """Write the record of one finished job."""
    values = dict(job.values)
    head = {
        "job": job.name,
        "stage": job.stage,
        "group": values["task"],
        "label": values["objective"],
        "seed": int(values["seed"]),
        "command": " ".join(["visrep", *job.words]),
    }
    path = HERE / "data" / f"{job.name.replace('/', '_')}.jsonl"
    write_record(head, job.run_dir, path)
    if probe is not None:
        with path.open("a") as file:
            file.writelines(json.dumps(short(row)) + "\n" for row in probe_rows(probe.run_dir / "probe.json"))


def main() -> int:
    """Run what is left, then keep what is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="run nothing")
    status = 0 if parser.parse_args().keep else sweep(str(HERE / "sweep.yaml"), own_keys=OWN_KEYS)
    described = read_sweep(HERE / "sweep.yaml")
    records = Records(Path(described.spec.out))
    done = {job.name: job for job in plan(described, OWN_KEYS) if records.state(job) == "done"}
    for name, job in done.items():
        if job.stage in ("pretrain", "frozen"):
            keep(job, done.get(name.replace("pretrain/", "probe/")) if job.stage == "pretrain" else None)
    return status


if __name__ == "__main__":
    sys.exit(main())
