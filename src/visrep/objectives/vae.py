"""VAE and β-VAE: compress an observation into a Gaussian code from which it can be painted again.

Kingma, Welling: "Auto-Encoding Variational Bayes", ICLR 2014; Higgins et al.: "beta-VAE", ICLR 2017; networks and scale
of the loss as in Stooke, Lee, Abbeel, Laskin: "Decoupling Representation Learning from Reinforcement Learning", 2021.
Shapes: B batch, C stacked channels, H W pixels, D features, Z code, K encoded actions (0 without any).
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders.contract import Encoder
from visrep.objectives.contract import OBJECTIVES, Loss, Objective, ObjectiveConfig
from visrep.objectives.parts.decoder import ConvShape, Decoder, strided
from visrep.objectives.parts.heads import mlp
from visrep.objectives.parts.masked import masked_mean
from visrep.precision import at_least_float32

Likelihood = Literal["bernoulli", "gaussian"]
ACTIVE_VARIANCE = 0.01  # of a code value's mean over the batch; below, the value tells observations apart no more


class VAEConfig(ObjectiveConfig):
    """Settings of the VAE, ATC's values for DeepMind Control."""

    vae_dim: int = Field(128, ge=1, description="values of the code, and of the layer before it (Atari in ATC: 256)")
    vae_hidden_dim: int = Field(0, ge=0, description="hidden units between that layer and the code; 0: none")
    vae_beta: float | None = Field(
        None,
        ge=0,
        description="weight of the KL against a likelihood summed over pixels and channels (1: the ELBO); none: the "
        "number of stacked channels, which is the published code's KL coefficient 1",
    )
    vae_likelihood: Likelihood = Field("bernoulli", description="bernoulli (published), or gaussian of unit variance")
    decoder: Literal["dmcontrol", "atari"] = Field(
        "dmcontrol", description="kernels and strides: 3x3 at 2,2,2,1 from the code on; or 3x3, 4x4, 8x8 at 1,2,4"
    )
    decoder_channels: int = Field(32, ge=1, description="filters of the decoder (its inner layers' double with atari)")


def decoder_layers(kind: str, filters: int) -> list[ConvShape]:
    """What the decoder mirrors, from the image towards the code."""
    if kind == "atari":
        return [ConvShape(filters, 8, 4), ConvShape(2 * filters, 4, 2), ConvShape(2 * filters, 3, 1)]
    return strided(filters, (1, 2, 2, 2))


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² − log σ² − 1), summed over the code: [B, Z] twice to nats [B]."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=1)


def reconstruction_nll(logits: Tensor, target: Tensor, likelihood: Likelihood) -> Tensor:
    """−log p(x|z) summed over pixels and *averaged over channels*, without constants: [B, C, H, W] twice to [B].

    Args:
        logits: decoder's output; the picture is its sigmoid.
        target: images in 0..1. Bernoulli takes each as the probability of a bit, Gaussian as a value of variance 1.
        likelihood: which of the two.
    """
    if likelihood == "bernoulli":
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    else:
        losses = 0.5 * (logits.sigmoid() - target).square()
    return losses.sum(dim=(2, 3)).mean(dim=1)


def active_dims(mean: Tensor, valid: Tensor) -> Tensor:
    """Code values whose mean varies by more than ``ACTIVE_VARIANCE`` over the valid rows: [B, Z], bool [B] to 0-d."""
    weight = (valid.to(mean.dtype) / valid.sum().clamp_min(1)).unsqueeze(1)  # [B, 1]
    centre = (weight * mean).sum(dim=0)  # not a product of matrices, which autocast would round
    variance = (weight * (mean - centre).square()).sum(dim=0)  # [Z]
    return (variance > ACTIVE_VARIANCE).sum().to(mean.dtype)


class Code(NamedTuple):
    """q(z|x): mean and log σ², [B, Z] each, in float32 or better."""

    mean: Tensor
    log_variance: Tensor


@OBJECTIVES.register("vae")
class VAEObjective(Objective):
    """Encode o_t, decode o_t; with ``vae_beta`` other than 1 a β-VAE. Policies see the encoder's features, no sample.

    Args:
        k: agent steps between what is encoded and what is decoded; the VAE itself has 0, ``vae_t`` more.
    """

    Config: ClassVar[type[VAEConfig]] = VAEConfig
    augmented: ClassVar[bool] = False

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: VAEConfig, k: int = 0) -> None:
        super().__init__(encoder, actions)
        self.config = config
        self.k = k
        shape, width = encoder.contract.shape, config.vae_dim
        # The published code weighs the KL against a mean over channels; the literature's β is against their sum.
        self.beta = float(shape[0]) if config.vae_beta is None else config.vae_beta
        self.kl_coef = self.beta / shape[0]
        self.beta_norm = self.beta * width / (shape[0] * shape[1] * shape[2])
        hidden = (config.vae_hidden_dim,) if config.vae_hidden_dim else ()
        self.compress = nn.Linear(encoder.feature_dim, width)
        self.head = mlp(width + k * actions.width, *hidden, 2 * width)
        layers = decoder_layers(config.decoder, config.decoder_channels)
        self.decoder = Decoder(width, shape, layers, relu_first=False)

    def needs(self) -> BatchSpec:
        """Single observations; no actions."""
        return BatchSpec(offsets=(0,), fields=frozenset({"image"}))

    def forward(self, batch: Batch) -> Loss:
        """Loss of a batch; the noise comes from torch's global generator, which a run saves and restores."""
        features = self.encoder(batch.image(0))
        valid = batch.valid[:, batch.offsets.index(self.k)]
        return self.loss(features, batch.image(self.k), valid, self._actions(batch))

    def loss(
        self,
        features: Tensor,
        target: Tensor,
        valid: Tensor,
        actions: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Loss:
        """The loss on given features.

        Args:
            features: [B, D].
            target: [B, C, H, W] in 0..255, uint8 or float.
            valid: bool [B]; the other rows count for nothing.
            actions: [B, K] encoded; None where k is 0.
            noise: [B, Z] standard-normal; drawn where None.
        """
        code = self.encode(features, actions)
        if noise is None:
            noise = torch.randn_like(code.mean)
        logits = at_least_float32(self.decoder(code.mean + (0.5 * code.log_variance).exp() * noise))
        target = target.to(logits.dtype) / 255.0
        kl = kl_to_standard_normal(*code)  # [B]
        reconstruction = masked_mean(reconstruction_nll(logits, target, self.config.vae_likelihood), valid)
        mean_kl = masked_mean(kl, valid)
        total = reconstruction + self.kl_coef * mean_kl
        with torch.no_grad():
            pictures = logits.sigmoid()
            parts = {
                "reconstruction_loss": reconstruction.detach(),
                "kl_loss": self.kl_coef * mean_kl.detach(),
                "kl": mean_kl.detach(),
                "reconstruction_error": masked_mean((pictures - target).square().mean(dim=(1, 2, 3)), valid),
                "active_dims": active_dims(code.mean, valid),
            }
        return Loss(total, parts, {"kl": kl.detach(), "mean": code.mean.detach(), "reconstruction": pictures})

    def painted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The observation k steps later and its picture from the code's mean."""
        code = self.encode(self.encoder(batch.image(0)), self._actions(batch))
        return batch.image(self.k), 255.0 * at_least_float32(self.decoder(code.mean)).sigmoid()

    def encode(self, features: Tensor, actions: Tensor | None = None) -> Code:
        """Code of given features [B, D] and encoded actions [B, K]; its mean is what to hand on, not a sample."""
        hidden = F.relu(self.compress(features))
        if actions is not None:
            hidden = torch.cat([hidden, actions.to(hidden.dtype)], dim=1)
        return Code(*at_least_float32(self.head(hidden)).chunk(2, dim=1))

    def diagnostics(self) -> dict[str, Tensor]:
        """β in the literature's convention, and normalised by sizes: β·Z/(C·H·W)."""
        device = self.compress.weight.device
        return {name: torch.tensor(getattr(self, name), device=device) for name in ("beta", "beta_norm")}

    def _actions(self, batch: Batch) -> Tensor | None:
        """a_t .. a_{t+k-1}, encoded and side by side, [B, K]; None for the VAE."""
        if not self.k:
            return None
        # The action at offset i + 1 is the one that led there, a_{t+i}.
        return torch.cat([self.actions.encode(batch.at("action", i + 1)) for i in range(self.k)], dim=1)
