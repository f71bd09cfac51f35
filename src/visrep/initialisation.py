"""Orthogonal initialisation: the one that the encoders, heads and policies of this family of methods share."""

from __future__ import annotations

import math

from torch import nn


def orthogonal_init(module: nn.Module) -> None:
    """Initialise every Linear (gain 1) and convolution (gain √2) below ``module`` orthogonally, with zero biases.

    LayerNorm and everything else keep torch's defaults (Proto-RL and DrQ-v2 sources). Draws from torch's global RNG.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.orthogonal_(layer.weight, gain=math.sqrt(2.0))
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
