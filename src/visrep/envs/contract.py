"""What every environment here offers beyond Gymnasium's own API.

Shapes: H W pixels, O task observation, A action, K privileged state, N rows.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Action = NDArray[np.float32]
Observation = Literal["pixels", "state"]  # what reset() and step() return: images, or the task's own state vector
OBSERVATIONS: tuple[Observation, ...] = ("pixels", "state")
Observed = NDArray[np.uint8] | NDArray[np.float32]  # a frame [H, W, 3], or a vector [O]


class Script(Protocol):
    """A policy written by hand for one environment; it looks at the privileged state."""

    def begin(self) -> None:
        """An episode begins."""

    def action(self, state: NDArray[np.float32], generator: np.random.Generator) -> Action:
        """The next action [A] at ``state`` [K]; ``generator`` is its only source of randomness."""


class PixelEnv(gym.Env[Observed, Action]):
    """Base of the environments: one uint8 frame [H, W, 3] per agent step, actions float32 in [-1, 1]^A.

    Made with ``observation="state"``, an environment gives ``task_observation()`` in place of frames and draws nothing.

    ``reset(seed=s)`` makes the whole episode a pure function of ``s`` and the actions: resuming a run replays them.
    ``terminated`` is a true terminal state, ``truncated`` the time limit. With ``action_repeat`` r an agent step is
    r environment frames, its reward is their plain sum, and only the last of them is drawn.

    Attributes:
        image_size: pixels, height and width.
        action_repeat: environment frames per agent step.
        max_agent_steps: the time limit.
        state_dim: K of the float32 ``info["state"]``; 0 where no privileged state is offered.
        observation_dim: O of ``task_observation()``; 0 where the task has none.
        num_cells: reachable cells that ``coverage_cells`` tells apart; 0 where coverage is not offered.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (declared so by gymnasium)
    image_size: int
    action_repeat: int
    max_agent_steps: int
    state_dim: int = 0
    observation_dim: int = 0
    num_cells: int = 0

    def fingerprint(self) -> dict[str, Any]:
        """What the images depend on, as JSON values: suite, task, renderer, sizes, camera, versions."""
        raise NotImplementedError

    def task_observation(self) -> NDArray[np.float32]:
        """What the task itself shows of the present state to agents without a camera, flattened, [O]."""
        raise NotImplementedError(f"{type(self).__name__} has no task observation")

    def coverage_cells(self, state: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """[N, K] states to [N] cell indices below ``num_cells``; -1 where a state lies in no counted cell."""
        raise NotImplementedError(f"{type(self).__name__} offers no coverage")
