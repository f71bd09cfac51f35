"""A policy acts on features and learns from a batch of features: what every actor-critic here keeps to.

Shapes: B batch, M views (augmented copies of one observation), D features, A action. Rows of M views are view-major:
all B rows of view 0 first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Generator, Tensor, nn

from visrep.registry import Registry


class PolicyConfig(BaseModel):
    """Base of a policy's own settings; they are top-level keys on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class PolicyBatch:
    """One batch for the policy; M is the policy's ``views``.

    Attributes:
        features: [M*B, D]; carries gradient only when the critic trains the encoder.
        action: [B, A] in [-1, 1].
        reward: [B, 1] (n-step return where n > 1).
        discount: [B, 1]; multiplies the value of the next observation; 0 after a true terminal.
        next_features: [M*B, D], without gradient: the next observation by the online encoder. Not read where the
            policy's ``online_next`` is False and ``target_next_features`` are given; any tensor will do then.
        target_next_features: [M*B, D], without gradient: the next observation by the target encoder, which the target
            critic sees; None where there is no target encoder (then ``next_features``).
        weight: [B, 1] of 1 and 0; a row of weight 0 is left out of every loss. None keeps all rows.
    """

    features: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_features: Tensor
    target_next_features: Tensor | None = None
    weight: Tensor | None = None

    @property
    def bootstrap_features(self) -> Tensor:
        """What the target critic sees, [M*B, D]."""
        return self.next_features if self.target_next_features is None else self.target_next_features

    @property
    def views(self) -> int:
        """M."""
        return len(self.features) // len(self.action)


@dataclass(frozen=True)
class PolicyNoise:
    """Standard-normal draws of one update; passing them makes an update a pure function (golden tests).

    Attributes:
        critic: [M*B, A], for the next action under each view.
        actor: [B, A].
    """

    critic: Tensor
    actor: Tensor

    @staticmethod
    def draw(action: Tensor, generator: Generator | None, views: int = 1) -> PolicyNoise:
        """Fresh draws for the batch's actions [B, A], on their device."""
        rows, width = action.shape

        def normal(count: int) -> Tensor:
            return torch.randn(count, width, generator=generator, device=action.device, dtype=action.dtype)

        return PolicyNoise(normal(views * rows), normal(rows))


class Policy(nn.Module):
    """Base of the policies: networks, their optimisers and one ``update``. It never sees images."""

    name: ClassVar[str]
    Config: ClassVar[type[PolicyConfig]]
    parts: ClassVar[tuple[str, ...]] = ("actor", "critic")  # what ``fresh`` can keep

    @property
    def views(self) -> int:
        """Augmented copies M of each observation that one update takes."""
        return 1

    @property
    def target_encoder_tau(self) -> float | None:
        """Step of the target encoder towards the encoder; None: the target critic sees the online encoder's features.

        The run owns the target encoder and moves it after ``update`` at the ticks of ``moves_targets``.
        """
        return None

    @property
    def online_next(self) -> bool:
        """Whether ``update`` reads ``next_features`` although it is given ``target_next_features``."""
        return True

    def moves_targets(self, tick: int) -> bool:
        """Whether ``update`` moves the target networks at this tick."""
        raise NotImplementedError

    def act(self, features: Tensor, agent_step: int, sample: bool, generator: Generator | None = None) -> Tensor:
        """Actions in [-1, 1], [B, A], without gradient. ``sample=False`` is the evaluation action."""
        raise NotImplementedError

    def explore(self, features: Tensor, std: float, generator: Generator | None = None) -> Tensor:
        """Actions [B, A] around the policy's mean, in [-1, 1], with ``std`` in place of the policy's own."""
        raise NotImplementedError

    def update(
        self,
        batch: PolicyBatch,
        tick: int,
        agent_step: int,
        noise: PolicyNoise,
        encoder_optimizer: torch.optim.Optimizer | None = None,
    ) -> dict[str, Tensor]:
        """One update of critic, actor and targets; returns named 0-d detached tensors for the log.

        Args:
            batch: features and targets.
            tick: update counter that the "every n" frequencies look at.
            agent_step: what schedules look at.
            noise: the standard-normal draws of this update.
            encoder_optimizer: stepped with the critic's when the critic trains the encoder, else None.
        """
        raise NotImplementedError

    def fresh(self, keep: frozenset[str]) -> None:
        """Re-initialise everything but the parts named in ``keep`` ("actor", "critic", "alpha"); all optimisers."""
        raise NotImplementedError

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Optimisers by name, for the run's state."""
        raise NotImplementedError


POLICIES: Registry[Policy] = Registry("policy")  # by the value of the key ``policy``
register_policy = POLICIES.register


def build_policy(name: str, feature_dim: int, action_dim: int, config: PolicyConfig, lr: float) -> Policy:
    """Make a policy on ``feature_dim`` features; UserError where none has that name."""
    return POLICIES.find(name)(feature_dim=feature_dim, action_dim=action_dim, config=config, lr=lr)  # type: ignore[call-arg]
