"""Runs jobs side by side as far as cores and memory go, starts again what died, and keeps a record of each."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import psutil
from rich.live import Live

from visrep.console import Console, format_seconds
from visrep.data.budget import text_bytes
from visrep.errors import EXIT_STATUS
from visrep.runs.stopping import StopRequest
from visrep.sweeps.display import overview, tail
from visrep.sweeps.jobs import Job, Records, Work
from visrep.sweeps.machine import Machine
from visrep.sweeps.processes import GRACE_SECONDS, end_orphans, kill_group, meaning, stop_request

SUMMARY_SECONDS = 60.0  # between overviews where the output is not a terminal
POLL_SECONDS = 0.5

CommandBuilder = Callable[[Job], list[str]]


def visrep_command(job: Job) -> list[str]:
    """The process of a job."""
    return [sys.executable, "-m", "visrep.cli", *job.words]


class Scheduler:
    """Runs every job of a list that is not done yet.

    Args:
        jobs: each after the jobs that it starts from.
        records: where logs and records lie.
        machine: cores and memory that may be taken.
        console: where progress is shown.
        retries: how often a job that died is started again.
        nice: added to the niceness of every process.
        command: makes the process of a job.
        finished: called for every job that is done, before as well as now.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        records: Records,
        machine: Machine,
        console: Console,
        *,
        retries: int = 1,
        nice: int = 0,
        command: CommandBuilder = visrep_command,
        finished: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.records, self.machine, self.console = records, machine, console
        self.retries, self.nice, self.command, self.finished = retries, nice, command, finished
        self.works = {job.name: Work(job, seconds=records.seconds(job)) for job in jobs}
        self.began = time.monotonic()
        self._waiting_said = False

    def run(self) -> int:
        """Run what is left; 0 when all jobs are done, 1 when some failed, 130 when interrupted."""
        end_orphans([work.job for work in self.works.values()], self.records, self.console)
        for work in self.works.values():
            if self.records.state(work.job) == "done":
                work.state = "done"
                self.finished(work.job)
        with stop_request() as stop:
            try:
                with self._display():
                    self._loop(stop)
                if stop:
                    self._stop()
                    return 130
            finally:
                self._kill()
        self._report()
        return 0 if all(work.state == "done" for work in self.works.values()) else 1

    # -- the loop -----------------------------------------------------------------------------------------------------

    def _loop(self, stop: StopRequest) -> None:
        """Until all is done or failed, or a stop is asked for: looked at here alone, so no job is started by halves."""
        shown = time.monotonic()
        while not stop and any(work.state in ("waiting", "running") for work in self.works.values()):
            for work in self._running():
                self._look_after(work)
            self._start_what_fits()
            if self.console.rich is None and time.monotonic() - shown >= SUMMARY_SECONDS:
                shown = time.monotonic()
                self.console.line(self._overview())
            time.sleep(POLL_SECONDS)

    def _start_what_fits(self) -> None:
        for work in self.works.values():
            failed = [name for name in work.job.after if self.works[name].state == "failed"]
            if work.state == "waiting" and failed:
                work.state, work.reason = "failed", f"it starts from {', '.join(failed)}"
        ready = [
            work for work in self._in_order()
            if work.state == "waiting" and all(self.works[name].state == "done" for name in work.job.after)
        ]  # fmt: skip
        if not ready:
            return
        room = self.machine.room([(work.job, _process(work).pid) for work in self._running()])
        for work in ready:
            if room.fits(work.job):
                self._start(work)
                room = room.without(work.job)
        if not self._running() and not self._waiting_said:
            self._waiting_said = True
            self.console.line(
                f"waiting for memory: {text_bytes(room.memory)} are free, {ready[0].job.name} needs "
                f"{text_bytes(ready[0].job.memory)} (memory_gb in the sweep file)", "yellow"
            )  # fmt: skip

    def _in_order(self) -> list[Work]:
        """Chains that are begun first, so that results come early; then those that others wait for; then the rest."""
        needed = {name for work in self.works.values() for name in work.job.after}
        return sorted(self.works.values(), key=lambda work: (not work.job.after, work.job.name not in needed))

    def _running(self) -> list[Work]:
        return [work for work in self.works.values() if work.process is not None]

    # -- one job ------------------------------------------------------------------------------------------------------

    def _start(self, work: Work) -> None:
        job, log = work.job, self.records.log(work.job)
        log.parent.mkdir(parents=True, exist_ok=True)
        job.run_dir.parent.mkdir(parents=True, exist_ok=True)
        threads = str(job.threads)
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
        with open(log, "ab") as file:
            file.write(f"$ visrep {' '.join(job.words)}\n".encode())
            work.log_start = file.tell()
            # A session of its own: Ctrl-C reaches the job once, through _stop.
            work.process = subprocess.Popen(
                self.command(job), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment,
                start_new_session=True,
            )  # fmt: skip
        work.state, work.tries, work.began, work.stop_at = "running", work.tries + 1, time.monotonic(), None
        created = time.time()
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(work.process.pid)
            created = process.create_time()
            if self.nice:
                process.nice(process.nice() + self.nice)
        self.records.write(job, "running", pid=work.process.pid, created=created, seconds=work.seconds)
        self._say(f"{'started' if work.tries == 1 else 'started again:'} {job.name}")

    def _look_after(self, work: Work) -> None:
        process, now = _process(work), time.monotonic()
        if process.poll() is not None:
            self._ended(work, process.returncode)
        elif work.stop_at is not None:
            if now >= work.stop_at:
                kill_group(process)
        elif work.job.timeout is not None and now - work.began >= work.job.timeout:
            process.send_signal(signal.SIGINT)
            work.stop_at = now + GRACE_SECONDS

    def _ended(self, work: Work, status: int) -> None:
        if status != 0:
            kill_group(_process(work))  # environment workers of a process that was killed
        work.process, job = None, work.job
        took = time.monotonic() - work.began
        work.seconds += took
        if status == 0:
            work.state = "done"
            self.records.write(job, "done", seconds=work.seconds)
            self._say(f"done {job.name} in {format_seconds(work.seconds)}")
            self.finished(job)
            return
        late = f"stopped after {format_seconds(took)}, its limit" if work.stop_at is not None else ""
        work.reason = late or meaning(status)
        self.records.write(job, "failed", status=status, reason=work.reason, seconds=work.seconds)
        work.state = "waiting" if work.tries <= self.retries and status != EXIT_STATUS else "failed"
        self._say(f"{'died:' if work.state == 'waiting' else 'failed:'} {job.name}, {work.reason}", "yellow")

    # -- stopping -----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        running = self._running()
        self.console.line(f"stopping: {len(running)} running jobs write a checkpoint first (Ctrl-C ends them at once); "
                          "the same command continues the sweep")  # fmt: skip
        for work in running:
            _process(work).send_signal(signal.SIGINT)
        for work in running:
            while (status := _process(work).poll()) is None:
                time.sleep(POLL_SECONDS)  # a wait without end would not see a second Ctrl-C that another thread takes
            work.seconds += time.monotonic() - work.began
            # It may have come to its end before the signal did.
            self.records.write(work.job, "done" if status == 0 else "interrupted", seconds=work.seconds)

    def _kill(self) -> None:
        for work in self._running():
            if _process(work).poll() is None:
                kill_group(_process(work))
                _process(work).wait()

    # -- what is shown ------------------------------------------------------------------------------------------------

    def _display(self) -> contextlib.AbstractContextManager[object]:
        """The overview in place on a terminal; elsewhere ``_loop`` prints it from time to time."""
        if self.console.rich is None:
            return contextlib.nullcontext()
        return Live(console=self.console.rich, refresh_per_second=1, transient=True, get_renderable=self._overview)

    def _overview(self) -> str:
        return overview(list(self.works.values()), self.records, self.machine.cores, time.monotonic() - self.began)

    def _say(self, text: str, style: str | None = None) -> None:
        done = sum(work.state == "done" for work in self.works.values())
        self.console.line(f"[{done}/{len(self.works)}] {text}", style)

    def _report(self) -> None:
        """Every failure with the end of its log."""
        for work in self.works.values():
            if work.state != "failed":
                continue
            self.console.line(f"{work.job.name}: {work.reason}", "red")
            if work.tries:
                log = self.records.log(work.job)
                for line in tail(log, work.log_start):
                    self.console.line(f"    {line}")
                self.console.line(f"    (all of it: {log})")


def _process(work: Work) -> subprocess.Popen[bytes]:
    assert work.process is not None
    return work.process
