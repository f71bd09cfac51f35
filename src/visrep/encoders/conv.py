"""The convolutional encoders of Proto-RL, DrQ-v2 and ATC: tables of layers on top of ``ConvStack``.

Shapes: B batch, F H' W' latent image.
"""

from __future__ import annotations

from torch import Tensor

from visrep.encoders.contract import register_encoder
from visrep.encoders.stack import ConvStack, Layer


@register_encoder("proto")
class ConvEncoder(ConvStack):
    """Four 3x3 convolutions with strides 2, 1, 1, 1: 32x35x35 = 39,200 features at 84x84.

    Of SAC-AE, CURL, RAD, DrQ, DrQ-v2 and Proto-RL.
    """

    table = (Layer(1, 3, 2), Layer(1, 3, 1), Layer(1, 3, 1), Layer(1, 3, 1))
    default_init = "orthogonal"


@register_encoder("atc")
class ATCEncoder(ConvStack):
    """Four 3x3 convolutions with strides 2, 2, 2, 1: 32x7x7 = 1,568 features at 84x84. ATC's in DeepMind Control."""

    table = (Layer(1, 3, 2), Layer(1, 3, 2), Layer(1, 3, 2), Layer(1, 3, 1))
    default_init = "torch"


@register_encoder("atari")
class AtariEncoder(ConvStack):
    """32@8x8 stride 4, 64@4x4 stride 2, 64@3x3: 64x7x7 = 3,136 features at 84x84 (Mnih et al. 2015; ATC in Atari)."""

    table = (Layer(1, 8, 4), Layer(2, 4, 2), Layer(2, 3, 1))
    default_init = "kaiming"


@register_encoder("dmlab")
class DMLabEncoder(ConvStack):
    """32@8x8 stride 4, 64@4x4 stride 2, two 64@3x3 with skips: 64x7x10 = 4,480 features at 72x96. ATC's in DMLab."""

    table = (Layer(1, 8, 4), Layer(2, 4, 2), Layer(2, 3, 1, 1), Layer(2, 3, 1, 1))
    default_init = "kaiming"

    def layers(self, scaled: Tensor) -> Tensor:
        """a₂ = ReLU(conv₂), u₃ = conv₃(a₂) + a₂, u₄ = conv₄(ReLU(u₃)) + u₃, then ReLU(u₄): [B, F, H', W'].

        The second skip adds u₃ as it was before its ReLU, as ATC's source does.
        """
        a2 = self.convs[:4](scaled)
        u3 = self.convs[4](a2) + a2
        u4: Tensor = self.convs[6](u3.relu()) + u3
        return u4.relu_()
