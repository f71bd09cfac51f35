"""One update of ours against the public references: same machine, same threads, same batch, interleaved.

    python benchmarks/update/run.py --reference-proto PATH --reference-drqv2 PATH --reference-rlpyt PATH
        [--only NAME] [--threads 4] [--repeats 3] [--write]

The time of an update is the mean over the ticks of its contest: an update of Proto-RL is the mean of an even tick
(representation, critic, actor, targets) and an odd one (critic only). Both sides get the same batch in memory; sampling
is counted in neither. Before timing, one update on the same weights, batch and draws checks that the losses agree.
Every contestant runs in a process of its own, with the C allocator as it comes and told to keep memory
(``visrep.allocator``, which runs use); the bar is ours as runs use it against the reference as it comes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from contest import LOSS_TOLERANCE, Contest, Transitions
from reference_drqv2 import DrQV2
from reference_proto import Proto, crop_implementation
from reference_rlpyt import ATC, RadSAC

from visrep.allocator import keep_freed_memory

CONTESTS: dict[str, Contest] = {contest.name: contest for contest in (Proto(), DrQV2(), ATC(), RadSAC())}
REPOSITORIES = {contest.checkout: contest.repository for contest in CONTESTS.values()}
WHO = ("reference", "fp32", "bf16")
MEMORY = {"as it comes": False, "kept": True}  # what the C allocator does with freed memory
WARM_UP_ROUNDS = 2


def check_losses(contest: Contest, folder: Path) -> dict[str, Any]:
    """Losses of one update by the reference and by ours in both precisions, and whether they agree."""
    result = contest.compare_losses(folder)
    for precision, tolerance in LOSS_TOLERANCE.items():
        worst = result[precision]["worst_relative_difference"]
        verdict = "agree" if worst <= tolerance else "DIFFER"
        print(
            f"{contest.name} {precision}: losses {verdict}, worst relative difference {worst:.1e} "
            f"(tolerance {tolerance:.0e})",
            flush=True,
        )
    return result


def contestant(pipe: Connection, name: str, who: str, keep: bool, folder: Path, threads: int, cpu_time: bool) -> None:
    """A process of its own, because allocator settings hold for a whole process: runs one round per message."""
    if keep:
        keep_freed_memory()
    torch.set_num_threads(threads)
    clock = time.process_time if cpu_time else time.perf_counter
    contest = CONTESTS[name]
    agent, data = contest.agent(folder), Transitions.draw(contest.batch_size)
    step = contest.reference_step(agent, data) if who == "reference" else contest.our_step(agent, data, who)
    while pipe.recv():
        start = clock()
        for tick in contest.ticks:
            step(tick)
        pipe.send((clock() - start) / len(contest.ticks))


def measure(contest: Contest, folder: Path, repeats: int, threads: int, cpu_time: bool) -> dict[str, Any]:
    """Seconds per update of every contestant, one after the other in every round, and their medians."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[tuple[str, str], Connection] = {}
    for who, memory in itertools.product(WHO, MEMORY):
        pipes[who, memory], theirs = context.Pipe()
        arguments = (theirs, contest.name, who, MEMORY[memory], folder, threads, cpu_time)
        context.Process(target=contestant, args=arguments, daemon=True).start()
        theirs.close()  # so that a contestant that died is noticed
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
        "batch_size": contest.batch_size,
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
            cells = [f"{name}, batch {result['batch_size']}", memory, f"{taken['reference']:.3f}"]
            for precision in ("fp32", "bf16"):
                cells += [f"{taken[precision]:.3f}", f"{taken['reference'] / taken[precision]:.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
        for precision, bar in CONTESTS[name].bars.items():
            ratio = medians["reference, memory as it comes"] / medians[f"{precision}, memory kept"]
            bars.append(
                f"- {name} {precision}: reference as it comes / ours with memory kept (bar {bar:g}): {ratio:.1f}"
            )
    return "\n".join([*lines, "", *bars])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for checkout, repository in REPOSITORIES.items():
        parser.add_argument(f"--reference-{checkout}", type=Path, help=f"checkout of {repository}")
    parser.add_argument("--only", choices=CONTESTS, action="append", help="one contest; may be given several times")
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
    results: dict[str, Any] = {}
    for name, contest in CONTESTS.items():
        folder = getattr(args, f"reference_{contest.checkout}")
        if folder is None or (args.only and name not in args.only):
            continue
        losses = {} if args.skip_losses else check_losses(contest, folder)
        results[name] = measure(contest, folder, args.repeats, args.threads, args.cpu_time) | {"losses": losses}
        results[name]["title"] = contest.title
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
        "reference_crop": crop_implementation(),
    }
    folder = Path(__file__).parent
    (folder / "results.json").write_text(json.dumps({"setup": setup, "results": results}, indent=2) + "\n")
    given = " ".join(f"--reference-{name} PATH" for name in REPOSITORIES if getattr(args, f"reference_{name}"))
    only = "".join(f" --only {name}" for name in args.only or ())
    flags = f"--threads {args.threads} --repeats {args.repeats}{only}" + (" --cpu-time" if args.cpu_time else "")
    command = f"python benchmarks/update/run.py {given} {flags} --write"
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
