"""Running mean and variance, for rewards whose scale drifts.

Shapes: N values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and variance of everything merged so far (parallel-variance formula), as 0-d buffers.

    Starts at mean 0, variance 1 with a weight of 1e-4 samples, and merges each batch's *unbiased* variance as if it
    were the biased one: both are URLB's choices, kept so that rewards have its scale.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("var", torch.ones(()))
        self.register_buffer("count", torch.tensor(1e-4))

    @torch.no_grad()
    def merge(self, values: Tensor) -> None:
        """Take in values of any shape (N ≥ 1 in all)."""
        values = values.flatten().to(self.mean.dtype)
        size = values.numel()
        delta = values.mean() - self.mean
        variance = values.var(correction=1 if size > 1 else 0)
        total = self.count + size
        # In-place on the buffers, and without reading them on the host, so that a CUDA graph can hold it.
        self.var.copy_((self.var * self.count + variance * size + delta.square() * self.count * size / total) / total)
        self.mean.add_(delta * size / total)
        self.count.copy_(total)
