"""What a machine has to give: cores, and memory that nobody uses or has been promised."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass

import psutil

from visrep.console import ram_bytes
from visrep.data.budget import available_ram, text_bytes
from visrep.sweeps.jobs import Job


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def used_ram(pid: int) -> int:
    """Bytes that a process and its children take; 0 once it has ended."""
    try:
        return ram_bytes(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return 0


@dataclass(frozen=True)
class Room:
    """Cores and bytes that nobody uses or has been promised."""

    threads: int
    memory: int

    def fits(self, job: Job) -> bool:
        """Whether a job may start now."""
        return job.threads <= self.threads and job.memory <= self.memory

    def without(self, job: Job) -> Room:
        """What is left once the job has started."""
        return Room(self.threads - job.threads, self.memory - job.memory)


@dataclass(frozen=True)
class Machine:
    """The part of this machine that a sweep may take.

    Attributes:
        cores: sum of the threads of jobs that run together.
        memory: bound of the sum of their expected memory, bytes; None = what is available.
        available: bytes that are free at the moment.
        used: bytes that a process takes at the moment.
    """

    cores: int
    memory: int | None = None
    available: Callable[[], int] = available_ram
    used: Callable[[int], int] = used_ram

    def room(self, running: Collection[tuple[Job, int]]) -> Room:
        """What is left beside the running jobs, given with their process numbers.

        A running job may still grow to what it was expected to take, so the rest of that is not free.
        """
        threads = self.cores - sum(job.threads for job, _ in running)
        if threads < 1:
            return Room(0, 0)  # reading every process's memory costs more than it would tell
        memory = self.available() - sum(max(0, job.memory - self.used(pid)) for job, pid in running)
        if self.memory is not None:
            memory = min(memory, self.memory - sum(job.memory for job, _ in running))
        return Room(threads, memory)

    def lacks(self, job: Job) -> str | None:
        """Why a job could never start here; None where it could."""
        if job.threads > self.cores:
            return f"it takes {job.threads} threads and the sweep has {self.cores} cores"
        total = int(psutil.virtual_memory().total) if self.memory is None else self.memory
        if job.memory > total:
            return f"it takes {text_bytes(job.memory)} of memory and the sweep has {text_bytes(total)}"
        return None
