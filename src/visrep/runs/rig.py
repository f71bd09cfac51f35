"""The parts that one phase runs on, each with its own random stream, and the registry of what survives a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from visrep.config import Config
from visrep.data.batch import BatchSpec
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore
from visrep.encoders import InputContract, build_encoder
from visrep.envs.vector import VectorEnv
from visrep.log import RunLog
from visrep.runs.acting import Agent, FrameStacker
from visrep.runs.augmenting import latent_augmentation
from visrep.runs.compose import Networks, build_agent, build_sampler, build_store, reward_priority, store_spec
from visrep.runs.counters import Counters
from visrep.runs.interact import Rig
from visrep.runs.learning import batch_spec, build_learner, shares_batch
from visrep.runs.monitor import Monitor
from visrep.runs.phases import PhasePlan
from visrep.runs.probing import ProbeWatch, draw_probe
from visrep.runs.recording import Recorder
from visrep.runs.state import RunState
from visrep.runs.update import Learner


def build_rig(
    config: Config,
    networks: Networks,
    envs: VectorEnv,
    counters: Counters,
    monitor: Monitor,
    plan: PhasePlan,
    folder: Path,
    device: torch.device,
) -> Rig:
    """Everything that ``interact`` needs for one phase.

    Args:
        config: of the run.
        networks: carried from phase to phase.
        envs: the run's environments.
        counters: where the run stands; the phase's index is part of its seeds.
        monitor: takes metrics.
        plan: the phase.
        folder: where a memory-mapped store lives.
        device: of networks and batches.
    """
    run = config.run
    seeds = np.random.SeedSequence([run.seed, counters.phase]).generate_state(4)
    generator = torch.Generator(device=device).manual_seed(int(seeds[0]))

    def planned() -> int:  # asked when learning has begun
        return plan.pace.total(counters.learn_start)

    learner = build_learner(config, networks, plan.intrinsic, plan.encoder_gradient, generator, planned)
    agent = build_agent(config, networks, device)
    if plan.latents:
        learn_from_latents(config, learner)
    # Each phase has a store of its own: nothing of the first is kept, as in the reference.
    spec = store_spec(config, envs, networks.encoder if plan.latents else None)
    store = build_store(config, spec, device, folder)
    stack = 1 if plan.latents else run.frame_stack  # a stored latent is of a whole stack already
    needs = batch_spec(config, learner, plan.pace)
    return Rig(
        envs=envs,
        stacker=FrameStacker(run.num_envs, envs.frame_shape, run.frame_stack, envs.frame_dtype),
        store=store,
        sampler=build_sampler(config, store, needs, np.random.default_rng(seeds[1]), stack),
        repr_sampler=_repr_sampler(config, store, learner, plan, np.random.default_rng(seeds[3])),
        recorder=Recorder(agent, run.latent_dtype) if plan.latents else Recorder(),
        agent=agent,
        learner=learner,
        pace=plan.pace,
        counters=counters,
        monitor=monitor,
        watch=_watch(config, store, agent, device),
        action_generator=np.random.default_rng(seeds[2]),
        device=device,
    )


def learn_from_latents(config: Config, learner: Learner) -> None:
    """Let the policy learn from stored latent images: no convolution runs in an update any more."""
    channels, height, width = learner.encoder.latent_shape
    contract = InputContract(height=height, width=width, channels=channels, stack=1)
    learner.encoder = build_encoder("latent", contract)
    learner.augment = latent_augmentation(config)
    learner.shares_images, learner.repr_augment = True, learner.augment


def _watch(config: Config, store: FrameStore, agent: Agent, device: torch.device) -> ProbeWatch:
    """Live probes on the phase's own experience."""
    run = config.run
    return ProbeWatch(run.probe_frequency, lambda: draw_probe([store], run.frame_stack, agent.prepare, device))


def _repr_sampler(
    config: Config, store: FrameStore, learner: Learner, plan: PhasePlan, generator: np.random.Generator
) -> Sampler | None:
    """Batches for the objective alone, where it does not share the policy's."""
    run = config.run
    if learner.representation is None or shares_batch(config, learner, plan.pace):
        return None
    needs: BatchSpec = learner.representation.objective.needs()
    priority = reward_priority(config)
    return build_sampler(config, store, needs, generator, run.frame_stack, run.repr_batch_size, priority)


def register(rig: Rig, networks: Networks, log: RunLog, mirror: Path) -> RunState:
    """Everything of a phase that decides how it goes on, by name; the store's rows go to ``mirror``."""
    state, learner = RunState(), rig.learner
    state.register("counters", rig.counters)
    for name, module in networks.modules().items():
        state.register(name, module)
    for name, optimizer in learner.policy.optimizers().items():
        state.register(f"policy_optimizer_{name}", optimizer)
    optional = {
        "representation": learner.representation,
        "target_encoder": learner.target_encoder,
        "encoder_optimizer": learner.encoder_optimizer,
        "reward_norm": learner.reward_norm,
        "repr_sampler": rig.repr_sampler,
    }
    for name, part in optional.items():
        if part is not None:
            state.register(name, part)
    assert learner.generator is not None, "made by build_rig"
    state.register("generator", learner.generator)
    state.register("action_generator", rig.action_generator)
    state.register("sampler", rig.sampler)
    state.register("envs", rig.envs)
    state.register("stacker", rig.stacker)
    state.register("store", (lambda: rig.store.save(mirror), lambda saved: rig.store.load(mirror, saved)))
    state.register("monitor", rig.monitor)
    state.register("watch", rig.watch)
    state.register("log", log)
    return state
