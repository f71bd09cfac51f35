"""Runs a benchmark's visrep commands as ``visrep sweep`` does, and keeps a small committed record of each finished one.

A benchmark makes a list of ``Run`` and calls ``run_all``. Started again it skips what is finished and resumes what was
interrupted. ``<runs_dir>/<run>/`` is the run and ``<runs_dir>/logs/<run>.log`` its output; figures are made from its
record, ``<data_dir>/<run>.jsonl`` (see ``records``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from records import write_record
from visrep.console import Console
from visrep.sweeps.command import in_folder
from visrep.sweeps.jobs import Job, Records, settings_of
from visrep.sweeps.machine import Machine
from visrep.sweeps.scheduler import CommandBuilder, Scheduler, visrep_command


@dataclass(frozen=True)
class Run:
    """One visrep command.

    Attributes:
        name: unique; names the run directory and the record.
        words: the command line after ``visrep``, without run_dir and threads. ``{runs}`` stands for the folder of runs.
        tags: kept in the record, for figures to group by.
        after: name of a run that must have finished before.
    """

    name: str
    words: list[str]
    tags: dict[str, Any] = field(default_factory=dict)
    after: str | None = None

    @property
    def command(self) -> list[str]:
        """The words, naming no place of the machine."""
        return [word.format(runs="runs") for word in self.words]


def run_all(
    runs: Sequence[Run], runs_dir: Path, data_dir: Path, parallel: int, command: CommandBuilder = visrep_command
) -> int:
    """Run everything that is left; 0 when all runs are done, 1 when some failed, 130 when interrupted.

    Raises:
        UserError: a run was started with other settings, or another process works in ``runs_dir``.
    """
    by_name = {run.name: run for run in runs}
    jobs: dict[str, Job] = {}

    def add(run: Run) -> Job:
        if run.name not in jobs:
            origin = [add(by_name[run.after])] if run.after is not None else []
            jobs[run.name] = _job(run, runs_dir, {job.name: job.digest for job in origin})
        return jobs[run.name]

    def record(job: Job) -> None:
        run = by_name[job.name]
        head = {"job": run.name, **run.tags, "command": " ".join(["visrep", *run.command])}
        write_record(head, job.run_dir, data_dir / f"{run.name}.jsonl")

    for run in runs:
        add(run)
    records, console = Records(runs_dir), Console()
    with in_folder(list(jobs.values()), records, None, console):
        scheduler = Scheduler(
            list(jobs.values()), records, Machine(parallel), console, command=command, finished=record
        )  # fmt: skip
        return scheduler.run()


def _job(run: Run, runs_dir: Path, after: dict[str, str]) -> Job:
    run_dir = runs_dir / run.name
    words = [word.format(runs=runs_dir) for word in run.words]
    return Job(
        name=run.name,
        stage=str(run.tags.get("group", "")),
        words=(*words, f"run_dir={run_dir}", "threads=1"),
        run_dir=run_dir,
        settings=settings_of(run.command[0], run.command[1:]),
        after=after,
    )
