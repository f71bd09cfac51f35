"""Numbers that half precision would spoil: casts to float32 and a switch that keeps autocast out."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Half-precision values become float32; float32 and float64 stay as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def without_autocast(values: Tensor) -> torch.autocast:
    """Context in which operations on the device of ``values`` keep the precision of their inputs."""
    return torch.autocast(values.device.type, enabled=False)
