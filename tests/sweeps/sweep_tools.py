"""Sweeps with stand-ins for runs."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visrep.sweeps.command import sweep
from visrep.sweeps.jobs import Job
from visrep.sweeps.plan import plan
from visrep.sweeps.spec import read_sweep

GB = 10**9

# A run in place of visrep. Notes begin and end; what it does depends on its seed, see the tests.
STAND_IN = """
import json, os, pathlib, signal, sys, time
folder, notes = map(pathlib.Path, sys.argv[1:3])
name, command, what, seconds, score = sys.argv[3:8]
folder.mkdir(parents=True, exist_ok=True)
def note(text):
    with open(notes, "a") as file:
        file.write(f"{text} {name} {os.environ['OMP_NUM_THREADS']}\\n")
note("begin")
if what == "fail" or (what == "fail_once" and not (folder / "tried").exists()):
    (folder / "tried").touch()
    print("it broke here", file=sys.stderr)
    sys.exit(3)
if what == "refuse":
    print("key seed: not a number", file=sys.stderr)
    sys.exit(2)
if what == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "wait" and not (folder / "checkpoint").exists():
    def stop(number, frame):
        (folder / "checkpoint").touch()
        sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    (folder / "ready").touch()
    time.sleep(60)
if what == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(60)
time.sleep(float(seconds))
rows = [{"kind": "eval", "agent_step": s, "env_frames": s, "seconds": 1.0, "episode_reward": float(score) + s}
        for s in range(4)]
(folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
numbers = {"r2": {"ridge": [0.25, 0.5]}, "name": "x", "bad": float("nan"), "score": float(score)}
proofs = {"collect": "dataset.json", "probe": "probe.json", "evaluate": "evaluation.json"}
left = proofs.get(command, "model/a.safetensors")
signal.signal(signal.SIGINT, signal.SIG_IGN)  # a signal from here on comes too late to change how it ends
(folder / left).parent.mkdir(exist_ok=True)
for file in ("numbers.json", left):
    (folder / file).write_text(json.dumps(numbers))
note("end")
"""

AXES = "axes:\n  objective: [proto, rnd]\n  seed: [1, 2]\n"
PRETRAIN = "  - name: pretrain\n    command: pretrain\n    set: {method: '${objective}', seed: '${seed}'}\n"
FINETUNE = "  - name: finetune\n    command: finetune\n    set: {encoder: '${run:pretrain}', seed: '${seed}'}\n"
STAGES = f"stages:\n{PRETRAIN}{FINETUNE}"
CHAIN = """
axes:
  objective: [proto, rnd]
  seed: [1]
stages:
  - {name: collect, command: collect, set: {env: toy/maze_center, episodes: 5, seed: 7}}
  - {name: pretrain, command: pretrain, set: {data: '${run:collect}', method: '${objective}', seed: '${seed}'}}
  - {name: probe, command: probe, set: {encoder: '${run:pretrain}', data: '${run:collect}'}}
  - {name: finetune, command: finetune, set: {encoder: '${run:pretrain}', transfer: frozen, seed: '${seed}'}}
  - {name: test, command: evaluate, set: {run: '${run:finetune}', episodes: 20, video: '${run:finetune}/best.mp4'}}
"""


def sweep_file(folder: Path, text: str = AXES + STAGES, name: str = "toy") -> str:
    path = folder / "sweep.yaml"
    path.write_text(f"name: {name}\nout: {folder / 'out'}\nlimits: {{cores: 2}}\n{text}")
    return str(path)


def stand_in(folder: Path, what: dict[str, str] | None = None, seconds: float = 0.0) -> Callable[[Job], list[str]]:
    """Processes for jobs; ``what`` says by name what they do other than work."""

    def command(job: Job) -> list[str]:
        score = {"proto": 10, "rnd": 20}.get(job.values.get("objective", ""), 0) + int(job.values.get("seed", 0))
        doing = (what or {}).get(job.name, "work")
        arguments = [job.run_dir, folder / "notes.txt", job.name, job.words[0], doing, seconds, score]
        return [sys.executable, "-c", STAND_IN, *map(str, arguments)]

    return command


def notes(folder: Path, kind: str = "begin") -> list[str]:
    path = folder / "notes.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1] for line in lines if line.startswith(kind)]


def run(folder: Path, text: str = AXES + STAGES, what: dict[str, str] | None = None, **keys: Any) -> int:
    return sweep(sweep_file(folder, text), command=stand_in(folder, what), **keys)


def jobs_of(folder: Path, text: str = AXES + STAGES) -> dict[str, Job]:
    return {job.name: job for job in plan(read_sweep(Path(sweep_file(folder, text))))}


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))
