"""Action distributions as pure functions of given standard-normal noise.

Shapes: B batch, A action.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from visrep.policies.densities import LOG_DENSITIES, LOG_SQRT_2PI, LogDensity


class SquashedGaussian(NamedTuple):
    """tanh of a Gaussian (SAC, Haarnoja et al. 2018, appendix C).

    Attributes:
        mean: [B, A] before the tanh.
        log_std: [B, A] log standard deviation before the tanh.
    """

    mean: Tensor
    log_std: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor, log_std_bounds: tuple[float, float]) -> SquashedGaussian:
        """Network output [B, 2A] (mean, raw log-std); a tanh maps the raw half into the bounds."""
        mean, raw_log_std = raw.chunk(2, dim=1)  # [B, A] each
        low, high = log_std_bounds
        return cls(mean, low + 0.5 * (high - low) * (torch.tanh(raw_log_std) + 1.0))

    @property
    def mode(self) -> Tensor:
        """tanh(mean), the evaluation action, [B, A]."""
        return torch.tanh(self.mean)

    def sample(self, noise: Tensor, log_density: LogDensity = "exact") -> tuple[Tensor, Tensor]:
        """Action [B, A] in [-1, 1] from ``noise`` [B, A], and its log density [B, 1] (see ``densities.py``)."""
        pre_tanh = self.mean + self.log_std.exp() * noise
        log_prob = LOG_DENSITIES[log_density](pre_tanh, noise, self.log_std)
        return torch.tanh(pre_tanh), log_prob


class TruncatedNormal(NamedTuple):
    """DrQ-v2's policy distribution: a Gaussian whose samples are clamped to the open box (-1, 1).

    The clamp is straight-through (identity gradient). Density and entropy are those of the plain Gaussian.

    Attributes:
        mean: [B, A].
        std: [B, A], or 0-d.
    """

    mean: Tensor
    std: Tensor
    low: float = -1.0
    high: float = 1.0
    margin: float = 1e-6

    def sample(self, noise: Tensor, clip: float | None = None) -> Tensor:
        """Mean plus scaled ``noise`` [B, A]; ``clip`` bounds the scaled noise (losses clip, acting does not)."""
        scaled = noise * self.std
        if clip is not None:
            scaled = scaled.clamp(-clip, clip)
        action = self.mean + scaled
        clamped = action.detach().clamp(self.low + self.margin, self.high - self.margin)
        return (action - action.detach()) + clamped  # in this order the value is exactly the clamped one

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density of the un-truncated Gaussian per dimension, [B, A]."""
        return -0.5 * ((action - self.mean) / self.std).square() - torch.log(self.std) - LOG_SQRT_2PI

    def entropy(self) -> Tensor:
        """Entropy of the un-truncated Gaussian per dimension, [B, A]."""
        return (0.5 + LOG_SQRT_2PI + torch.log(self.std)).expand_as(self.mean)
