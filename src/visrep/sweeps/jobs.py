"""One command of a sweep, and the small file beside it that says what became of it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import psutil

from visrep.config import MAY_DIFFER, differing_keys
from visrep.config_overrides import read_overrides, read_presets
from visrep.errors import UserError
from visrep.files import write_json_atomic
from visrep.sweeps.places import PLACES, Place

Progress = Literal["waiting", "running", "done", "failed"]
Written = Literal["running", "done", "failed", "interrupted"]
State = Literal["done", "running", "interrupted", "failed", "not started", "changed"]
ORIGIN = "after "  # of the keys of an identity that say which jobs it starts from, before their names


def settings_of(command: str, words: list[str]) -> dict[str, Any]:
    """What decides a job's result: its command and its keys, with the presets' values in place of their names."""
    values = read_overrides(words)
    chosen = values.pop("preset", None)
    presets = {} if chosen is None else {key: value for key, (value, _) in read_presets(chosen).items()}
    return {"visrep": command, **presets, **values}


@dataclass(frozen=True)
class Job:
    """One command and the folder of its results.

    Attributes:
        name: unique in its sweep; also the path of its log and record.
        stage: jobs of one stage are taken to last equally long.
        words: the command line after ``visrep``.
        run_dir: where it writes; no other job of the same command does.
        settings: what decides its result, see ``settings_of``; places left out.
        after: digests of the jobs that it starts from, by name.
        values: entry of each axis that it depends on.
        threads: cores that it keeps busy.
        memory: bytes that it is expected to take.
        timeout: seconds after which it is stopped; None = never.
    """

    name: str
    stage: str
    words: tuple[str, ...]
    run_dir: Path
    settings: Mapping[str, Any]
    after: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    memory: int = 10**9
    timeout: float | None = None

    @property
    def place(self) -> Place:
        """What its command leaves, and where."""
        return PLACES[self.words[0]]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Settings and origins as one flat dict of JSON values, for comparison with a record."""
        origins = {f"{ORIGIN}{name}": digest for name, digest in self.after.items()}
        identity: dict[str, Any] = json.loads(json.dumps({**self.settings, **origins}))
        return identity

    @cached_property
    def digest(self) -> str:
        """Changes when anything that decides the result does."""
        kept = {key: value for key, value in self.identity.items() if key not in MAY_DIFFER}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Work:
    """A job on its way."""

    job: Job
    state: Progress = "waiting"
    tries: int = 0
    seconds: float = 0.0  # of all its processes that have ended
    reason: str = ""  # of a failure
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    stop_at: float | None = None  # when a process that was told to stop is killed
    log_start: int = 0  # where the newest try begins in the log

    @property
    def elapsed(self) -> float:
        """Seconds since its present process was started."""
        return time.monotonic() - self.began


class Records:
    """The record of each job of a sweep: ``<folder>/jobs/<name>.json``, beside ``<folder>/logs/<name>.log``.

    A record holds state, settings and digest, seconds spent, and while the job runs its process. The state ``done`` is
    written after the process ended with status 0, by replacing the file, so it is never there by halves.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log(self, job: Job) -> Path:
        """Output of all tries of a job."""
        return self.folder / "logs" / f"{job.name}.log"

    def path(self, job: Job) -> Path:
        """The record's file."""
        return self.folder / "jobs" / f"{job.name}.json"

    def read(self, job: Job) -> dict[str, Any] | None:
        """The record; None where the job never started."""
        try:
            record = json.loads(self.path(job).read_bytes())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError as error:
            raise UserError(f"{self.path(job)} is damaged ({error}): delete it and the job runs again") from error
        return dict(record)

    def write(self, job: Job, state: Written, **more: Any) -> None:
        """Replace the record."""
        path = self.path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {"state": state, "digest": job.digest, "command": " ".join(["visrep", *job.words])}
        write_json_atomic(path, {**head, **more, "settings": job.identity})

    def state(self, job: Job) -> State:
        """What became of the job, as far as the disk tells; see ``current_state`` for other settings than it had."""
        record = self.read(job)
        if record is None:
            return "not started"
        state: Written = record["state"]
        if state == "done":
            return "done" if job.place.proven(job.run_dir) else "not started"  # somebody deleted what it had left
        if state == "running" and self.process(job) is None:
            # It may have come to its end after the sweep that watched it was killed.
            return "done" if job.place.last and job.place.proven(job.run_dir) else "interrupted"
        return state

    def process(self, job: Job) -> psutil.Process | None:
        """The living process that a record of state ``running`` names; a reused process number does not count."""
        record = self.read(job)
        if record is None or record["state"] != "running":
            return None
        try:
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["created"]) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def changes(self, job: Job) -> list[tuple[str, Any, Any]]:
        """(key, recorded, now) of what decides the result, where a started job differs from its record."""
        record = self.read(job)
        return [] if record is None else differing_keys(record["settings"], job.identity)

    def current_state(self, job: Job) -> State:
        """``state``, but "changed" where what is done was done with other settings."""
        state = self.state(job)
        return "changed" if state == "done" and self.changes(job) else state

    def seconds(self, job: Job) -> float:
        """Time that the job's processes have taken so far."""
        return float((self.read(job) or {}).get("seconds", 0.0))

    def move_aside(self, job: Job, folder: Path) -> None:
        """Move what a job left, log and record included, into ``folder``: it runs afresh."""
        left = [(job.run_dir, "run")] if job.place.own else [(it, it.name) for it in job.run_dir.glob(job.place.proof)]
        for path, name in (*left, (self.log(job), "log.txt"), (self.path(job), "record.json")):
            if path.exists():
                target = folder / job.name / name
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
