"""Soft actor-critic on given features (Haarnoja et al. 2018), in the forms that the published visual agents run.

The defaults are Proto-RL's; docs/methods/rad_sac.md lists the settings of rlpyt's, CURL's, SAC-AE's and DrQ's.

Shapes: B batch, M views (view-major rows), D features, A action.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from visrep.objectives.parts.ema import ema_
from visrep.objectives.parts.masked import masked_mean
from visrep.policies.contract import Policy, PolicyBatch, PolicyConfig, PolicyNoise, register_policy
from visrep.policies.densities import LogDensity
from visrep.policies.distributions import SquashedGaussian
from visrep.policies.nets import TrunkInit, TrunkMLP, TwinCritic, adam
from visrep.policies.steps import actor_step, critic_step, restart


class SACConfig(PolicyConfig):
    """Settings of ``policy=sac``; names and defaults are Proto-RL's."""

    init_temperature: float = Field(0.1, gt=0, description="entropy temperature alpha at the start")
    alpha_lr: float | None = Field(None, gt=0, description="learning rate of the temperature; none = lr")
    alpha_beta1: float = Field(0.9, ge=0, lt=1, description="first beta of the temperature's Adam")
    alpha_loss: Literal["alpha", "log_alpha"] = Field(
        "alpha", description="what the temperature's loss multiplies: alpha, or its logarithm (rlpyt)"
    )
    actor_update_frequency: int = Field(2, ge=1, description="update actor and temperature every n updates")
    critic_loss_scale: float = Field(1.0, gt=0, description="factor of the critic's summed squared errors; rlpyt: 0.5")
    critic_target_tau: float = Field(0.01, ge=0, le=1, description="step of the target critic towards the critic")
    trunk_target_tau: float | None = Field(
        None, ge=0, le=1, description="the same for the critic's trunk; none = critic_target_tau"
    )
    conv_target_tau: float | None = Field(
        None, ge=0, le=1, description="the same for a target encoder, at the same ticks; none = no target encoder"
    )
    critic_target_update_frequency: int = Field(2, ge=1, description="move the targets every n updates")
    target_action_features: Literal["online", "target"] = Field(
        "online", description="encoder under the next action of the critic's target; rlpyt: target"
    )
    augmentations: int = Field(
        1, ge=1, description="copies of each observation to average the target and sum the critic's loss over; DrQ: 2"
    )
    feature_dim: int = Field(50, ge=1, description="width of the trunks of actor and critic")
    trunk_tanh: bool = Field(False, description="end the trunks with a Tanh (SAC-AE, DrQ)")
    trunk_init: TrunkInit = Field("orthogonal", description="initial weights of the trunks; rlpyt: torch")
    hidden_dim: int = Field(1024, ge=1, description="width of the hidden layers of actor and critic")
    hidden_depth: int = Field(2, ge=1, description="hidden layers of actor and critic")
    log_std_bounds: tuple[float, float] = Field((-10.0, 2.0), description="bounds of the policy's log std before tanh")
    log_density: LogDensity = Field("exact", description="how the log of 1 - action^2 is kept finite")


def soft_target(reward: Tensor, discount: Tensor, q: tuple[Tensor, Tensor], log_prob: Tensor, alpha: Tensor) -> Tensor:
    """Regression target r + discount * (min(Q1', Q2') - alpha * log pi), averaged over the views, [B, 1].

    Args:
        reward: [B, 1].
        discount: [B, 1].
        q: values of the next observation's views, [M*B, 1] each.
        log_prob: [M*B, 1].
        alpha: 0-d.
    """
    value = torch.min(*q) - alpha * log_prob  # [M*B, 1]
    return reward + discount * value.unflatten(0, (-1, len(reward))).mean(dim=0)


def soft_actor_loss(q: tuple[Tensor, Tensor], log_prob: Tensor, alpha: Tensor, weight: Tensor | None = None) -> Tensor:
    """mean(alpha * log pi - min(Q1, Q2)) over the rows that ``weight`` keeps, 0-d; ``alpha`` without gradient."""
    return masked_mean(alpha * log_prob - torch.min(*q), weight)


def temperature_loss(
    multiplier: Tensor, log_prob: Tensor, target_entropy: float, weight: Tensor | None = None
) -> Tensor:
    """mean(multiplier * (-log pi - target entropy)) over the rows that ``weight`` keeps, 0-d.

    The bracket is without gradient; ``multiplier`` is alpha, or log alpha in rlpyt.
    """
    return masked_mean(multiplier * (-log_prob - target_entropy).detach(), weight)


@register_policy("sac")
class SAC(Policy):
    """Twin critics, tanh-Gaussian actor and a learned temperature whose target entropy is -A.

    Actor and critic have a trunk each. Features are taken as they come: when they carry gradient, ``encoder_optimizer``
    is stepped together with the critic; the actor learns on the first view, detached.
    """

    Config = SACConfig
    parts = ("actor", "critic", "alpha")

    def __init__(self, feature_dim: int, action_dim: int, config: SACConfig, lr: float) -> None:
        """Build networks and optimisers.

        Args:
            feature_dim: D of the features.
            action_dim: A.
            config: settings.
            lr: learning rate of the Adam optimisers; that of the temperature may differ (``alpha_lr``).
        """
        super().__init__()
        self.feature_dim, self.action_dim, self.config, self.lr = feature_dim, action_dim, config, lr
        self.target_entropy = -float(action_dim)
        self.actor = self._new_actor()
        self.critic = self._new_critic()
        self.critic_target = self._new_critic().requires_grad_(False)
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.init_temperature)))
        self.actor_optimizer = adam(self.actor.parameters(), lr)
        self.critic_optimizer = adam(self.critic.parameters(), lr)
        self.alpha_optimizer = adam([self.log_alpha], config.alpha_lr or lr, beta1=config.alpha_beta1)

    def _new_actor(self) -> TrunkMLP:
        return TrunkMLP(self.feature_dim, 2 * self.action_dim, *self._sizes(), self.config.trunk_init)

    def _new_critic(self) -> TwinCritic:
        return TwinCritic(self.feature_dim, self.action_dim, *self._sizes(), self.config.trunk_init)

    def _sizes(self) -> tuple[int, int, int, bool]:
        c = self.config
        return c.feature_dim, c.hidden_dim, c.hidden_depth, c.trunk_tanh

    @property
    def views(self) -> int:
        """``augmentations``."""
        return self.config.augmentations

    @property
    def target_encoder_tau(self) -> float | None:
        """``conv_target_tau``."""
        return self.config.conv_target_tau

    @property
    def online_next(self) -> bool:
        """Whether the next action is drawn on the online encoder's features."""
        return self.config.target_action_features == "online"

    def moves_targets(self, tick: int) -> bool:
        """Every ``critic_target_update_frequency``-th tick."""
        return tick % self.config.critic_target_update_frequency == 0

    def distribution(self, features: Tensor) -> SquashedGaussian:
        """The policy at ``features`` [B, D]."""
        return SquashedGaussian.from_raw(self.actor(features), self.config.log_std_bounds)

    @torch.no_grad()
    def act(self, features: Tensor, agent_step: int, sample: bool, generator: Generator | None = None) -> Tensor:
        """Sampled action, or tanh(mean) where ``sample`` is False, [B, A]."""
        policy = self.distribution(features)
        if not sample:
            return policy.mode
        noise = torch.randn(policy.mean.shape, generator=generator, device=policy.mean.device, dtype=policy.mean.dtype)
        return policy.sample(noise)[0]

    @torch.no_grad()
    def explore(self, features: Tensor, std: float, generator: Generator | None = None) -> Tensor:
        """tanh of a Gaussian of the given ``std`` before the tanh, around the policy's mean, [B, A]."""
        mean = self.distribution(features).mean
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return torch.tanh(mean + std * noise)

    def update(
        self,
        batch: PolicyBatch,
        tick: int,
        agent_step: int,
        noise: PolicyNoise,
        encoder_optimizer: torch.optim.Optimizer | None = None,
    ) -> dict[str, Tensor]:
        """Critic step always; actor, temperature and targets by their frequencies in ``tick``."""
        if batch.views != self.views:
            raise ValueError(f"a batch of {batch.views} views of each observation; augmentations={self.views}")
        scale = self.config.critic_loss_scale
        target = self._target(batch, noise.critic)
        metrics = critic_step(self.critic, batch, target, [self.critic_optimizer, encoder_optimizer], scale)
        if tick % self.config.actor_update_frequency == 0:
            metrics |= self._update_actor(batch, noise.actor)
        if self.moves_targets(tick):
            self._move_targets()
        return metrics

    @torch.no_grad()
    def _target(self, batch: PolicyBatch, noise: Tensor) -> Tensor:
        features = batch.bootstrap_features  # [M*B, D]
        policy = self.distribution(batch.next_features if self.online_next else features)
        action, log_prob = policy.sample(noise, self.config.log_density)  # [M*B, A], [M*B, 1]
        q = self.critic_target(features, action)
        return soft_target(batch.reward, batch.discount, q, log_prob, self.log_alpha.exp())

    def _update_actor(self, batch: PolicyBatch, noise: Tensor) -> dict[str, Tensor]:
        features = batch.features[: len(batch.action)].detach()  # the first view
        alpha = self.log_alpha.detach().exp()
        action, log_prob = self.distribution(features).sample(noise, self.config.log_density)
        actor_loss = soft_actor_loss(self.critic(features, action), log_prob, alpha, batch.weight)
        metrics = actor_step(actor_loss, self.actor, self.actor_optimizer)

        multiplier = self.log_alpha.exp() if self.config.alpha_loss == "alpha" else self.log_alpha
        alpha_loss = temperature_loss(multiplier, log_prob.detach(), self.target_entropy, batch.weight)
        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()
        self.alpha_optimizer.step()
        return metrics | {
            "alpha_loss": alpha_loss.detach(),
            "alpha": self.log_alpha.detach().exp(),
            "entropy": -log_prob.detach().mean(),
        }

    def _move_targets(self) -> None:
        """One averaging step; the trunk, which counts as encoder in SAC-AE's family, has a rate of its own."""
        heads, trunk = self.config.critic_target_tau, self.config.trunk_target_tau
        for name, part in self.critic.named_children():
            tau = trunk if name == "trunk" and trunk is not None else heads
            ema_(self.critic_target.get_submodule(name).parameters(), part.parameters(), tau)

    def fresh(self, keep: frozenset[str]) -> None:
        """Start again with everything but ``keep``; a kept critic keeps its target. All Adam states are new."""
        parts = {"actor": self._restart_actor, "critic": self._restart_critic, "alpha": self._restart_alpha}
        restart(self, keep, parts)

    def _restart_actor(self) -> None:
        self.actor.load_state_dict(self._new_actor().state_dict())

    def _restart_critic(self) -> None:
        self.critic.load_state_dict(self._new_critic().state_dict())
        self.critic_target.load_state_dict(self.critic.state_dict())

    @torch.no_grad()
    def _restart_alpha(self) -> None:
        self.log_alpha.fill_(math.log(self.config.init_temperature))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Actor, critic and temperature optimisers."""
        return {"actor": self.actor_optimizer, "critic": self.critic_optimizer, "alpha": self.alpha_optimizer}
