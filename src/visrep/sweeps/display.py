"""What a person sees of a sweep: counts, what is running and how far it is, how long it will take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from visrep.console import format_seconds
from visrep.sweeps.jobs import Job, Records, State, Work

SHARE = re.compile(r": ([\d,]+)/([\d,]+) \(")  # of a run's progress line
TAIL_BYTES, TAIL_LINES = 8192, 10


def tail(log: Path, start: int = 0, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log, none of them before byte ``start``."""
    if not log.exists():
        return []
    with open(log, "rb") as file:
        file.seek(max(start, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-lines:]


def share(log: Path, start: int = 0) -> float | None:
    """How much of its present phase a run has done, by its last progress line."""
    found = SHARE.findall("\n".join(tail(log, start, lines=200)))
    if not found:
        return None
    done, total = (int(text.replace(",", "")) for text in found[-1])
    return done / total if total else None


def eta_seconds(jobs: Iterable[tuple[Job, str, float]], running: Mapping[str, float], cores: int) -> tuple[float, bool]:
    """Seconds left, and whether that is all of it: stages of which no job has ended yet are left out.

    Args:
        jobs: job, state and seconds spent, of every job.
        running: seconds that the running ones have been at it.
        cores: how many the sweep has.
    """
    every = list(jobs)
    spent: dict[str, list[float]] = {}
    for job, state, seconds in every:
        if state == "done":
            spent.setdefault(job.stage, []).append(seconds)
    means = {stage: sum(values) / len(values) for stage, values in spent.items()}
    left, longest, complete = 0.0, 0.0, True
    for job, state, seconds in every:
        if state not in ("waiting", "running"):
            continue
        if job.stage not in means:
            complete = False
            continue
        rest = max(0.0, means[job.stage] - seconds - running.get(job.name, 0.0))
        left, longest = left + rest * job.threads, max(longest, rest)
    return max(left / cores, longest), complete


def overview(works: Sequence[Work], records: Records, cores: int, elapsed: float) -> str:
    """Counts, ETA, and a line for each running job."""
    names = ("done", "running", "waiting", "failed")
    counts = ", ".join(f"{sum(work.state == name for work in works)} {name}" for name in names)
    running = {work.job.name: work.elapsed for work in works if work.state == "running"}
    seconds, complete = eta_seconds(((w.job, w.state, w.seconds) for w in works), running, cores)
    eta = format_seconds(seconds if complete or seconds else None) + ("" if complete else " or more")
    lines = [f"{counts}; {format_seconds(elapsed)} gone, ETA {eta if complete or seconds else '?'}"]
    for work in works:
        if work.state == "running":
            part = share(records.log(work.job), work.log_start)
            again = f", try {work.tries}" if work.tries > 1 else ""
            done = "" if part is None else f"{100 * part:.0f} %, "
            lines.append(f"  {work.job.name}  {done}{format_seconds(running[work.job.name])}{again}")
    return "\n".join(lines)


def status_lines(jobs: Sequence[Job], states: Mapping[str, State], records: Records) -> list[str]:
    """Counts by stage, then every job that is not done, or done with other settings, and why."""
    kinds: tuple[State, ...] = ("done", "changed", "running", "interrupted", "failed", "not started")
    stages = list(dict.fromkeys(job.stage for job in jobs))
    width = max(len(stage) for stage in [*stages, "stage"])
    lines = [f"{'stage':<{width}}  jobs  " + "  ".join(kinds)]
    for stage in [*stages, "all"]:
        mine = [states[job.name] for job in jobs if stage in (job.stage, "all")]
        counts = "  ".join(f"{mine.count(kind):>{len(kind)}}" for kind in kinds)
        lines.append(f"{stage:<{width}}  {len(mine):>4}  {counts}")
    missing = [job for job in jobs if states[job.name] != "done"]
    if missing:
        lines += ["", "missing:"]
    for job in missing:
        waits = [name for name in job.after if states[name] != "done" and states[job.name] != "changed"]
        reason = f", waits for {', '.join(waits)}" if waits else ""
        if states[job.name] == "failed":
            record = records.read(job) or {}
            reason = f", {record.get('reason', '')}; see {records.log(job)}"
        lines.append(f"  {job.name}: {states[job.name]}{reason}")
    return lines
