"""Sub-pixel shift of latent images: what a random shift becomes where images are stored encoded (ATC).

Shapes: N latent images, F filters, H W latent pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from visrep.augment.contract import Domain, Draws, Operator, register_operator, uniform
from visrep.precision import at_least_float32


@register_operator("subpixel_shift")
@dataclass(frozen=True)
class SubpixelShift(Operator):
    """Move latent images by up to ``max`` latent pixels per axis, any fraction of one, the border repeated.

    One latent pixel spans as many image pixels as all strides multiply to (8 for ``atc``): whole ones are too coarse.
    """

    max: float = 1.0

    domain: ClassVar[tuple[Domain, ...]] = ("latents",)

    def __post_init__(self) -> None:
        if not 0.0 < self.max <= 1.0:
            raise self.refuse("max is the largest shift in latent pixels: above 0 and up to 1")

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """``x`` and ``y`` [N] in -max..max; positive samples to the right of, and below, each pixel."""
        return {axis: uniform(count, -self.max, self.max, generator, device) for axis in ("x", "y")}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Latents [N, F, H, W] to the same.

        Raises:
            ValueError: the latents are whole numbers, so probably images.
        """
        if not images.is_floating_point():
            raise ValueError(f"subpixel_shift moves latent images, which are floats; got {images.dtype}: use shift")
        return subpixel_shift(images, draws["x"], draws["y"])


def subpixel_shift(latents: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear resampling at (row + y, column + x), the border repeated, one offset per latent image.

    For offsets up to one pixel a bilinear sampler mixes each pixel with one neighbour per axis, above or below, left or
    right. With the filters innermost in memory whole rows are mixed at once (ATC, section "latent-image replay").

    Args:
        latents: [N, F, H, W], floats.
        x: [N] in -1..1, columns.
        y: [N] in -1..1, rows.

    Returns:
        Same shape and dtype; half precision is computed in float32.
    """
    values = at_least_float32(latents).permute(0, 2, 3, 1).contiguous()  # [N, H, W, F]
    for dim, offset in ((1, y), (2, x)):
        values = _mixed(values, dim, offset.to(values.dtype).view(-1, 1, 1, 1))
    return values.permute(0, 3, 1, 2).to(latents.dtype)  # [N, F, H, W]


def _mixed(values: Tensor, dim: int, offset: Tensor) -> Tensor:
    """Each pixel of [N, H, W, F] with the one after it along ``dim`` where offset [N, 1, 1, 1] > 0, or before it.

    A share of nothing is added for the other side: several times faster on a CPU than choosing a side per image.
    """
    last = values.shape[dim] - 1
    mixed = values * (1.0 - offset.abs())
    for share, to, source, border in ((offset.clamp_min(0.0), 0, 1, last), ((-offset).clamp_min(0.0), 1, 0, 0)):
        mixed.narrow(dim, to, last).addcmul_(values.narrow(dim, source, last), share)
        mixed.narrow(dim, border, 1).addcmul_(values.narrow(dim, border, 1), share)
    return mixed
