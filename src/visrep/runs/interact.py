"""The one loop in which an agent acts, remembers and learns; pre-training and fine-tuning are two phases of it.

Order within an agent step, as in the reference (specs: Proto-RL 1.5): choose the action, update, then step. The
environments step in their own processes while the update runs; the order of reads and writes is the same either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore
from visrep.envs.vector import FirstRows, VectorEnv, VectorStep
from visrep.runs.acting import FrameStacker, policy_actions, random_actions
from visrep.runs.counters import Counters
from visrep.runs.monitor import Monitor
from visrep.runs.update import Learner, update


@dataclass(frozen=True)
class Phase:
    """One stretch of a run.

    Attributes:
        name: "pretrain" or "finetune".
        end: agent step at which it ends, counted from the start of the run.
        num_seed_steps: transitions in the store before the first update.
        random_until: agent step before which actions are uniform.
        learns: False for the uniform-random control, which only acts.
        updates_per_agent_step: ratio of updates to agent steps.
    """

    name: str
    end: int
    num_seed_steps: int
    random_until: int
    learns: bool
    updates_per_agent_step: float


@dataclass
class Rig:
    """The built parts that one phase runs on."""

    envs: VectorEnv
    stacker: FrameStacker
    store: FrameStore
    sampler: Sampler
    learner: Learner
    counters: Counters
    monitor: Monitor
    action_generator: np.random.Generator
    device: torch.device


def interact(
    rig: Rig,
    phase: Phase,
    every_step: Callable[[Rig], bool],
) -> bool:
    """Run ``phase`` from wherever the counters stand to its end.

    Args:
        rig: the parts; all of their state is registered in the run's RunState, so this function keeps none itself.
        phase: what to do until when.
        every_step: evaluates, checkpoints and reports when due; called before each vector step; False stops the loop.

    Returns:
        True when the phase was completed, False when ``every_step`` asked to stop.
    """
    counters = rig.counters
    if not counters.started:
        _begin_episodes(rig, rig.envs.reset(episode=rig.envs.next_episode))
        counters.started = True
    while counters.agent_step < phase.end:
        if not every_step(rig):
            return False
        rig.envs.send(_choose_actions(rig, phase))
        if phase.learns:
            _learn(rig, phase)
        step = rig.envs.recv()
        counters.agent_step += rig.envs.num_envs
        _record(rig, step)
    return True


def _choose_actions(rig: Rig, phase: Phase) -> np.ndarray[Any, np.dtype[np.float32]]:
    envs, learner, agent_step = rig.envs, rig.learner, rig.counters.agent_step
    if not phase.learns or agent_step < phase.random_until:
        actions = random_actions(envs.num_envs, envs.action_dim, rig.action_generator)
    else:
        actions = policy_actions(
            learner.encoder,
            learner.policy,
            rig.stacker.frames,
            agent_step,
            rig.device,
            learner.precision,
            learner.generator,
        )
    rig.counters.actions = actions
    return actions


def _learn(rig: Rig, phase: Phase) -> None:
    counters = rig.counters
    if rig.store.transitions < phase.num_seed_steps:
        return
    if counters.learn_start < 0:
        counters.learn_start = counters.agent_step
    steps_so_far = counters.agent_step - counters.learn_start + rig.envs.num_envs
    due = math.ceil(steps_so_far * phase.updates_per_agent_step - 1e-9) - counters.phase_updates
    for _ in range(due):
        batch = rig.sampler.sample().to(rig.device)
        # With one environment and one update per step this tick is the reference's ``step``.
        tick = counters.learn_start + counters.phase_updates
        rig.monitor.learned(update(rig.learner, batch, tick, counters.agent_step))
        counters.phase_updates += 1
        counters.updates += 1


def _begin_episodes(rig: Rig, first: FirstRows) -> None:
    count = len(first.lanes)
    rig.store.add(
        first.lanes,
        first.frames,
        np.zeros((count, rig.envs.action_dim), dtype=np.float32),
        np.zeros(count, dtype=np.float32),
        np.ones(count, dtype=bool),
        np.zeros(count, dtype=bool),
        np.zeros(count, dtype=bool),
        _side(first.state),
    )
    rig.stacker.begin(first.lanes, first.frames)
    rig.monitor.visited(first.state)


def _record(rig: Rig, step: VectorStep) -> None:
    count = len(step.lanes)
    rig.store.add(
        step.lanes,
        step.frames,
        rig.counters.actions[step.lanes],
        step.reward,
        np.zeros(count, dtype=bool),
        step.terminal,
        step.is_last,
        _side(step.state),
    )
    rig.stacker.push(step.lanes, step.frames)
    rig.monitor.stepped(step)
    if step.reset is not None:
        _begin_episodes(rig, step.reset)


def _side(state: np.ndarray[Any, np.dtype[np.float32]] | None) -> dict[str, Any] | None:
    return None if state is None else {"state": state}
