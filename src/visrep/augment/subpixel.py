"""Sub-pixel shift of latent images: what a random shift becomes where images are stored encoded (ATC).

Shapes: N latent images, F filters, H W latent pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional

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

    The weights max(0, 1 - |u - offset|) of the neighbours u = -1, 0, 1 are those of a bilinear sampler for offsets up
    to one pixel, so that each axis is three slices instead of a gather (ATC, section "latent-image replay").

    Args:
        latents: [N, F, H, W], floats.
        x: [N] in -1..1, columns.
        y: [N] in -1..1, rows.

    Returns:
        Same shape and dtype; half precision is computed in float32.
    """
    values = at_least_float32(latents)
    for axis, offset in ((2, y), (3, x)):
        margin = (0, 0, 1, 1) if axis == 2 else (1, 1, 0, 0)
        padded = functional.pad(values, margin, mode="replicate")
        size = values.shape[axis]
        moved = torch.zeros_like(values)
        for place, neighbour in enumerate((-1, 0, 1)):
            weight = (1.0 - (neighbour - offset).abs()).clamp_min(0.0).to(values.dtype).view(-1, 1, 1, 1)
            moved = torch.addcmul(moved, weight, padded.narrow(axis, place, size))
        values = moved
    return values.to(latents.dtype)
