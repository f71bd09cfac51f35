"""The public Proto-RL (denisyarats/proto), imported from a checkout; nothing of it is kept here.

Packages that it imports but an update does not need (hydra, gym, omegaconf) are replaced by empty stand-ins. kornia
does its augmentation; without it a stand-in crops by gathering, which is not slower than kornia's.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import torch
from contest import (
    ACTION_DIM,
    OBS_SHAPE,
    Contest,
    Draws,
    Losses,
    Step,
    Transitions,
    copy_in_order,
    load,
    recorded_losses,
)
from torch import Generator, Tensor, nn

from visrep.augment import parse_augmentation
from visrep.data.actions import ActionSpec
from visrep.encoders.contract import InputContract
from visrep.encoders.conv import ConvEncoder
from visrep.objectives.proto import ProtoConfig, ProtoObjective
from visrep.pace import LearningRate
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.representation import make_representation
from visrep.runs.update import Learner, update

LR = 1e-4
LOSSES = ("repr_loss", "critic_loss", "actor_loss", "alpha_loss")  # in the order of the agent's backward passes


class _RandomCrop(nn.Module):
    """kornia.augmentation.RandomCrop for images that need no padding."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        rows = torch.randint(height - self.size[0] + 1, (count, 1)) + torch.arange(self.size[0])
        columns = torch.randint(width - self.size[1] + 1, (count, 1)) + torch.arange(self.size[1])
        index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # [N, H*W]
        flat = images.flatten(2)
        return flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).unflatten(2, self.size)


def _module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(content)
    return made


def stand_ins() -> dict[str, ModuleType]:
    instantiate = lambda config: config.cls(**vars(config.params))
    made = {
        "hydra": _module("hydra", utils=SimpleNamespace(instantiate=instantiate)),
        "gym": _module("gym"),
        "omegaconf": _module("omegaconf", OmegaConf=None),
    }
    try:
        importlib.import_module("kornia")
    except ImportError:
        made["kornia"] = _module("kornia", augmentation=SimpleNamespace(RandomCrop=_RandomCrop))
    return made


def crop_implementation() -> str:
    """What cuts the reference's augmented images: kornia with its version, or the stand-in."""
    try:
        return f"kornia {importlib.import_module('kornia').__version__}"
    except ImportError:
        return "stand-in for kornia's RandomCrop"


class Replay:
    """Stands in for the buffer: the same batch every time, as the buffer hands it over."""

    def __init__(self, data: Transitions) -> None:
        self.data = data

    def __len__(self) -> int:
        return 1_000_000

    def sample(self, batch_size: int, discount: float) -> tuple[Tensor, ...]:
        """The buffer converts to float on the device."""
        d = self.data
        return d.obs.float(), d.action, d.reward, d.next_obs.float(), d.discount


class Proto(Contest):
    """Proto-RL in its exploration phase: representation, critic, actor, targets at even ticks, critic at odd ones."""

    name = "proto"
    title = "one Proto-RL update"
    checkout = "proto"
    repository = "denisyarats/proto"
    batch_size = 512
    ticks = (0, 1)
    bars: ClassVar[dict[str, float]] = {"bf16": 5.0, "fp32": 2.5}

    def agent(self, folder: Path) -> Any:
        """With the settings of its config.yaml."""
        proto = load(folder, "proto", stand_ins(), forget=["utils"])
        config = lambda cls, **params: SimpleNamespace(cls=cls, params=SimpleNamespace(**params))
        heads = {"feature_dim": 50, "action_shape": (ACTION_DIM,), "hidden_dim": 1024, "hidden_depth": 2}
        return proto.ProtoAgent(
            obs_shape=OBS_SHAPE,
            action_shape=(ACTION_DIM,),
            action_range=(-1.0, 1.0),
            device=torch.device("cpu"),
            encoder_cfg=config(proto.Encoder, obs_shape=OBS_SHAPE, proj_dim=128),
            critic_cfg=config(proto.Critic, **heads),
            actor_cfg=config(proto.Actor, log_std_bounds=(-10, 2), **heads),
            proto_cfg=config(
                proto.Proto, proj_dim=128, pred_dim=512, T=0.1, num_protos=512, num_iters=3, topk=3, queue_size=2048
            ),
            discount=0.99,
            init_temperature=0.1,
            lr=LR,
            actor_update_frequency=2,
            critic_target_tau=0.01,
            critic_target_update_frequency=2,
            encoder_target_tau=0.05,
            encoder_update_frequency=2,
            batch_size=512,
            task_agnostic=True,
            intr_coef=0.2,
            num_seed_steps=1000,
        )

    def reference_step(self, agent: Any, data: Transitions) -> Step:
        replay = Replay(data)
        return lambda tick: agent.update(replay, tick)

    def our_step(self, agent: Any, data: Transitions, precision: str) -> Step:
        built, batch = learner(agent, precision), data.batch()
        return lambda tick: update(built, batch, tick, tick, train_representation=tick % 2 == 0)

    def reference_losses(self, agent: Any, data: Transitions, draws: Draws) -> Losses:
        agent.aug = lambda images: images
        waiting = [draws.noise.critic, draws.noise.actor]
        normal = lambda shape, dtype, device: waiting.pop(0).clone()
        with (
            mock.patch("torch.distributions.normal._standard_normal", normal),
            mock.patch("torch.distributions.Categorical.sample", lambda self, *_: draws.candidates),
            recorded_losses() as losses,
        ):
            agent.update(Replay(data), 0)
        return dict(zip(LOSSES, losses, strict=True))

    def our_losses(self, agent: Any, data: Transitions, draws: Draws, precision: str) -> Losses:
        built = learner(agent, precision)
        built.augment = None
        objective = built.objective
        assert isinstance(objective, ProtoObjective)
        remember = functools.partial(ProtoObjective.remember, objective, candidates=draws.candidates)
        objective.remember = lambda embedding, generator=None: remember(embedding)  # type: ignore[method-assign]
        metrics = update(built, data.batch(), 0, 0, noise=draws.noise)
        return {loss: float(metrics[loss]) for loss in LOSSES}


def learner(agent: Any, precision: str) -> Learner:
    """Ours at the agent's settings and with its weights."""
    channels, height, width = OBS_SHAPE
    encoder = ConvEncoder(InputContract(height, width, stack=channels // 3))
    objective = ProtoObjective(encoder, ActionSpec(ACTION_DIM), ProtoConfig())
    policy = SAC(encoder.feature_dim, ACTION_DIM, SACConfig(), LR)
    copy_in_order(encoder, agent.encoder.conv)
    copy_in_order(objective.projector, agent.encoder.projector)
    copy_in_order(objective.predictor, agent.proto.predictor)
    copy_in_order(objective.target_encoder, agent.encoder_target.conv)
    copy_in_order(objective.target_projector, agent.encoder_target.projector)
    with torch.no_grad():
        objective.prototypes.copy_(agent.proto.protos.weight)
        objective.queue.copy_(agent.proto.queue)
    copy_in_order(policy.actor, agent.actor)
    copy_in_order(policy.critic, agent.critic)
    copy_in_order(policy.critic_target, agent.critic_target)
    return Learner(
        encoder=encoder,
        policy=policy,
        generator=Generator().manual_seed(0),
        objective=objective,
        representation=make_representation(objective, LearningRate(LR), train_encoder=True, precision=precision),
        augment=parse_augmentation("shift(4)", 3),
        intrinsic="only",
        precision=precision,
    )
