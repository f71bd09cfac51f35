"""The four-layer convolutional encoder of Proto-RL and DrQ-v2.

Shapes: B batch, S frame stack, C colour channels, H W pixels, F filters, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visrep.encoders.contract import Encoder, InputContract, register_encoder
from visrep.initialisation import orthogonal_init


@register_encoder("proto")
class ConvEncoder(Encoder):
    """Conv(S*C→F, 3x3, stride 2), then three Conv(F→F, 3x3), each with ReLU, flattened; 39,200 features at 84x84.

    Args:
        contract: what the images look like.
        channels: filters F of every layer.
        offset: subtracted after the division by 255. Proto-RL uses 0, DrQ-v2 and URLB 0.5.
    """

    def __init__(self, contract: InputContract, channels: int = 32, offset: float = 0.0) -> None:
        super().__init__()
        self.contract = contract
        self.channels = channels
        self.offset = offset
        # One stride-2 and three stride-1 layers of 3x3 without padding.
        height, width = ((size - 3) // 2 + 1 - 6 for size in (contract.height, contract.width))
        if height < 1 or width < 1:
            raise ValueError(
                f"the 'proto' encoder needs images of at least 15x15 pixels, got {contract.height}x{contract.width}: "
                "raise image_size"
            )
        self.feature_dim = channels * height * width
        layers: list[nn.Module] = [nn.Conv2d(contract.shape[0], channels, 3, stride=2), nn.ReLU(inplace=True)]
        for _ in range(3):
            layers += [nn.Conv2d(channels, channels, 3), nn.ReLU(inplace=True)]
        self.convs = nn.Sequential(*layers)
        orthogonal_init(self)

    def config(self) -> dict[str, Any]:
        """Constructor arguments besides the input contract."""
        return {"channels": self.channels, "offset": self.offset}

    def features(self, images: Tensor) -> Tensor:
        """[B, S*C, H, W] in 0..255 (uint8 or float) to [B, D], flattened in (F, H, W) order in any memory format."""
        features: Tensor = self.convs(self._scaled(images))
        if features.requires_grad and not torch.compiler.is_compiling():
            # Flattening turns the gradient to (F, H, W) order, in which the layers below are several times slower.
            features.register_hook(_channels_last)
        return features.flatten(1)

    def _scaled(self, images: Tensor) -> Tensor:
        """To 0..1 minus the offset, in the dtype that the first convolution will compute in."""
        device = images.device.type
        dtype = next(self.parameters()).dtype
        if images.dtype == torch.uint8:
            # Whole numbers up to 255, and the same less 127.5, are exact in bfloat16, so that only the division rounds:
            # no worse than casting afterwards, at half the memory traffic.
            if torch.is_autocast_enabled(device):
                dtype = torch.get_autocast_dtype(device)
            images = _channels_last(images)  # turning bytes, then casting, is twice as fast as both at once
        scaled = images.to(dtype, memory_format=torch.channels_last, copy=True)
        if self.offset:
            scaled -= 255.0 * self.offset
        return scaled.div_(255.0)


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
