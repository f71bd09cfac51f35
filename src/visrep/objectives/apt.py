"""APT: maximise the particle entropy of a learned representation (the ICM-APT variant of URLB).

Liu, Abbeel: "Behavior From the Void: Unsupervised Active Pre-Training", NeurIPS 2021, as in URLB.
Shapes: B batch, D features, R representation, A action.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from visrep.data.actions import ActionSpec
from visrep.encoders.contract import Encoder
from visrep.exploration.knn import nearest_distances, particle_entropy
from visrep.exploration.moments import RunningMoments
from visrep.initialisation import orthogonal_init
from visrep.objectives.contract import OBJECTIVES, Loss, ObjectiveConfig, Transition
from visrep.objectives.parts.heads import ForwardInverse
from visrep.objectives.parts.transition import TransitionObjective


class APTConfig(ObjectiveConfig):
    """Settings of ICM-APT, URLB's names and values (``icm_hidden_dim`` is its ``hidden_dim``)."""

    icm_rep_dim: int = Field(512, ge=1, description="dimension of the representation whose entropy is raised")
    icm_hidden_dim: int = Field(1024, ge=1, description="hidden units of the forward and inverse models")
    knn_k: int = Field(12, ge=1, description="neighbours in the batch, the row itself counted as the first")
    knn_avg: bool = Field(True, description="mean over the neighbours; false: the knn_k-th alone")
    knn_rms: bool = Field(False, description="divide distances by their running mean")
    knn_clip: float = Field(0.0, description="subtracted from distances, which are then clamped at 0; negative: off")


@OBJECTIVES.register("apt")
class APTObjective(TransitionObjective):
    """ICM on a small trunk over the features (a ``Novelty``: particle entropy of the trunk within the batch)."""

    Config = APTConfig

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: APTConfig) -> None:
        super().__init__(encoder, actions)
        self.config = config
        width = config.icm_rep_dim
        self.trunk = nn.Sequential(nn.Linear(encoder.feature_dim, width), nn.LayerNorm(width), nn.Tanh())
        self.models = ForwardInverse(width, actions.width, config.icm_hidden_dim)
        self.distance_moments = RunningMoments()
        orthogonal_init(self)

    def loss(self, features: Tensor, action: Tensor, next_features: Tensor) -> Loss:
        """The loss on given features: [B, D], [B, A], [B, D]."""
        state, next_state = self.trunk(features), self.trunk(next_features)  # [B, R]
        parts = {
            "forward_error": self.models.forward_error(state, action, next_state).mean(),
            "inverse_error": self.models.inverse_error(state, action, next_state).mean(),
        }
        return Loss(
            parts["forward_error"] + parts["inverse_error"],
            {name: part.detach() for name, part in parts.items()},
            {"representation": state.detach()},
        )

    @torch.no_grad()
    def embed(self, transition: Transition) -> Tensor:
        """Trunk representation of the observation *before* the action, [B, R], as in URLB."""
        representation: Tensor = self.trunk(transition.features)
        return representation

    @torch.no_grad()
    def remember(self, embedding: Tensor, generator: Generator | None = None) -> None:
        """With ``knn_rms``: take the batch's distances into the running mean. Otherwise nothing."""
        if self.config.knn_rms:
            self.distance_moments.merge(self._distances(embedding))

    @torch.no_grad()
    def novelty(self, embedding: Tensor) -> Tensor:
        """Particle entropy within the batch: [B, R] to [B, 1]."""
        mean = self.distance_moments.mean if self.config.knn_rms else None
        return particle_entropy(self._distances(embedding), mean, self.config.knn_clip)

    def _distances(self, embedding: Tensor) -> Tensor:
        """Distances that the reward uses, [B, k] or (the k-th alone) [B, 1]."""
        distances = nearest_distances(embedding, embedding, self.config.knn_k)
        return distances if self.config.knn_avg else distances[:, -1:]
