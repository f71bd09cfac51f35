"""RND: distil a fixed random network; explore where the distillation is still wrong.

Burda, Edwards, Storkey, Klimov: "Exploration by Random Network Distillation", ICLR 2019, after URLB.
Shapes: B batch, D features, R output.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders.contract import Encoder
from visrep.exploration.moments import RunningMoments
from visrep.initialisation import orthogonal_init
from visrep.objectives.contract import OBJECTIVES, Loss, Objective, ObjectiveConfig, Transition
from visrep.objectives.parts.heads import mlp
from visrep.precision import at_least_float32


class RNDConfig(ObjectiveConfig):
    """Settings of RND, URLB's values."""

    rnd_rep_dim: int = Field(512, ge=1, description="outputs of the predictor and of the fixed random network")
    rnd_hidden_dim: int = Field(1024, ge=1, description="hidden units of both networks, two layers each")
    rnd_clip: float = Field(5.0, gt=0, description="normalised features are clipped to plus and minus this")
    rnd_scale: float = Field(1.0, gt=0, description="factor on the reward")


@OBJECTIVES.register("rnd")
class RNDObjective(Objective):
    """Predictor and fixed random network on normalised features (a ``Novelty``: error over its running deviation).

    Both networks read the shared encoder's features *without* gradient: a target that the loss could move would be
    no target (docs/methods/rnd.md). The encoder therefore stays as it was handed over.
    """

    Config = RNDConfig
    trains_encoder: ClassVar[bool] = False

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: RNDConfig) -> None:
        super().__init__(encoder, actions)
        self.config = config
        sizes = (encoder.feature_dim, config.rnd_hidden_dim, config.rnd_hidden_dim, config.rnd_rep_dim)
        self.normaliser = nn.BatchNorm1d(encoder.feature_dim, affine=False)
        self.predictor = mlp(*sizes)
        self.target = mlp(*sizes).requires_grad_(False)
        self.error_moments = RunningMoments()
        orthogonal_init(self)

    def needs(self) -> BatchSpec:
        """Single observations; no actions."""
        return BatchSpec(offsets=(0,), fields=frozenset({"image"}))

    def forward(self, batch: Batch) -> Loss:
        """Mean distillation error."""
        with torch.no_grad():
            features = self.encoder(batch.image(0))
        return self.loss(features)

    def loss(self, features: Tensor) -> Loss:
        """The loss on given features [B, D]; tracks their running moments in the normaliser."""
        error = self.error(self.normaliser(features.detach()))
        loss = error.mean()
        return Loss(loss, {"distillation_error": loss.detach()}, {"error": error.detach()})

    def error(self, normalised: Tensor) -> Tensor:
        """Mean squared difference of predictor and random network: normalised features [B, D] to [B, 1]."""
        clipped = normalised.clamp(-self.config.rnd_clip, self.config.rnd_clip)
        difference = at_least_float32(self.target(clipped)) - at_least_float32(self.predictor(clipped))
        return difference.square().mean(dim=-1, keepdim=True)

    @torch.no_grad()
    def embed(self, transition: Transition) -> Tensor:
        """Error of each observation *before* the action, as in URLB: [B, 1].

        In training mode features are normalised by the batch (URLB), in evaluation mode by the tracked moments, so
        that a single observation can be judged too.
        """
        tracked = self.normaliser
        features = transition.features
        if self.training:
            normalised = F.batch_norm(features, None, None, training=True, eps=tracked.eps)
        else:
            normalised = F.batch_norm(features, tracked.running_mean, tracked.running_var, eps=tracked.eps)
        return self.error(normalised)

    def remember(self, embedding: Tensor, generator: Generator | None = None) -> None:
        """Take the batch's errors into the running moments."""
        self.error_moments.merge(embedding)

    @torch.no_grad()
    def novelty(self, embedding: Tensor) -> Tensor:
        """Error over its running standard deviation: [B, 1] to [B, 1]."""
        return self.config.rnd_scale * embedding / (self.error_moments.var.sqrt() + 1e-8)
