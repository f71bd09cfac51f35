"""A benchmark that is a sweep: run what is left of it, then keep the committed record of every finished job."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from records import Row, write_record
from visrep.sweeps.command import sweep
from visrep.sweeps.jobs import Job
from visrep.sweeps.jobs import Records as SweepRecords
from visrep.sweeps.plan import plan
from visrep.sweeps.spec import read_sweep


def finished(file: Path) -> dict[str, Job]:
    """Jobs that are done, by name."""
    described = read_sweep(file)
    records = SweepRecords(Path(described.spec.out))
    return {job.name: job for job in plan(described) if records.state(job) == "done"}


def main(
    description: str | None, folder: Path, stages: Sequence[str], label: str,
    more: Callable[[Job, dict[str, Job]], list[Row]] = lambda job, done: [],
) -> int:  # fmt: skip
    """Run ``sweep.yaml`` of the folder and write ``data/<stage>_<axes>.jsonl`` for what is done of the stages.

    Args:
        label: the axis that tells the curves of one task apart.
        more: further rows of a job's record, given the job and all that are done.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="run nothing, only write the records of what is done")
    file = folder / "sweep.yaml"
    status = 0 if parser.parse_args().keep else sweep(str(file))
    done = finished(file)
    for job in done.values():
        if job.stage in stages:
            values = dict(job.values)
            head: Row = {"job": job.name, "stage": job.stage, "group": values.get("task"), "label": values[label]}
            head |= {"seed": int(values["seed"]), "command": " ".join(["visrep", *job.words])}
            path = folder / "data" / f"{job.name.replace('/', '_')}.jsonl"
            write_record(head, job.run_dir, path, more(job, done))
    return status
