"""What the example scripts with a policy share: acting and sampling, returns, the explorer that novelty pays.

Shapes: E environments, A action, D features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from toy_data import LANES, UNSEEN, ToyWorld
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders import Encoder
from visrep.envs.make import make_script
from visrep.envs.vector import VectorEnv
from visrep.objectives import Novelty, Objective, Transition
from visrep.pace import LearningRate
from visrep.policies.contract import Policy
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.acting import Agent
from visrep.runs.evaluation import evaluate
from visrep.runs.representation import make_representation
from visrep.runs.update import Learner, update

EPISODE = 200  # agent steps of a toy episode
REPEAT = 4  # environment frames per agent step in the tasks with a goal


def agent_of(encoder: Encoder, policy: Policy) -> Agent:
    """What turns stacked frames into actions: no crop before it, on the CPU."""
    return Agent(encoder, policy, None, torch.device("cpu"), "fp32")


def transitions(n_step: int = 1) -> BatchSpec:
    """What a policy learns from: o_t, the action after it, the reward of n steps and o_{t+n}."""
    return BatchSpec((0, 1), frozenset({"image", "action", "reward"}), n_step=n_step, image_offsets=(0, n_step))


def live(
    world: ToyWorld, learner: Learner, agent_steps: int, random_steps: int = 4_000, updates: int = 2
) -> Iterator[Batch]:
    """Act, store, sample: after an agent step of every arena, ``updates`` batches to learn from.

    Args:
        world: acted in, and sampled from.
        learner: whose policy acts.
        agent_steps: over all arenas, when it ends.
        random_steps: of these at first with uniform actions and no updates; no more than half.
        updates: per step of all arenas.
    """
    agent, spec = agent_of(learner.encoder, learner.policy), transitions(learner.n_step)
    if learner.objective is not None:
        spec = spec.union(learner.objective.needs())
    sampler = world.sampler(spec, batch_size=64)
    while world.agent_step < agent_steps:
        seeding = world.agent_step < min(random_steps, agent_steps // 2)
        world.step(None if seeding else agent.actions(world.stacker.frames, world.agent_step, learner.generator))
        for _ in range(0 if seeding else updates):
            yield sampler.sample()


def mean_return(world: ToyWorld, learner: Learner, seed: int) -> float:
    """Mean return of the policy's evaluation action, an episode in every arena that nothing was learned from."""
    envs, agent = VectorEnv(world.spec, LANES, seed + UNSEEN), agent_of(learner.encoder, learner.policy)
    stack, now = world.contract.stack, world.agent_step
    return evaluate(envs, agent, frame_stack=stack, episodes=LANES, agent_step=now, first_episode=0).mean_return


def random_return(task: str, seed: int) -> float:
    """The same of uniformly random actions."""
    world = ToyWorld(task, seed + UNSEEN, REPEAT)
    return float(sum(world.step().reward.mean() for _ in range(EPISODE)))


def explore(world: ToyWorld, objective: Objective, agent_steps: int, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """A SAC that is paid by the objective's novelty alone, while the objective trains the encoder; metrics by update.

    The settings are those of ``preset=toy_maze`` with smaller networks.
    """
    encoder = objective.encoder
    learner = Learner(
        encoder=encoder,
        policy=SAC(encoder.feature_dim, world.actions.dim, SACConfig(hidden_dim=128, init_temperature=0.01), lr=3e-4),
        generator=torch.Generator().manual_seed(seed),
        objective=objective,
        representation=make_representation(objective, LearningRate(3e-4), train_encoder=objective.trains_encoder),
        intrinsic="only",  # the task's reward is not looked at; the maze has none
    )
    for tick, batch in enumerate(live(world, learner, agent_steps, random_steps=1_000, updates=1)):
        yield update(learner, batch, tick, world.agent_step, train_representation=tick % 2 == 0)


def walked_world(seed: int, agent_steps: int = 4_800) -> ToyWorld:
    """The maze as the environment's own script walks through all of its rooms."""
    world = ToyWorld("maze", seed + UNSEEN)
    scripts = [make_script(world.spec.name, world.spec.action_repeat) for _ in range(LANES)]
    while world.agent_step < agent_steps:
        pairs = zip(scripts, world.states, strict=True)
        world.step(np.stack([script.action(state, world.generator) for script, state in pairs]))
    return world


@torch.no_grad()
def novelty_by_visits(objective: Objective, world: ToyWorld, walked: ToyWorld) -> tuple[float, float]:
    """Mean novelty of 1,024 transitions of a tour, in the cells that were visited in ``world`` and in all others."""
    assert isinstance(objective, Novelty), "an exploration method"
    spec = BatchSpec((0, 1), frozenset({"image", "action", "state"}))
    batch = walked.sampler(spec, batch_size=1_024).sample()
    before, after = (objective.encoder(batch.image(offset)) for offset in (0, 1))  # [B, D] each
    objective.eval()  # RND then judges by its running moments, not by those of this batch
    novelty = objective.novelty(objective.embed(Transition(before, batch.at("action", 1), after)))[:, 0]
    visits = world.visits(batch.at("state", 0).numpy())  # [B]
    return float(novelty[visits > 0].mean()), float(novelty[visits == 0].mean())
