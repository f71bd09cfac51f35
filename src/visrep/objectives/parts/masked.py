"""Means over the rows that count.

Shapes: N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over the valid rows, 0-d; 0 with zero gradient, not NaN, where no row is valid. Nothing is read on the host.

    Args:
        values: [N] or [N, 1].
        valid: of the same shape, bool or 1 and 0; None takes all rows.
    """
    if valid is None:
        return values.mean()
    kept = torch.where(valid > 0, values, 0.0)  # not a product: 0 times infinity is NaN
    return kept.sum() / valid.sum().clamp_min(1)
