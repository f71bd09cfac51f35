"""SAC-AE: a regularised, deterministic auto-encoder whose encoder the critic trains too.

Yarats, Zhang, Kostrikov, Amos, Pineau, Fergus: "Improving Sample Efficiency in Model-Free Reinforcement Learning from
Images", AAAI 2021 (arXiv 1910.01741).
Shapes: B batch, C stacked channels, H W pixels, D features, F projection.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders.contract import Encoder
from visrep.initialisation import delta_orthogonal_init
from visrep.objectives.contract import OBJECTIVES, Loss, ObjectiveConfig, ParameterGroup
from visrep.objectives.parts.decoder import Decoder, strided
from visrep.objectives.parts.projection import ProjectedObjective
from visrep.precision import at_least_float32

BITS = 5  # of the target


class SACAEConfig(ObjectiveConfig):
    """Settings of SAC-AE's auto-encoder, the published code's values."""

    sac_ae_dim: int = Field(50, ge=1, description="values of the code; the critic's feature_dim where it is shared")
    latent_penalty: float = Field(1e-6, ge=0, description="weight of the code's half squared length")
    decoder_weight_decay: float = Field(1e-7, ge=0, description="L2 term of the decoder's weights, in its optimiser")
    decoder_channels: int = Field(32, ge=1, description="filters of the decoder")


def quantised(images: Tensor, uniform: Tensor) -> Tensor:
    """The target: 5-bit grey levels with the bin filled evenly, in [-0.5, 0.5) (the preprocessing of Glow).

    Args:
        images: [B, C, H, W] in 0..255, as a camera gives them; uint8 or float.
        uniform: the same shape, draws from [0, 1).
    """
    bins = 1 << BITS
    return (images.to(uniform.dtype) * (bins / 256)).floor() / bins + uniform / bins - 0.5


@OBJECTIVES.register("sac_ae")
class SACAEObjective(ProjectedObjective):
    """Decode o_t from h = tanh(LayerNorm(Linear(features))), with penalties on h and on the decoder's weights."""

    Config = SACAEConfig
    augmented: ClassVar[bool] = False
    turn: ClassVar[Literal["before policy", "after policy"]] = "after policy"

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: SACAEConfig) -> None:
        super().__init__(encoder, actions, config.sac_ae_dim, tanh=True)
        self.config = config
        layers = strided(config.decoder_channels, (2, 1, 1, 1))
        self.decoder = Decoder(config.sac_ae_dim, encoder.contract.shape, layers, relu_first=True)
        delta_orthogonal_init(self.decoder)

    def needs(self) -> BatchSpec:
        """Single observations; no actions."""
        return BatchSpec(offsets=(0,), fields=frozenset({"image"}))

    def forward(self, batch: Batch) -> Loss:
        """Loss of a batch; the noise comes from torch's global generator, which a run saves and restores."""
        images = batch.image(0)
        return self.loss(self.encoder(images), images)

    def loss(self, features: Tensor, images: Tensor, uniform: Tensor | None = None) -> Loss:
        """The loss on given features.

        Args:
            features: [B, D].
            images: [B, C, H, W] in 0..255, what they are features of.
            uniform: of the images' shape, from [0, 1), fills the target's bins; drawn where None.
        """
        code = at_least_float32(self.projection(features))  # [B, F]
        reconstruction = at_least_float32(self.decoder(code))
        if uniform is None:
            uniform = torch.rand_like(reconstruction)
        target = quantised(images, uniform)
        error = F.mse_loss(reconstruction, target)
        latent = 0.5 * code.square().sum(dim=1).mean()
        parts = {"reconstruction_error": error.detach(), "latent_penalty": latent.detach()}
        outputs = {"target": target, "reconstruction": reconstruction.detach(), "latent": code.detach()}
        return Loss(error + self.config.latent_penalty * latent, parts, outputs)

    def painted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The observation and its picture; the decoder paints grey levels around zero."""
        images = batch.image(0)
        return images, 255.0 * (at_least_float32(self.decoder(self.projection(self.encoder(images)))) + 0.5)

    def parameter_groups(self, train_encoder: bool) -> list[ParameterGroup]:
        """An Adam over encoder and projection, beside the critic's own, and one over the decoder with its decay."""
        encoder = list(self.encoder.parameters()) if train_encoder else []
        return [
            ParameterGroup("encoder", [*encoder, *self.projection_parameters(train_encoder)]),
            ParameterGroup("decoder", list(self.decoder.parameters()), self.config.decoder_weight_decay),
        ]
