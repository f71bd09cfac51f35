"""A small world whose state, actions and rewards obey known equations, and codes whose scores are known beforehand.

A point at p in the plane moves with velocity v: v' = 0.8 v + 0.2 a, p' = p + 0.3 v' between walls at -1 and 1. The
state is (p, v). Frames are vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visrep.console import Console
from visrep.data.actions import ActionSpec
from visrep.data.store import FrameStore, StoreSpec
from visrep.encoders.contract import Encoder, InputContract
from visrep.probes.data import ProbeData
from visrep.probes.judge import judge
from visrep.probes.run import Candidate, run_probes

DIRECTIONS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)  # of the discrete actions
Show = Callable[[np.ndarray, np.random.Generator, np.ndarray], np.ndarray]  # state [4], randomness, of the episode


def whole_state(state: np.ndarray, noise: np.random.Generator, episode: np.ndarray) -> np.ndarray:
    return state


def position(state: np.ndarray, noise: np.random.Generator, episode: np.ndarray) -> np.ndarray:
    return state[:2]


def chance(state: np.ndarray, noise: np.random.Generator, episode: np.ndarray) -> np.ndarray:
    return noise.normal(size=4)


def constant(state: np.ndarray, noise: np.random.Generator, episode: np.ndarray) -> np.ndarray:
    return np.full(4, 3.0)


def episode_mark(state: np.ndarray, noise: np.random.Generator, episode: np.ndarray) -> np.ndarray:
    """Twelve numbers that are the same in all rows of an episode and tell nothing else."""
    return episode


def waves(state: np.ndarray, noise: np.random.Generator, episode: np.ndarray) -> np.ndarray:
    """Sine and cosine of 3 p tell p in -1..1, but not linearly."""
    return np.concatenate([np.sin(3 * state[:2]), np.cos(3 * state[:2])])


def make_store(
    show: Show = whole_state,
    *,
    episodes: int = 20,
    length: int = 60,
    classes: int = 0,
    reward: str | None = "linear",
    with_actions: bool = True,
    with_state: bool = True,
    seed: int = 0,
) -> FrameStore:
    """Episodes of ``length`` transitions; ``classes`` 4 makes the actions discrete; reward linear, sparse or None."""
    rng, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    width = len(show(np.zeros(4), noise, np.zeros(12)))
    actions = ActionSpec(1, classes) if classes else ActionSpec(2)
    spec = StoreSpec(
        (width, 1, 1), actions if with_actions else None, {"state": (4,)} if with_state else {}, "float32",
        reward is not None,
    )  # fmt: skip
    store = FrameStore(spec, episodes * (length + 1), 1)
    for _ in range(episodes):
        state, mark = np.concatenate([rng.uniform(-1, 1, 2), np.zeros(2)]), rng.normal(size=12)
        for t in range(length + 1):
            action = rng.integers(4, size=1) if classes else rng.uniform(-1, 1, 2)
            if t:
                push = DIRECTIONS[action[0]] if classes else action
                velocity = 0.8 * state[2:] + 0.2 * push
                state = np.concatenate([np.clip(state[:2] + 0.3 * velocity, -1, 1), velocity])
            gain = {"linear": state[0] - 2 * state[3], "sparse": float(state[0] > 0.8), None: 0.0}[reward]
            store.add(
                [0], show(state, noise, mark).astype(np.float32).reshape(1, width, 1, 1),
                (action * bool(t))[None] if with_actions else None, [gain * bool(t)] if reward else None,
                [t == 0], [False], [t == length], {"state": state[None]} if with_state else None,
            )  # fmt: skip
    return store


class Through(Encoder):
    """Hands a stack of vectors to a function [B, S*C] -> [B, D]; unregistered, without parameters."""

    kind = "through"

    def __init__(self, channels: int, width: int, stack: int = 1, function: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.contract = InputContract(1, 1, channels=channels, stack=stack, low=None, high=None)
        self.feature_dim, self.latent_shape = width, (width, 1, 1)
        self.function = function or (lambda vectors: vectors)

    def latents(self, images: Tensor) -> Tensor:
        return self.function(images.flatten(1))[:, :, None, None]


def report_of(store: FrameStore, encoder: Encoder | None = None, **more: Any) -> dict[str, Any]:
    """The report on one encoder, called "it"; by default the one that hands its vectors through."""
    channels = store.spec.frame_shape[0]
    encoder = encoder or Through(channels, channels)
    return run_probes([Candidate("it", encoder, {})], store, {}, "world", Console(quiet=True), **more)


def probes_of(store: FrameStore, encoder: Encoder | None = None, **more: Any) -> dict[str, Any]:
    """The scores of that encoder."""
    return dict(report_of(store, encoder, **more)["codes"][0]["probes"])


def judged(code: Any, data: ProbeData) -> dict[str, Any]:
    return judge(code, data, 0, lambda images: None, lambda what: None)


def random_normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
