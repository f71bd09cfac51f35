"""Our learners at the references' settings, with the references' weights."""

from __future__ import annotations

from typing import Any

import torch
from reference import ACTION_DIM, OBS_SHAPE
from torch import Generator, Tensor, nn

from visrep.augment.shift import random_shift
from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch
from visrep.encoders.contract import InputContract
from visrep.encoders.conv import ConvEncoder
from visrep.objectives.proto import ProtoConfig, ProtoObjective
from visrep.policies.drqv2 import DrQv2, DrQv2Config
from visrep.policies.nets import adam
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.repr_schedules import LearningRate
from visrep.runs.representation import make_representation
from visrep.runs.update import Learner

LR = 1e-4


def copy_in_order(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy parameters by position; both sides list the same layers in the same order."""
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    with torch.no_grad():
        for mine, given in pairs:
            mine.copy_(given)


def shift(images: Tensor, generator: Generator | None) -> Tensor:
    return random_shift(images, generator=generator)


def proto_learner(agent: Any, precision: str) -> Learner:
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
        augment=shift,
        representation=make_representation(objective, LearningRate(LR), train_encoder=True, precision=precision),
        intrinsic="only",
        precision=precision,
    )


def drqv2_learner(agent: Any, precision: str) -> Learner:
    channels, height, width = OBS_SHAPE
    encoder = ConvEncoder(InputContract(height, width, stack=channels // 3), offset=0.5)
    policy = DrQv2(encoder.feature_dim, ACTION_DIM, DrQv2Config(), LR)
    copy_in_order(encoder, agent.encoder)
    copy_in_order(policy.actor, agent.actor)
    copy_in_order(policy.critic, agent.critic)
    copy_in_order(policy.critic_target, agent.critic_target)
    return Learner(
        encoder=encoder,
        policy=policy,
        generator=Generator().manual_seed(0),
        augment=shift,
        encoder_optimizer=adam(encoder.parameters(), LR),
        encoder_gradient="critic",
        precision=precision,
    )


def batch(obs: Tensor, action: Tensor, reward: Tensor, discount: Tensor, next_obs: Tensor) -> Batch:
    """The reference's transition as our sampler hands it over: uint8 [B, T, S*C, H, W]."""
    return Batch(
        images=[torch.stack([obs, next_obs], dim=1)],
        offsets=(0, 1),
        valid=torch.ones(len(obs), 2, dtype=torch.bool),
        fields={"action": torch.stack([torch.zeros_like(action), action], dim=1)},
        n_step_return=reward,
        n_step_discount=discount,
    )
