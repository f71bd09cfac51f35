"""Figures about codes that show a collapse or an explosion in the log.

Shapes: N rows, D features, E code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visrep.precision import at_least_float32


@torch.no_grad()
def code_statistics(features: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """From features [N, D] and codes [N, E], 0-d each.

    ``latent_mean``: mean activation; ``code_norm``: mean Euclidean length; ``code_std``: standard deviation over the
    rows, averaged over the code (0: all observations have one code).
    """
    codes = at_least_float32(codes)
    return {
        "latent_mean": at_least_float32(features.mean()),
        "code_norm": torch.linalg.vector_norm(codes, dim=1).mean(),
        "code_std": codes.std(dim=0, correction=0).mean(),
    }
