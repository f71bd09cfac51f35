"""ATC, Augmented Temporal Contrast: tell an observation's near future from that of other observations.

Stooke, Lee, Abbeel, Laskin: "Decoupling Representation Learning from Reinforcement Learning", ICML 2021.
Shapes: N rows, E code.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from visrep.data.actions import ActionSpec
from visrep.encoders.contract import Encoder
from visrep.objectives.contract import OBJECTIVES, Loss
from visrep.objectives.parts.infonce import BilinearHead, info_nce
from visrep.objectives.parts.temporal import TemporalConfig, TemporalObjective


class ATCConfig(TemporalConfig):
    """Settings of ATC, the paper's values for DeepMind Control."""

    atc_shift: int = Field(
        1, ge=1, description="agent steps k from anchor to positive (rlpyt: delta_T); Atari, DMLab 3"
    )
    atc_segment: int = Field(
        1,
        ge=1,
        description="consecutive anchors per sampled window (rlpyt: batch_T), which multiply the batch; Atari 16",
    )
    atc_hidden_dim: int = Field(512, ge=1, description="hidden units of the predictor")


@OBJECTIVES.register("atc")
class ATCObjective(TemporalObjective):
    """Residual predictor and bilinear InfoNCE against the momentum codes of observations k steps later."""

    Config = ATCConfig

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: ATCConfig) -> None:
        super().__init__(encoder, actions, config, config.atc_shift, config.atc_segment)
        self.head = BilinearHead(config.atc_code_dim, config.atc_hidden_dim)

    def compare(self, codes: Tensor, target_codes: Tensor, valid: Tensor) -> Loss:
        """InfoNCE of W (c + h(c)) against the positives' codes: [N, E], [N, E], bool [N]."""
        return info_nce(self.head(codes), target_codes, valid)
