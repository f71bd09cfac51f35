"""Small networks that objectives put on features.

Shapes: B batch, D features, A action.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from visrep.precision import at_least_float32


def mlp(*sizes: int, tanh: bool = False) -> nn.Sequential:
    """Linear layers of the given sizes with ReLU between them; ``tanh`` bounds the output."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    layers[-1:] = [nn.Tanh()] if tanh else []
    return nn.Sequential(*layers)


def residual_norm(target: Tensor, prediction: Tensor) -> Tensor:
    """Euclidean norm of each residual, not squared: [B, D] and [B, D] to [B, 1], in float32 or better."""
    residual = at_least_float32(target) - at_least_float32(prediction)
    norm: Tensor = torch.linalg.vector_norm(residual, dim=-1, keepdim=True)
    return norm


class ForwardInverse(nn.Module):
    """Two models of one transition: (state, action) → next state, and (state, next state) → action in [-1, 1]."""

    def __init__(self, state_dim: int, action_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.forward_net = mlp(state_dim + action_dim, hidden_dim, state_dim)
        self.inverse_net = mlp(2 * state_dim, hidden_dim, action_dim, tanh=True)

    def forward_error(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Distance of the predicted from the true next state: [B, D], [B, A], [B, D] to [B, 1]."""
        return residual_norm(next_state, self.forward_net(torch.cat([state, action.to(state.dtype)], dim=-1)))

    def inverse_error(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Distance of the predicted from the true action: [B, D], [B, A], [B, D] to [B, 1]."""
        return residual_norm(action, self.inverse_net(torch.cat([state, next_state], dim=-1)))
