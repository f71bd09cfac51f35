"""Random convolution: colours and textures change, shapes stay (Lee et al. 2020, "Network Randomization"; RAD).

Shapes: N samples, S frames of a stack, three channels per frame, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional

from visrep.augment.contract import Draws, Operator, as_before, register_operator
from visrep.precision import at_least_float32

GREY = 127.5
SPREAD = math.sqrt(2.0 / (27 + 27))  # Xavier-normal for 3x3 pixels of three channels in and out


@register_operator("random_conv")
@dataclass(frozen=True)
class RandomConv(Operator):
    """One random 3x3 convolution of the three colours per sample, the same for all its frames.

    out = clip(grey + kernel * (image - grey), 0, 255) with grey = 127.5 and the border repeated. RAD convolves 0..1
    without a centre and does not clip: half of its output is negative, and more than 1.
    """

    needs_rgb: ClassVar[bool] = True

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """``kernel`` [N, 3 (out), 3 (in), 3, 3], Xavier-normal."""
        return {"kernel": SPREAD * torch.randn(count, 3, 3, 3, 3, generator=generator, device=device)}

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, S*3, H, W] to the same."""
        count, _, height, width = images.shape
        centred = at_least_float32(images if images.is_floating_point() else images.float()) - GREY
        padded = functional.pad(centred, (1, 1, 1, 1), mode="replicate")
        # Frames become the batch and samples the groups, so that each kernel is held once.
        frames = padded.unflatten(1, (-1, 3)).transpose(0, 1).flatten(1, 2)  # [S, N*3, H+2, W+2]
        kernel = draws["kernel"].to(frames.dtype).flatten(0, 1)  # [N*3, 3, 3, 3]
        mixed = functional.conv2d(frames, kernel, groups=count)  # [S, N*3, H, W]
        mixed = mixed.view(-1, count, 3, height, width).transpose(0, 1).flatten(1, 2)
        return as_before(mixed + GREY, images)
