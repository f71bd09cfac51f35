"""Samples per second and bytes per agent step of the replay buffer, beside two others, interleaved in one run.

    python benchmarks/replay/run.py --reference path/to/proto

Needs torch, numpy, psutil and stable-baselines3, and a checkout of github.com/denisyarats/proto (read, never changed).
Every buffer is filled with the same steps: 9x84x84 observations (three stacked 3x84x84 frames), 6-d actions,
episodes of 500 agent steps. One sample is a batch of 512 (observation, action, reward, next observation) as torch
tensors. Writes results.json and results.md beside this file. Takes about a minute and 6 GB of RAM.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

FRAME, STACK, ACTION, EPISODE = (3, 84, 84), 3, 6, 500
BATCH = 512
CALLS = 3  # timed calls per turn; one more before them is not timed
HERE = Path(__file__).parent


@dataclass
class Contender:
    name: str
    output: str  # type of the images that it returns
    sample: Callable[[], Any]
    bytes_per_step: float = 0.0
    seconds: dict[int, list[float]] = field(default_factory=dict)  # by number of threads


@functools.cache
def noise() -> np.ndarray:
    """The frames that every buffer is filled with."""
    return np.random.default_rng(1).integers(0, 256, (257, *FRAME), dtype=np.uint8)


def episodes(agent_steps: int) -> Iterator[tuple[np.ndarray, np.ndarray | None, float, bool, bool]]:
    """(frame, action that led to it or None in a first row, reward, is_first, is_last); the same sequence each time."""
    rng = np.random.default_rng(0)
    frames = noise()
    for t in range(agent_steps):
        if t % EPISODE == 0:
            yield frames[t % len(frames)], None, 0.0, True, False
        action = rng.uniform(-1, 1, ACTION).astype(np.float32)
        yield frames[(t + 1) % len(frames)], action, 1.0, False, t % EPISODE == EPISODE - 1


def transitions(agent_steps: int) -> Iterator[tuple[np.ndarray, np.ndarray, float, np.ndarray, bool]]:
    """(stacked obs, action, reward, stacked next obs, episode over)."""
    stack: list[np.ndarray] = []
    for frame, action, reward, first, last in episodes(agent_steps):
        if first or action is None:
            stack = [frame] * STACK
            continue
        obs = np.concatenate(stack)
        stack = [*stack[1:], frame]
        yield obs, action, reward, np.concatenate(stack), last


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def visrep_contenders(agent_steps: int) -> list[Contender]:
    from visrep.data.actions import ActionSpec
    from visrep.data.batch import BatchSpec
    from visrep.data.sampler import Sampler
    from visrep.data.store import FrameStore, StoreSpec

    before = resident_bytes()
    rows = agent_steps + -(-agent_steps // EPISODE)
    store = FrameStore(StoreSpec(FRAME, ActionSpec(ACTION)), rows)
    for frame, action, reward, first, last in episodes(agent_steps):
        stored = np.zeros(ACTION) if action is None else action
        store.add([0], frame[None], stored[None], [reward], [first], [False], [last])
    used = (resident_bytes() - before) / agent_steps
    spec = BatchSpec((0, 1), frozenset({"image", "action", "reward"}))
    sampler = Sampler(store, spec, BATCH, STACK, generator=np.random.default_rng(0))
    assert store.transitions == agent_steps

    def as_float() -> Any:
        batch = sampler.sample()
        return batch.with_images([image.float() for image in batch.images])

    return [
        Contender("visrep", "uint8", sampler.sample, used),
        Contender("visrep, images converted", "float32", as_float, used),
    ]


def reference_contenders(folder: Path, agent_steps: int) -> list[Contender]:
    # The buffer's module imports the reference's utils without using it, and utils needs packages of 2021.
    sys.modules["utils"] = types.ModuleType("utils")
    module_spec = importlib.util.spec_from_file_location("reference_replay_buffer", folder / "replay_buffer.py")
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    del sys.modules["utils"]

    before = resident_bytes()
    shape = (STACK * FRAME[0], *FRAME[1:])
    buffer = module.ReplayBuffer(shape, (ACTION,), agent_steps, torch.device("cpu"))
    for transition in transitions(agent_steps):
        buffer.add(*transition)
    used = (resident_bytes() - before) / agent_steps

    def gather_only() -> Any:
        """The reference's sample() without its conversion to float32: index, wrap as tensors."""
        index = np.random.randint(0, agent_steps, size=BATCH)
        arrays = (buffer.obses, buffer.next_obses, buffer.actions, buffer.rewards)
        return [torch.as_tensor(array[index]) for array in arrays]

    return [
        Contender("Proto-RL reference, as it is", "float32", lambda: buffer.sample(BATCH, 0.99), used),
        Contender("Proto-RL reference, without conversion", "uint8", gather_only, used),
    ]


def sb3_contender(agent_steps: int, optimize: bool) -> Contender:
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    before = resident_bytes()
    images = spaces.Box(0, 255, (STACK * FRAME[0], *FRAME[1:]), np.uint8)
    actions = spaces.Box(-1, 1, (ACTION,), np.float32)
    buffer = ReplayBuffer(
        agent_steps, images, actions, "cpu", optimize_memory_usage=optimize, handle_timeout_termination=False
    )
    for obs, action, reward, next_obs, over in transitions(agent_steps):
        buffer.add(obs[None], next_obs[None], action[None], np.array([reward]), np.array([over]), [{}])
    used = (resident_bytes() - before) / agent_steps
    name = f"stable-baselines3, optimize_memory_usage={optimize}"
    return Contender(name, "uint8", lambda: buffer.sample(BATCH), used)


def measure(contenders: list[Contender], threads: int, rounds: int) -> None:
    """Turn by turn, so that a busy moment of the machine hits everybody. The last batch is held, as a learner does."""
    torch.set_num_threads(threads)
    for _ in range(rounds):
        for contender in contenders:
            batch = contender.sample()
            start = time.perf_counter()
            for _ in range(CALLS):
                batch = contender.sample()
            contender.seconds.setdefault(threads, []).append((time.perf_counter() - start) / CALLS)
            del batch


def report(contenders: list[Contender], threads: list[int]) -> dict[str, Any]:
    ours = contenders[0]
    our_milliseconds = {n: 1e3 * statistics.median(ours.seconds[n]) for n in threads}
    rows = []
    for c in contenders:
        milliseconds = {n: 1e3 * statistics.median(c.seconds[n]) for n in threads}
        rows.append(
            {
                "buffer": c.name,
                "images": c.output,
                "bytes_per_agent_step": round(c.bytes_per_step),
                "bytes_ratio": round(c.bytes_per_step / ours.bytes_per_step, 2),
                "milliseconds_per_batch": {str(n): round(value, 2) for n, value in milliseconds.items()},
                "samples_per_second": {str(n): round(BATCH / value * 1e3) for n, value in milliseconds.items()},
                "time_ratio": {str(n): round(value / our_milliseconds[n], 2) for n, value in milliseconds.items()},
            }
        )
    others = [c for c in contenders if not c.name.startswith("visrep")]
    reference = next(c for c in others if c.name.startswith("Proto-RL"))
    bars = {"memory: the reference's over ours (bar 5)": round(reference.bytes_per_step / ours.bytes_per_step, 2)}
    for n in threads:
        fastest = 1e3 * min(statistics.median(c.seconds[n]) for c in others)
        bars[f"time on {n} thread(s): the fastest other's over ours (bar 1)"] = round(fastest / our_milliseconds[n], 2)
    return {"rows": rows, "bars": bars}


def markdown(results: dict[str, Any], threads: list[int]) -> str:
    machine = results["machine"]
    head = "".join(f" ms per batch, {n} thread(s) | samples/s | time / ours |" for n in threads)
    lines = [
        f"| buffer | images | bytes per agent step | / ours |{head}",
        "|---|---|---|---|" + "---|---|---|" * len(threads),
    ]
    for row in results["rows"]:
        cells = "".join(
            f" {row['milliseconds_per_batch'][n]} | {row['samples_per_second'][n]:,} | {row['time_ratio'][n]} |"
            for n in map(str, threads)
        )
        lines.append(
            f"| {row['buffer']} | {row['images']} | {row['bytes_per_agent_step']:,} | {row['bytes_ratio']} |{cells}"
        )
    lines += ["", *(f"- {name}: {value}" for name, value in results["bars"].items()), ""]
    lines += [
        f"Command: `{results['command']}`. {results['agent_steps']:,} agent steps in each buffer, batches of {BATCH} "
        f"pairs of 9x84x84 observations, medians of {results['rounds']} interleaved turns of {CALLS} batches. "
        f"{machine['cpu']}, {machine['cores']} cores; Python {machine['python']}, torch {machine['torch']}, NumPy "
        f"{machine['numpy']}, stable-baselines3 {machine['stable_baselines3']}.",
        "",
        "Bytes are the growth of resident memory while the buffer was filled, divided by agent steps. All uint8 lines "
        "hand over the same number of images and bytes; the reference as it is converts them to float32 on the way, so "
        "it compares with the line that converts visrep's (which a run does not do: images stay uint8 until they are "
        "augmented). Observation and next observation are separate tensors in the other buffers and the two slices of "
        "one tensor [512, 2, 9, 84, 84] in visrep. visrep and the reference keep episodes apart; stable-baselines3 "
        "with optimize_memory_usage=True returns the next episode's first observation as next observation of a last "
        "step.",
    ]
    return "\n".join(lines) + "\n"


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of github.com/denisyarats/proto")
    parser.add_argument("--agent-steps", type=int, default=15_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    arguments = parser.parse_args()
    np.random.seed(0)  # the other buffers draw from NumPy's global generator
    steps = arguments.agent_steps
    noise()  # before anybody's memory is measured
    contenders = [
        *visrep_contenders(steps),
        *reference_contenders(arguments.reference, steps),
        sb3_contender(steps, optimize=False),
        sb3_contender(steps, optimize=True),
    ]
    for threads in arguments.threads:
        measure(contenders, threads, arguments.rounds)
    import stable_baselines3

    results = {
        "command": "python benchmarks/replay/run.py --reference path/to/proto",
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "stable_baselines3": stable_baselines3.__version__,
        },
        "agent_steps": steps,
        "batch_size": BATCH,
        "rounds": arguments.rounds,
        **report(contenders, arguments.threads),
        "raw": [{k: v for k, v in asdict(c).items() if k != "sample"} for c in contenders],
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = markdown(results, arguments.threads)
    (HERE / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
