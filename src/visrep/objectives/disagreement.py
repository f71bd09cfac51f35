"""Disagreement: an ensemble of forward models; explore where its members differ.

Pathak, Gandhi, Gupta: "Self-Supervised Exploration via Disagreement", ICML 2019, as in URLB.
Shapes: B batch, D features, A action, M models.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from visrep.data.actions import ActionSpec
from visrep.encoders.contract import Encoder
from visrep.initialisation import orthogonal_init
from visrep.objectives.contract import OBJECTIVES, Loss, ObjectiveConfig, Transition
from visrep.objectives.parts.heads import mlp, residual_norm
from visrep.objectives.parts.transition import TransitionObjective
from visrep.precision import at_least_float32


class DisagreementConfig(ObjectiveConfig):
    """Settings of Disagreement, URLB's values."""

    disagreement_models: int = Field(5, ge=2, description="forward models in the ensemble")
    disagreement_hidden_dim: int = Field(1024, ge=1, description="hidden units of each forward model")


@OBJECTIVES.register("disagreement")
class DisagreementObjective(TransitionObjective):
    """An ensemble of forward models on the encoder's features (a ``Novelty``: their variance)."""

    Config = DisagreementConfig

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: DisagreementConfig) -> None:
        super().__init__(encoder, actions)
        self.config = config
        sizes = (encoder.feature_dim + actions.width, config.disagreement_hidden_dim, encoder.feature_dim)
        self.ensemble = nn.ModuleList(mlp(*sizes) for _ in range(config.disagreement_models))
        orthogonal_init(self)

    def loss(self, features: Tensor, action: Tensor, next_features: Tensor) -> Loss:
        """Mean prediction error over batch and models: [B, D], [B, A], [B, D]."""
        errors = [residual_norm(next_features, prediction) for prediction in self.predictions(features, action)]
        stacked = torch.cat(errors, dim=1)  # [B, M]
        loss = stacked.mean()
        return Loss(loss, {"forward_error": loss.detach()}, {"errors": stacked.detach()})

    def predictions(self, features: Tensor, action: Tensor) -> list[Tensor]:
        """What each model expects next: [B, D] and [B, A] to M tensors [B, D]."""
        inputs = torch.cat([features, action.to(features.dtype)], dim=-1)
        return [model(inputs) for model in self.ensemble]

    @torch.no_grad()
    def embed(self, transition: Transition) -> Tensor:
        """Unbiased variance over the ensemble, averaged over feature dimensions: [B, 1]."""
        predictions = torch.stack(self.predictions(transition.features, transition.action))  # [M, B, D]
        return at_least_float32(predictions).var(dim=0).mean(dim=-1, keepdim=True)

    def remember(self, embedding: Tensor, generator: Generator | None = None) -> None:
        """Nothing to remember: the models themselves are the memory."""

    def novelty(self, embedding: Tensor) -> Tensor:
        """The variance itself: [B, 1] to [B, 1]."""
        return embedding
