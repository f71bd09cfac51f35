"""How many directions a representation uses: ranks of a batch of features, cheap enough to log during a run.

Shapes: N samples, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def singular_values(features: Tensor) -> Tensor:
    """Singular values of a feature matrix, [N, D] to [min(N, D)], largest first, float64.

    They come from the eigenvalues of the smaller Gram matrix, which costs N·D·min(N, D) operations. The Gram matrix
    squares the singular values, so it is formed in float64: in float32 the smallest ones would drown in rounding noise
    of about 3e-4 of the largest, and a collapsed representation would look as if it had rank. NaN where a feature is
    not finite.
    """
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(f"features must be [samples, dimensions], not empty; got {list(features.shape)}")
    matrix = features.detach()
    matrix = (matrix.cpu() if matrix.device.type == "mps" else matrix).double()  # MPS has no float64
    if not bool(matrix.isfinite().all()):
        return torch.full((min(matrix.shape),), torch.nan, dtype=torch.float64, device=matrix.device)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp_min(0.0).sqrt().flip(0)


def effective_rank(features: Tensor) -> Tensor:
    """RankMe (Garrido et al. 2023, eq. 3), [N, D] to a 0-d tensor between 1 (collapsed) and min(N, D).

    exp(-Σ p_k ln p_k) with p_k = σ_k / Σσ + 1e-7, features not centred.
    """
    sigma = singular_values(features)
    p = sigma / sigma.sum().clamp_min(torch.finfo(torch.float64).tiny) + 1e-7
    return torch.exp(-(p * p.log()).sum()).float()


def feature_rank(features: Tensor, threshold: float = 0.01) -> Tensor:
    """Number of singular values of Z/√N above ``threshold`` (Lyle et al. 2022), [N, D] to a 0-d tensor."""
    sigma = singular_values(features) / features.shape[0] ** 0.5
    return (sigma > threshold).sum().float()


def stable_rank(features: Tensor, delta: float = 0.01) -> Tensor:
    """srank (Kumar et al. 2021): fewest singular values that hold 1 - ``delta`` of their sum, as a 0-d tensor.

    Features that are all zero have rank 0.
    """
    sigma = singular_values(features)
    share = sigma.cumsum(0) / sigma.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return ((share < 1.0 - delta).sum() + 1).clamp_max(len(sigma)).float() * sigma.any()
