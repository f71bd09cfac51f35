"""From a validated configuration to built objects; nothing here runs a loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from visrep.config import NO_OBJECTIVE, Config
from visrep.data.actions import ActionSpec
from visrep.data.batch import BatchSpec
from visrep.data.budget import Budget, memory_budget
from visrep.data.priority import RewardPriority
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.encoders import Encoder, InputContract, build_encoder, encoder_config
from visrep.envs.vector import EnvSpec, VectorEnv
from visrep.errors import UserError
from visrep.objectives.contract import Objective, UsesProjection, build_objective
from visrep.policies.contract import Policy, build_policy
from visrep.runs.acting import Agent
from visrep.runs.augmenting import encoder_image_size, policy_augmentation


@dataclass(frozen=True)
class Source:
    """Where observations come from, as far as networks must know.

    Attributes:
        frame_shape: (C, H, W) of one frame.
        actions: what actions are.
        acts: False for recorded experience: nobody acts, so there is no policy.
    """

    frame_shape: tuple[int, int, int]
    actions: ActionSpec
    acts: bool = True

    @staticmethod
    def of(envs: VectorEnv) -> Source:
        """An environment, acted in."""
        return Source(envs.frame_shape, ActionSpec(envs.action_dim))


@dataclass
class Networks:
    """What is learned, and what a finished pre-training hands on. Recorded experience needs no policy."""

    encoder: Encoder
    objective: Objective | None
    policy: Policy | None

    def modules(self) -> dict[str, nn.Module]:
        """The networks by name."""
        modules = {"encoder": self.encoder, "policy": self.policy, "objective": self.objective}
        return {name: module for name, module in modules.items() if module is not None}


def choose_device(wanted: str) -> tuple[torch.device, str]:
    """The torch device for the key ``device`` and the reason, to be shown to the user.

    Raises:
        UserError: there is no such device here, or it is no device.
    """
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
    try:
        return torch.device(wanted), "as asked for"
    except RuntimeError as error:
        raise UserError(f"device={wanted}: use auto, cpu, cuda, cuda:<index> or mps") from error


def env_spec(config: Config) -> EnvSpec:
    """The environment of a run, by name and picture settings.

    MuJoCo's renderer is settled here, once, and not by every worker: what "auto" means, and the first compilation.
    """
    run = config.run
    spec = EnvSpec(run.env, run.image_size, run.action_repeat, run.render, run.camera, run.observation)
    return spec.settled()


def build_networks(config: Config, source: Source, device: torch.device) -> Networks:
    """Encoder, objective and policy with fresh weights (drawn from torch's global generator)."""
    run = config.run
    encoder = _build_encoder(config, source.frame_shape)
    objective = None
    if run.method not in NO_OBJECTIVE:
        assert config.objective is not None
        objective = build_objective(run.method, encoder, source.actions, config.objective).to(device)
    policy = None
    if source.acts:
        policy = build_policy(run.policy, encoder.feature_dim, source.actions.dim, config.policy, lr=run.lr).to(device)
    return Networks(encoder.to(device), objective, policy)


def share_critics_projection(networks: Networks) -> None:
    """Let an objective that works on a critic's projection have it; nothing where there is no policy."""
    if isinstance(networks.objective, UsesProjection) and networks.policy is not None:
        networks.objective.share_projection(networks.policy.get_submodule("critic.trunk"))


def begin_objective_anew(config: Config, networks: Networks) -> None:
    """Fresh heads, and target copies of the encoder as it is now; nothing where the run has no objective."""
    objective = networks.objective
    if objective is not None:
        assert config.objective is not None
        anew = build_objective(objective.name, networks.encoder, objective.actions, config.objective)
        if isinstance(objective, UsesProjection) and objective.lacks_projection(objective.state_dict()):
            share_critics_projection(Networks(networks.encoder, anew, networks.policy))
        objective.load_state_dict(anew.state_dict())


def _build_encoder(config: Config, frame_shape: tuple[int, int, int]) -> Encoder:
    run = config.run
    height, width = encoder_image_size(config, frame_shape)
    kind = "vector" if run.observation == "state" else run.encoder_kind
    contract = InputContract(height=height, width=width, channels=frame_shape[0], stack=run.frame_stack)
    settings = encoder_config(kind, channels=run.encoder_channels, offset=run.encoder_offset, init=run.encoder_init)
    try:
        return build_encoder(kind, contract, **settings)
    except ValueError as error:
        raise UserError(f"encoder_kind={kind} cannot be built: {error}") from error


def build_agent(config: Config, networks: Networks, device: torch.device) -> Agent:
    """What acts with these networks."""
    assert networks.policy is not None, "recorded experience has no agent"
    augment = policy_augmentation(config, networks.encoder.contract.channels)
    prepare = None if augment is None else augment.evaluate
    return Agent(networks.encoder, networks.policy, prepare, device, config.run.precision)


def compile_networks(networks: Networks, how: str) -> None:
    """``compile=on|cudagraphs``: compile the forward passes in place (names and state dicts stay as they are)."""
    if how == "off":
        return
    mode = "reduce-overhead" if how == "cudagraphs" else None
    for module in (networks.encoder, networks.objective):
        if module is not None:
            module.compile(mode=mode, dynamic=False)


def store_spec(config: Config, envs: VectorEnv, latents: Encoder | None = None) -> StoreSpec:
    """Fields that an interaction run keeps; with an encoder, its latent images in the place of frames."""
    side: dict[str, tuple[int, ...]] = {"state": (envs.state_dim,)} if envs.state_dim else {}
    actions = ActionSpec(envs.action_dim)
    if latents is not None:
        return StoreSpec(latents.latent_shape, actions, side, frame_dtype=config.run.latent_dtype)
    return StoreSpec(envs.frame_shape, actions, side, frame_dtype=envs.frame_dtype)


def build_store(config: Config, spec: StoreSpec, device: torch.device, folder: Path) -> FrameStore:
    """An empty store whose files have room for what is written between checkpoints."""
    run = config.run
    return FrameStore(
        spec,
        capacity=run.replay_buffer_capacity,
        lanes=run.num_envs,
        slack=checkpoint_rows(config),
        storage=run.storage,
        path=folder if run.storage == "disk" else None,
        device=device if run.storage == "device" else torch.device("cpu"),
    )


def replay_budget(config: Config, spec: StoreSpec, run_dir: Path) -> Budget:
    """Bytes that the experience of one phase needs; the phases' stores follow each other."""
    run = config.run
    return memory_budget(
        spec=spec,
        capacity=run.replay_buffer_capacity,
        slack=checkpoint_rows(config),
        lanes=run.num_envs,
        storage=run.storage,
        batch_size=run.batch_size,
        frame_stack=1 if run.replay == "latents" else run.frame_stack,
        offsets=len({0, 1, run.n_step}),
        run_dir=run_dir,
    )


def checkpoint_rows(config: Config) -> int:
    """The most rows that one lane may add between two checkpoints: its agent steps, and as many first rows at worst."""
    agent_steps_per_lane = -(-config.run.checkpoint_frequency // config.run.num_envs)
    return 2 * (agent_steps_per_lane + 1)


def reward_priority(config: Config) -> RewardPriority:
    """How the objective's own batches favour reward (``repr_priority_*``)."""
    run = config.run
    return RewardPriority(run.repr_priority_alpha, run.repr_priority_beta, run.repr_priority_steps, run.discount)


def build_sampler(
    config: Config,
    store: FrameStore,
    spec: BatchSpec,
    generator: np.random.Generator,
    frame_stack: int,
    batch_size: int | None = None,
    priority: RewardPriority | None = None,
) -> Sampler:
    """A sampler of one phase; says at once what the store cannot provide."""
    spec.check(store.spec.provides, "this environment's store", f"method={config.run.method}")
    return Sampler(
        store,
        spec,
        batch_size=batch_size or config.run.batch_size,
        frame_stack=frame_stack,
        discount=config.run.discount,
        generator=generator,
        pin_memory=torch.cuda.is_available() and store.device.type == "cpu",
        priority=priority,
    )
