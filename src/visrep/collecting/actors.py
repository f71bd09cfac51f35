"""Who acts while episodes are recorded: chance, correlated noise, an environment's own script, or a trained policy.

Everything random comes from the generators that ``actions`` is given, one per lane and made anew for every episode, so
an episode depends on (seed, lane, episode number) alone.

Shapes: E lanes, A action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from visrep.envs.contract import Script
from visrep.envs.vector import FirstRows, VectorEnv, VectorStep
from visrep.runs.acting import Agent, FrameStacker

Generators = Sequence[np.random.Generator]

SMOOTH_AGENT_STEPS = 10.0  # over which the smooth policy's actions forget: their correlation falls by 1/e
SMOOTH_STD = 0.7  # of the smooth policy's actions before they are clipped to [-1, 1]


class Actor(Protocol):
    """Chooses the actions of all lanes; follows the environments through ``begin`` and ``see``."""

    def begin(self, first: FirstRows, generators: Generators) -> None:
        """Episodes begin in ``first.lanes``; ``generators`` [E] are their lanes' new ones."""

    def see(self, step: VectorStep) -> None:
        """What a step led to; called before ``begin`` for the lanes whose episode ended."""

    def actions(self, generators: Generators) -> NDArray[np.float32]:
        """The next actions [E, A] in [-1, 1]."""


class RandomActor:
    """Uniform actions."""

    def __init__(self, envs: VectorEnv) -> None:
        self._dim = envs.action_dim

    def begin(self, first: FirstRows, generators: Generators) -> None:
        """Nothing to prepare."""

    def see(self, step: VectorStep) -> None:
        """Nothing to look at."""

    def actions(self, generators: Generators) -> NDArray[np.float32]:
        """Independent of each other and of everything seen."""
        return np.stack([g.uniform(-1.0, 1.0, self._dim) for g in generators]).astype(np.float32)


class SmoothActor:
    """Correlated noise: an Ornstein-Uhlenbeck process per action value, seen once per agent step, then clipped.

    x_{t+1} = r x_t + sqrt(1 - r^2) s e_t with e_t standard normal, r = exp(-1 / SMOOTH_AGENT_STEPS), s = SMOOTH_STD;
    it begins in its stationary distribution (Uhlenbeck and Ornstein 1930).
    """

    def __init__(self, envs: VectorEnv) -> None:
        self._values = np.zeros((envs.num_envs, envs.action_dim))
        self._kept = math.exp(-1.0 / SMOOTH_AGENT_STEPS)

    def begin(self, first: FirstRows, generators: Generators) -> None:
        """Draw where the process starts."""
        for lane in first.lanes:
            self._values[lane] = SMOOTH_STD * generators[lane].standard_normal(self._values.shape[1])

    def see(self, step: VectorStep) -> None:
        """Nothing to look at."""

    def actions(self, generators: Generators) -> NDArray[np.float32]:
        """The present values; the process then moves on."""
        actions = np.clip(self._values, -1.0, 1.0).astype(np.float32)
        drawn = np.stack([g.standard_normal(self._values.shape[1]) for g in generators])
        self._values = self._kept * self._values + math.sqrt(1 - self._kept**2) * SMOOTH_STD * drawn
        return actions


class ScriptedActor:
    """An environment's own script in every lane; looks at the privileged state."""

    def __init__(self, envs: VectorEnv, scripts: Sequence[Script]) -> None:
        self._scripts = scripts
        self._states = np.zeros((envs.num_envs, envs.state_dim), np.float32)

    def begin(self, first: FirstRows, generators: Generators) -> None:
        """Start the scripts over."""
        self._states[first.lanes] = first.state
        for lane in first.lanes:
            self._scripts[lane].begin()

    def see(self, step: VectorStep) -> None:
        """Take the new states."""
        self._states[step.lanes] = step.state

    def actions(self, generators: Generators) -> NDArray[np.float32]:
        """What the scripts say."""
        pairs = zip(self._scripts, self._states, generators, strict=True)
        return np.stack([script.action(state, g) for script, state, g in pairs])


class TrainedActor:
    """A trained policy's evaluation action, on frames or on the task observation that comes beside them.

    Args:
        envs: whose rows it sees.
        agent: encoder and policy.
        frame_stack: observations that it looks at.
        channel: "frames", or "observation" for a policy on state vectors while images are recorded.
    """

    def __init__(self, envs: VectorEnv, agent: Agent, frame_stack: int, channel: str) -> None:
        beside = channel == "observation"
        shape, dtype = ((envs.observation_dim, 1, 1), "float32") if beside else (envs.frame_shape, envs.frame_dtype)
        self._agent, self._beside = agent, beside
        self._stacker = FrameStacker(envs.num_envs, shape, frame_stack, dtype)

    def begin(self, first: FirstRows, generators: Generators) -> None:
        """Fill the stacks with the first observation."""
        self._stacker.begin(first.lanes, self._seen(first))

    def see(self, step: VectorStep) -> None:
        """Append the newest observation."""
        self._stacker.push(step.lanes, self._seen(step))

    def actions(self, generators: Generators) -> NDArray[np.float32]:
        """Deterministic. All lanes at once, always: what one of them gets does not depend on the others' state."""
        return self._agent.actions(self._stacker.frames, torch.iinfo(torch.int32).max)  # schedules at their end

    def _seen(self, rows: FirstRows | VectorStep) -> NDArray[np.float32] | NDArray[np.uint8]:
        if not self._beside:
            return rows.frames
        assert rows.observation is not None, "the environments were made with their observation beside the frames"
        return rows.observation[:, :, None, None]


class NoisyActor:
    """Another actor's actions plus Gaussian noise, clipped to [-1, 1]."""

    def __init__(self, actor: Actor, std: float) -> None:
        self._actor, self._std = actor, std

    def begin(self, first: FirstRows, generators: Generators) -> None:
        """Pass on."""
        self._actor.begin(first, generators)

    def see(self, step: VectorStep) -> None:
        """Pass on."""
        self._actor.see(step)

    def actions(self, generators: Generators) -> NDArray[np.float32]:
        """The other one's draws come first."""
        actions = self._actor.actions(generators)
        drawn = np.stack([g.standard_normal(actions.shape[1]) for g in generators])
        return np.clip(actions + self._std * drawn, -1.0, 1.0).astype(np.float32)
