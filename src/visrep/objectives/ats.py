"""ATS: ATC's pairs without negatives. Turn the anchor's code into the direction of its positive's, as BYOL does.

An ablation in Stooke, Lee, Abbeel, Laskin: "Decoupling Representation Learning from Reinforcement Learning", ICML 2021;
the loss is that of Grill et al.: "Bootstrap Your Own Latent", NeurIPS 2020.
Shapes: N rows, E code.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from visrep.data.actions import ActionSpec
from visrep.encoders.contract import Encoder
from visrep.objectives.atc import ATCConfig
from visrep.objectives.contract import OBJECTIVES, Loss
from visrep.objectives.parts.heads import mlp
from visrep.objectives.parts.masked import masked_mean
from visrep.objectives.parts.temporal import TemporalObjective


class ATSConfig(ATCConfig):
    """ATC's settings with the values of the ablation, which was made on Atari."""

    atc_shift: int = Field(3, ge=1, description="agent steps k from anchor to positive (rlpyt: delta_T)")
    atc_code_dim: int = Field(256, ge=1, description="dimension of the code (rlpyt: latent_size)")


@OBJECTIVES.register("ats")
class ATSObjective(TemporalObjective):
    """Plain (not residual) predictor and 2 − 2 cos against the positives' momentum codes, in one direction."""

    Config = ATSConfig

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: ATSConfig) -> None:
        super().__init__(encoder, actions, config, config.atc_shift, config.atc_segment)
        self.predictor = mlp(config.atc_code_dim, config.atc_hidden_dim, config.atc_code_dim)

    def compare(self, codes: Tensor, target_codes: Tensor, valid: Tensor) -> Loss:
        """Mean of 2 − 2 cos(h(c), c̄) over the valid rows: [N, E], [N, E], bool [N]."""
        cosine = F.cosine_similarity(self.predictor(codes), target_codes, dim=1)  # [N]
        return Loss(masked_mean(2.0 - 2.0 * cosine, valid), {"cosine": masked_mean(cosine.detach(), valid)})
