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
        layers: list[nn.Module] = [nn.Conv2d(contract.shape[0], channels, 3, stride=2), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Conv2d(channels, channels, 3), nn.ReLU()]
        self.convs = nn.Sequential(*layers)
        orthogonal_init(self)

    def config(self) -> dict[str, Any]:
        """Constructor arguments besides the input contract."""
        return {"channels": self.channels, "offset": self.offset}

    def features(self, images: Tensor) -> Tensor:
        """[B, S*C, H, W] in 0..255 (uint8 or float) to [B, D], flattened in (F, H, W) order in any memory format."""
        features: Tensor = self.convs(self._scaled(images))
        return features.flatten(1)

    def _scaled(self, images: Tensor) -> Tensor:
        """To 0..1 minus the offset, in the dtype that the first convolution will compute in."""
        device = images.device.type
        dtype = next(self.parameters()).dtype
        # Whole numbers up to 255 are exact in bfloat16 and the division rounds once, as casting afterwards would:
        # the same numbers at half the memory traffic. With an offset there would be a second rounding.
        if images.dtype == torch.uint8 and self.offset == 0.0 and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        scaled = images.to(dtype, memory_format=torch.channels_last)
        # A cast made a copy that can be divided in place; the caller's own images must not be.
        scaled = scaled / 255.0 if images.dtype == dtype else scaled.div_(255.0)
        return scaled.sub_(self.offset) if self.offset else scaled
