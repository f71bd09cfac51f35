"""CURL: two crops of one observation belong together; an auxiliary loss beside an actor-critic.

Laskin, Srinivas, Abbeel: "CURL: Contrastive Unsupervised Representations for Reinforcement Learning", ICML 2020.
Shapes: B batch, D features, F projection (the code).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders.contract import Encoder
from visrep.objectives.contract import OBJECTIVES, Loss, ObjectiveConfig, ParameterGroup
from visrep.objectives.parts.codes import code_statistics
from visrep.objectives.parts.ema import ema_, frozen_copy
from visrep.objectives.parts.infonce import info_nce
from visrep.objectives.parts.projection import ProjectedObjective
from visrep.precision import at_least_float32, without_autocast

Compat = Literal["released", "paper", "fixed"]
# The released key encoder is the critic's target, which moves at every second update; the paper's pseudo-code moves it
# at every one.
KEY_UPDATE_FREQUENCY: dict[Compat, int] = {"released": 2, "fixed": 2, "paper": 1}


class CURLConfig(ObjectiveConfig):
    """Settings of CURL, the released values for DeepMind Control."""

    curl_feature_dim: int = Field(50, ge=1, description="dimension of the code; the policy's feature_dim where shared")
    curl_target_tau: float = Field(0.05, ge=0, le=1, description="EMA rate of the key encoder and projection")
    curl_target_update_frequency: int | None = Field(
        None, ge=1, description="the key moves after every n-th update; none: what curl_compat says"
    )
    curl_compat: Compat = Field(
        "released",
        description="released: two Adams step the encoder, the key moves every 2nd update; fixed: one Adam, every 2nd; "
        "paper: one Adam, every update",
    )

    @property
    def key_update_frequency(self) -> int:
        """Updates between two moves of the key networks."""
        return self.curl_target_update_frequency or KEY_UPDATE_FREQUENCY[self.curl_compat]


@OBJECTIVES.register("curl")
class CURLObjective(ProjectedObjective):
    """Bilinear InfoNCE between an observation's code and the momentum code of another crop of it."""

    Config = CURLConfig
    turn: ClassVar[Literal["before policy", "after policy"]] = "after policy"

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: CURLConfig) -> None:
        super().__init__(encoder, actions, config.curl_feature_dim, tanh=False)
        self.config = config
        self.W = nn.Parameter(torch.rand(config.curl_feature_dim, config.curl_feature_dim))
        self.key_encoder = frozen_copy(encoder)
        self.key_projection = frozen_copy(self.projection)
        self._updates = 0

    def needs(self) -> BatchSpec:
        """Single observations under two independent augmentations; no actions."""
        return BatchSpec(offsets=(0,), views=2)

    def forward(self, batch: Batch) -> Loss:
        """Contrast view 0, the image that the policy sees too, with the momentum codes of view 1."""
        features = self.encoder(batch.image(0, view=0))
        query = at_least_float32(self.projection(features))
        with torch.no_grad():
            key = at_least_float32(self.key_projection(self.key_encoder(batch.image(0, view=1))))
        loss = self.contrast(query, key)
        about = code_statistics(features, query)
        return Loss(loss.total, loss.parts | about, loss.outputs | {"codes": query.detach(), "target_codes": key})

    def contrast(self, query: Tensor, key: Tensor) -> Loss:
        """The loss on codes: logits ij = q_i W k_j, [B, F] and [B, F]."""
        with without_autocast(query):
            return info_nce(query @ self.W, key)

    def parameter_groups(self, train_encoder: bool) -> list[ParameterGroup]:
        """One Adam over encoder, projection and W; ``curl_compat=released`` adds a second over encoder and projection.

        Both then step on the same gradient: the encoder moves twice as far as W (docs/methods/curl.md).
        """
        encoder = list(self.encoder.parameters()) if train_encoder else []
        encoder += self.projection_parameters(train_encoder)
        groups = [ParameterGroup("curl", [*encoder, self.W])]
        if self.config.curl_compat == "released" and train_encoder:
            groups.insert(0, ParameterGroup("curl_encoder", encoder))
        return groups

    def share_projection(self, projection: nn.Module) -> None:
        """Use the critic's projection from now on; the key starts as a copy of it."""
        super().share_projection(projection)
        self.key_projection = frozen_copy(self.projection)

    def after_update(self) -> None:
        """EMA of encoder and projection with ``curl_target_tau``, at every ``key_update_frequency``-th call."""
        self._updates += 1
        if self._updates % self.config.key_update_frequency:
            return
        ema_(
            [*self.key_encoder.parameters(), *self.key_projection.parameters()],
            [*self.encoder.parameters(), *self.projection.parameters()],
            self.config.curl_target_tau,
        )

    def get_extra_state(self) -> Tensor:
        """Number of updates so far: a run that goes on must move the key in step. On the host, so nothing waits."""
        return torch.tensor(self._updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the count of ``get_extra_state``."""
        self._updates = int(state)
