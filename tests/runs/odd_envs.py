"""Environments with frames or actions that are not the usual ones, made by name as ``odd_envs:<factory>``."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from run_tools import make_short


class Channels(gym.ObservationWrapper[Any, Any, Any]):
    """The arena's frames in grey, repeated to a number of channels."""

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__(make_short(**options))
        height, width, _ = self.env.observation_space.shape  # type: ignore[misc]
        self.channels = channels
        self.observation_space = gym.spaces.Box(0, 255, (height, width, channels), np.uint8)

    def observation(self, observation: Any) -> Any:
        return observation.mean(-1, keepdims=True).astype(np.uint8).repeat(self.channels, axis=-1)


def make_grey(**options: Any) -> Channels:
    return Channels(1, **options)


def make_four(**options: Any) -> Channels:
    return Channels(4, **options)


class FourMoves(gym.ActionWrapper[Any, Any, Any]):
    """The arena with four classes of actions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(make_short(**options))
        self.action_space = gym.spaces.Discrete(4)
