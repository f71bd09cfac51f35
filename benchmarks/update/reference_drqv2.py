"""The public DrQ-v2 (facebookresearch/drqv2), imported from a checkout; nothing of it is kept here.

hydra, which it imports but an update does not need, is replaced by an empty stand-in.
"""

from __future__ import annotations

from pathlib import Path
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
from reference_proto import stand_ins
from torch import Generator, Tensor

from visrep.augment import parse_augmentation
from visrep.encoders.contract import InputContract
from visrep.encoders.conv import ConvEncoder
from visrep.policies.drqv2 import DrQv2, DrQv2Config
from visrep.policies.nets import adam
from visrep.runs.update import Learner, update

LR = 1e-4
LOSSES = ("critic_loss", "actor_loss")  # in the order of the agent's backward passes


class Loader:
    """Stands in for the loader: the same batch every time."""

    def __init__(self, data: Transitions) -> None:
        self.data = data

    def __next__(self) -> tuple[Tensor, ...]:
        d = self.data
        return d.obs, d.action, d.reward, d.discount, d.next_obs


class DrQV2(Contest):
    """DrQ-v2: critic and encoder, actor and target, at every tick."""

    name = "drqv2"
    title = "one DrQ-v2 update"
    checkout = "drqv2"
    repository = "facebookresearch/drqv2"
    batch_size = 256
    ticks = (0,)
    bars: ClassVar[dict[str, float]] = {"bf16": 2.5, "fp32": 2.5}

    def agent(self, folder: Path) -> Any:
        """With the settings of its medium tier, without TensorBoard metrics."""
        return load(folder, "drqv2", stand_ins(), forget=["utils"]).DrQV2Agent(
            obs_shape=OBS_SHAPE,
            action_shape=(ACTION_DIM,),
            device=torch.device("cpu"),
            lr=LR,
            feature_dim=50,
            hidden_dim=1024,
            critic_target_tau=0.01,
            num_expl_steps=2000,
            update_every_steps=1,
            stddev_schedule="linear(1.0,0.1,500000)",
            stddev_clip=0.3,
            use_tb=False,
        )

    def reference_step(self, agent: Any, data: Transitions) -> Step:
        loader = Loader(data)
        return lambda tick: agent.update(loader, tick)

    def our_step(self, agent: Any, data: Transitions, precision: str) -> Step:
        built, batch = learner(agent, precision), data.batch()
        return lambda tick: update(built, batch, tick, tick)

    def reference_losses(self, agent: Any, data: Transitions, draws: Draws) -> Losses:
        agent.aug = lambda images: images
        waiting = [draws.noise.critic, draws.noise.actor]
        normal = lambda shape, dtype, device: waiting.pop(0).clone()
        utils = agent.update.__func__.__globals__["utils"]  # its distribution imports the name
        with mock.patch.object(utils, "_standard_normal", normal), recorded_losses() as losses:
            agent.update(Loader(data), 0)
        return dict(zip(LOSSES, losses, strict=True))

    def our_losses(self, agent: Any, data: Transitions, draws: Draws, precision: str) -> Losses:
        built = learner(agent, precision)
        built.augment = None
        metrics = update(built, data.batch(), 0, 0, noise=draws.noise)
        return {loss: float(metrics[loss]) for loss in LOSSES}


def learner(agent: Any, precision: str) -> Learner:
    """Ours at the agent's settings and with its weights."""
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
        augment=parse_augmentation("shift(4)", 3),
        encoder_optimizer=adam(encoder.parameters(), LR),
        encoder_gradient="critic",
        precision=precision,
    )
