"""Log densities of a tanh-squashed Gaussian sample, as three published codes compute them.

With x = μ + σ ε and a = tanh(x), log π(a) = Σ [log N(x; μ, σ) − log(1 − a²)]. The codes differ in how they keep the
last logarithm finite. Every function here maps the draw to a [B, 1] log density. Shapes: B batch, A action.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)

LogDensity = Literal["exact", "sac_ae", "rlpyt"]


def exact(pre_tanh: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """Proto-RL's and DrQ's: the log-determinant as 2 (log 2 − x − softplus(−2x)), finite where 1 − a² underflows.

    Args:
        pre_tanh: x, [B, A].
        noise: ε, [B, A]; the Gaussian is taken from it, which loses no digits where μ is large.
        log_std: log σ, [B, A].
    """
    gaussian = -0.5 * noise.square() - log_std - LOG_SQRT_2PI
    log_det = 2.0 * (math.log(2.0) - pre_tanh - F.softplus(-2.0 * pre_tanh))
    return (gaussian - log_det).sum(dim=1, keepdim=True)


def sac_ae(pre_tanh: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """SAC-AE's, CURL's and RAD's: log(relu(1 − a²) + 1e-6). Arguments as in ``exact``."""
    gaussian = -0.5 * noise.square() - log_std - LOG_SQRT_2PI
    return (gaussian - torch.log(F.relu(1.0 - torch.tanh(pre_tanh).square()) + 1e-6)).sum(dim=1, keepdim=True)


def rlpyt(pre_tanh: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """rlpyt's: the sample is standardised with σ + 1e-8, and log(1 − a² + 1e-8). Arguments as in ``exact``."""
    std = log_std.exp()
    standardised = noise * (std / (std + 1e-8))
    gaussian = -0.5 * standardised.square() - log_std - LOG_SQRT_2PI
    return (gaussian - torch.log(1.0 - torch.tanh(pre_tanh).square() + 1e-8)).sum(dim=1, keepdim=True)


LOG_DENSITIES: dict[LogDensity, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "exact": exact,
    "sac_ae": sac_ae,
    "rlpyt": rlpyt,
}
