"""Encoders without parameters: observations that are features already.

Shapes: B batch, S frame stack, C numbers or filters per frame, H W latent pixels, D features.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from visrep.encoders.contract import Encoder, InputContract, register_encoder
from visrep.errors import UserError
from visrep.precision import at_least_float32


class GivenLatents(Encoder):
    """Floats of any size go through unscaled, half precision as float32; nothing to learn.

    Args:
        contract: shape of an observation; its bounds are taken off.
    """

    takes_images = False

    def __init__(self, contract: InputContract) -> None:
        super().__init__()
        self.contract = replace(contract, low=None, high=None)
        self.latent_shape = contract.shape
        self.feature_dim = contract.shape[0] * contract.height * contract.width

    def latents(self, images: Tensor) -> Tensor:
        """[B, S*C, H, W] floats as they are."""
        return at_least_float32(images)


@register_encoder("vector")
class VectorEncoder(GivenLatents):
    """Observations that are vectors, [B, S*C, 1, 1]: the numbers themselves are the features (state-based agents).

    Raises:
        UserError: the contract has more than one pixel.
    """

    def __init__(self, contract: InputContract) -> None:
        if (contract.height, contract.width) != (1, 1):
            raise UserError(
                f"the 'vector' encoder takes vectors (1x1 pixels), got {contract.height}x{contract.width}: "
                "choose a convolutional encoder_kind for images"
            )
        super().__init__(contract)


@register_encoder("latent")
class LatentEncoder(GivenLatents):
    """Latent images that another, frozen encoder made, [B, F, H', W']: flattened in float32 (ATC's latent replay)."""
