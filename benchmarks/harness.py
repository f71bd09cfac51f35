"""Runs many visrep commands a few at a time, and keeps a small committed record of each finished one.

A benchmark makes a list of ``Job`` and calls ``main``. Started again it skips what is finished and resumes what was
interrupted. ``<runs_dir>/<job>/`` is the run, ``<job>.log`` its output, ``<job>.done`` the mark of a finished one;
``<data_dir>/<job>.jsonl`` is the record that figures are made from (see ``records``).
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from records import write_record
from visrep.config_overrides import PRESET_FOLDER
from visrep.console import format_seconds

LINES_SECONDS = 60.0  # between summaries where the output is not a terminal
TRIES = 2
PROGRESS = re.compile(r": ([\d,]+)/[\d,]+ \(")


@dataclass
class Job:
    """One visrep command.

    Attributes:
        name: unique; names the run directory and the record.
        words: the command line after ``visrep``, without run_dir and threads. ``{runs}`` stands for the folder of runs.
        agent_steps: length of the run, for the time estimate.
        tags: kept in the record, for figures to group by.
        after: name of a job that must have finished before.
    """

    name: str
    words: list[str]
    agent_steps: int
    tags: dict[str, Any] = field(default_factory=dict)
    after: str | None = None
    state: str = "waiting"  # waiting, running, done, failed
    tries: int = 0
    process: subprocess.Popen[bytes] | None = None


@dataclass
class Harness:
    """Where jobs run and what became of them."""

    jobs: Sequence[Job]
    runs_dir: Path
    data_dir: Path
    parallel: int = 4
    began: float = field(default_factory=time.monotonic)
    done_before: int = 0  # agent steps that earlier invocations had finished

    def run(self) -> int:
        """Run everything that is left; 0 when all jobs are done, 1 when some failed, 130 when interrupted."""
        self.runs_dir.mkdir(parents=True, exist_ok=True)
        for job in self.jobs:
            mark = self.runs_dir / f"{job.name}.done"
            if mark.exists() and mark.read_text() == self.fingerprint(job):
                self._finish(job)
        self.done_before = sum(job.agent_steps for job in self.jobs if job.state == "done")
        console = Console()
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with self._display(console):
                self._loop(console)
        except KeyboardInterrupt:
            console.print("stopping: every running job writes a checkpoint first (Ctrl-C again to end them at once)")
            self._stop()
            return 130
        finally:
            self._kill()
            signal.signal(signal.SIGTERM, before)
        console.print(self.table(), highlight=False)
        return 0 if all(job.state == "done" for job in self.jobs) else 1

    def _display(self, console: Console) -> AbstractContextManager[object]:
        """The table in place on a terminal; elsewhere ``_loop`` prints it from time to time."""
        if not console.is_terminal:
            return nullcontext()
        return Live(console=console, refresh_per_second=1, transient=True, get_renderable=self.table)

    def fingerprint(self, job: Job) -> str:
        """Changes when the command, a preset that it names, or the job that it starts from does."""
        presets = [word.partition("=")[2].split("+") for word in job.words if word.startswith("preset=")]
        texts = [(PRESET_FOLDER / f"{name}.yaml").read_text() for names in presets for name in names]
        before = [self.fingerprint(other) for other in self.jobs if other.name == job.after]
        return hashlib.sha256("\n".join([*job.words, *texts, *before]).encode()).hexdigest()[:16]

    def _loop(self, console: Console) -> None:
        shown = time.monotonic()
        while any(job.state in ("waiting", "running") for job in self.jobs):
            for job in self.jobs:
                if job.process is not None and job.process.poll() is not None:
                    self._ended(job, console)
            states = {job.name: job.state for job in self.jobs}
            for job in self.jobs:
                if job.state == "waiting" and job.after is not None and states[job.after] == "failed":
                    job.state = "failed"
                ready = job.state == "waiting" and (job.after is None or states[job.after] == "done")
                if ready and self._count("running") < self.parallel:
                    self._start(job)
            if not console.is_terminal and time.monotonic() - shown >= LINES_SECONDS:
                shown = time.monotonic()
                console.print(self.table(), highlight=False)
            time.sleep(0.2)

    def command(self, job: Job) -> list[str]:
        """The command line of a job's process."""
        words = [word.format(runs=self.runs_dir) for word in job.words]
        return [sys.executable, "-m", "visrep.cli", *words, f"run_dir={self.runs_dir / job.name}", "threads=1"]

    def _start(self, job: Job) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with open(self.runs_dir / f"{job.name}.log", "ab") as log:
            # A session of its own: Ctrl-C reaches the job once, through _stop.
            job.process = subprocess.Popen(
                self.command(job), stdout=log, stderr=log, env=environment, start_new_session=True
            )
        job.state, job.tries = "running", job.tries + 1

    def _ended(self, job: Job, console: Console) -> None:
        assert job.process is not None
        code, job.process = job.process.returncode, None
        if code == 0:
            (self.runs_dir / f"{job.name}.done").write_text(self.fingerprint(job))
            self._finish(job)
        elif job.tries < TRIES:
            job.state = "waiting"
        else:
            job.state = "failed"
            tail = (self.runs_dir / f"{job.name}.log").read_text(errors="replace").splitlines()[-3:]
            console.print(f"{job.name} failed with status {code}; end of its log:", *tail, sep="\n  ", markup=False)

    def _finish(self, job: Job) -> None:
        job.state = "done"
        words = [word.format(runs="runs") for word in job.words]
        head = {"job": job.name, **job.tags, "command": " ".join(["visrep", *words])}
        write_record(head, self.runs_dir / job.name, self.data_dir / f"{job.name}.jsonl")

    def _stop(self) -> None:
        running = [job.process for job in self.jobs if job.process is not None and job.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            process.wait()

    def _kill(self) -> None:
        for job in self.jobs:
            if job.process is not None and job.process.poll() is None:
                os.killpg(job.process.pid, signal.SIGKILL)

    def _count(self, state: str) -> int:
        return sum(job.state == state for job in self.jobs)

    def table(self) -> str:
        """Counts, the running jobs with their share done, and the time left."""
        steps = {job.name: self._steps(job) for job in self.jobs if job.state in ("running", "done")}
        left = sum(j.agent_steps - steps.get(j.name, 0) for j in self.jobs if j.state in ("waiting", "running"))
        fresh = sum(steps.values()) - self.done_before
        seconds = time.monotonic() - self.began
        eta = left * seconds / fresh if fresh > 0 and seconds > 10 else None
        counts = ", ".join(f"{self._count(state)} {state}" for state in ("done", "running", "waiting", "failed"))
        lines = [f"{counts}; {format_seconds(seconds)} gone, ETA {format_seconds(eta) if left else '0s'}"]
        for job in self.jobs:
            if job.state == "running":
                retry = " (second try)" if job.tries > 1 else ""
                lines.append(f"  {job.name:<40} {steps[job.name]:>9,}/{job.agent_steps:,}{retry}")
            elif job.state == "failed":
                reason = f"see {job.name}.log" if job.tries else f"it needs {job.after}"
                lines.append(f"  {job.name:<40} failed, {reason}")
        return "\n".join(lines)

    def _steps(self, job: Job) -> int:
        log = self.runs_dir / f"{job.name}.log"
        if job.state == "done" or not log.exists():
            return job.agent_steps if job.state == "done" else 0
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            found = PROGRESS.findall(file.read().decode(errors="replace"))
        return min(job.agent_steps, int(found[-1].replace(",", ""))) if found else 0
