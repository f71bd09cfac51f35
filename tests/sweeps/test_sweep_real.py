"""The real commands, killed and continued."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from sweep_tools import read_csv, sweep_file

import visrep.sweeps.processes as processes
from visrep.cli import main
from visrep.sweeps.jobs import Job, Records
from visrep.sweeps.plan import plan
from visrep.sweeps.spec import read_sweep

EXAMPLE = Path(__file__).parents[2] / "examples" / "sweep_demonstrations.yaml"

REAL = """
axes:
  objective: [proto, random]
  seed: [1]
stages:
  - name: pretrain
    command: pretrain
    set: {preset: toy_maze+tiny, num_envs: 2, method: '${objective}', seed: '${seed}', num_expl_steps: %d,
          updates_per_agent_step: 0.25, num_eval_episodes: 0, checkpoint_frequency: 50, log_frequency_step: 50,
          log_save_tb: false}
  - name: finetune
    command: finetune
    set: {preset: toy_maze+tiny, num_envs: 2, encoder: '${run:pretrain}', seed: '${seed}', num_train_steps: 120,
          num_random_steps: 32, num_seed_steps: 32, eval_frequency: 60, keep: none, intr_coef: 0, log_save_tb: false,
          save_video: false}
tables:
  return: {stage: finetune, metric: eval.episode_reward, take: mean_last_3}
"""


def start_sweep(file: str, log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "visrep.cli", "sweep", f"file={file}"], stdout=output, stderr=output
        )  # fmt: skip


def wait_for(check: Callable[[], Any], seconds: float = 90.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


@pytest.mark.slow
def test_real_runs_killed_with_their_sweep_end_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 30.0)
    file = sweep_file(tmp_path, REAL % 1500)
    jobs = {job.name: job for job in plan(read_sweep(Path(file)))}
    records, log = Records(tmp_path / "out"), tmp_path / "log"
    first = jobs["pretrain/objective=proto_seed=1"]

    def under_way(it: Job) -> psutil.Process | None:
        checkpointed = any((it.run_dir / "state").glob("0*/state.pt"))
        return records.process(it) if checkpointed else None

    began = start_sweep(file, log)
    try:
        process = wait_for(lambda: under_way(first))
        process.kill()
        wait_for(lambda: "started again: pretrain/objective=proto_seed=1" in log.read_text())
        wait_for(lambda: "resumed pretrain" in records.log(first).read_text())
        left = [process for it in jobs.values() if (process := records.process(it)) is not None]
        assert left
    finally:
        began.kill()
        began.wait()
    assert any(process.is_running() for process in left), "the jobs of a killed sweep live on"

    assert main(["sweep", f"file={file}"]) == 0
    said = capsys.readouterr().out
    assert "jobs that an earlier sweep left running" in said and "4 of 4 jobs are done" in said
    assert not any(process.is_running() for process in left)
    lines = read_csv(tmp_path / "out/runs.csv")
    assert len(lines) == 4 and {line["state"] for line in lines} == {"done"}
    assert all(line["return"] for line in lines if line["stage"] == "finetune")
    assert [row["value_n"] for row in read_csv(tmp_path / "out/table_return.csv")] == ["1", "1"]
    for it in jobs.values():
        assert any((it.run_dir / "model").iterdir())
        assert records.read(it)["digest"] == it.digest  # type: ignore[index]

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*/metrics.jsonl")}
    assert main(["sweep", f"file={file}"]) == 0
    assert "started" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.slow
def test_the_example_with_every_command_ends_in_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load(EXAMPLE.read_text())
    values |= {"out": str(tmp_path / "out"), "axes": {"objective": ["atc"], "seed": [1]}}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(values))
    assert main(["sweep", f"file={file}"]) == 0, capsys.readouterr().out
    (position,) = read_csv(tmp_path / "out/table_position.csv")
    (returned,) = read_csv(tmp_path / "out/table_return.csv")
    report = json.loads((tmp_path / "out/probe/objective=atc_seed=1/probe.json").read_text())
    assert float(position["value"]) == report["codes"][0]["probes"]["state"]["mean"]["point"]
    episodes = json.loads((tmp_path / "out/finetune/objective=atc_seed=1/evaluation.json").read_text())["returns"]
    assert len(episodes) == 10 and float(returned["value"]) == np.mean(episodes)
    capsys.readouterr()
    assert main(["sweep", f"file={file}"]) == 0
    assert "started" not in capsys.readouterr().out


def test_a_real_run_that_is_refused_is_reported_with_its_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "axes: {seed: [1]}\nstages:\n  - name: train\n    command: train\n    set: "
    text += "{preset: toy_maze+tiny, seed: '${seed}', env: 'json:no_such_arena'}\n"
    assert main(["sweep", f"file={sweep_file(tmp_path, text)}"]) == 1
    said = capsys.readouterr().out
    assert "train/seed=1: it was refused" in said and "no_such_arena" in said and "Traceback" not in said
    assert json.loads((tmp_path / "out/jobs/train/seed=1.json").read_text())["state"] == "failed"
