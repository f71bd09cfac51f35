"""What every convolutional encoder shares: a table of layers, scaling of the input, order of the features.

Shapes: B batch, S frame stack, C colour channels, H W pixels, F H' W' latent image, D = F·H'·W' features.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from visrep.encoders.contract import Encoder, InputContract
from visrep.errors import UserError
from visrep.initialisation import initialise


class Layer(NamedTuple):
    """One convolution: filters in multiples of ``channels``, then kernel, stride and zero padding in pixels."""

    width: int
    kernel: int
    stride: int
    padding: int = 0

    def output(self, size: int) -> int:
        """Pixels that come out of ``size`` pixels; below one where the image is too small."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    def smallest_input(self, size: int) -> int:
        """The fewest pixels that give ``size`` pixels."""
        return (size - 1) * self.stride + self.kernel - 2 * self.padding


class ConvStack(Encoder):
    """Convolutions with ReLU, one after another; a subclass gives the table of layers.

    Args:
        contract: what the images look like.
        channels: filters of the first layer; the others grow with it.
        offset: subtracted after the division by 255. Proto-RL and ATC use 0, DrQ-v2 and URLB 0.5.
        init: how fresh layers are filled, see ``visrep.initialisation``; None is the kind's own default.

    Raises:
        UserError: the images are too small for the layers, or the initialisation is unknown.
    """

    table: ClassVar[tuple[Layer, ...]]
    default_init: ClassVar[str]
    settings = ("channels", "offset", "init")

    def __init__(
        self, contract: InputContract, channels: int = 32, offset: float = 0.0, init: str | None = None
    ) -> None:
        super().__init__()
        self.contract = contract
        self.channels = channels
        self.offset = offset
        self.init = self.default_init if init is None else init
        height, width = contract.height, contract.width
        smallest = 1
        for layer in reversed(self.table):
            smallest = layer.smallest_input(smallest)
        if min(height, width) < smallest:
            raise UserError(
                f"the {self.kind!r} encoder needs images of at least {smallest}x{smallest} pixels, "
                f"got {height}x{width}: raise image_size"
            )
        filters = contract.shape[0]
        layers: list[nn.Module] = []
        for layer in self.table:
            out = layer.width * channels
            conv = nn.Conv2d(filters, out, layer.kernel, stride=layer.stride, padding=layer.padding)
            layers += [conv, nn.ReLU(inplace=True)]
            height, width, filters = layer.output(height), layer.output(width), out
        self.latent_shape = (filters, height, width)
        self.feature_dim = filters * height * width
        self.convs = nn.Sequential(*layers)
        initialise(self, self.init)

    def latents(self, images: Tensor) -> Tensor:
        """[B, S*C, H, W] in 0..255 (uint8 or float) to [B, F, H', W']."""
        parts = [self.layers(self._scaled(part)) for part in _parts(images)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def layers(self, scaled: Tensor) -> Tensor:
        """What the table says, on scaled images: [B, S*C, H, W] to [B, F, H', W']."""
        latents: Tensor = self.convs(scaled)
        return latents

    def features(self, images: Tensor) -> Tensor:
        """[B, S*C, H, W] in 0..255 (uint8 or float) to [B, D], flattened in (F, H', W') order in any memory format."""
        latents = self.latents(images)
        if latents.requires_grad and not torch.compiler.is_compiling():
            # Flattening turns the gradient to (F, H', W') order, in which the layers below are several times slower.
            latents.register_hook(_channels_last)
        return latents.flatten(1)

    def _scaled(self, images: Tensor) -> Tensor:
        """To 0..1 minus the offset, in the dtype that the first convolution will compute in."""
        device = images.device.type
        weight = self.convs[0].weight  # a target network of another library may hold it as a plain tensor
        assert isinstance(weight, Tensor)
        dtype = weight.dtype
        if images.dtype == torch.uint8:
            # Whole numbers up to 255, and the same less 127.5, are exact in bfloat16, so that only the division rounds:
            # no worse than casting afterwards, at half the memory traffic.
            if torch.is_autocast_enabled(device):
                dtype = torch.get_autocast_dtype(device)
            if images.stride(1) != 1:  # turning bytes, then casting, is twice as fast as both at once
                images = _channels_last(images)
        scaled = images.to(dtype, memory_format=torch.channels_last, copy=True)
        if self.offset:
            scaled -= 255.0 * self.offset
        return scaled.div_(255.0)


def _parts(images: Tensor) -> tuple[Tensor, ...]:
    """The images that go through all layers together: in a pass without gradient on a CPU, what its caches can hold.

    A fifth faster at 84x84 pixels, the same up to rounding; bfloat16, half the bytes, gains nothing.
    """
    on_cpu = images.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if not on_cpu or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return (images,)
    parts: tuple[Tensor, ...] = images.split(32)
    return parts


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
