"""One rectangle per image, cut out at its own place: what shifts, crops and pastes have in common.

Shapes: N images, C channels (all stacked frames), H W pixels of an image, h w of the rectangle.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Border = Literal["repeat", "black"]


def cut(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int], border: Border = "repeat") -> Tensor:
    """Cut a rectangle out of every image, exactly; all channels alike.

    Args:
        images: [N, C, H, W] of any dtype.
        top: int64 [N], the rectangle's first row; it may lie outside the image, but not the whole rectangle.
        left: int64 [N], its first column.
        size: (h, w).
        border: what lies outside the image: its nearest pixel ("repeat") or zero ("black").

    Returns:
        [N, C, h, w], same dtype, on a CPU with channels innermost in memory where they are so in ``images``.
    """
    if images.device.type == "cpu" and images.dtype != torch.bfloat16 and not images.requires_grad:
        return _cut_by_copying(images, top, left, size, border)
    return _cut_by_gathering(images, top, left, size, border)


def _cut_by_gathering(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int], border: Border) -> Tensor:
    """One gather over clamped pixel indices; what a GPU does best."""
    height, width = images.shape[-2:]
    rows = torch.arange(size[0], device=images.device) + top[:, None]  # [N, h]
    columns = torch.arange(size[1], device=images.device) + left[:, None]  # [N, w]
    pixels = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]  # [N, h, w]
    pixels = pixels.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    cut_out = images.flatten(2).gather(2, pixels).view(*images.shape[:2], *size)
    if border == "repeat":
        return cut_out
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return torch.where(inside[:, None], cut_out, torch.zeros((), dtype=images.dtype, device=images.device))


def _cut_by_copying(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int], border: Border) -> Tensor:
    """What is inside the image is copied, then the border filled; on a CPU several times faster than gathering."""
    height, width = images.shape[-2:]
    turned = images.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if turned else torch.contiguous_format
    cut_out = torch.empty((*images.shape[:2], *size), dtype=images.dtype, memory_format=layout)
    if border == "black":
        cut_out.zero_()
    for source, out, down, right in zip(images.numpy(), cut_out.numpy(), top.tolist(), left.tolist(), strict=True):
        first, last = max(0, -down), min(size[0], height - down)
        begin, end = max(0, -right), min(size[1], width - right)
        out[:, first:last, begin:end] = source[:, first + down : last + down, begin + right : end + right]
        if border == "black":
            continue
        if begin:  # numpy takes its time even where there is nothing to fill
            out[:, first:last, :begin] = out[:, first:last, begin : begin + 1]
        if end < size[1]:
            out[:, first:last, end:] = out[:, first:last, end - 1 : end]
        if first:
            out[:, :first] = out[:, first : first + 1]
        if last < size[0]:
            out[:, last:] = out[:, last - 1 : last]
    return cut_out
