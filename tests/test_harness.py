"""The benchmarks' harness with stand-ins for runs: order, skipping, resuming, and the records it keeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import visrep.sweeps.scheduler as scheduler
from harness import Run, run_all
from records import ROWS_PER_KIND, read_records, thin_rows, write_record
from visrep.errors import UserError
from visrep.sweeps.jobs import Job

# A run in place of visrep: notes its start, fails where it is told to, leaves the files of a run.
STAND_IN = """
import json, pathlib, sys
what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
with open(folder.parent / "starts.txt", "a") as file:
    file.write(folder.name + "\\n")
if what == "pretrain":
    sys.exit("it broke here")
(folder / "config.yaml").write_text("seed: 3\\nrun_dir: " + str(folder) + "\\nencoder: " + str(folder) + "\\n")
(folder / "provenance.json").write_text(json.dumps({"versions": {"torch": "2"}, "device": "cpu", "environment": {}}))
row = {"kind": "eval", "agent_step": 10, "env_frames": 10, "seconds": 1.0, "success": 0.5}
(folder / "metrics.jsonl").write_text(json.dumps(row) + "\\n")
(folder / "model").mkdir(exist_ok=True)
(folder / "model" / "encoder.safetensors").touch()
"""


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.02)


def stand_in(job: Job) -> list[str]:
    return [sys.executable, "-c", STAND_IN, job.words[0], str(job.run_dir)]


def run(folder: Path, *runs: Run) -> int:
    return run_all(runs, folder / "runs", folder / "data", 2, command=stand_in)


def starts(folder: Path) -> list[str]:
    return (folder / "runs" / "starts.txt").read_text().split()


def test_a_run_waits_for_the_one_it_starts_from_and_finished_ones_are_skipped(tmp_path):
    def runs(*more):
        second = Run("second", ["finetune", "encoder={runs}/first"], after="first")
        return second, Run("first", ["train", *more], {"group": "g"})

    assert run(tmp_path, *runs()) == 0
    assert starts(tmp_path) == ["first", "second"]
    assert run(tmp_path, *runs()) == 0
    assert starts(tmp_path) == ["first", "second"]
    first, second = (rows[0] for rows in read_records(tmp_path / "data"))
    assert (first["kind"], first["job"], first["group"], first["command"]) == ("run", "first", "g", "visrep train")
    assert second["command"] == "visrep finetune encoder=runs/first"
    # Another command for the first makes both stale.
    with pytest.raises(UserError, match=r"(?s)2 jobs were started with other settings.*lr: '<absent>' then, 1 now"):
        run(tmp_path, *runs("lr=1"))


def test_a_record_is_made_even_if_the_run_was_finished_before(tmp_path):
    assert run(tmp_path, Run("a", ["train"])) == 0
    (tmp_path / "data" / "a.jsonl").unlink()
    assert run(tmp_path, Run("a", ["train"])) == 0
    assert starts(tmp_path) == ["a"] and (tmp_path / "data" / "a.jsonl").exists()


def test_a_failed_run_leaves_no_record(tmp_path, capsys):
    assert run(tmp_path, Run("broken", ["pretrain"]), Run("fine", ["train"])) == 1
    assert "it broke here" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["fine.jsonl"]


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
