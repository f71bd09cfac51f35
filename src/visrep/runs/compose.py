"""From a validated configuration to built objects; nothing here runs a loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from visrep.augment.shift import random_shift
from visrep.config import NO_OBJECTIVE, Config
from visrep.data.actions import ActionSpec
from visrep.data.batch import BatchSpec
from visrep.data.budget import Budget, memory_budget
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.encoders.contract import Encoder, InputContract, build_encoder
from visrep.envs.make import full_name
from visrep.envs.rendering import resolve_renderer
from visrep.envs.vector import EnvSpec, VectorEnv
from visrep.errors import UserError
from visrep.objectives.contract import OBJECTIVES, Novelty, Objective
from visrep.policies.contract import Policy, build_policy
from visrep.policies.nets import adam
from visrep.runs.update import Augment, EncoderGradient, Intrinsic, Learner, RunningMean


@dataclass
class Networks:
    """What is learned, and what a finished pre-training hands on."""

    encoder: Encoder
    objective: Objective | None
    policy: Policy

    def modules(self) -> dict[str, nn.Module]:
        """The networks by name."""
        modules: dict[str, nn.Module] = {"encoder": self.encoder, "policy": self.policy}
        return modules if self.objective is None else {**modules, "objective": self.objective}


def choose_device(wanted: str) -> tuple[torch.device, str]:
    """The torch device for the key ``device`` and the reason, to be shown to the user."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"CUDA is available ({torch.cuda.get_device_name(0)})"
        return torch.device("cpu"), f"no CUDA device is visible; {torch.get_num_threads()} threads"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"device={wanted} was asked for, but this torch sees no CUDA device: use device=auto or device=cpu"
        )
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps was asked for, but this machine has none: use device=auto or device=cpu")
    return torch.device(wanted), "as asked for"


def env_spec(config: Config) -> EnvSpec:
    """The environment of a run, by name and picture settings.

    MuJoCo's renderer is settled here, once, and not by every worker: what "auto" means, and the first compilation.
    """
    run = config.run
    render = resolve_renderer(run.render) if full_name(run.env).startswith("dmc/") else run.render
    return EnvSpec(
        name=run.env, image_size=run.image_size, action_repeat=run.action_repeat, render=render, camera=run.camera
    )


def build_networks(config: Config, envs: VectorEnv, device: torch.device) -> Networks:
    """Encoder, objective and policy with fresh weights (drawn from torch's global generator)."""
    run = config.run
    channels, height, width = envs.frame_shape
    contract = InputContract(height=height, width=width, channels=channels, stack=run.frame_stack)
    try:
        encoder = build_encoder(run.encoder_kind, contract, channels=run.encoder_channels, offset=run.encoder_offset)
    except ValueError as error:
        raise UserError(f"encoder_kind={run.encoder_kind} cannot be built: {error}") from error
    objective = None
    if run.method not in NO_OBJECTIVE:
        assert config.objective is not None
        objective = OBJECTIVES.build(run.method, encoder, ActionSpec(envs.action_dim), config.objective).to(device)
    policy = build_policy(run.policy, encoder.feature_dim, envs.action_dim, config.policy, lr=run.lr)
    return Networks(encoder.to(device), objective, policy.to(device))


def compile_networks(networks: Networks, how: str) -> None:
    """``compile=on|cudagraphs``: compile the forward passes in place (names and state dicts stay as they are)."""
    if how == "off":
        return
    mode = "reduce-overhead" if how == "cudagraphs" else None
    for module in (networks.encoder, networks.objective):
        if module is not None:
            module.compile(mode=mode, dynamic=False)


def build_learner(
    config: Config,
    networks: Networks,
    intrinsic: Intrinsic,
    encoder_gradient: EncoderGradient,
    generator: torch.Generator,
) -> Learner:
    """One phase's learner: fresh optimisers for whatever trains in it."""
    run, objective = config.run, networks.objective
    if intrinsic != "none" and not isinstance(objective, Novelty):
        raise UserError(
            f"method={run.method} pays no exploration: choose a method that does, or set intr_coef=0 and "
            "num_expl_steps=0"
        )
    trained = list(networks.encoder.parameters()) if encoder_gradient in ("objective", "both") else []
    if objective is not None and encoder_gradient != "none":
        # With encoder_gradient=critic the objective's heads still follow the moving features.
        trained += [p for p in objective.parameters() if p.requires_grad]
    return Learner(
        encoder=networks.encoder,
        policy=networks.policy,
        generator=generator,
        objective=objective,
        augment=_augmentation(run.shift_pad),
        repr_optimizer=adam(trained, run.lr) if trained else None,
        encoder_optimizer=(
            adam(networks.encoder.parameters(), run.lr) if encoder_gradient in ("critic", "both") else None
        ),
        encoder_gradient=encoder_gradient,
        encoder_update_frequency=run.encoder_update_frequency,
        intrinsic=intrinsic,
        intr_coef=run.intr_coef,
        reward_norm=RunningMean().to(generator.device) if run.intr_reward_norm == "mean" else None,
        n_step=run.n_step,
        cudagraphs=run.compile == "cudagraphs",
        precision=run.precision,
    )


def _augmentation(pad: int) -> Augment | None:
    """Random shift by up to ``pad`` pixels, or none."""
    return None if pad == 0 else lambda images, generator: random_shift(images, pad=pad, generator=generator)


def batch_spec(config: Config, learner: Learner) -> BatchSpec:
    """What one update needs: the policy's n-step transition united with the objective's window."""
    n_step = config.run.n_step
    # The policy looks at o_t and o_{t+n}; offset 1 carries the action between, its image is not needed.
    spec = BatchSpec((0, 1), frozenset({"image", "action", "reward"}), n_step=n_step, image_offsets=(0, n_step))
    if learner.objective is not None:
        spec = spec.union(learner.objective.needs())
    return spec


def store_spec(envs: VectorEnv) -> StoreSpec:
    """Fields that an interaction run keeps."""
    side: dict[str, tuple[int, ...]] = {"state": (envs.state_dim,)} if envs.state_dim else {}
    return StoreSpec(frame_shape=envs.frame_shape, actions=ActionSpec(envs.action_dim), side=side)


def build_store(config: Config, envs: VectorEnv, device: torch.device, folder: Path) -> FrameStore:
    """An empty store whose files have room for what is written between checkpoints."""
    run = config.run
    return FrameStore(
        store_spec(envs),
        capacity=run.replay_buffer_capacity,
        lanes=run.num_envs,
        slack=checkpoint_rows(config),
        storage=run.storage,
        path=folder if run.storage == "disk" else None,
        device=device if run.storage == "device" else torch.device("cpu"),
    )


def replay_budget(
    config: Config, frame_shape: tuple[int, int, int], action_dim: int, state_dim: int, run_dir: Path
) -> Budget:
    """Bytes that the experience of one phase needs; the phases' stores follow each other."""
    run = config.run
    return memory_budget(
        frame_shape=frame_shape,
        actions=ActionSpec(action_dim),
        state_dim=state_dim,
        capacity=run.replay_buffer_capacity,
        slack=checkpoint_rows(config),
        lanes=run.num_envs,
        storage=run.storage,
        batch_size=run.batch_size,
        frame_stack=run.frame_stack,
        offsets=len({0, 1, run.n_step}),
        run_dir=run_dir,
    )


def checkpoint_rows(config: Config) -> int:
    """The most rows that one lane may add between two checkpoints: its agent steps, and as many first rows at worst."""
    agent_steps_per_lane = -(-config.run.checkpoint_frequency // config.run.num_envs)
    return 2 * (agent_steps_per_lane + 1)


def build_sampler(config: Config, store: FrameStore, spec: BatchSpec, generator: np.random.Generator) -> Sampler:
    """The sampler of one phase; says at once what the store cannot provide."""
    spec.check(store.spec.provides, "this environment's store", f"method={config.run.method}")
    return Sampler(
        store,
        spec,
        batch_size=config.run.batch_size,
        frame_stack=config.run.frame_stack,
        discount=config.run.discount,
        generator=generator,
        pin_memory=torch.cuda.is_available() and store.device.type == "cpu",
    )
