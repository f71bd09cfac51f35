"""Exponential moving averages of networks."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

M_ = TypeVar("M_", bound=nn.Module)


def frozen_copy(module: M_) -> M_:
    """A deep copy whose parameters take no gradient: the start of a target network."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_(target: Iterable[Tensor], online: Iterable[Tensor], tau: float) -> None:
    """target ← tau·online + (1 − tau)·target, tensor by tensor and in place.

    Args:
        target: tensors to move, e.g. ``target_encoder.parameters()``.
        online: tensors of the same shapes in the same order.
        tau: share of the online value, 0..1; 1 copies.
    """
    targets, onlines = list(target), list(online)
    if len(targets) != len(onlines):
        raise ValueError(f"the target has {len(targets)} tensors and the online network {len(onlines)}")
    torch._foreach_lerp_(targets, onlines, tau)
