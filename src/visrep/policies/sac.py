"""Soft actor-critic on given features, as Proto-RL's public code runs it (Haarnoja et al. 2018; Yarats et al. 2021).

Shapes: B batch, D features, A action.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from visrep.objectives.parts.ema import ema_
from visrep.policies.contract import Policy, PolicyBatch, PolicyConfig, PolicyNoise, register_policy
from visrep.policies.distributions import SquashedGaussian
from visrep.policies.nets import TrunkMLP, TwinCritic, adam
from visrep.policies.steps import actor_step, critic_step, restart


class SACConfig(PolicyConfig):
    """Settings of ``policy=sac``; names and defaults are Proto-RL's."""

    init_temperature: float = Field(0.1, gt=0, description="entropy temperature alpha at the start")
    actor_update_frequency: int = Field(2, ge=1, description="update actor and temperature every n updates")
    critic_target_tau: float = Field(0.01, ge=0, le=1, description="step of the target critic towards the critic")
    critic_target_update_frequency: int = Field(2, ge=1, description="move the target critic every n updates")
    feature_dim: int = Field(50, ge=1, description="width of the trunks of actor and critic")
    hidden_dim: int = Field(1024, ge=1, description="width of the hidden layers of actor and critic")
    hidden_depth: int = Field(2, ge=1, description="hidden layers of actor and critic")
    log_std_bounds: tuple[float, float] = Field((-10.0, 2.0), description="bounds of the policy's log std before tanh")


def soft_target(reward: Tensor, discount: Tensor, q: tuple[Tensor, Tensor], log_prob: Tensor, alpha: Tensor) -> Tensor:
    """Regression target r + discount * (min(Q1', Q2') - alpha * log pi), [B, 1]."""
    return reward + discount * (torch.min(*q) - alpha * log_prob)


def soft_actor_loss(q: tuple[Tensor, Tensor], log_prob: Tensor, alpha: Tensor) -> Tensor:
    """mean(alpha * log pi - min(Q1, Q2)), 0-d; ``alpha`` without gradient."""
    return (alpha * log_prob - torch.min(*q)).mean()


def temperature_loss(alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """mean(alpha * (-log pi - target entropy)), 0-d; the bracket is without gradient."""
    return (alpha * (-log_prob - target_entropy).detach()).mean()


@register_policy("sac")
class SAC(Policy):
    """Twin critics, tanh-Gaussian actor and a learned temperature whose target entropy is -A.

    Actor and critic have a trunk each (Linear and LayerNorm, no Tanh). Features are taken as they come: when they carry
    gradient, ``encoder_optimizer`` is stepped together with the critic.
    """

    Config = SACConfig
    parts = ("actor", "critic", "alpha")

    def __init__(self, feature_dim: int, action_dim: int, config: SACConfig, lr: float) -> None:
        """Build networks and optimisers.

        Args:
            feature_dim: D of the features.
            action_dim: A.
            config: settings.
            lr: learning rate of the three Adam optimisers.
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
        self.alpha_optimizer = adam([self.log_alpha], lr)

    def _new_actor(self) -> TrunkMLP:
        c = self.config
        return TrunkMLP(self.feature_dim, 2 * self.action_dim, c.feature_dim, c.hidden_dim, c.hidden_depth, tanh=False)

    def _new_critic(self) -> TwinCritic:
        c = self.config
        return TwinCritic(self.feature_dim, self.action_dim, c.feature_dim, c.hidden_dim, c.hidden_depth, tanh=False)

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

    def update(
        self,
        batch: PolicyBatch,
        tick: int,
        agent_step: int,
        noise: PolicyNoise,
        encoder_optimizer: torch.optim.Optimizer | None = None,
    ) -> dict[str, Tensor]:
        """Critic step always; actor, temperature and target by their frequencies in ``tick``."""
        with torch.no_grad():
            next_action, next_log_prob = self.distribution(batch.next_features).sample(noise.critic)
            next_q = self.critic_target(batch.next_features, next_action)
            target = soft_target(batch.reward, batch.discount, next_q, next_log_prob, self.log_alpha.exp())
        metrics = critic_step(self.critic, batch, target, [self.critic_optimizer, encoder_optimizer])
        if tick % self.config.actor_update_frequency == 0:
            metrics |= self._update_actor(batch.features.detach(), noise.actor)
        if tick % self.config.critic_target_update_frequency == 0:
            ema_(self.critic_target.parameters(), self.critic.parameters(), self.config.critic_target_tau)
        return metrics

    def _update_actor(self, features: Tensor, noise: Tensor) -> dict[str, Tensor]:
        alpha = self.log_alpha.detach().exp()
        action, log_prob = self.distribution(features).sample(noise)
        actor_loss = soft_actor_loss(self.critic(features, action), log_prob, alpha)
        metrics = actor_step(actor_loss, self.actor, self.actor_optimizer)

        alpha_loss = temperature_loss(self.log_alpha.exp(), log_prob.detach(), self.target_entropy)
        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()
        self.alpha_optimizer.step()
        return metrics | {
            "alpha_loss": alpha_loss.detach(),
            "alpha": self.log_alpha.detach().exp(),
            "entropy": -log_prob.detach().mean(),
        }

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
