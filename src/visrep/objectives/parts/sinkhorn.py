"""Sinkhorn-Knopp: soft assignments that use every prototype equally often.

Shapes: B samples, K prototypes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from visrep.precision import at_least_float32, without_autocast


@torch.no_grad()
def sinkhorn(scores: Tensor, temperature: float, num_iters: int = 3) -> Tensor:
    """Balanced targets q from scores, each row summing to one (Proto-RL, the equation of the targets).

    Always computed in float32 or better: at T = 0.1 a cosine of -1 is exp(-20) beside its opposite, which half
    precision loses. Without gradient, and without a host-device synchronisation.

    Args:
        scores: [B, K] of any floating dtype.
        temperature: T, also the entropy weight of the transport problem.
        num_iters: sweeps of {prototypes to mass 1/K, samples to mass 1/B}.

    Returns:
        [B, K], float32 (float64 if the scores are). A prototype whose mass underflows to exactly zero stays at zero,
        as in the published code; a sample whose every score would underflow is lifted instead, so that its row is
        finite and sums to one (the published code stops with an exception).
    """
    with without_autocast(scores):
        logits = at_least_float32(scores) / temperature
        num_samples, num_prototypes = logits.shape
        best = logits.amax(dim=1, keepdim=True)  # [B, 1]
        # Subtract the global maximum, but leave no sample's best entry below a floor well inside the dtype's range:
        # sweeps rescale samples anyway, so lifting a hopeless one changes nothing but its survival.
        floor = logits.max() + 0.7 * math.log(torch.finfo(logits.dtype).tiny)
        mass = (logits - logits.max() + (floor - best).clamp_min_(0.0)).exp_()  # [B, K]
        mass /= mass.sum()
        for _ in range(num_iters):
            factor = (1.0 / num_prototypes) / mass.sum(dim=0)  # [K]
            dead = factor.isinf()
            factor = torch.where(dead, factor.masked_fill(dead, 0.0).max(), factor)
            mass *= factor
            mass *= (1.0 / num_samples) / mass.sum(dim=1, keepdim=True)
        return mass.div_(mass.sum(dim=1, keepdim=True))
