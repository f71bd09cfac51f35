"""ICM: predict the next features and the action between; be curious where the prediction fails.

Pathak, Agrawal, Efros, Darrell: "Curiosity-driven Exploration by Self-supervised Prediction", ICML 2017, as in URLB.
Shapes: B batch, D features, A action.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor

from visrep.data.actions import ActionSpec
from visrep.encoders.contract import Encoder
from visrep.initialisation import orthogonal_init
from visrep.objectives.contract import OBJECTIVES, Loss, ObjectiveConfig, Transition
from visrep.objectives.parts.heads import ForwardInverse
from visrep.objectives.parts.transition import TransitionObjective


class ICMConfig(ObjectiveConfig):
    """Settings of ICM, URLB's values."""

    icm_hidden_dim: int = Field(1024, ge=1, description="hidden units of the forward and inverse models")
    icm_scale: float = Field(1.0, gt=0, description="factor on the forward error inside the reward's logarithm")


@OBJECTIVES.register("icm")
class ICMObjective(TransitionObjective):
    """Forward and inverse model on the encoder's features (a ``Novelty``: log of the forward error)."""

    Config = ICMConfig

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: ICMConfig) -> None:
        super().__init__(encoder, actions)
        self.config = config
        self.models = ForwardInverse(encoder.feature_dim, actions.width, config.icm_hidden_dim)
        orthogonal_init(self)

    def loss(self, features: Tensor, action: Tensor, next_features: Tensor) -> Loss:
        """The loss on given features: [B, D], [B, A], [B, D]."""
        forward_error = self.models.forward_error(features, action, next_features)
        inverse_error = self.models.inverse_error(features, action, next_features)
        parts = {"forward_error": forward_error.mean(), "inverse_error": inverse_error.mean()}
        return Loss(
            parts["forward_error"] + parts["inverse_error"],
            {name: part.detach() for name, part in parts.items()},
            {"forward_error": forward_error.detach(), "inverse_error": inverse_error.detach()},
        )

    @torch.no_grad()
    def embed(self, transition: Transition) -> Tensor:
        """Forward error of each transition, [B, 1]."""
        return self.models.forward_error(transition.features, transition.action, transition.next_features)

    def remember(self, embedding: Tensor, generator: Generator | None = None) -> None:
        """Nothing to remember: the models themselves are the memory."""

    @torch.no_grad()
    def novelty(self, embedding: Tensor) -> Tensor:
        """log(1 + scale·error): [B, 1] to [B, 1]."""
        return (self.config.icm_scale * embedding + 1.0).log()
