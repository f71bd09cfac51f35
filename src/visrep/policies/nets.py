"""Network pieces that every actor-critic here shares.

Shapes: B batch, D features, F trunk width, H hidden width, A action, O outputs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from visrep.initialisation import orthogonal_init
from visrep.precision import at_least_float32

TrunkInit = Literal["orthogonal", "torch"]


def trunk(input_dim: int, feature_dim: int, tanh: bool) -> nn.Sequential:
    """Linear and LayerNorm, [B, D] to [B, F]; Proto-RL stops there, DrQ-v2 adds a Tanh."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        linear=nn.Linear(input_dim, feature_dim), layernorm=nn.LayerNorm(feature_dim)
    )
    if tanh:
        layers["tanh"] = nn.Tanh()
    return nn.Sequential(layers)


def mlp(input_dim: int, hidden_dim: int, output_dim: int, hidden_depth: int) -> nn.Sequential:
    """``hidden_depth`` layers of Linear and ReLU, then a Linear: [B, input_dim] to [B, O]."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = input_dim
    for i in range(1, hidden_depth + 1):
        layers[f"fc{i}"] = nn.Linear(width, hidden_dim)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        width = hidden_dim
    layers[f"fc{hidden_depth + 1}"] = nn.Linear(width, output_dim)
    return nn.Sequential(layers)


def _initialise(module: nn.Module, trunk_init: TrunkInit) -> None:
    """Orthogonal weights everywhere, but for a trunk that keeps torch's default."""
    for name, part in module.named_children():
        if name != "trunk" or trunk_init == "orthogonal":
            orthogonal_init(part)


class TrunkMLP(nn.Module):
    """Features through an own trunk and an MLP, [B, D] to [B, O]: the body of every actor."""

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        feature_dim: int,
        hidden_dim: int,
        hidden_depth: int,
        tanh: bool,
        trunk_init: TrunkInit = "orthogonal",
    ) -> None:
        super().__init__()
        self.trunk = trunk(input_dim, feature_dim, tanh)
        self.mlp = mlp(feature_dim, hidden_dim, output_dim, hidden_depth)
        _initialise(self, trunk_init)

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] to [B, O]."""
        return at_least_float32(self.mlp(self.trunk(features)))


class TwinCritic(nn.Module):
    """Two Q heads on [trunk(features), action]; the trunk is shared by the heads and not with the actor."""

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        feature_dim: int,
        hidden_dim: int,
        hidden_depth: int,
        tanh: bool,
        trunk_init: TrunkInit = "orthogonal",
    ) -> None:
        super().__init__()
        self.trunk = trunk(input_dim, feature_dim, tanh)
        self.q1 = mlp(feature_dim + action_dim, hidden_dim, 1, hidden_depth)
        self.q2 = mlp(feature_dim + action_dim, hidden_dim, 1, hidden_depth)
        _initialise(self, trunk_init)

    def forward(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, D] and actions [B, A] to two values [B, 1]."""
        hidden = torch.cat([at_least_float32(self.trunk(features)), action], dim=1)  # [B, F + A]
        return at_least_float32(self.q1(hidden)), at_least_float32(self.q2(hidden))


def adam(
    parameters: Iterable[nn.Parameter], lr: float, *, beta1: float = 0.9, weight_decay: float = 0.0
) -> torch.optim.Adam:
    """Adam in its fused form, which makes one pass over memory instead of about ten; defaults are torch's."""
    return torch.optim.Adam(parameters, lr=lr, betas=(beta1, 0.999), weight_decay=weight_decay, fused=True)
