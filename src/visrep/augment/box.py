"""Boxes: a rectangle of the image is hidden, or all but a rectangle (RAD).

Shapes: N samples, S frames of a stack, C channels per frame, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from visrep.augment.contract import Draws, Operator, register_operator


@dataclass(frozen=True)
class _Box(Operator):
    """A box whose sides have ``min``..``max`` pixels, height and width on their own, anywhere inside the image."""

    min: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max:
            raise self.refuse("the box has sides of min to max pixels: give 1 <= min <= max")

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Same size; the largest box must fit in."""
        if self.max > min(height, width):
            raise self.refuse(f"a box of {self.max} pixels does not fit into images of {height}x{width}")
        return height, width

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """``box`` int64 [N, 4]: top, left, height, width."""
        sides = torch.randint(self.min, self.max + 1, (count, 2), generator=generator, device=device)
        room = torch.tensor(size, device=device) - sides + 1  # [N, 2] places for the box
        places = torch.randint(0, 2**62, (count, 2), generator=generator, device=device) % room
        return {"box": torch.cat([places, sides], dim=1)}

    def inside(self, images: Tensor, draws: Draws) -> Tensor:
        """Bool [N, 1, H, W]: which pixels lie in the box."""
        top, left, height, width = draws["box"].unbind(1)
        rows = torch.arange(images.shape[-2], device=images.device) - top[:, None]  # [N, H]
        columns = torch.arange(images.shape[-1], device=images.device) - left[:, None]  # [N, W]
        in_rows = (rows >= 0) & (rows < height[:, None])
        in_columns = (columns >= 0) & (columns < width[:, None])
        return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


@register_operator("cutout")
@dataclass(frozen=True)
class Cutout(_Box):
    """Hide a box under black; its sides have ``min`` to ``max`` pixels."""

    min: int = 10
    max: int = 30

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, S*C, H, W] to the same."""
        return images.masked_fill(self.inside(images, draws), 0)


@register_operator("cutout_color")
@dataclass(frozen=True)
class CutoutColor(_Box):
    """Hide a box under one random colour, the same in all frames; its sides have ``min`` to ``max`` pixels."""

    min: int = 10
    max: int = 30

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """``box`` int64 [N, 4]: top, left, height, width; ``color`` int64 [N, C] in 0..255."""
        color = torch.randint(0, 256, (count, self.frame_channels), generator=generator, device=device)
        return super().draw(count, size, generator, device) | {"color": color}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, S*C, H, W] to the same."""
        color = draws["color"].to(images.dtype).repeat(1, images.shape[1] // self.frame_channels)  # [N, S*C]
        return torch.where(self.inside(images, draws), color[:, :, None, None], images)


@register_operator("window")
@dataclass(frozen=True)
class Window(_Box):
    """Show a box only, the rest is black; its sides have ``min`` to ``max`` pixels."""

    min: int = 42
    max: int = 63

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, S*C, H, W] to the same."""
        return images.masked_fill(~self.inside(images, draws), 0)
