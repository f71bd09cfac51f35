"""Stacked frames in the order that encoders take.

Shapes: S frame stack, C colour channels, H W pixels.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from visrep.errors import UserError


class ChannelsFirst(gym.ObservationWrapper[Any, Any, Any]):
    """[S, H, W, C] of ``visrep.make_env(..., frame_stack=S)``, or one frame [H, W, C], to [S*C, H, W], oldest first.

    Raises:
        UserError: the observations are no images of either shape.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (3, 4) or space.dtype != np.uint8:
            raise UserError(f"ChannelsFirst takes uint8 images [S, H, W, C] or [H, W, C], got {space}")
        *stack, height, width, channels = space.shape
        self.shape = (channels * (stack[0] if stack else 1), height, width)
        self.observation_space = gym.spaces.Box(0, 255, self.shape, np.uint8)

    def observation(self, observation: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[S, H, W, C] or [H, W, C] to [S*C, H, W]."""
        return np.ascontiguousarray(np.moveaxis(observation, -1, -3)).reshape(self.shape)
