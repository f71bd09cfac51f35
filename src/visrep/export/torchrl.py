"""TorchRL: a TensorDictModule around a pre-trained encoder. It needs tensordict alone.

Shapes: * any leading dimensions, S frame stack, C colour channels, H W pixels, D features.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from visrep.encoders.contract import Encoder
from visrep.errors import UserError
from visrep.export.common import accepted_shapes, describe, missing_extra, takes_images
from visrep.export.reuse import ReusedEncoder

try:
    from tensordict.nn import TensorDictModule
except ImportError as error:
    raise missing_extra("torchrl", error) from error


class VisrepFeatures(TensorDictModule):
    """Reads uint8 images [*, S*C, H, W] from ``in_key``, writes features [*, D] to ``out_key``.

    Encoders of vectors read floats, [*, S*C] as well as [*, S*C, 1, 1].

    Args:
        encoder: encoder file, run directory, or an encoder, which is copied.
        frozen: keep the weights, and hide them from optimisers and target networks; otherwise they learn.
        in_key: where the images are.
        out_key: where the features go.

    Raises:
        UserError: no encoder file; when called: another shape or type of input.
    """

    def __init__(
        self,
        encoder: Encoder | Path | str,
        frozen: bool = True,
        in_key: str = "pixels",
        out_key: str = "features",
    ) -> None:
        module = _Pixels(ReusedEncoder(encoder, frozen), in_key)
        super().__init__(module, in_keys=[in_key], out_keys=[out_key])


class _Pixels(nn.Module):
    def __init__(self, encoder: ReusedEncoder, key: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.key = key

    def forward(self, pixels: Tensor) -> Tensor:
        contract = self.encoder.contract
        images = takes_images(contract)
        # Bytes alone: floats may have been divided by 255 (ToTensorImage does), which no shape would tell.
        of_type = pixels.dtype == torch.uint8 if images else pixels.is_floating_point()
        shapes = [shape for shape in accepted_shapes(contract) if tuple(pixels.shape[-len(shape) :]) == shape]
        if not of_type or not shapes:
            hint = (
                f". Use PermuteTransform((-1, -3, -2)) and CatFrames(N={contract.stack}, dim=-3) rather than "
                "ToTensorImage, which divides by 255"
            )
            raise UserError(
                f"{self.key!r} is {list(pixels.shape)} of {str(pixels.dtype).removeprefix('torch.')}, but the encoder "
                f"takes {'uint8 ' if images else ''}{describe(contract)}, after any leading dimensions"
                f"{hint if images else ''}"
            )
        leading = pixels.shape[: -len(shapes[0])]
        features: Tensor = self.encoder(pixels.reshape(-1, *contract.shape))
        return features.reshape(*leading, -1)
