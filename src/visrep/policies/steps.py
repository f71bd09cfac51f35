"""Steps that the off-policy actor-critics here have in common.

Shapes: B batch, M views (view-major rows), N rows, D features, A action, X any width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from visrep.objectives.parts.masked import masked_mean
from visrep.policies.contract import Policy, PolicyBatch


def twin_loss(q: tuple[Tensor, Tensor], target: Tensor, weight: Tensor | None = None) -> Tensor:
    """MSE(Q1) + MSE(Q2) over the rows that ``weight`` keeps, 0-d; all arguments [N, 1]."""
    if weight is None:
        return F.mse_loss(q[0], target) + F.mse_loss(q[1], target)
    return masked_mean((q[0] - target).square() + (q[1] - target).square(), weight)


def per_view(values: Tensor, views: int) -> Tensor:
    """Rows that all views share, [B, X], once per view, [M*B, X]."""
    return values if views == 1 else values.repeat(views, 1)


def critic_step(
    critic: nn.Module,
    batch: PolicyBatch,
    target: Tensor,
    optimizers: Sequence[Optimizer | None],
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """One regression step of both heads towards ``target`` [B, 1], the same for every view.

    The loss is ``scale`` times the sum of the mean squared errors of all heads and views (a sum also over views: DrQ,
    Kostrikov et al. 2020). One backward pass serves all ``optimizers``.
    """
    views = batch.views
    q1, q2 = critic(batch.features, per_view(batch.action, views))  # [M*B, 1] each
    weight = None if batch.weight is None else per_view(batch.weight, views)
    loss = scale * views * twin_loss((q1, q2), per_view(target, views), weight)
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
