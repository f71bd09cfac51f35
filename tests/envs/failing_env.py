"""Environments that misbehave on purpose, made by name as ``failing_env:<factory>``, also inside worker processes."""

from __future__ import annotations

import os
import signal
from typing import Any

import gymnasium as gym
import numpy as np

from visrep.envs.toy import ToyMaze, make
from visrep.errors import UserError

TRIGGER = 0.987654  # first action component that sets the fault off


class _OnTrigger(ToyMaze):
    def fault(self) -> None:
        raise ArithmeticError("the simulator diverged")

    def step(self, action: Any) -> Any:
        if np.float32(action[0]) == np.float32(TRIGGER):
            self.fault()
        return super().step(action)


class _Killed(_OnTrigger):
    def fault(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class _BrokenReset(ToyMaze):
    def reset(self, **_: Any) -> Any:
        raise OSError("the renderer lost its context")


class _Unseeded(ToyMaze):
    """Episode length that the seed does not determine."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.max_agent_steps = 10
        self._resets = 0

    def reset(self, **options: Any) -> Any:
        self._resets += 1
        self.max_agent_steps = 10 if self._resets > 1 else 1
        return super().reset(**options)


class _Terminates(ToyMaze):
    """A true terminal state on the third step; the reward is the step's number."""

    def step(self, action: Any) -> Any:
        obs, _, _, truncated, info = super().step(action)
        return obs, float(self._agent_step), self._agent_step == 3, truncated, info


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("image_size", "action_repeat", "seed", "observation") if key in options}


def on_trigger(**options: Any) -> gym.Env:
    return _OnTrigger(**_kept(options))


def killed(**options: Any) -> gym.Env:
    return _Killed(**_kept(options))


def broken_reset(**options: Any) -> gym.Env:
    return _BrokenReset(**_kept(options))


def unseeded(**options: Any) -> gym.Env:
    return _Unseeded(**_kept(options))


def terminates(**options: Any) -> gym.Env:
    return _Terminates(**_kept(options))


def broken_build(**_: Any) -> gym.Env:
    raise RuntimeError("no such model file")


def user_error(**_: Any) -> gym.Env:
    raise UserError("buy a camera first")


def no_observation(**options: Any) -> gym.Env:
    """Images alone, whatever is asked for."""
    env = make("maze", image_size=options["image_size"])
    env.observation_dim = 0
    return env


def images_only(image_size: int, action_repeat: int, render: str, camera: int | None, seed: int) -> gym.Env:
    """A factory that knows of no other observation."""
    return make("maze", image_size=image_size)


def float_frames(**options: Any) -> gym.Env:
    env = make("maze", **_kept(options))
    env.observation_space = gym.spaces.Box(0.0, 1.0, (options["image_size"],) * 2 + (3,), np.float32)
    return env
