"""Mirror images and quarter turns. They change what an action means: see ``action_meaning`` (RAD).

Shapes: N samples, S*C channels of all stacked frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from visrep.augment.contract import Draws, Operator, draw_selection, register_operator, select


@register_operator("flip")
@dataclass(frozen=True)
class Flip(Operator):
    """Swap left and right of a share ``p`` of the samples."""

    p: float = 0.2

    action_meaning: ClassVar[str | None] = (
        "left and right are swapped, so an action that moves sideways means its mirror image"
    )

    def __post_init__(self) -> None:
        self.check_probability(self.p)

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """``selection`` [N] where p < 1."""
        return draw_selection(self.p, count, generator, device)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, S*C, H, W] to the same."""
        return select(images.flip(-1), images, draws, self.p)


@register_operator("rotate")
@dataclass(frozen=True)
class Rotate(Operator):
    """Turn a share ``p`` of the samples by 1, 2 or 3 quarters, counter-clockwise, each as likely."""

    p: float = 0.3

    action_meaning: ClassVar[str | None] = (
        "the image is turned by quarters, so an action that moves in one direction of the picture means another, and "
        "gravity pulls elsewhere"
    )

    def __post_init__(self) -> None:
        self.check_probability(self.p)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Same size, which must be a square."""
        if height != width:
            raise self.refuse(f"a quarter turn needs square images, these are {height}x{width}")
        return height, width

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """``quarters`` int64 [N] in 1..3; ``selection`` [N] where p < 1."""
        quarters = torch.randint(1, 4, (count,), generator=generator, device=device)
        return {"quarters": quarters} | draw_selection(self.p, count, generator, device)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, S*C, H, H] to the same."""
        quarters = draws["quarters"]
        if "selection" in draws:
            quarters = quarters * (draws["selection"] <= self.p)
        turned = images
        for quarter in (1, 2, 3):
            turned = torch.where((quarters == quarter).view(-1, 1, 1, 1), images.rot90(quarter, (-2, -1)), turned)
        return turned
