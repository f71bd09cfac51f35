"""ATC beside the policy on DeepMind Control, shrunk for a CPU: RL end to end, ATC with a detached encoder, both.

    python benchmarks/atc_online/run.py [--jobs 2] [--seeds 1,2,3] [--tasks cartpole_swingup] [--runs-dir DIR]
    python benchmarks/atc_online/run.py --seeds 1 --tasks ball_in_cup_catch --agent-steps 12500

The paper's number of agent steps after the warm-up or fewer, preset=atc_small laid over the task's preset. Leaves
``data/<job>.jsonl`` beside this file for ``figures.py``. Started again it skips finished runs and resumes interrupted
ones; each learner takes one thread, its environment a process of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import Run, run_all

HERE = Path(__file__).parent
QUIET = ["save_video=false", "log_save_tb=false"]
WARM_UP = 2_000
BUDGETS = {"cartpole_swingup": 37_500, "ball_in_cup_catch": 75_000}  # agent steps after the warm-up (Stooke et al.)
ARMS = {"rl": "critic", "atc": "objective", "rl_atc": "both", "random": "none"}


def jobs(seeds: list[int], tasks: list[str], arms: list[str], agent_steps: int | None) -> list[Run]:
    """Every run, seed by seed."""
    return [_one(task, arm, seed, agent_steps or BUDGETS[task]) for seed in seeds for task in tasks for arm in arms]


def _one(task: str, arm: str, seed: int, agent_steps: int) -> Run:
    words = [
        "train", f"preset=atc_{task}+atc_small", f"encoder_gradient={ARMS[arm]}", f"seed={seed}",
        f"num_train_steps={WARM_UP + agent_steps}", *QUIET,
    ]  # fmt: skip
    return Run(f"{task}_{arm}_s{seed}", words, {"group": task, "label": arm, "seed": seed})


def main() -> int:
    """Run the chosen tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="learners at a time")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--tasks", default="cartpole_swingup")
    parser.add_argument("--arms", default="rl,atc,rl_atc")
    parser.add_argument("--agent-steps", type=int, help="after the warm-up; the paper's by default")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/atc_online"))
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    chosen = jobs(seeds, arguments.tasks.split(","), arguments.arms.split(","), arguments.agent_steps)
    return run_all(chosen, arguments.runs_dir, HERE / "data", arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
