"""A policy acts on features and learns from a batch of features: what every actor-critic here keeps to.

Shapes: B batch, D features, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Generator, Tensor, nn


class PolicyConfig(BaseModel):
    """Base of a policy's own settings; they are top-level keys on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class PolicyBatch:
    """One batch for the policy.

    Attributes:
        features: [B, D]; carries gradient only when the critic trains the encoder.
        action: [B, A] in [-1, 1].
        reward: [B, 1] (n-step return where n > 1).
        discount: [B, 1]; multiplies the value of ``next_features``; 0 after a true terminal.
        next_features: [B, D], without gradient.
    """

    features: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_features: Tensor


@dataclass(frozen=True)
class PolicyNoise:
    """Standard-normal draws of one update, each [B, A]; passing them makes an update a pure function (golden tests)."""

    critic: Tensor
    actor: Tensor

    @staticmethod
    def draw(action: Tensor, generator: Generator | None) -> PolicyNoise:
        """Two fresh draws of the action's shape, on its device."""

        def normal() -> Tensor:
            return torch.randn(action.shape, generator=generator, device=action.device, dtype=action.dtype)

        return PolicyNoise(normal(), normal())


class Policy(nn.Module):
    """Base of the policies: networks, their optimisers and one ``update``. It never sees images."""

    name: ClassVar[str]
    Config: ClassVar[type[PolicyConfig]]
    parts: ClassVar[tuple[str, ...]] = ("actor", "critic")  # what ``fresh`` can keep

    def act(self, features: Tensor, agent_step: int, sample: bool, generator: Generator | None = None) -> Tensor:
        """Actions in [-1, 1], [B, A], without gradient. ``sample=False`` is the evaluation action."""
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


P_ = TypeVar("P_", bound=type[Policy])
POLICIES: dict[str, type[Policy]] = {}


def register_policy(name: str) -> Callable[[P_], P_]:
    """Class decorator: make a policy known under ``name`` (the value of the key ``policy``)."""

    def add(cls: P_) -> P_:
        if name in POLICIES:
            raise ValueError(f"policy {name!r} is registered twice: {POLICIES[name]} and {cls}")
        cls.name = name
        POLICIES[name] = cls
        return cls

    return add


def build_policy(name: str, feature_dim: int, action_dim: int, config: PolicyConfig, lr: float) -> Policy:
    """Make a policy on ``feature_dim`` features."""
    if name not in POLICIES:
        raise ValueError(f"unknown policy {name!r}; known: {', '.join(sorted(POLICIES))}")
    return POLICIES[name](feature_dim=feature_dim, action_dim=action_dim, config=config, lr=lr)  # type: ignore[call-arg]
