"""Frames per second of the ray tracer beside software OpenGL, both through this package's dm_control environments.

    python benchmarks/rendering/run.py

Needs the packages of visrep[dmc]; OpenGL renderers that do not work on the machine are left out (`visrep doctor` says
what to install). Twelve processes are started, four per renderer, each pinned to one core; then, for every task, the
renderers take turns: one process for some time, four at once for the same time, several rounds. A turn draws the
present state again and again (drawn), then steps with random actions, physics included (stepped). OpenGL keeps one
camera per environment, a little faster than dm_control's physics.render. Writes results.json and results.md beside
this file. Takes about two and a half minutes with the defaults; --seconds 2 --rounds 5 is steadier (8 minutes).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from visrep.envs.rendering import RENDERERS, probe

TASKS = (
    "cheetah_run", "walker_walk", "cartpole_swingup", "ball_in_cup_catch",
    "quadruped_walk", "finger_spin", "reacher_easy", "hopper_hop",
)  # fmt: skip
PROCESSES = (1, 4)
IMAGE = 84
KINDS = ("drawn", "stepped")
HERE = Path(__file__).parent


def work(pipe: Any, renderer: str, core: int) -> None:
    """One process: makes environments and counts frames on command."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})
    from visrep.envs import dmc

    env: Any = None
    while (message := pipe.recv()) is not None:
        if isinstance(message, str):
            env = dmc.make(message, image_size=IMAGE, render=renderer)
            env.reset(seed=core)
            env.draw()
            pipe.send("ready")
        else:
            pipe.send({"drawn": rate(env.draw, message), "stepped": rate(lambda env=env: step(env), message)})


def step(env: Any) -> None:
    if any(env.step(env.action_space.sample())[2:4]):
        env.reset()


def rate(frame: Any, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        frame()
        count += 1
    return count / passed


def measure(renderers: list[str], seconds: float, rounds: int) -> list[dict[str, Any]]:
    context = mp.get_context("spawn")
    pipes: dict[str, list[Any]] = {}
    for renderer in renderers:
        for core in range(max(PROCESSES)):
            ours, theirs = context.Pipe()
            context.Process(target=work, args=(theirs, renderer, core), daemon=True).start()
            pipes.setdefault(renderer, []).append(ours)
    rows = []
    for task in TASKS:
        for renderer in renderers:
            ask(pipes[renderer], task)
        found: dict[tuple[str, int, str], list[float]] = {}
        for _ in range(rounds):
            for processes in PROCESSES:
                for renderer in renderers:
                    replies = ask(pipes[renderer][:processes], seconds / 2)
                    for kind in KINDS:
                        total = sum(reply[kind] for reply in replies)
                        found.setdefault((renderer, processes, kind), []).append(total)
        for (renderer, processes, kind), rates in found.items():
            rows.append({"task": task, "renderer": renderer, "processes": processes, "kind": kind, "rates": rates})
        print(task, {f"{r}x{p} {k}": round(statistics.median(v)) for (r, p, k), v in found.items()}, flush=True)
    for pipe in [p for group in pipes.values() for p in group]:
        pipe.send(None)
    return rows


def ask(pipes: list[Any], message: Any) -> list[Any]:
    for pipe in pipes:
        pipe.send(message)
    return [pipe.recv() for pipe in pipes]


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if (info.exists())
        else []
    )
    return names[0] if names else platform.processor()


def table(results: dict[str, Any]) -> str:
    rates = {
        (r["task"], r["renderer"], r["processes"], r["kind"]): statistics.median(r["rates"]) for r in results["rows"]
    }
    opengl = [name for name in results["renderers"] if name != "warp"]
    lines = [
        "# Rendering: frames per second at 84x84",
        "",
        f"Made by `{results['command']}` on {results['cpu']} ({results['cores']} cores), load average "
        f"{results['load_before']:.1f} at the start. Medians of {results['rounds']} rounds of {results['seconds']:g} s "
        "per cell, renderers in turn, each process on a core of its own. Ratios: warp over each OpenGL renderer.",
        "",
    ]
    lines += [f"- {name}: {device}" for name, device in results["renderers"].items()]
    lines += ["- " + ", ".join(f"{name} {version}" for name, version in results["versions"].items())]
    for kind, title in (("drawn", "Drawing alone"), ("stepped", "Environment steps (physics, observation, drawing)")):
        for processes in PROCESSES:
            names = ["warp", *opengl]
            heads = ["task", *names, *(f"warp / {name}" for name in opengl)]
            lines += ["", f"## {title}, {processes} process{'es' if processes > 1 else ''}", ""]
            lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
            worst = dict.fromkeys(opengl, float("inf"))
            for task in TASKS:
                cells = [rates[task, name, processes, kind] for name in names]
                ratios = [cells[0] / cell for cell in cells[1:]]
                worst = {name: min(worst[name], ratio) for name, ratio in zip(opengl, ratios, strict=True)}
                numbers = [f"{cell:,.0f}" for cell in cells] + [f"{ratio:.1f}" for ratio in ratios]
                lines.append("| " + " | ".join([task, *numbers]) + " |")
            lines += ["", *(f"Smallest ratio over {name}: {ratio:.1f}." for name, ratio in worst.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.8, help="per cell, task and round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    probes = [found for name in RENDERERS if (found := probe(name)).ok]
    packages = ("dm_control", "mujoco", "mujoco-warp", "warp-lang", "numpy")
    results = {
        "command": f"python benchmarks/rendering/run.py --seconds {arguments.seconds:g} --rounds {arguments.rounds}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_before": load,
        "seconds": arguments.seconds,
        "rounds": arguments.rounds,
        "renderers": {found.renderer: found.name for found in probes},
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "rows": measure([found.renderer for found in probes], arguments.seconds, arguments.rounds),
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "results.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
