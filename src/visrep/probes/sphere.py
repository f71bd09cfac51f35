"""How the directions of features lie on the unit sphere: views of one image together, all images apart.

Shapes: N samples, D features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from visrep.probes.ranks import in_double


def alignment(features: Tensor, others: Tensor, alpha: float = 2.0) -> Tensor:
    """E‖z - z⁺‖^α of L2-normalised positive pairs (Wang and Isola 2020, eq. 1), two [N, D] to a 0-d tensor.

    0 where both views give the same direction; 2 on average (α = 2) for unrelated directions.
    """
    difference = _on_sphere(features) - _on_sphere(others)
    return torch.linalg.vector_norm(difference, dim=1).pow(alpha).mean()


def uniformity(features: Tensor, t: float = 2.0) -> Tensor:
    """ln E exp(-t ‖z_i - z_j‖²) over distinct pairs of L2-normalised features (Wang and Isola 2020, eq. 2).

    [N, D] to a 0-d tensor: 0 where all directions are equal, towards -2t for points spread over a large sphere.
    """
    count = features.shape[0]
    if count < 2:
        raise ValueError(f"uniformity needs at least two samples, got {count}")
    points = _on_sphere(features)
    similarity = points @ points.T  # [N, N]
    length = similarity.diagonal()
    squared = (length[:, None] + length - 2.0 * similarity).clamp_min(0.0)
    one, two = torch.triu_indices(count, count, offset=1, device=points.device)
    pairs = -t * squared[one, two]
    return torch.logsumexp(pairs, dim=0) - math.log(len(pairs))


def _on_sphere(features: Tensor) -> Tensor:
    return F.normalize(in_double(features), dim=1)
