"""The benchmarks' harness with stand-ins for runs: order, retries, resuming, interruption, and the records it keeps."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from harness import Harness, Job
from records import ROWS_PER_KIND, read_records, thin_rows, write_record

# A run in place of visrep: notes its start, then does what its first word says; leaves the files of a run.
STAND_IN = """
import json, pathlib, signal, sys, time
what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
with open(folder.parent / "starts.txt", "a") as file:
    file.write(folder.name + "\\n")
if what == "fail" or (what == "fail_once" and not (folder / "tried").exists()):
    (folder / "tried").touch()
    sys.exit("it broke here")
if what == "wait" and not (folder / "checkpoint").exists():
    def stop(number, frame):
        (folder / "checkpoint").touch()
        sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    (folder / "ready").touch()
    time.sleep(60)
(folder / "config.yaml").write_text("seed: 3\\nrun_dir: " + str(folder) + "\\nencoder: " + str(folder) + "\\n")
(folder / "provenance.json").write_text(json.dumps({"versions": {"torch": "2"}, "device": "cpu", "environment": {}}))
row = {"kind": "eval", "agent_step": 10, "env_frames": 10, "seconds": 1.0, "success": 0.5}
(folder / "metrics.jsonl").write_text(json.dumps(row) + "\\n")
"""


class StandInHarness(Harness):
    def command(self, job: Job) -> list[str]:
        return [sys.executable, "-c", STAND_IN, job.words[0], str(self.runs_dir / job.name)]


def harness(folder: Path, *jobs: Job, parallel: int = 2) -> StandInHarness:
    return StandInHarness(jobs, folder / "runs", folder / "data", parallel)


def starts(folder: Path) -> list[str]:
    return (folder / "runs" / "starts.txt").read_text().split()


def test_a_job_waits_for_the_one_it_starts_from_and_finished_ones_are_skipped(tmp_path):
    def jobs(word="work"):
        return Job("second", ["work"], 10, after="first"), Job("first", [word], 10, {"group": "g"})

    assert harness(tmp_path, *jobs()).run() == 0
    assert starts(tmp_path) == ["first", "second"]
    assert harness(tmp_path, *jobs()).run() == 0
    assert starts(tmp_path) == ["first", "second"]
    head = read_records(tmp_path / "data")[0][0]
    assert (head["kind"], head["job"], head["group"], head["command"]) == ("run", "first", "g", "visrep work")
    # Another command for the first makes both stale.
    assert harness(tmp_path, *jobs("work_otherwise")).run() == 0
    assert starts(tmp_path) == ["first", "second"] * 2


def test_a_preset_is_part_of_what_was_run(tmp_path, monkeypatch):
    job = Job("a", ["work", "preset=one+two"], 10)
    monkeypatch.setattr("harness.PRESET_FOLDER", tmp_path)
    prints = []
    for text in ("lr: 1", "lr: 2"):
        (tmp_path / "one.yaml").write_text("seed: 1")
        (tmp_path / "two.yaml").write_text(text)
        prints.append(harness(tmp_path, job).fingerprint(job))
    assert prints[0] != prints[1]


def test_a_failed_job_is_tried_once_more_and_takes_only_its_dependants_with_it(tmp_path, capsys):
    jobs = (
        Job("flaky", ["fail_once"], 10),
        Job("broken", ["fail"], 10),
        Job("child", ["work"], 10, after="broken"),
        Job("fine", ["work"], 10),
    )
    assert harness(tmp_path, *jobs).run() == 1
    assert {job.name: job.state for job in jobs} == {
        "flaky": "done", "broken": "failed", "child": "failed", "fine": "done"
    }  # fmt: skip
    assert sorted(starts(tmp_path)) == ["broken", "broken", "fine", "flaky", "flaky"]
    printed = capsys.readouterr().out
    assert "it broke here" in printed and "it needs broken" in printed
    assert not (tmp_path / "data" / "broken.jsonl").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_harness_lets_its_jobs_checkpoint_and_continues_later(tmp_path, number):
    def interrupt():
        ready = tmp_path / "runs" / "a" / "ready"
        while not ready.exists():
            stopped.wait(0.05)
        signal.raise_signal(number)

    stopped = threading.Event()
    threading.Thread(target=interrupt, daemon=True).start()
    assert harness(tmp_path, Job("a", ["wait"], 10), Job("b", ["work"], 10, after="a")).run() == 130
    assert (tmp_path / "runs" / "a" / "checkpoint").exists()
    assert harness(tmp_path, Job("a", ["wait"], 10), Job("b", ["work"], 10, after="a")).run() == 0
    assert starts(tmp_path) == ["a", "a", "b"]


def test_the_table_counts_steps_from_the_log(tmp_path):
    job = Job("a", ["work"], 1000)
    it = harness(tmp_path, job)
    it.runs_dir.mkdir()
    (it.runs_dir / "a.log").write_text("pretrain: 200/1,000 (20 %)\npretrain: 400/1,000 (40 %)  3 agent steps/s\n")
    job.state = "running"
    assert "400/1,000" in it.table() and "0 done, 1 running, 0 waiting, 0 failed" in it.table()


def run_directory(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(f"seed: 3\nrun_dir: {folder}\nencoder: {folder}\n")
    provenance = {"versions": {"torch": "2"}, "device": "cpu", "environment": {"renderer": "numpy"}, "config": {}}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "figures").mkdir()
    (folder / "figures" / "arena.json").write_text(json.dumps({"visits": [1, 2]}))
    return folder


def test_a_record_is_small_complete_and_names_no_place(tmp_path):
    episodes = [{"kind": "train", "agent_step": i, "episode_reward": float(i % 2)} for i in range(1000)]
    metrics = [{"kind": "metrics", "agent_step": i, "cells": float(i), "ram_bytes": 1.0} for i in range(500)]
    broken = {"kind": "metrics", "agent_step": 500, "cells": None, "nonfinite": ["cells"], "third": 1 / 3}
    run = run_directory(tmp_path / "run", [*episodes, *metrics, broken])
    write_record({"job": "a", "seed": 3}, run, tmp_path / "data" / "a.jsonl")
    text = (tmp_path / "data" / "a.jsonl").read_text()
    assert str(tmp_path) not in text and "ram_bytes" not in text
    (head, *rows) = read_records(tmp_path / "data")[0]
    assert head["config"] == {"seed": 3} and head["versions"] == {"torch": "2"}
    train = [row for row in rows if row["kind"] == "train"]
    assert len(train) == ROWS_PER_KIND and train[-1]["agent_step"] > 990
    assert sum(row["episode_reward"] for row in train) / len(train) == pytest.approx(0.5, abs=0.02)  # means, not picks
    last = [row for row in rows if row["kind"] == "metrics"][-1]
    assert last == {"kind": "metrics", "agent_step": 500, "cells": None, "third": 0.333333}
    assert rows[-1] == {"kind": "figure", "name": "arena", "visits": [1, 2]}


def test_few_rows_are_kept_as_they_are():
    rows = [{"kind": "eval", "agent_step": i, "success": 0.1 * i} for i in range(ROWS_PER_KIND)]
    assert thin_rows(rows, mean=False) == rows
    assert thin_rows([], mean=True) == []
