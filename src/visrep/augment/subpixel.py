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

    Each axis is a product with one small matrix per latent image: a gather of neighbours costs several times as much
    (ATC, section "latent-image replay").

    Args:
        latents: [N, F, H, W], floats.
        x: [N] in -1..1, columns.
        y: [N] in -1..1, rows.

    Returns:
        Same shape and dtype; half precision is computed in float32.
    """
    values = at_least_float32(latents)
    count, filters, height, width = values.shape
    rows = values.reshape(count, filters * height, width).transpose(1, 2)  # [N, W, F*H]
    across = _resampling(x, width, values.dtype) @ rows  # [N, W, F*H]
    columns = across.view(count, width * filters, height) @ _resampling(y, height, values.dtype).transpose(1, 2)
    return columns.view(count, width, filters, height).permute(0, 2, 3, 1).to(latents.dtype)  # [N, F, H, W]


def _resampling(offsets: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Matrices that move a line of ``size`` pixels by offsets [N] in -1..1: [N, size, size], rows that sum to 1.

    The neighbours u = -1, 0, 1 weigh max(0, 1 - |u - offset|); beyond the border stands the pixel at the border.
    """
    places = torch.arange(size, device=offsets.device)
    matrix = torch.zeros(len(offsets), size, size, dtype=dtype, device=offsets.device)
    for neighbour in (-1, 0, 1):
        weight = (1.0 - (neighbour - offsets).abs()).clamp_min(0.0).to(dtype)
        matrix[:, places, (places + neighbour).clamp(0, size - 1)] += weight[:, None]
    return matrix
