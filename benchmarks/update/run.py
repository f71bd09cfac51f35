"""One update of ours against the public references: same machine, same threads, same batch, interleaved.

    python benchmarks/update/run.py --reference-proto PATH --reference-drqv2 PATH [--threads 4] [--repeats 3] [--write]

An update of Proto-RL is the mean of an even tick (representation, critic, actor, targets) and an odd one (critic only).
Before timing, one update on the same weights, batch, noise and candidate rows checks that the losses agree.
Every contestant runs in a process of its own, with the C allocator as it comes and told to keep memory
(``visrep.allocator``, which runs use); the bar is ours as runs use it against the reference as it comes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ours
import reference
import torch
from torch import Tensor

from visrep.allocator import keep_freed_memory
from visrep.objectives.proto import ProtoObjective
from visrep.policies.contract import PolicyNoise
from visrep.runs.update import update

BATCH_SIZES = {"proto": 512, "drqv2": 256}
AGENTS = {"proto": reference.proto_agent, "drqv2": reference.drqv2_agent}
LEARNERS = {"proto": ours.proto_learner, "drqv2": ours.drqv2_learner}
WHO = ("reference", "fp32", "bf16")
MEMORY = {"as it comes": False, "kept": True}  # what the C allocator does with freed memory
WARM_UP_ROUNDS = 2
TICKS = {"proto": (0, 1), "drqv2": (0,)}
BARS = {("proto", "bf16"): 5.0, ("proto", "fp32"): 2.5, ("drqv2", "bf16"): 2.5, ("drqv2", "fp32"): 2.5}
# Relative difference of each loss after one update on identical weights and inputs.
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
LOSSES = {"proto": ("repr_loss", "critic_loss", "actor_loss", "alpha_loss"), "drqv2": ("critic_loss", "actor_loss")}


def transitions(batch_size: int) -> tuple[Tensor, ...]:
    """obs, action, reward, discount, next_obs of random content; obs uint8."""
    g = torch.Generator().manual_seed(1)
    obs, next_obs = (
        torch.randint(0, 256, (batch_size, *reference.OBS_SHAPE), generator=g, dtype=torch.uint8) for _ in range(2)
    )
    action = torch.rand(batch_size, reference.ACTION_DIM, generator=g) * 2 - 1
    reward = torch.rand(batch_size, 1, generator=g)
    return obs, action, reward, torch.full_like(reward, 0.99), next_obs


def losses_of_reference(
    name: str, folder: Path, data: tuple[Tensor, ...], noise: PolicyNoise, rows: Tensor
) -> list[float]:
    torch.manual_seed(0)
    agent = AGENTS[name](folder)
    agent.aug = lambda images: images
    with reference.given_draws(agent, [noise.critic, noise.actor], rows) as losses:
        agent.update(reference.Replay(*data), 0)
    return losses


def losses_of_ours(
    name: str, agent: Any, data: tuple[Tensor, ...], noise: PolicyNoise, rows: Tensor, precision: str
) -> list[float]:
    learner = LEARNERS[name](agent, precision)
    learner.augment = None
    if isinstance(learner.objective, ProtoObjective):
        remember = functools.partial(ProtoObjective.remember, learner.objective, candidates=rows)
        learner.objective.remember = lambda embedding, generator=None: remember(embedding)  # type: ignore[method-assign]
    metrics = update(learner, ours.batch(*data), 0, 0, noise=noise)
    return [float(metrics[loss]) for loss in LOSSES[name]]


def check_losses(name: str, folder: Path, data: tuple[Tensor, ...]) -> dict[str, Any]:
    """Losses of one update by the reference and by ours in both precisions."""
    g = torch.Generator().manual_seed(2)
    noise = PolicyNoise.draw(data[1], g)
    rows = torch.randint(len(data[0]), (512,), generator=g)
    torch.manual_seed(0)
    agent = AGENTS[name](folder)
    expected = losses_of_reference(name, folder, data, noise, rows)
    result: dict[str, Any] = {"reference": dict(zip(LOSSES[name], expected, strict=True))}
    for precision, tolerance in LOSS_TOLERANCE.items():
        got = losses_of_ours(name, agent, data, noise, rows, precision)
        result[precision] = dict(zip(LOSSES[name], got, strict=True))
        worst = max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(got, expected, strict=True))
        result[precision]["worst_relative_difference"] = worst
        verdict = "agree" if worst <= tolerance else "DIFFER"
        print(
            f"{name} {precision}: losses {verdict}, worst relative difference {worst:.1e} (tolerance {tolerance:.0e})"
        )
    return result


def contestant(pipe: Connection, name: str, who: str, keep: bool, folder: Path, threads: int, cpu_time: bool) -> None:
    """A process of its own, because allocator settings hold for a whole process: runs one round per message."""
    if keep:
        keep_freed_memory()
    torch.set_num_threads(threads)
    clock = time.process_time if cpu_time else time.perf_counter
    agent = AGENTS[name](folder)
    data = transitions(BATCH_SIZES[name])
    if who == "reference":
        replay = reference.Replay(*data)
        step: Callable[[int], Any] = lambda tick: agent.update(replay, tick)
    else:
        batch, learner = ours.batch(*data), LEARNERS[name](agent, who)
        del agent
        step = lambda tick: update(learner, batch, tick, tick)
    while pipe.recv():
        start = clock()
        for tick in TICKS[name]:
            step(tick)
        pipe.send((clock() - start) / len(TICKS[name]))


def measure(name: str, folder: Path, repeats: int, threads: int, cpu_time: bool) -> dict[str, Any]:
    """Seconds per update of every contestant, one after the other in every round, and their medians."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[tuple[str, str], Connection] = {}
    for who, memory in itertools.product(WHO, MEMORY):
        pipes[who, memory], theirs = context.Pipe()
        arguments = (theirs, name, who, MEMORY[memory], folder, threads, cpu_time)
        context.Process(target=contestant, args=arguments, daemon=True).start()
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in pipes}
    for round_ in range(WARM_UP_ROUNDS + repeats):
        for key, pipe in pipes.items():
            pipe.send(True)
            taken = pipe.recv()
            if round_ >= WARM_UP_ROUNDS:
                seconds[key].append(taken)
    for pipe in pipes.values():
        pipe.send(False)
    return {
        "batch_size": BATCH_SIZES[name],
        "seconds": {f"{who}, memory {memory}": values for (who, memory), values in seconds.items()},
        "medians": {f"{who}, memory {memory}": statistics.median(values) for (who, memory), values in seconds.items()},
    }


def table(results: dict[str, Any]) -> str:
    """Markdown: ratios within the same memory setting, then the bar."""
    lines = [
        "| update | freed memory | reference s | ours fp32 s | ratio | ours bf16 s | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    bars = []
    for name, result in results.items():
        medians = result["medians"]
        for memory in MEMORY:
            taken = {who: medians[f"{who}, memory {memory}"] for who in WHO}
            cells = [f"{name}, batch {result['batch_size']}", memory, f"{taken['reference']:.2f}"]
            for precision in ("fp32", "bf16"):
                cells += [f"{taken[precision]:.2f}", f"{taken['reference'] / taken[precision]:.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
        for precision in ("fp32", "bf16"):
            ratio = medians["reference, memory as it comes"] / medians[f"{precision}, memory kept"]
            bars.append(
                f"- {name} {precision}: reference as it comes / ours with memory kept (bar {BARS[name, precision]:g}): "
                f"{ratio:.1f}"
            )
    return "\n".join([*lines, "", *bars])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-proto", type=Path, help="checkout of denisyarats/proto")
    parser.add_argument("--reference-drqv2", type=Path, help="checkout of facebookresearch/drqv2")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-losses", action="store_true", help="only time")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count CPU seconds of this process instead of wall-clock: for --threads 1 on a machine that others use",
    )
    parser.add_argument("--write", action="store_true", help="write results.json and results.md beside this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folders = {"proto": args.reference_proto, "drqv2": args.reference_drqv2}
    results: dict[str, Any] = {}
    for name, folder in folders.items():
        if folder is None:
            continue
        losses = {} if args.skip_losses else check_losses(name, folder, transitions(BATCH_SIZES[name]))
        results[name] = measure(name, folder, args.repeats, args.threads, args.cpu_time) | {"losses": losses}
    print(table(results))
    if args.write:
        write(args, results)


def write(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Figures and the command that made them."""
    setup = {
        "threads": args.threads,
        "clock": "CPU seconds of the process" if args.cpu_time else "wall-clock",
        "repeats": args.repeats,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "reference_crop": reference.crop_implementation(),
    }
    folder = Path(__file__).parent
    (folder / "results.json").write_text(json.dumps({"setup": setup, "results": results}, indent=2) + "\n")
    flags = f"--threads {args.threads} --repeats {args.repeats}" + (" --cpu-time" if args.cpu_time else "")
    command = f"python benchmarks/update/run.py --reference-proto PATH --reference-drqv2 PATH {flags} --write"
    worst = [
        f"- {name} {precision}: worst relative difference of a loss from the reference's on equal weights, batch and "
        f"draws {result['losses'][precision]['worst_relative_difference']:.1e} (tolerance {tolerance:.0e})"
        for name, result in results.items()
        if result["losses"]
        for precision, tolerance in LOSS_TOLERANCE.items()
    ]
    facts = "; ".join(f"{key} {value}" for key, value in setup.items())
    (folder / "results.md").write_text("\n".join([table(results), *worst, "", f"Command: `{command}`. {facts}.", ""]))


if __name__ == "__main__":
    main()
