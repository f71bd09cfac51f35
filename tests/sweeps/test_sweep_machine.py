"""Cores, memory and time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sweep_tools import AXES, GB, PRETRAIN, stand_in, sweep_file

import visrep.sweeps.scheduler as scheduler_module
from visrep.console import Console
from visrep.sweeps.command import sweep
from visrep.sweeps.display import eta_seconds, share
from visrep.sweeps.jobs import Job, Records
from visrep.sweeps.machine import Machine, used_ram
from visrep.sweeps.scheduler import Scheduler


def overlap(folder: Path) -> int:
    """Largest sum of threads that ran at one time."""
    now = most = 0
    for line in (folder / "notes.txt").read_text().splitlines():
        kind, _, threads = line.split()
        now += int(threads) if kind == "begin" else -int(threads)
        most = max(most, now)
    return most


@pytest.mark.parametrize(("threads", "most"), [(1, 2), (2, 2)])
def test_cores_are_not_exceeded(tmp_path: Path, threads: int, most: int) -> None:
    resources = f"    resources: {{threads: {threads}, memory_gb: 0.01}}\n"
    file = sweep_file(tmp_path, f"{AXES}stages:\n{PRETRAIN}{resources}")
    assert sweep(file, command=stand_in(tmp_path, seconds=0.2)) == 0
    assert overlap(tmp_path) == most


def test_memory_is_not_exceeded(tmp_path: Path) -> None:
    resources = "    resources: {memory_gb: 0.3}\n"
    text = f"{AXES}stages:\n{PRETRAIN}{resources}".replace("stages", "stages")
    path = Path(sweep_file(tmp_path, text))
    path.write_text(path.read_text().replace("{cores: 2}", "{cores: 2, memory_gb: 0.5}"))
    assert sweep(str(path), command=stand_in(tmp_path, seconds=0.2)) == 0
    assert overlap(tmp_path) == 1


def job(name: str, memory: float = 1.0, threads: int = 1, stage: str = "s", **more: Any) -> Job:
    return Job(name, stage, ("train",), Path(name), {}, memory=round(memory * GB), threads=threads, **more)


def test_room_counts_what_running_jobs_may_still_take() -> None:
    used = {1: round(0.5 * GB), 2: 3 * GB}
    machine = Machine(4, available=lambda: 2 * GB, used=used.__getitem__)
    room = machine.room([(job("a", 1.0), 1), (job("b", 1.0), 2)])
    assert (room.threads, room.memory) == (2, round(1.5 * GB)), "0.5 of a is to come, b has more than its share"
    assert room.fits(job("c", 1.5)) and not room.fits(job("c", 1.6)) and not room.fits(job("c", 1, threads=3))
    assert not room.without(job("c", 1.0)).fits(job("d", 1.0))
    limited = Machine(4, memory=round(2.5 * GB), available=lambda: 20 * GB, used=used.__getitem__)
    assert limited.room([(job("a"), 1), (job("b"), 2)]).memory == round(0.5 * GB)
    assert used_ram(os.getpid()) > 1e7
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert used_ram(ended.pid) == 0


def test_it_waits_for_memory_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looks = iter([GB // 2, GB // 2, *[2 * GB] * 1000])
    machine = Machine(2, available=lambda: next(looks), used=lambda pid: 0)
    alone = Job("x/a", "x", ("train",), tmp_path / "x/a", {})
    scheduler = Scheduler([alone], Records(tmp_path), machine, Console(), command=stand_in(tmp_path))
    assert scheduler.run() == 0
    assert "waiting for memory: 500.0 MB are free, x/a needs 1.0 GB" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["wait", "stubborn"])
def test_a_job_that_takes_too_long_is_stopped(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "GRACE_SECONDS", 0.3)
    late = Job("x/a", "x", ("train",), tmp_path / "x/a", {}, timeout=1.0)
    scheduler = Scheduler(
        [late], Records(tmp_path), Machine(2), Console(), retries=0, command=stand_in(tmp_path, {"x/a": what})
    )  # fmt: skip
    began = time.monotonic()
    assert scheduler.run() == 1
    assert time.monotonic() - began < 20
    assert (tmp_path / "x/a/checkpoint").exists() == (what == "wait")
    assert "x/a: stopped after 1s, its limit" in capsys.readouterr().out


def test_niceness(tmp_path: Path) -> None:
    nice = Job("x/a", "x", ("train",), tmp_path / "x/a", {})
    command = [sys.executable, "-c", "import os, time; time.sleep(0.5); print(os.nice(0))"]
    Scheduler([nice], Records(tmp_path), Machine(1), Console(quiet=True), nice=3, command=lambda _: command).run()
    assert (tmp_path / "logs/x/a.log").read_text().splitlines()[-1] == str(os.nice(0) + 3)


def test_progress_and_time_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("pretrain: 200/1,000 (20 %)\npretrain: 400/1,000 (40 %)  3 agent steps/s\n")
    assert share(log) == 0.4 and share(tmp_path / "none") is None and share(log, start=log.stat().st_size) is None
    done, running, waiting = job("a", stage="p"), job("b", stage="p"), job("c", stage="p", after={})
    states = [(done, "done", 10.0), (running, "running", 0.0), (waiting, "waiting", 2.0)]
    assert eta_seconds(states, {"b": 4.0}, cores=1) == (14.0, True)
    assert eta_seconds(states, {"b": 4.0}, cores=2) == (8.0, True), "no shorter than the longest job"
    assert eta_seconds([*states, (job("d", stage="f"), "waiting", 0.0)], {"b": 4.0}, 1) == (14.0, False)
