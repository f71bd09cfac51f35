"""How many directions a representation uses: pure functions of features, cheap enough to log during a run.

Shapes: N samples, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def singular_values(features: Tensor, centred: bool = False) -> Tensor:
    """Singular values of a feature matrix, [N, D] to [min(N, D)], largest first, float64.

    They come from the eigenvalues of the smaller Gram matrix, which costs N·D·min(N, D) operations. The Gram matrix
    squares the singular values, so it is formed in float64: in float32 the smallest ones would drown in rounding noise
    of about 3e-4 of the largest, and a collapsed representation would look as if it had rank. NaN where a feature is
    not finite.

    Args:
        features: [N, D].
        centred: subtract the mean of each feature first.
    """
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(f"features must be [samples, dimensions], not empty; got {list(features.shape)}")
    matrix = in_double(features)
    if not bool(matrix.isfinite().all()):
        return torch.full((min(matrix.shape),), torch.nan, dtype=torch.float64, device=matrix.device)
    if centred:
        matrix = matrix - matrix.mean(0)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp_min(0.0).sqrt().flip(0)


def effective_rank(features: Tensor) -> Tensor:
    """RankMe (Garrido et al. 2023, eq. 3), [N, D] to a 0-d tensor between 1 (collapsed) and min(N, D).

    exp(-Σ p_k ln p_k) with p_k = σ_k / Σσ + 1e-7, features not centred.
    """
    return _rankme(singular_values(features))


def feature_rank(features: Tensor, threshold: float = 0.01) -> Tensor:
    """Number of singular values of Z/√N above ``threshold`` (Lyle et al. 2022), [N, D] to a 0-d tensor."""
    return _feature_rank(singular_values(features), features.shape[0], threshold)


def stable_rank(features: Tensor, delta: float = 0.01) -> Tensor:
    """srank (Kumar et al. 2021): fewest singular values that hold 1 - ``delta`` of their sum, as a 0-d tensor.

    Features that are all zero have rank 0.
    """
    return _stable_rank(singular_values(features), delta)


def entropy_rank(features: Tensor) -> Tensor:
    """Effective rank of Roy and Vetterli (2007) of the centred features: exp of the entropy of σ / Σσ; 0-d tensor.

    Unlike RankMe it does not see the mean, which dominates features behind a ReLU.
    """
    return _entropy_rank(singular_values(features, centred=True))


def participation_ratio(features: Tensor) -> Tensor:
    """(Σλ)² / Σλ² over the eigenvalues λ of the covariance, [N, D] to a 0-d tensor; 0 where nothing varies."""
    return _participation_ratio(singular_values(features, centred=True))


def ranks(features: Tensor) -> dict[str, float]:
    """All of the above of [N, D], from one decomposition of the features and one of the centred features."""
    raw, centred = singular_values(features), singular_values(features, centred=True)
    values = {
        "rankme": _rankme(raw),
        "entropy_rank": _entropy_rank(centred),
        "participation_ratio": _participation_ratio(centred),
        "feature_rank": _feature_rank(raw, features.shape[0], 0.01),
        "srank": _stable_rank(raw, 0.01),
    }
    return {name: float(value) for name, value in values.items()}


def _shares(sigma: Tensor) -> Tensor:
    return sigma / sigma.sum().clamp_min(torch.finfo(torch.float64).tiny)


def _rankme(sigma: Tensor) -> Tensor:
    p = _shares(sigma) + 1e-7
    return torch.exp(-(p * p.log()).sum()).float()


def _entropy_rank(sigma: Tensor) -> Tensor:
    p = _shares(sigma)
    return torch.exp(-torch.xlogy(p, p).sum()).float()


def _participation_ratio(sigma: Tensor) -> Tensor:
    variance = sigma.square()
    return (variance.sum().square() / variance.square().sum().clamp_min(torch.finfo(torch.float64).tiny)).float()


def _feature_rank(sigma: Tensor, samples: int, threshold: float) -> Tensor:
    return (sigma / samples**0.5 > threshold).sum().float()


def _stable_rank(sigma: Tensor, delta: float) -> Tensor:
    share = _shares(sigma).cumsum(0)
    return ((share < 1.0 - delta).sum() + 1).clamp_max(len(sigma)).float() * sigma.any()


def in_double(features: Tensor) -> Tensor:
    """Detached, in float64, which an MPS device lacks."""
    matrix = features.detach()
    return (matrix.cpu() if matrix.device.type == "mps" else matrix).double()
