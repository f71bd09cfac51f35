"""The one loop in which an agent acts, remembers and learns; pre-training and fine-tuning are two phases of it.

Order within an agent step, as in the reference: choose the action, update, then step. The
environments step in their own processes while the update runs; the order of reads and writes is the same either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore
from visrep.envs.vector import FirstRows, VectorEnv, VectorStep
from visrep.pace import Pace
from visrep.runs.acting import Agent, FrameStacker, random_actions
from visrep.runs.counters import Counters
from visrep.runs.monitor import Monitor
from visrep.runs.probing import ProbeWatch
from visrep.runs.recording import Recorder
from visrep.runs.update import Learner, representation_update, update

# Objective updates in one turn of the loop: a burst of thousands (encoder_gradient=init) can be stopped and watched.
AT_ONCE = 100


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
        seed_action_std: the first actions are drawn around the untrained policy's mean with this std instead.
    """

    name: str
    end: int
    num_seed_steps: int
    random_until: int
    learns: bool
    updates_per_agent_step: float
    seed_action_std: float | None = None


@dataclass
class Rig:
    """The built parts that one phase runs on.

    ``repr_sampler`` gives the objective batches of its own; None where it shares the policy's.
    """

    envs: VectorEnv
    stacker: FrameStacker
    store: FrameStore
    sampler: Sampler
    repr_sampler: Sampler | None
    recorder: Recorder
    agent: Agent
    learner: Learner
    pace: Pace
    counters: Counters
    monitor: Monitor
    watch: ProbeWatch
    action_generator: np.random.Generator
    device: torch.device

    def prepared(self, images: Tensor) -> Tensor:
        """Stored images as the learner's encoder takes them: at the centre of a crop, where there is one."""
        prepare = self.agent.prepare if self.recorder.agent is None else None
        return images if prepare is None else prepare(images)


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
    while counters.agent_step < phase.end or counters.owed:
        if not every_step(rig):
            return False
        if counters.owed:
            _update_objective(rig)
            continue
        rig.envs.send(_choose_actions(rig, phase))
        if phase.learns:
            _learn(rig, phase)
        step = rig.envs.recv()
        counters.agent_step += rig.envs.num_envs
        _record(rig, step)
    return True


def _choose_actions(rig: Rig, phase: Phase) -> np.ndarray[Any, np.dtype[np.float32]]:
    envs, agent_step = rig.envs, rig.counters.agent_step
    seeding = not phase.learns or agent_step < phase.random_until
    if seeding and (phase.seed_action_std is None or not phase.learns):
        actions = random_actions(envs.num_envs, envs.action_dim, rig.action_generator)
    else:
        std = phase.seed_action_std if seeding else None
        actions = rig.agent.actions(rig.stacker.frames, agent_step, rig.learner.generator, std)
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
        # With one environment and one update per step this tick is the reference's ``step``.
        tick = counters.learn_start + counters.phase_updates
        trained = rig.learner.representation is not None
        count = rig.pace.at(tick, counters.learn_start) if trained else 0
        shared = count > 0 and rig.repr_sampler is None
        batch = rig.sampler.sample().to(rig.device)
        metrics = update(rig.learner, batch, tick, counters.agent_step, train_representation=shared)
        rig.monitor.learned(metrics)
        counters.phase_updates += 1
        counters.updates += 1
        counters.owed += count - shared
        if counters.owed <= AT_ONCE:
            _update_objective(rig)


def _update_objective(rig: Rig) -> None:
    """Updates of the objective alone, as many as are owed, or as one turn of the loop takes."""
    for _ in range(min(rig.counters.owed, AT_ONCE)):
        own = rig.repr_sampler or rig.sampler
        rig.monitor.learned(representation_update(rig.learner, own.sample().to(rig.device)))
        rig.counters.owed -= 1


def _begin_episodes(rig: Rig, first: FirstRows) -> None:
    rig.stacker.begin(first.lanes, first.frames)
    rows = rig.recorder.rows(rig.stacker, first.lanes, first.frames)
    rig.store.begin(first.lanes, rows, _side(first.state))
    rig.monitor.visited(first.state)


def _record(rig: Rig, step: VectorStep) -> None:
    count = len(step.lanes)
    rig.stacker.push(step.lanes, step.frames)
    rig.store.add(
        step.lanes,
        rig.recorder.rows(rig.stacker, step.lanes, step.frames),
        rig.counters.actions[step.lanes],
        step.reward,
        np.zeros(count, dtype=bool),
        step.terminal,
        step.is_last,
        _side(step.state),
    )
    rig.monitor.stepped(step)
    if step.reset is not None:
        _begin_episodes(rig, step.reset)


def _side(state: np.ndarray[Any, np.dtype[np.float32]] | None) -> dict[str, Any] | None:
    return None if state is None else {"state": state}
