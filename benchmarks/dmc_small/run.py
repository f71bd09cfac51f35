"""DeepMind Control on a CPU with preset=proto_dmc_small: reward-free coverage, then the task against from scratch.

    python benchmarks/dmc_small/run.py [--jobs 2] [--seeds 1] [--tasks ball_in_cup_catch,cheetah_run] [--runs-dir DIR]

Leaves ``data/<job>.jsonl`` beside this file for ``figures.py``. Started again it skips finished runs and resumes
interrupted ones; each learner takes one thread, its four environments a process each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import Run, run_all

HERE = Path(__file__).parent
PHASE_STEPS = 20_000
QUIET = ["save_video=false", "log_save_tb=false"]
FROM_SCRATCH = [
    "method=none", "policy=drqv2", "encoder_gradient=critic", "transfer=scratch", "keep=none", "encoder_offset=0.5",
    "n_step=3", "std_schedule=linear(1.0,0.1,20000)",
]  # fmt: skip
# The reference's tied temperature at this preset's size, coverage only: a negative result that the preset avoids.
TIED = ["method=proto", "sinkhorn_temperature=none", "num_eval_episodes=0"]


def jobs(seeds: int, tasks: list[str]) -> list[Run]:
    """Every run, seed by seed."""
    return [job for seed in range(1, seeds + 1) for task in tasks for job in _one(task, seed)]


def _one(task: str, seed: int) -> list[Run]:
    preset = ["preset=proto_dmc_small", f"env={task}", f"seed={seed}", *QUIET]
    both = ["train", *preset, f"num_expl_steps={PHASE_STEPS}", f"num_train_steps={2 * PHASE_STEPS}"]
    explore = ["pretrain", *preset, f"num_expl_steps={PHASE_STEPS}"]
    plan = {
        "proto": both,
        "drqv2_scratch": ["finetune", *preset, f"num_train_steps={PHASE_STEPS}", *FROM_SCRATCH],
        "random": [*explore, "method=random", "num_eval_episodes=0"],
        "proto_tied_temperature": [*explore, *TIED],
    }
    return [
        Run(f"{task}_{label}_s{seed}", words, {"group": task, "label": label, "seed": seed})
        for label, words in plan.items()
    ]


def main() -> int:
    """Run the chosen tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="learners at a time")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tasks", default="ball_in_cup_catch,cheetah_run")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/dmc_small"))
    arguments = parser.parse_args()
    chosen = jobs(arguments.seeds, arguments.tasks.split(","))
    return run_all(chosen, arguments.runs_dir, HERE / "data", arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
