"""Codes to images: transposed convolutions that undo the sizes of a stack of convolutions exactly.

Shapes: B batch, Z code, F filters, C stacked channels, H W pixels, h w cells of the smallest map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from visrep.errors import UserError

SMALLEST_MAP = 3  # cells; below, the linear layer in front would paint the picture by itself


class ConvShape(NamedTuple):
    """One convolution without padding, as it would run from the image towards the code.

    Attributes:
        filters: its output channels.
        kernel: side of the kernel in pixels.
        stride: pixels between two applications.
    """

    filters: int
    kernel: int
    stride: int


def strided(filters: int, strides: Sequence[int]) -> list[ConvShape]:
    """3x3 convolutions of equal width."""
    return [ConvShape(filters, 3, stride) for stride in strides]


def map_sizes(height: int, width: int, layers: Sequence[ConvShape]) -> list[tuple[int, int]]:
    """(H, W) of the image and after each layer, as far as the map keeps at least ``SMALLEST_MAP`` cells per side.

    Raises:
        UserError: not even the first layer leaves that many.
    """
    sizes = [(height, width)]
    for layer in layers:
        h, w = ((side - layer.kernel) // layer.stride + 1 for side in sizes[-1])
        if min(h, w) < SMALLEST_MAP:
            break
        sizes.append((h, w))
    if len(sizes) == 1:
        raise UserError(
            f"images of {height}x{width} pixels are too small for a decoder: its {layers[0].kernel}x{layers[0].kernel} "
            f"layer of stride {layers[0].stride} leaves less than {SMALLEST_MAP}x{SMALLEST_MAP} cells; raise image_size"
        )
    return sizes


class Decoder(nn.Module):
    """Linear, then one transposed convolution per mirrored layer with ReLU between them; nothing behind the last.

    Each transposed convolution is given the output padding that the mirrored convolution's rounding lost, so that the
    result has the image's size whatever that is. Layers for which the image is too small are left out.

    Args:
        code_dim: Z.
        shape: (C, H, W) of the images.
        layers: what is mirrored, from the image towards the code.
        relu_first: a ReLU behind the linear layer too (SAC-AE; the VAE of ATC has none).
    """

    def __init__(
        self, code_dim: int, shape: tuple[int, int, int], layers: Sequence[ConvShape], relu_first: bool
    ) -> None:
        super().__init__()
        channels, height, width = shape
        sizes = map_sizes(height, width, layers)
        used = list(layers[: len(sizes) - 1])
        self.map_shape = (used[-1].filters, *sizes[-1])
        self.linear = nn.Linear(code_dim, used[-1].filters * sizes[-1][0] * sizes[-1][1])
        outputs = [channels, *(layer.filters for layer in used[:-1])]
        stack: list[nn.Module] = [nn.ReLU(inplace=True)] if relu_first else []
        for layer, out, (h, w) in reversed(list(zip(used, outputs, sizes))):
            lost = ((h - layer.kernel) % layer.stride, (w - layer.kernel) % layer.stride)
            stack += [
                nn.ConvTranspose2d(layer.filters, out, layer.kernel, layer.stride, output_padding=lost),
                nn.ReLU(inplace=True),
            ]
        self.deconvs = nn.Sequential(*stack[:-1])

    def forward(self, code: Tensor) -> Tensor:
        """[B, Z] to [B, C, H, W], unbounded."""
        cells = self.linear(code).unflatten(1, self.map_shape)
        # Channels innermost: the same numbers, and the layers need a third less time on a CPU.
        images: Tensor = self.deconvs(cells.contiguous(memory_format=torch.channels_last))
        return images
