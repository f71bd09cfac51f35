"""Ending processes: those that a killed sweep left behind, whole groups, and this one when it is asked to."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence

import psutil

from visrep.console import Console
from visrep.errors import EXIT_STATUS
from visrep.runs.stopping import StopRequest
from visrep.sweeps.jobs import Job, Records

GRACE_SECONDS = 60.0  # for a checkpoint, before a process that should stop is killed


def end_orphans(jobs: Sequence[Job], records: Records, console: Console) -> None:
    """Stop what a sweep that was killed has left running: each writes a checkpoint, from which it can be continued."""
    orphans = [process for job in jobs if (process := records.process(job)) is not None]
    if not orphans:
        return
    console.line(f"stopping {len(orphans)} jobs that an earlier sweep left running; their checkpoints are kept")
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(orphans, timeout=GRACE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE_SECONDS)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process that leads a session of its own, and its environment workers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def meaning(status: int) -> str:
    """An exit status in words."""
    if status == EXIT_STATUS:
        return "it was refused"
    if status >= 0:
        return f"it ended with status {status}"
    name = signal.Signals(-status).name
    hint = "; the system does so when memory runs short: raise memory_gb" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM and SIGHUP (a closed terminal) as a request to stop; a second one interrupts at once."""
    with StopRequest() as stop:
        before = signal.getsignal(signal.SIGHUP)
        if before is not signal.SIG_IGN:  # nohup
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            yield stop
        finally:
            signal.signal(signal.SIGHUP, before)
