"""What the objectives that model one transition share: the batch they need and how its features are made.

Shapes: B batch, D features, A action.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visrep.data.batch import Batch, BatchSpec
from visrep.objectives.contract import Loss, Objective


class TransitionObjective(Objective):
    """An objective on the features of o_t, the action and the features of o_{t+1}; a subclass gives the ``loss``."""

    def needs(self) -> BatchSpec:
        """Pairs of neighbouring observations and the action between them."""
        return BatchSpec(offsets=(0, 1), fields=frozenset({"image", "action"}))

    def forward(self, batch: Batch) -> Loss:
        """The loss of a batch; the gradient enters the encoder through o_t only, as in URLB."""
        features = self.encoder(batch.image(0))
        with torch.no_grad():
            next_features = self.encoder(batch.image(1))
        return self.loss(features, self.actions.encode(batch.at("action", 1)), next_features)

    def loss(self, features: Tensor, action: Tensor, next_features: Tensor) -> Loss:
        """The loss on given features and encoded actions: [B, D], [B, A], [B, D]."""
        raise NotImplementedError
