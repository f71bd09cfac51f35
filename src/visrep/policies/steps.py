"""Steps that the off-policy actor-critics here have in common.

Shapes: B batch, D features, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from visrep.policies.contract import Policy, PolicyBatch


def twin_loss(q: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """MSE(Q1) + MSE(Q2), 0-d."""
    return F.mse_loss(q[0], target) + F.mse_loss(q[1], target)


def critic_step(
    critic: nn.Module, batch: PolicyBatch, target: Tensor, optimizers: Sequence[Optimizer | None]
) -> dict[str, Tensor]:
    """One regression step of both heads towards ``target`` [B, 1]; one backward pass serves all ``optimizers``."""
    q1, q2 = critic(batch.features, batch.action)  # [B, 1] each
    loss = twin_loss((q1, q2), target)
    stepped = [optimizer for optimizer in optimizers if optimizer is not None]
    for optimizer in stepped:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in stepped:
        optimizer.step()
    return {
        "critic_loss": loss.detach(),
        "q1": q1.detach().mean(),
        "q2": q2.detach().mean(),
        "target_q": target.mean(),
    }


def actor_step(loss: Tensor, actor: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """One step of the actor alone.

    The critic's own gradients are not computed: nobody uses them, and its trunk's would cost a [F, B] x [B, D] product.
    """
    optimizer.zero_grad()
    loss.backward(inputs=list(actor.parameters()))
    optimizer.step()
    return {"actor_loss": loss.detach()}


def restart(policy: Policy, keep: frozenset[str], parts: dict[str, Callable[[], None]]) -> None:
    """Call the re-initialiser of every part that is not in ``keep`` and empty all optimiser states.

    Everything happens in place, so that device, dtype and whoever holds the modules or optimisers stay valid.
    """
    unknown = keep - parts.keys()
    if unknown:
        raise ValueError(f"policy {policy.name!r} cannot keep {', '.join(sorted(unknown))}: it has {', '.join(parts)}")
    for name, reinitialise in parts.items():
        if name not in keep:
            reinitialise()
    for optimizer in policy.optimizers().values():
        optimizer.zero_grad()
        optimizer.state.clear()
