"""Minutes of an offline ATC pre-training, and where they go: sampling, augmentation, update.

    python benchmarks/offline_atc/run.py --updates 10000 [--threads 4] [--write]

Fills a store of 50,000 agent steps with toy/maze frames (random actions), then makes updates as
``visrep pretrain data=<store> method=atc`` does: mixed sampler, augmentation, the representation's step, with ATC's
settings for DeepMind Control (batch 256, 84x84, three frames, encoder atc). The three parts are timed apart. Fewer
updates than 10,000 are scaled up, and said to be. ``share of data loading`` is that of sampling; the bar is 10 %.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from visrep.allocator import keep_freed_memory
from visrep.augment import parse_augmentation
from visrep.data.actions import ActionSpec
from visrep.data.mixture import MixedSampler
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.encoders import InputContract, build_encoder
from visrep.envs.make import make_env
from visrep.objectives.atc import ATCConfig, ATCObjective
from visrep.pace import LearningRate
from visrep.runs.representation import Representation, make_representation
from visrep.runs.update import augmented

ENV, IMAGE_SIZE, STACK, STEPS, BATCH = "toy/maze", 84, 3, 50_000, 256
PLANNED = 10_000  # updates of the pre-training that is asked about
LR, WARM_UP, CLIP = 1e-3, 1_000, 10.0
SHARE_BAR = 0.10
PARTS = ("sampling", "augmentation", "update")
UNTIMED, PROFILED = 5, 20  # updates before, and updates under the profiler after
OPERATORS = 12  # in the profile


def filled_store() -> FrameStore:
    """STEPS transitions of random actions; one episode after the other."""
    env, rng = make_env(ENV, image_size=IMAGE_SIZE, seed=0), np.random.default_rng(0)
    assert env.action_space.shape is not None
    actions = ActionSpec(env.action_space.shape[0])
    store = FrameStore(StoreSpec((3, IMAGE_SIZE, IMAGE_SIZE), actions), STEPS + STEPS // 100)
    steps, first = 0, True
    while steps < STEPS:
        action, reward, last = np.zeros(actions.dim, np.float32), 0.0, False
        if first:
            frame = env.reset()[0]
        else:
            action = rng.uniform(-1, 1, actions.dim).astype(np.float32)
            frame, reward, _, last, _ = env.step(action)
            steps += 1
        store.add([0], frame.transpose(2, 0, 1)[None], action[None], [float(reward)], [first], [False], [last])
        first = last
    return store


def representation(precision: str) -> Representation:
    encoder = build_encoder("atc", InputContract(IMAGE_SIZE, IMAGE_SIZE, stack=STACK), init="kaiming")
    objective = ATCObjective(encoder, ActionSpec(1), ATCConfig(atc_init="kaiming"))
    rate = LearningRate(LR, WARM_UP, "cosine", lambda: PLANNED)
    made = make_representation(objective, rate, True, 0, CLIP, precision)  # type: ignore[arg-type]
    assert made is not None, "the objective has parameters"
    return made


def measure(store: FrameStore, precision: str, updates: int) -> dict[str, Any]:
    """Seconds of every part, summed over the updates, and the operators that take the time."""
    torch.manual_seed(0)
    learned = representation(precision)
    needs = learned.objective.needs()
    sampler = MixedSampler(
        [Sampler(store, needs, BATCH, STACK, generator=np.random.default_rng(1))],
        [1.0],
        [ENV],
        np.random.default_rng(0),
    )
    shift, generator = parse_augmentation("shift(4)", 3), torch.Generator().manual_seed(0)
    losses: list[torch.Tensor] = []

    def one(seconds: dict[str, float]) -> None:
        began = time.perf_counter()
        batch = sampler.sample()
        sampled = time.perf_counter()
        batch = augmented(batch, shift, generator, needs.views)
        ready = time.perf_counter()
        losses.append(learned.step(batch)["repr_loss"])
        for part, taken in zip(PARTS, (sampled - began, ready - sampled, time.perf_counter() - ready), strict=True):
            seconds[part] += taken

    for _ in range(UNTIMED):
        one(dict.fromkeys(PARTS, 0.0))
    seconds = dict.fromkeys(PARTS, 0.0)
    for _ in range(updates):
        one(seconds)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(PROFILED):
            one(dict.fromkeys(PARTS, 0.0))
    total = sum(seconds.values())
    return {
        "updates": updates,
        "seconds": seconds,
        "minutes_per_10000_updates": total / updates * PLANNED / 60,
        "share_of_data_loading": seconds["sampling"] / total,
        "first_loss": float(losses[UNTIMED]),
        "last_loss": float(losses[UNTIMED + updates - 1]),
        "operators": operators(recorded),
    }


def operators(recorded: profile) -> dict[str, float]:
    """Milliseconds per update that an operator spends itself, the longest first."""
    found = {event.key: event.self_cpu_time_total / 1e3 / PROFILED for event in recorded.key_averages()}
    return dict(sorted(found.items(), key=lambda item: -item[1])[:OPERATORS])


def text(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| precision | updates | sampling ms | augmentation ms | update ms | share of data loading | 10,000 updates |",
        "|---|---|---|---|---|---|---|",
    ]
    for precision, result in results.items():
        each = [f"{1e3 * result['seconds'][part] / result['updates']:.2f}" for part in PARTS]
        share = f"{100 * result['share_of_data_loading']:.1f} % (bar {100 * SHARE_BAR:.0f} %)"
        scaled = "" if result["updates"] == PLANNED else " (scaled up)"
        minutes = f"{result['minutes_per_10000_updates']:.1f} min{scaled}"
        lines.append("| " + " | ".join([precision, f"{result['updates']:,}", *each, share, minutes]) + " |")
    for precision, result in results.items():
        rows = [f"| {name} | {milliseconds:.2f} |" for name, milliseconds in result["operators"].items()]
        lines += ["", f"Where an update's time goes, {precision}:", "", "| operator | ms |", "|---|---|", *rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="only this one")
    parser.add_argument("--write", action="store_true", help="write results.json and results.md beside this file")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    store = filled_store()
    chosen = [args.precision] if args.precision else ["fp32", "bf16"]
    results = {precision: measure(store, precision, args.updates) for precision in chosen}
    print(text(results))
    if args.write:
        write(args, store, results)


def write(args: argparse.Namespace, store: FrameStore, results: dict[str, Any]) -> None:
    """Figures and the command that made them."""
    only = f" --precision {args.precision}" if args.precision else ""
    flags = f"--updates {args.updates} --threads {args.threads}{only}"
    setup = {
        "command": f"python benchmarks/offline_atc/run.py {flags} --write",
        "threads": args.threads,
        "store": f"{store.transitions:,} transitions of {ENV}",
        "batch_size": BATCH,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    folder = Path(__file__).parent
    (folder / "results.json").write_text(json.dumps({"setup": setup, "results": results}, indent=2) + "\n")
    facts = "; ".join(f"{key} {value}" for key, value in setup.items() if key != "command")
    (folder / "results.md").write_text("\n".join([text(results), "", f"Command: `{setup['command']}`. {facts}.", ""]))


if __name__ == "__main__":
    main()
