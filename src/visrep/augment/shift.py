"""Random shift: the image moves by a few whole pixels and its border is repeated (DrQ, DrQ-v2, Proto-RL).

Shapes: N images, C channels (all stacked frames), H W pixels.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def random_shift(
    images: Tensor, pad: int = 4, generator: Generator | None = None, shift: Tensor | None = None
) -> Tensor:
    """Replicate-pad by ``pad`` pixels, then crop every image at its own random place; all its channels alike.

    An integer crop, bit-exact for uint8; DrQ-v2's bilinear sampler gives the same up to a few thousandths of a grey
    level.

    Args:
        images: [N, C, H, W] of any dtype.
        pad: largest shift in pixels, per axis.
        generator: where the shifts are drawn from; it lives on the device of ``images``.
        shift: int64 [N, 2] given shifts (x, y), each 0..2·pad where ``pad`` means none; drawn uniformly if None.

    Returns:
        Same shape and dtype.
    """
    if shift is None:
        shift = torch.randint(0, 2 * pad + 1, (images.shape[0], 2), generator=generator, device=images.device)
    offset = shift - pad
    if images.device.type == "cpu" and images.dtype != torch.bfloat16 and not images.requires_grad:
        return _shift_by_copying(images, offset)
    return _shift_by_gathering(images, offset)


def _shift_by_gathering(images: Tensor, offset: Tensor) -> Tensor:
    """One gather over clamped pixel indices; what a GPU does best."""
    height, width = images.shape[-2:]
    columns = (torch.arange(width, device=images.device) + offset[:, :1]).clamp_(0, width - 1)  # [N, W]
    rows = (torch.arange(height, device=images.device) + offset[:, 1:]).clamp_(0, height - 1)  # [N, H]
    pixels = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # [N, H*W]
    flat = images.flatten(2)
    return flat.gather(2, pixels[:, None].expand_as(flat)).view(images.shape)


def _shift_by_copying(images: Tensor, offset: Tensor) -> Tensor:
    """One rectangle per image, then its repeated borders; on a CPU several times faster than gathering."""
    height, width = images.shape[-2:]
    shifted = torch.empty_like(images, memory_format=torch.contiguous_format)
    for source, out, (right, down) in zip(images.numpy(), shifted.numpy(), offset.tolist(), strict=True):
        top, bottom = max(0, -down), height - max(0, down)
        left, end = max(0, -right), width - max(0, right)
        out[:, top:bottom, left:end] = source[:, top + down : bottom + down, left + right : end + right]
        out[:, top:bottom, :left] = out[:, top:bottom, left : left + 1]
        out[:, top:bottom, end:] = out[:, top:bottom, end - 1 : end]
        out[:, :top] = out[:, top : top + 1]
        out[:, bottom:] = out[:, bottom - 1 : bottom]
    return shifted
