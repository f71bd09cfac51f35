"""AC, augmented contrast: ATC without time. Two augmentations of one observation, and no predictor.

Stooke, Lee, Abbeel, Laskin: "Decoupling Representation Learning from Reinforcement Learning", ICML 2021, the baseline
after CURL.
Shapes: N rows, E code.
"""

from __future__ import annotations

from torch import Tensor

from visrep.data.actions import ActionSpec
from visrep.encoders.contract import Encoder
from visrep.objectives.contract import OBJECTIVES, Loss
from visrep.objectives.parts.infonce import BilinearHead, info_nce
from visrep.objectives.parts.temporal import TemporalConfig, TemporalObjective


class ACConfig(TemporalConfig):
    """Settings of AC: ATC's, without what time and predictor need."""


@OBJECTIVES.register("ac")
class ACObjective(TemporalObjective):
    """Bilinear InfoNCE between two views of the same observation, the second through the momentum networks."""

    Config = ACConfig

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: ACConfig) -> None:
        super().__init__(encoder, actions, config, shift=0, segment=1)
        self.head = BilinearHead(config.atc_code_dim, None)

    def compare(self, codes: Tensor, target_codes: Tensor, valid: Tensor) -> Loss:
        """InfoNCE of W c against the other view's codes: [N, E], [N, E], bool [N]."""
        return info_nce(self.head(codes), target_codes, valid)
