"""Inverse model: from two observations k steps apart, tell the k actions between them.

Stooke, Lee, Abbeel, Laskin: "Decoupling Representation Learning from Reinforcement Learning", ICML 2021 (a baseline).
Shapes: B batch, D features, k steps, A action values as stored, W width of an encoded action.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders.contract import Encoder
from visrep.objectives.contract import OBJECTIVES, Loss, Objective, ObjectiveConfig
from visrep.objectives.parts.heads import mlp
from visrep.objectives.parts.masked import masked_mean
from visrep.precision import at_least_float32


class InverseConfig(ObjectiveConfig):
    """Settings of the inverse model, ATC's values."""

    inverse_k: int = Field(1, ge=1, description="agent steps between the two observations (Atari in ATC: 3)")
    inverse_hidden_dim: int = Field(512, ge=1, description="hidden units of the model")
    inverse_subtract: bool = Field(False, description="give the model last - first in place of the last features")
    inverse_entropy_coef: float = Field(0.01, ge=0, description="weight of the entropy bonus (discrete actions)")


@OBJECTIVES.register("inverse")
class InverseObjective(Objective):
    """An MLP on the features of o_t and o_{t+k}; cross-entropy for discrete actions, squared error for continuous."""

    Config = InverseConfig

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: InverseConfig) -> None:
        super().__init__(encoder, actions)
        self.config = config
        sizes = (2 * encoder.feature_dim, config.inverse_hidden_dim, config.inverse_k * actions.width)
        self.model = mlp(*sizes, tanh=not actions.discrete)  # continuous actions lie in [-1, 1]

    def needs(self) -> BatchSpec:
        """Two observations k steps apart and the actions between."""
        k = self.config.inverse_k
        return BatchSpec(
            offsets=tuple(range(k + 1)),
            fields=frozenset({"image", "action"}),
            image_offsets=(0, k),
            crossing="mask",
        )

    def forward(self, batch: Batch) -> Loss:
        """The loss of a batch; the gradient enters the encoder through both observations."""
        k = self.config.inverse_k
        features = self.encoder(torch.cat([batch.image(0), batch.image(k)]))  # one pass over both
        first, last = features.chunk(2)
        # The action at offset i + 1 is the one that led there, a_{t+i}.
        action = torch.stack([batch.at("action", i + 1) for i in range(k)], dim=1)
        return self.loss(first, last, action, batch.valid[:, batch.offsets.index(k)])

    def loss(self, first: Tensor, last: Tensor, action: Tensor, valid: Tensor) -> Loss:
        """The loss on given features.

        Args:
            first: [B, D] of o_t.
            last: [B, D] of o_{t+k}.
            action: [B, k, A] as stored: a_t .. a_{t+k-1}.
            valid: bool [B]; the other rows count for nothing.
        """
        inputs = torch.cat([first, last - first if self.config.inverse_subtract else last], dim=1)
        outputs = at_least_float32(self.model(inputs)).unflatten(1, (self.config.inverse_k, self.actions.width))
        return self._classify(outputs, action, valid) if self.actions.discrete else _regress(outputs, action, valid)

    def _classify(self, logits: Tensor, action: Tensor, valid: Tensor) -> Loss:
        """Cross-entropy minus the bonus on logits [B, k, W]."""
        labels = action.squeeze(-1).long()  # [B, k]
        error = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(dim=1)  # [B]
        probability = logits.softmax(dim=-1)
        entropy = -(probability * (probability + 1e-8).log()).sum(dim=-1)  # [B, k]
        cross_entropy, mean_entropy = masked_mean(error, valid), masked_mean(entropy.mean(dim=1), valid)
        entropy_loss = -self.config.inverse_entropy_coef * mean_entropy
        with torch.no_grad():
            correct = (logits.argmax(dim=-1) == labels).to(logits.dtype)
            parts = {
                "cross_entropy": cross_entropy.detach(),
                "entropy_loss": entropy_loss.detach(),
                "accuracy": masked_mean(correct.mean(dim=1), valid),
                "perplexity": masked_mean(entropy.exp().mean(dim=1), valid),
            }
        return Loss(cross_entropy + entropy_loss, parts, {"inverse_error": error.detach()})


def _regress(prediction: Tensor, action: Tensor, valid: Tensor) -> Loss:
    """Squared error of predicted actions [B, k, A], averaged over steps and action values."""
    error = (prediction - action).square().mean(dim=(1, 2))  # [B]
    loss = masked_mean(error, valid)
    return Loss(loss, {"inverse_error": loss.detach()}, {"inverse_error": error.detach()})
