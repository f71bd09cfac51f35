"""Evaluation episodes: the policy's mean action on the task's own reward, in environments of their own.

Shapes: L lanes, C colour channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from visrep.envs.vector import VectorEnv
from visrep.runs.acting import Agent, FrameStacker


@dataclass
class Evaluation:
    """Results of one evaluation.

    Attributes:
        returns: undiscounted extrinsic return of each episode.
        success: share of successful episodes; None where the task does not define success.
        frames: the first episode's frames, each uint8 [H, W, C] (of state observations the vectors, [1, 1, O]).
    """

    returns: list[float]
    success: float | None
    frames: list[NDArray[np.uint8]] = field(default_factory=list)

    @property
    def mean_return(self) -> float:
        """Mean over the episodes."""
        return float(np.mean(self.returns))


def evaluation_lanes(num_envs: int, episodes: int) -> int:
    """Largest number of lanes up to ``num_envs`` that splits ``episodes`` evenly, so that every lane plays as many."""
    return max(lanes for lanes in range(1, max(1, min(num_envs, episodes)) + 1) if episodes % lanes == 0)


def evaluate(
    envs: VectorEnv,
    agent: Agent,
    *,
    frame_stack: int,
    episodes: int,
    agent_step: int,
    first_episode: int,
) -> Evaluation:
    """Play ``episodes`` episodes with the evaluation action.

    Args:
        envs: evaluation environments; their episodes start at number ``first_episode`` in every lane.
        agent: who acts.
        frame_stack: frames per observation.
        episodes: a multiple of the number of lanes.
        agent_step: handed to the policy (schedules).
        first_episode: number of each lane's first episode: evaluations at different times see different episodes, and a
            resumed run sees the same ones as an uninterrupted run.
    """
    stacker = FrameStacker(envs.num_envs, envs.frame_shape, frame_stack, envs.frame_dtype)
    first = envs.reset(episode=first_episode)
    stacker.begin(first.lanes, first.frames)
    left = np.full(envs.num_envs, episodes // envs.num_envs)
    returns, successes = np.zeros(envs.num_envs), np.zeros(envs.num_envs, dtype=bool)
    result = Evaluation(returns=[], success=None, frames=[_picture(first.frames[0])])
    finished_successes: list[bool] = []
    recording = True
    while (left > 0).any():
        step = envs.step(agent.actions(stacker.frames, agent_step))
        stacker.push(step.lanes, step.frames)
        returns[step.lanes] += step.reward
        if step.success is not None:
            successes[step.lanes] |= step.success
        if recording and 0 in step.lanes:
            result.frames.append(_picture(step.frames[list(step.lanes).index(0)]))
        for lane in step.lanes[step.is_last]:
            if left[lane] > 0:
                result.returns.append(float(returns[lane]))
                finished_successes.append(bool(successes[lane]))
                left[lane] -= 1
            recording = recording and lane != 0
        if step.reset is not None:
            lanes = step.reset.lanes
            returns[lanes], successes[lanes] = 0.0, False
            stacker.begin(lanes, step.reset.frames)
    if step.success is not None:
        result.success = float(np.mean(finished_successes))
    return result


def _picture(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame.transpose(1, 2, 0))  # [H, W, C]
