"""The toy evidence: what exploration covers without reward, and what learning the task on top of it gains.

    python benchmarks/toy_maze/run.py [--jobs 4] [--seeds 5] [--only coverage|downstream|search] [--runs-dir DIR]

Leaves ``data/<job>.jsonl`` beside this file for ``figures.py``. Started again it skips finished runs and resumes
interrupted ones; each job takes one thread.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import Run, run_all

HERE = Path(__file__).parent
METHODS = ("proto", "apt", "rnd", "icm", "disagreement", "random")
EXPLORATION_STEPS = 60_000
TASK_STEPS = 30_000
SEARCH_STEPS = 60_000
SEARCH_SEEDS = 1
QUIET = ["save_video=false", "log_save_tb=false"]
TASK = [
    f"num_train_steps={TASK_STEPS}", "updates_per_agent_step=0.125", "critic_target_tau=0.05",
    "eval_frequency=2000", "num_eval_episodes=10", *QUIET,
]  # fmt: skip

# Task phases on the exploration run; everything else is inherited from it.
ON_PRETRAINED = {
    "pretrained_frozen": ["num_random_steps=0", "keep=actor,critic,alpha", "intr_coef=1", "n_step=3"],
    "pretrained_nobonus": ["num_random_steps=0", "keep=actor,critic,alpha", "intr_coef=0", "n_step=3"],
    "pretrained_fresh_critic": ["num_random_steps=0", "keep=actor", "intr_coef=1", "n_step=3"],  # as the reference
}
# Task phases from nothing, with the preset's sizes.
FROM_NOTHING = {
    "random_encoder_frozen": ["method=none", "encoder_gradient=none", "transfer=scratch", "keep=none", "n_step=3"],
    "drqv2_scratch": [
        "method=none", "policy=drqv2", "encoder_gradient=critic", "transfer=scratch", "keep=none",
        "encoder_offset=0.5", "shift_pad=1", "std_schedule=linear(1.0,0.1,15000)", "n_step=3",
    ],
}  # fmt: skip

# One change each to the preset's pre-training: what was tried, whether it helped or not.
SEARCH = {
    "preset": [],
    "targets at T (0.1)": ["sinkhorn_temperature=none"],
    "shift 1 pixel": ["shift_pad=1"],
    "shift 4 pixels": ["shift_pad=4"],
    "targets at T, shift 4": ["sinkhorn_temperature=none", "shift_pad=4"],
    "init_temperature 0.1": ["init_temperature=0.1"],
    "reward / mean": ["intr_reward_norm=mean"],
    "twice the updates": ["updates_per_agent_step=0.125"],
    "one environment": ["num_envs=1"],
    "nearest neighbour 1": ["topk=1"],
    "candidates at temperature 0.1": ["candidate_temperature=0.1"],
    "queue 8192": ["queue_size=8192"],
    "store of 20,000": ["replay_buffer_capacity=20000"],
    "target critic 0.05": ["critic_target_tau=0.05"],
}


def jobs(seeds: int, groups: list[str]) -> list[Run]:
    """Every run of the groups; downstream brings the exploration runs that it starts from."""
    chosen: list[Run] = []
    for seed in range(1, seeds + 1):
        if "coverage" in groups or "downstream" in groups:
            methods = METHODS if "coverage" in groups else METHODS[:1]
            chosen += [_coverage(method, seed) for method in methods]
        if "downstream" in groups:
            chosen += [_task(arm, seed, words, ["finetune", f"encoder={{runs}}/coverage_proto_s{seed}"], True)
                       for arm, words in ON_PRETRAINED.items()]  # fmt: skip
            chosen += [_task(arm, seed, words, ["finetune", "preset=toy_maze"], False)
                       for arm, words in FROM_NOTHING.items()]  # fmt: skip
    if "search" in groups:
        chosen += [_search(name, seed) for seed in range(1, SEARCH_SEEDS + 1) for name in SEARCH]
    return chosen


def _coverage(method: str, seed: int) -> Run:
    words = ["pretrain", "preset=toy_maze", f"method={method}", f"num_expl_steps={EXPLORATION_STEPS}", f"seed={seed}"]
    tags = {"group": "coverage", "label": method, "seed": seed}
    return Run(f"coverage_{method}_s{seed}", [*words, "num_eval_episodes=0", *QUIET], tags)


def _task(arm: str, seed: int, words: list[str], start: list[str], pretrained: bool) -> Run:
    return Run(
        f"task_{arm}_s{seed}",
        [*start, "env=toy/maze_center", f"seed={seed}", *words, *TASK],
        {"group": "downstream", "label": arm, "seed": seed},
        after=f"coverage_proto_s{seed}" if pretrained else None,
    )


def _search(name: str, seed: int) -> Run:
    words = ["pretrain", "preset=toy_maze", "method=proto", f"num_expl_steps={SEARCH_STEPS}", f"seed={seed}"]
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    tags = {"group": "search", "label": name, "seed": seed, "changes": SEARCH[name]}
    return Run(f"search_{slug}_s{seed}", [*words, *SEARCH[name], "num_eval_episodes=0", *QUIET], tags)


def main() -> int:
    """Run the chosen groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=4, help="runs at a time, one thread each")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=("coverage", "downstream", "search"), help="one group; all without it")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/toy_maze"))
    arguments = parser.parse_args()
    groups = [arguments.only] if arguments.only else ["coverage", "downstream", "search"]
    return run_all(jobs(arguments.seeds, groups), arguments.runs_dir, HERE / "data", arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
