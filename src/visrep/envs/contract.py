"""What every environment here offers beyond Gymnasium's own API.

Shapes: H W pixels, A action, K privileged state, N rows.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Action = NDArray[np.float32]


class PixelEnv(gym.Env[Frame, Action]):
    """Base of the environments: one uint8 frame [H, W, 3] per agent step, actions float32 in [-1, 1]^A.

    ``reset(seed=s)`` makes the whole episode a pure function of ``s`` and the actions: resuming a run replays them.
    ``terminated`` is a true terminal state, ``truncated`` the time limit. With ``action_repeat`` r an agent step is
    r environment frames, its reward is their plain sum, and only the last of them is drawn.

    Attributes:
        image_size: pixels, height and width.
        action_repeat: environment frames per agent step.
        max_agent_steps: the time limit.
        state_dim: K of the float32 ``info["state"]``; 0 where no privileged state is offered.
        num_cells: reachable cells that ``coverage_cells`` tells apart; 0 where coverage is not offered.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (declared so by gymnasium)
    image_size: int
    action_repeat: int
    max_agent_steps: int
    state_dim: int = 0
    num_cells: int = 0

    def fingerprint(self) -> dict[str, Any]:
        """What the images depend on, as JSON values: suite, task, renderer, sizes, camera, versions."""
        raise NotImplementedError

    def coverage_cells(self, state: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """[N, K] states to [N] cell indices below ``num_cells``; -1 where a state lies in no counted cell."""
        raise NotImplementedError(f"{type(self).__name__} offers no coverage")
