"""Random shift: the image moves by a few whole pixels and its border is repeated (DrQ, DrQ-v2, Proto-RL, ATC).

Shapes: N images, C channels (all stacked frames), H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from visrep.augment.contract import Domain, Draws, Operator, draw_selection, register_operator
from visrep.augment.rectangle import cut


@register_operator("shift")
@dataclass(frozen=True)
class Shift(Operator):
    """Move by up to ``pad`` whole pixels per axis, the border repeated; ``p`` is the share of samples that move."""

    pad: int = 4
    p: float = 1.0

    domain: ClassVar[tuple[Domain, ...]] = ("images", "latents")

    def __post_init__(self) -> None:
        self.check_probability(self.p)
        if self.pad < 1:
            raise self.refuse('pad is the largest shift in pixels, at least 1; write "none" for no augmentation')

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Same size; the shift must leave something of the image."""
        if self.pad >= min(height, width):
            raise self.refuse(f"pad must be smaller than the images, which are {height}x{width}")
        return height, width

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """``shift`` int64 [N, 2], (x, y) in 0..2·pad, where pad means none; ``selection`` [N] where p < 1."""
        shift = torch.randint(0, 2 * self.pad + 1, (count, 2), generator=generator, device=device)
        return {"shift": shift} | draw_selection(self.p, count, generator, device)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, C, H, W] to the same."""
        offset = draws["shift"] - self.pad
        if "selection" in draws:
            offset = offset * (draws["selection"] <= self.p)[:, None]
        return cut(images, offset[:, 1], offset[:, 0], (images.shape[-2], images.shape[-1]))


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
    operator = Shift(pad)
    if shift is None:
        return operator(images, generator)
    return operator.apply(images, {"shift": shift})
