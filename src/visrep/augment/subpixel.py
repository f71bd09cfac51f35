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
        values = torch.lerp(values, _neighbours(values, dim, offset), _each(offset.abs().to(values.dtype), values))
    return values.permute(0, 3, 1, 2).to(latents.dtype)  # [N, F, H, W]


def _neighbours(values: Tensor, dim: int, offset: Tensor) -> Tensor:
    """The pixel after each along ``dim`` of [N, H, W, F] where offset [N] >= 0, else before it; borders repeat."""
    size = values.shape[dim]
    following = torch.cat([values.narrow(dim, 1, size - 1), values.narrow(dim, size - 1, 1)], dim)
    preceding = torch.cat([values.narrow(dim, 0, 1), values.narrow(dim, 0, size - 1)], dim)
    return torch.where(_each(offset >= 0, values), following, preceding)


def _each(per_image: Tensor, values: Tensor) -> Tensor:
    """[N] spread over values [N, H, W, F]."""
    return per_image.view(-1, 1, 1, 1).expand_as(values)
