"""Frames per second of toy/maze on one core: step and draw together, and 16 lanes of it as the learner sees them.

    OMP_NUM_THREADS=1 python benchmarks/toy_frames/run.py

Writes ``result.json`` beside this file. Every rate is the best of several rounds, because other work on the machine
only ever slows a round down; the median is given too.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np

from visrep.envs.make import make_env
from visrep.envs.vector import EnvSpec, VectorEnv

ROUNDS = 9
STEPS = 5_000
LANES = 16
BAR_FRAMES_PER_SECOND = 10_000


def _rates(frames: int, play: Callable[[], None]) -> dict[str, float]:
    """Best and median frames per second over ROUNDS calls of ``play``, each making ``frames`` frames."""
    rates = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        play()
        rates.append(frames / (time.perf_counter() - began))
    return {"best": round(max(rates)), "median": round(statistics.median(rates))}


def single(image_size: int) -> dict[str, float]:
    """One environment through the Gymnasium API, resets included."""
    env = make_env("toy/maze", image_size=image_size)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, 2)).astype(np.float32)
    env.reset(seed=0)

    def play() -> None:
        for action in actions:
            if env.step(action)[3]:
                env.reset()

    return _rates(STEPS, play)


def vector(image_size: int) -> dict[str, float]:
    """LANES environments through VectorEnv, in process, rows copied out channel-first."""
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS // LANES, LANES, 2)).astype(np.float32)
    with VectorEnv(EnvSpec("toy/maze", image_size), LANES, seed=0) as env:
        env.reset()

        def play() -> None:
            for action in actions:
                env.step(action)

        return _rates(len(actions) * LANES, play)


def main() -> None:
    result = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/toy_frames/run.py",
        "bar_frames_per_second_at_84": BAR_FRAMES_PER_SECOND,
        "frames_per_second": {str(size): single(size) for size in (24, 84)},
        f"frames_per_second_vector_of_{LANES}": {str(size): vector(size) for size in (24, 84)},
        "rounds": ROUNDS,
        "steps_per_round": STEPS,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
    }
    text = json.dumps(result, indent=2)
    Path(__file__).with_name("result.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
