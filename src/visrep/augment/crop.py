"""Crops and pastes: the images change size, so the encoder is built for what comes out (CURL, RAD).

Shapes: N images, C channels (all stacked frames), H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from visrep.augment.contract import Draws, Operator, register_operator
from visrep.augment.rectangle import cut


@register_operator("crop")
@dataclass(frozen=True)
class Crop(Operator):
    """Cut out a square of ``out`` pixels anywhere in the image; acting sees the central one.

    CURL and RAD render 100 pixels and keep 84. CURL's code never draws the last place; here all are equally likely.
    """

    out: int = 84

    def __post_init__(self) -> None:
        if self.out < 1:
            raise self.refuse("out is the side of the square in pixels, at least 1")

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(out, out)."""
        if self.out > min(height, width):
            raise self.refuse(f"the images are only {height}x{width}: raise image_size or crop less")
        return self.out, self.out

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """``top`` and ``left``, int64 [N], 0..H-out and 0..W-out, both ends included."""
        top, left = (
            torch.randint(0, side - self.out + 1, (count,), generator=generator, device=device) for side in size
        )
        return {"top": top, "left": left}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, C, H, W] to [N, C, out, out]."""
        return cut(images, draws["top"], draws["left"], (self.out, self.out))

    def evaluate(self, images: Tensor) -> Tensor:
        """The central square."""
        top, left = ((side - self.out) // 2 for side in images.shape[-2:])
        return images[..., top : top + self.out, left : left + self.out]


@register_operator("translate")
@dataclass(frozen=True)
class Translate(Operator):
    """Paste the image anywhere into a black square of ``size`` pixels; acting sees it in the middle.

    RAD pastes 84 or 100 pixels into 108.
    """

    size: int = 108

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(size, size)."""
        if self.size < max(height, width):
            raise self.refuse(f"the images are {height}x{width} and do not fit: lower image_size or raise size")
        return self.size, self.size

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """``top`` and ``left`` of the image on the canvas, int64 [N], 0..size-H and 0..size-W, both ends included."""
        top, left = (
            torch.randint(0, self.size - side + 1, (count,), generator=generator, device=device) for side in size
        )
        return {"top": top, "left": left}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, C, H, W] to [N, C, size, size]."""
        return cut(images, -draws["top"], -draws["left"], (self.size, self.size), border="black")

    def evaluate(self, images: Tensor) -> Tensor:
        """The image in the middle of the canvas."""
        top, left = (
            torch.full((len(images),), (self.size - side) // 2, device=images.device) for side in images.shape[-2:]
        )
        return self.apply(images, {"top": top, "left": left})
