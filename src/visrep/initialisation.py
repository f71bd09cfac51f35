"""How fresh layers are filled: the initialisations that the encoders, heads and policies of these methods use.

Each function changes every layer below a module in place, draws from torch's global generator, and leaves LayerNorm
and everything that it does not name at torch's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from visrep.errors import UserError, suggestion

RELU_GAIN = math.sqrt(2.0)


def orthogonal_init(module: nn.Module) -> None:
    """Every Linear (gain 1) and convolution (gain √2) orthogonal, with zero biases (Proto-RL and DrQ-v2 sources)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.orthogonal_(layer.weight, gain=RELU_GAIN)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def delta_orthogonal_init(module: nn.Module) -> None:
    """Every Linear orthogonal; every convolution zero but for its centre tap, orthogonal with gain √2; zero biases.

    A fresh layer then passes on the pixel under the kernel's centre and nothing else (Xiao et al. 2018, section 4;
    SAC-AE and CURL sources, which put the centre of an even kernel at k // 2).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.zeros_(layer.weight)
            row, column = (size // 2 for size in layer.kernel_size)
            tap = torch.empty(layer.weight.shape[:2], dtype=layer.weight.dtype, device=layer.weight.device)
            with torch.no_grad():
                layer.weight[:, :, row, column] = nn.init.orthogonal_(tap, gain=RELU_GAIN)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def kaiming_init(module: nn.Module) -> None:
    """Every Linear and Conv2d N(0, 2 / fan-in), zero biases (He et al. 2015, equation 10; ATC's offline networks)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _torch_init(module: nn.Module) -> None:
    """What torch's constructors have filled in already."""


INITIALISATIONS: dict[str, Callable[[nn.Module], None]] = {
    "orthogonal": orthogonal_init,
    "delta_orthogonal": delta_orthogonal_init,
    "kaiming": kaiming_init,
    "torch": _torch_init,
}


def initialise(module: nn.Module, how: str) -> None:
    """Fill a freshly made module as one of ``INITIALISATIONS`` says.

    Raises:
        UserError: no initialisation has that name.
    """
    if how not in INITIALISATIONS:
        raise UserError(f"unknown initialisation {how!r}: {suggestion(how, INITIALISATIONS)}")
    INITIALISATIONS[how](module)
