"""DrQ-v2: deterministic policy gradient with scheduled noise (Yarats et al. 2021).

Shapes: B batch, D features, A action.
"""

from __future__ import annotations

import torch
from pydantic import Field, field_validator
from torch import Generator, Tensor

from visrep.objectives.parts.ema import ema_
from visrep.objectives.parts.masked import masked_mean
from visrep.policies.contract import Policy, PolicyBatch, PolicyConfig, PolicyNoise, register_policy
from visrep.policies.distributions import TruncatedNormal
from visrep.policies.nets import TrunkMLP, TwinCritic, adam
from visrep.policies.schedules import parse_schedule
from visrep.policies.steps import actor_step, critic_step, restart


class DrQv2Config(PolicyConfig):
    """Settings of ``policy=drqv2``; names and defaults are DrQ-v2's."""

    std_schedule: str = Field(
        "linear(1.0,0.1,500000)",
        description="std of the exploration noise over agent steps: number, linear, step_linear",
    )
    stddev_clip: float = Field(
        0.3, gt=0, description="bound of the scaled noise inside the losses; acting is unbounded"
    )
    actor_update_frequency: int = Field(1, ge=1, description="update the actor every n updates")
    critic_target_tau: float = Field(0.01, ge=0, le=1, description="step of the target critic towards the critic")
    critic_target_update_frequency: int = Field(1, ge=1, description="move the target critic every n updates")
    feature_dim: int = Field(50, ge=1, description="width of the trunks of actor and critic")
    hidden_dim: int = Field(1024, ge=1, description="width of the hidden layers of actor and critic")
    hidden_depth: int = Field(2, ge=1, description="hidden layers of actor and critic")

    @field_validator("std_schedule")
    @classmethod
    def _readable(cls, value: str) -> str:
        parse_schedule(value)
        return value


def td_target(reward: Tensor, discount: Tensor, q: tuple[Tensor, Tensor]) -> Tensor:
    """Regression target r + discount * min(Q1', Q2'), [B, 1]."""
    return reward + discount * torch.min(*q)


def deterministic_actor_loss(q: tuple[Tensor, Tensor], weight: Tensor | None = None) -> Tensor:
    """-mean min(Q1, Q2) over the rows that ``weight`` [B, 1] keeps, 0-d."""
    return -masked_mean(torch.min(*q), weight)


@register_policy("drqv2")
class DrQv2(Policy):
    """Twin critics and a tanh mean with external noise; no entropy term and no target encoder.

    Actor and critic have a trunk each (Linear, LayerNorm, Tanh). The critic's backward pass reaches the features, so
    ``encoder_optimizer`` is stepped with the critic; the actor learns on the same features, detached.
    """

    Config = DrQv2Config

    def __init__(self, feature_dim: int, action_dim: int, config: DrQv2Config, lr: float) -> None:
        """Build networks and optimisers.

        Args:
            feature_dim: D of the features.
            action_dim: A.
            config: settings.
            lr: learning rate of both Adam optimisers.
        """
        super().__init__()
        self.feature_dim, self.action_dim, self.config = feature_dim, action_dim, config
        self.std = parse_schedule(config.std_schedule)
        self.actor = self._new_actor()
        self.critic = self._new_critic()
        self.critic_target = self._new_critic().requires_grad_(False)
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.actor_optimizer = adam(self.actor.parameters(), lr)
        self.critic_optimizer = adam(self.critic.parameters(), lr)

    def _new_actor(self) -> TrunkMLP:
        c = self.config
        return TrunkMLP(self.feature_dim, self.action_dim, c.feature_dim, c.hidden_dim, c.hidden_depth, tanh=True)

    def _new_critic(self) -> TwinCritic:
        c = self.config
        return TwinCritic(self.feature_dim, self.action_dim, c.feature_dim, c.hidden_dim, c.hidden_depth, tanh=True)

    def distribution(self, features: Tensor, agent_step: int) -> TruncatedNormal:
        """The policy at ``features`` [B, D] with the noise of ``agent_step``."""
        mean = torch.tanh(self.actor(features))  # [B, A]
        return TruncatedNormal(mean, mean.new_full((), self.std(agent_step)))

    @torch.no_grad()
    def act(self, features: Tensor, agent_step: int, sample: bool, generator: Generator | None = None) -> Tensor:
        """Mean plus noise of any size, or the mean where ``sample`` is False, [B, A]."""
        policy = self.distribution(features, agent_step)
        if not sample:
            return policy.mean
        noise = torch.randn(policy.mean.shape, generator=generator, device=policy.mean.device, dtype=policy.mean.dtype)
        return policy.sample(noise)

    @torch.no_grad()
    def explore(self, features: Tensor, std: float, generator: Generator | None = None) -> Tensor:
        """Mean plus noise of the given ``std``, clamped, [B, A]."""
        mean = torch.tanh(self.actor(features))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return TruncatedNormal(mean, mean.new_full((), std)).sample(noise)

    def moves_targets(self, tick: int) -> bool:
        """Every ``critic_target_update_frequency``-th tick."""
        return tick % self.config.critic_target_update_frequency == 0

    def update(
        self,
        batch: PolicyBatch,
        tick: int,
        agent_step: int,
        noise: PolicyNoise,
        encoder_optimizer: torch.optim.Optimizer | None = None,
    ) -> dict[str, Tensor]:
        """Critic (and encoder) step always; actor and target by their frequencies in ``tick``."""
        with torch.no_grad():
            next_action = self.distribution(batch.next_features, agent_step).sample(
                noise.critic, self.config.stddev_clip
            )
            target = td_target(batch.reward, batch.discount, self.critic_target(batch.bootstrap_features, next_action))
        metrics = critic_step(self.critic, batch, target, [self.critic_optimizer, encoder_optimizer])
        if tick % self.config.actor_update_frequency == 0:
            metrics |= self._update_actor(batch, agent_step, noise.actor)
        if self.moves_targets(tick):
            ema_(self.critic_target.parameters(), self.critic.parameters(), self.config.critic_target_tau)
        return metrics

    def _update_actor(self, batch: PolicyBatch, agent_step: int, noise: Tensor) -> dict[str, Tensor]:
        features = batch.features.detach()
        policy = self.distribution(features, agent_step)
        action = policy.sample(noise, self.config.stddev_clip)
        loss = deterministic_actor_loss(self.critic(features, action), batch.weight)
        return actor_step(loss, self.actor, self.actor_optimizer) | {
            "actor_log_prob": policy.log_prob(action).detach().sum(dim=1).mean(),
            "entropy": policy.entropy().detach().sum(dim=1).mean(),
        }

    def fresh(self, keep: frozenset[str]) -> None:
        """Start again with everything but ``keep`` ("actor", "critic"); a kept critic keeps its target."""
        restart(self, keep, {"actor": self._restart_actor, "critic": self._restart_critic})

    def _restart_actor(self) -> None:
        self.actor.load_state_dict(self._new_actor().state_dict())

    def _restart_critic(self) -> None:
        self.critic.load_state_dict(self._new_critic().state_dict())
        self.critic_target.load_state_dict(self.critic.state_dict())

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Actor and critic optimisers."""
        return {"actor": self.actor_optimizer, "critic": self.critic_optimizer}
