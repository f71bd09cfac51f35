"""``visrep sweep``: from a sweep file to finished runs and their tables."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from visrep.console import Console
from visrep.errors import UserError
from visrep.files import take_lock, writing
from visrep.sweeps.display import status_lines
from visrep.sweeps.jobs import ORIGIN, Job, Records
from visrep.sweeps.machine import Machine, usable_cores
from visrep.sweeps.plan import GB, plan
from visrep.sweeps.processes import end_orphans
from visrep.sweeps.scheduler import CommandBuilder, Scheduler, visrep_command
from visrep.sweeps.spec import SweepFile, read_sweep
from visrep.sweeps.table import Results, results

CHANGES_SHOWN = 10


def sweep(
    file: str,
    status: bool = False,
    dry_run: bool = False,
    rerun: str | None = None,
    *,
    console: Console | None = None,
    command: CommandBuilder = visrep_command,
) -> int:
    """Run what a sweep file describes and is not done yet.

    Args:
        file: the YAML file.
        status: only say what is done and what is missing.
        dry_run: only print the commands of what is missing; with ``rerun``, of what would run afresh too.
        rerun: "changed" runs jobs afresh whose settings are no longer those that they were started with.
        console: where to write.
        command: makes the process of a job.

    Returns:
        0 when every job is done (or nothing was to be run), 1 when some failed, 130 when interrupted.

    Raises:
        UserError: the file is wrong, a job's settings changed, a job could never fit, or another sweep is at work here.
    """
    console = Console() if console is None else console
    if rerun not in (None, "changed"):
        raise UserError(f"rerun={rerun}: only rerun=changed is known")
    described = read_sweep(Path(file))
    jobs = plan(described)
    folder = Path(described.spec.out).expanduser()
    records = Records(folder)
    results(described, jobs, {job.name: "not started" for job in jobs})  # a table that cannot be made is refused now
    if status:
        return _status(described, jobs, records, console)
    if dry_run:
        return _dry_run(jobs, records, rerun, console)
    spec = described.spec
    machine = _machine(described, jobs)
    with in_folder(jobs, records, rerun, console):
        with writing(folder / "sweep.yaml"):
            shutil.copyfile(described.path, folder / "sweep.yaml")
        scheduler = Scheduler(jobs, records, machine, console, retries=spec.retries, nice=spec.nice, command=command)
        outcome = scheduler.run()
        states = {job.name: records.state(job) for job in jobs}
        found = results(described, jobs, states)
        found.write(folder)
    _show(found, console)
    done = sum(state == "done" for state in states.values())
    console.line(f"\n{done} of {len(jobs)} jobs are done; {folder}/runs.csv and tables.md hold the results")
    return outcome


@contextlib.contextmanager
def in_folder(jobs: Sequence[Job], records: Records, rerun: str | None, console: Console) -> Iterator[None]:
    """Hold the records' folder for this process, with no job in it that was started with other settings.

    Raises:
        UserError: another process holds it, or such a job is there and ``rerun`` is None.
    """
    with writing(records.folder):
        records.folder.mkdir(parents=True, exist_ok=True)
    with take_lock(records.folder, "a sweep is at work there; status=true shows how far it is"):
        _settle_changes(jobs, records, rerun, console)
        yield


def _status(described: SweepFile, jobs: Sequence[Job], records: Records, console: Console) -> int:
    states = {job.name: records.current_state(job) for job in jobs}
    for line in status_lines(jobs, states, records):
        console.line(line)
    changed = [job for job in jobs if records.changes(job)]
    if changed:
        text = f"{_changes_text(changed, records)}\n{_remedy(records)}"
        console.line(f"\n{text}\nThe tables below leave their old values out.", "yellow")
    _show(results(described, jobs, states), console)
    return 0


def _show(found: Results, console: Console) -> None:
    for table in found.tables:
        console.line(f"\n{table.plain()}")
    for problem in found.problems:
        console.line(problem, "yellow")


def _dry_run(jobs: Sequence[Job], records: Records, rerun: str | None, console: Console) -> int:
    changed = [job for job in jobs if records.changes(job)]
    if changed:
        text = f"{_changes_text(changed, records)}\n{_remedy(records)}"
        for line in text.splitlines():
            console.line(f"# {line}", "yellow")  # the rest is a shell script
    for job in jobs:
        if records.state(job) != "done" or (rerun is not None and job in changed):
            console.line(shlex.join(["visrep", *job.words]))
    return 0


def _machine(described: SweepFile, jobs: Sequence[Job]) -> Machine:
    limits = described.spec.limits
    cores = usable_cores() if limits.cores is None else min(limits.cores, usable_cores())
    machine = Machine(cores, None if limits.memory_gb is None else round(limits.memory_gb * GB))
    for job in jobs:
        lack = machine.lacks(job)
        if lack is not None:
            raise described.error(f"stage {job.stage}", f"{lack}: lower its resources or raise the limits")
    return machine


def _settle_changes(jobs: Sequence[Job], records: Records, rerun: str | None, console: Console) -> None:
    """Refuse jobs that were started with other settings, or move what they left out of the way."""
    changed = [job for job in jobs if records.changes(job)]
    if not changed:
        return
    if rerun is None:
        raise UserError(f"{_changes_text(changed, records)}\n{_remedy(records)}")
    replaced = records.folder / "replaced" / f"{datetime.now():%Y-%m-%d_%H%M%S}"
    end_orphans(changed, records, console)
    for job in changed:
        records.move_aside(job, replaced)
    console.line(f"{len(changed)} changed jobs run again; what they left is in {replaced}")


def _remedy(records: Records) -> str:
    return (
        "put the values back, choose another out, or add rerun=changed: it moves what these have left to "
        f"{records.folder / 'replaced'} and runs them afresh"
    )


def _changes_text(changed: Sequence[Job], records: Records) -> str:
    lines = [f"{len(changed)} jobs were started with other settings, the sweep file no longer matches them:"]
    for job in changed[:CHANGES_SHOWN]:
        changes = records.changes(job)
        own = [f"    {key}: {old!r} then, {new!r} now" for key, old, new in changes if not key.startswith(ORIGIN)]
        # Of a job that it starts from only a digest is known; the keys are said there.
        origins = [key.removeprefix(ORIGIN) for key, _, _ in changes if key.startswith(ORIGIN)]
        lines += [f"  {job.name}", *own] if own else [f"  {job.name} follows from {', '.join(origins)}, which changed"]
    if len(changed) > CHANGES_SHOWN:
        lines.append(f"  and {len(changed) - CHANGES_SHOWN} more")
    return "\n".join(lines)
